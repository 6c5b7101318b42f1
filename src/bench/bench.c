/* Whole models, measured as they are used: a prompt, then token by token. One pass is a prompt of every sequence in one step and, for
 * decoders, `decode` steps of one token each; passes are repeated until enough time has gone by. Steps are timed by the wall clock. */
#include "base/alloc.h"
#include "base/rng.h"
#include "bench/samples.h"
#include "model/session.h"

#include <math.h>
#include <stdio.h>
#include <sys/resource.h>

struct bench {
    const zq_model *model;
    zq_bench_options options; /* defaults filled in */
    zq_session *session;
    int32_t *ids;             /* [batch, prompt] */
    zq_input *inputs;         /* [batch] */
    struct zq_samples prompt, step, pass; /* seconds of: all prompts; one token of every sequence; prompts and all tokens after them */
    zq_error *err;
};

static zq_status step(struct bench *b, size_t n_tokens, double *seconds)
{
    for (size_t i = 0; i < b->options.batch; i++)
        b->inputs[i] = (zq_input){.sequence = i, .ids = b->ids + i * b->options.prompt, .n = n_tokens};
    const double start = zq_bench_clock();
    const zq_status st = zq_session_step(b->session, b->inputs, b->options.batch, b->err);
    *seconds = zq_bench_clock() - start;
    return st;
}

static zq_status keep(struct bench *b, struct zq_samples *samples, double seconds)
{
    return zq_samples_add(samples, seconds) ? ZQ_OK : zq_fail(b->err, ZQ_ENOMEM, "no memory for measured times");
}

static zq_status run_pass(struct bench *b)
{
    double seconds, total = 0;
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < b->options.batch && !st; i++) st = zq_session_rewind(b->session, i, 0, b->err);
    if (!st) st = step(b, b->options.prompt, &total);
    if (!st) st = keep(b, &b->prompt, total);
    for (size_t i = 0; i < b->options.decode && !st; i++) {
        st = step(b, 1, &seconds);
        if (!st) st = keep(b, &b->step, seconds);
        total += seconds;
    }
    return st ? st : keep(b, &b->pass, total);
}

/* Passes until `seconds` have gone by, but at least three, unless one takes very long; the first, which touches memory, does not count. */
static zq_status run_passes(struct bench *b)
{
    enum { LEAST = 3, LONG_S = 20 };
    zq_status st = run_pass(b);
    if (!st && b->pass.seconds[0] > LONG_S) return ZQ_OK;
    b->prompt.n = b->step.n = b->pass.n = 0;
    const double start = zq_bench_clock();
    while (!st && (b->pass.n < LEAST || zq_bench_clock() - start < b->options.seconds)) {
        st = run_pass(b);
        if (b->pass.n && b->pass.seconds[0] > LONG_S) break;
    }
    return st;
}

static void report(const struct bench *b, const char *what, const char *unit, double amount, struct zq_samples *s)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%zux%zu", what, b->options.batch, b->options.prompt);
    const zq_bench_row row = {
        .name = name, .unit = unit, .median = amount / zq_samples_median(s), .best = amount / zq_samples_best(s), .limit = NAN, .share = NAN,
        .threads = zq_team_size(b->session->ops.team), .level = zq_levels_name(b->model->kernels.levels), .math = "exact",
        .batch = b->options.batch, .length = b->options.prompt,
    };
    b->options.row(b->options.user, &row);
}

static void report_memory(const struct bench *b)
{
    struct rusage usage;
    const double peak = getrusage(RUSAGE_SELF, &usage) ? NAN : 1e-6 * 1024 * (double)usage.ru_maxrss;
    const zq_bench_row row = {
        .name = "memory", .unit = "MB", .median = peak, .best = peak, .limit = NAN, .share = NAN, .threads = zq_team_size(b->session->ops.team),
        .level = zq_levels_name(b->model->kernels.levels), .math = "exact", .batch = b->options.batch, .length = b->options.prompt,
    };
    b->options.row(b->options.user, &row);
}

static void report_all(struct bench *b)
{
    const double batch = (double)b->options.batch, tokens = batch * (double)b->options.prompt, decode = (double)b->options.decode;
    char first[40];
    if (!b->model->config.arch->causal) {
        report(b, "encode", "sequences/s", batch, &b->prompt);
    } else {
        report(b, "prompt", "tokens/s", tokens, &b->prompt);
        if (b->options.decode) {
            snprintf(first, sizeof first, "first%zu", b->options.decode);
            report(b, "decode", "tokens/s", batch, &b->step);
            report(b, first, "tokens/s", batch * decode, &b->pass);
        }
    }
    report_memory(b);
}

static zq_status prepare(struct bench *b)
{
    zq_bench_options *o = &b->options;
    size_t tokens;
    if (!zq_mul(o->batch, o->prompt, &tokens)) return zq_fail(b->err, ZQ_EINVAL, "%zu prompts of %zu tokens are too many", o->batch, o->prompt);
    const zq_session_options session = {.n_threads = o->n_threads, .n_sequences = o->batch, .max_length = o->prompt + o->decode,
                                        .max_batch_tokens = tokens};
    const zq_status st = zq_session_create(&b->session, b->model, &session, b->err);
    if (st) return st;
    b->ids = zq_alloc_array(tokens, sizeof *b->ids);
    b->inputs = zq_alloc_array(o->batch, sizeof *b->inputs);
    if (!b->ids || !b->inputs) return zq_fail(b->err, ZQ_ENOMEM, "no memory for %zu ids", tokens);
    uint64_t state = 1;
    for (size_t i = 0; i < tokens; i++) b->ids[i] = (int32_t)(zq_rng_next(&state) % b->model->config.vocab);
    return ZQ_OK;
}

zq_status zq_bench_model(const zq_model *model, const zq_bench_options *options, zq_error *err)
{
    struct bench b = {.model = model, .options = *options, .err = err};
    if (!b.options.batch) b.options.batch = 1;
    if (!b.options.prompt) b.options.prompt = 128;
    if (!b.options.seconds) b.options.seconds = 2;
    if (!model->config.arch->causal) b.options.decode = 0;
    zq_status st = prepare(&b);
    if (!st) st = run_passes(&b);
    if (!st) report_all(&b);
    zq_session_close(b.session);
    zq_free(b.ids);
    zq_free(b.inputs);
    zq_samples_free(&b.prompt);
    zq_samples_free(&b.step);
    zq_samples_free(&b.pass);
    return st;
}
