/* Whole models, measured as they are used: a prompt, then token by token. One pass is a prompt of every sequence in one step and, for
 * decoders, `decode` steps of one token each; passes are repeated until enough time has gone by. Steps are timed by the wall clock. */
#include "base/alloc.h"
#include "base/rng.h"
#include "bench/profile.h"
#include "bench/unfused.h"

#include <math.h>
#include <stdio.h>
#include <sys/resource.h>

struct bench {
    const zq_model *model;
    zq_bench_options options; /* defaults filled in */
    zq_session *session;
    struct zq_unfused *unfused; /* with options.unfused */
    int32_t *ids;             /* [batch, prompt] */
    zq_input *inputs;         /* [batch] */
    struct zq_samples prompt, step, pass; /* seconds of: all prompts; one token of every sequence; prompts and all tokens after them */
    struct zq_profile prompt_profile, step_profile; /* with options.ops, instead */
    zq_error *err;
};

static zq_status no_memory(const struct bench *b)
{
    return zq_fail(b->err, ZQ_ENOMEM, "no memory for measured times");
}

static zq_status step(struct bench *b, size_t n_tokens, struct zq_profile *profile, double *seconds)
{
    for (size_t i = 0; i < b->options.batch; i++)
        b->inputs[i] = (zq_input){.sequence = i, .ids = b->ids + i * b->options.prompt, .n = n_tokens};
    if (b->options.ops) zq_profile_begin(profile, b->session);
    const double start = zq_bench_clock();
    const zq_status st = zq_session_step(b->session, b->inputs, b->options.batch, b->err);
    *seconds = zq_bench_clock() - start;
    return !st && b->options.ops && !zq_profile_end(profile, b->session) ? no_memory(b) : st;
}

static zq_status keep(struct bench *b, struct zq_samples *samples, double seconds)
{
    return zq_samples_add(samples, seconds) ? ZQ_OK : no_memory(b);
}

static zq_status run_pass(struct bench *b)
{
    double seconds, total = 0;
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < b->options.batch && !st; i++) st = zq_session_rewind(b->session, i, 0, b->err);
    if (!st) st = step(b, b->options.prompt, &b->prompt_profile, &total);
    if (!st) st = keep(b, &b->prompt, total);
    for (size_t i = 0; i < b->options.decode && !st; i++) {
        st = step(b, 1, &b->step_profile, &seconds);
        if (!st) st = keep(b, &b->step, seconds);
        total += seconds;
    }
    return st ? st : keep(b, &b->pass, total);
}

static void free_samples(struct bench *b)
{
    zq_samples_free(&b->prompt);
    zq_samples_free(&b->step);
    zq_samples_free(&b->pass);
    zq_profile_free(&b->prompt_profile);
    zq_profile_free(&b->step_profile);
}

/* Passes until `seconds` have gone by, but at least three, unless one takes very long; the first, which touches memory, does not count. */
static zq_status run_passes(struct bench *b)
{
    enum { LEAST = 3, LONG_S = 20 };
    zq_status st = run_pass(b);
    const bool slow = !st && b->pass.seconds[0] > LONG_S;
    if (!st) free_samples(b);
    const double start = zq_bench_clock();
    while (!st && (b->pass.n < (slow ? 1 : LEAST) || zq_bench_clock() - start < b->options.seconds)) st = run_pass(b);
    return st;
}

/* ---- rows */

static const char *level_of(const struct bench *b)
{
    const struct zq_plugin *plugin = b->session->ops.plugin;
    if (plugin) return plugin->simulated ? "cuda-host" : "cuda";
    return zq_levels_name(b->model->kernels.levels);
}

static zq_bench_row empty_row(const struct bench *b, const char *name, const char *unit)
{
    return (zq_bench_row){.name = name, .unit = unit, .limit = NAN, .share = NAN, .threads = zq_team_size(b->session->ops.team),
                          .level = level_of(b), .math = b->model->math == ZQ_MATH_FAST ? "fast" : "exact",
                          .batch = b->options.batch, .length = b->options.prompt};
}

static struct zq_limit limit_of(const struct bench *b, const struct zq_cost *cost)
{
    const zq_machine *machine = b->options.machine;
    if (!machine || b->session->ops.plugin) return (struct zq_limit){.seconds = NAN};
    const bool in_cache = zq_model_bytes(b->model) < 0.75 * (double)machine->cache_bytes; /* beside activations */
    return zq_limit_of(cost, machine, b->model->kernels.levels, in_cache);
}

static struct zq_limit step_limit(const struct bench *b, size_t n_tokens, size_t position)
{
    const struct zq_cost cost = zq_cost_of_step(b->model, b->options.batch, n_tokens, position, zq_cost_kv_value_bytes(b->session));
    return limit_of(b, &cost);
}

/* A rate: `amount` in each sample. */
static void report(const struct bench *b, const char *what, const char *unit, double amount, struct zq_samples *s, const struct zq_limit *limit)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s.%zux%zu", b->unfused ? "unfused." : "", what, b->options.batch, b->options.prompt);
    zq_bench_row row = empty_row(b, name, unit);
    row.median = amount / zq_samples_median(s);
    row.best = amount / zq_samples_best(s);
    row.limit = amount / limit->seconds;
    row.share = row.median / row.limit;
    row.bound = *limit->bound ? limit->bound : NULL;
    b->options.row(b->options.user, &row);
}

/* What a device holds of model and session. */
static void report_device_memory(const struct bench *b)
{
    char name[64];
    zq_session_memory kept;
    snprintf(name, sizeof name, "device.%zux%zu", b->options.batch, b->options.prompt);
    zq_bench_row row = empty_row(b, name, "MB");
    zq_session_memory_get(b->session, &kept);
    row.median = row.best = 1e-6 * (zq_model_all_bytes(b->model) + (double)kept.bytes);
    b->options.row(b->options.user, &row);
}

/* The least that it could be is what a step reads. */
static void report_memory(const struct bench *b)
{
    struct rusage usage;
    zq_session_memory kept;
    zq_bench_row row = empty_row(b, "memory", "MB");
    row.median = row.best = getrusage(RUSAGE_SELF, &usage) ? NAN : 1e-6 * 1024 * (double)usage.ru_maxrss;
    if (!b->session->ops.plugin) {
        zq_session_memory_get(b->session, &kept);
        row.limit = 1e-6 * (zq_model_bytes(b->model) + (double)kept.kv_bytes);
        row.share = row.limit / row.median;
        row.bound = "weights, kv";
    }
    b->options.row(b->options.user, &row);
}

static void report_rates(struct bench *b)
{
    const zq_bench_options *o = &b->options;
    const double batch = (double)o->batch;
    const struct zq_limit prompt = step_limit(b, o->prompt, 0), token = step_limit(b, 1, o->prompt + o->decode / 2);
    struct zq_limit both = token;
    both.seconds = prompt.seconds + (double)o->decode * token.seconds;
    char first[40];
    snprintf(first, sizeof first, "first%zu", o->decode);
    if (!b->model->config.arch->causal) {
        report(b, "encode", "sequences/s", batch, &b->prompt, &prompt);
    } else {
        report(b, "prompt", "tokens/s", batch * (double)o->prompt, &b->prompt, &prompt);
        if (o->decode) report(b, "decode", "tokens/s", batch, &b->step, &token);
        if (o->decode) report(b, first, "tokens/s", batch * (double)o->decode, &b->pass, &both);
    }
    if (b->session->ops.plugin && !b->unfused) report_device_memory(b);
    report_memory(b);
}

/* Milliseconds of one step. */
static void report_line(struct bench *b, const char *step_name, const char *line, struct zq_samples *s, const struct zq_cost *cost)
{
    char name[80];
    snprintf(name, sizeof name, "ops.%s.%s.%zux%zu", step_name, line, b->options.batch, b->options.prompt);
    zq_bench_row row = empty_row(b, name, "ms");
    const struct zq_limit limit = limit_of(b, cost);
    row.median = 1e3 * zq_samples_median(s);
    row.best = 1e3 * zq_samples_best(s);
    row.bytes = cost->weight_bytes + cost->other_bytes;
    if (row.bytes > 0) row.limit = 1e3 * limit.seconds;
    row.share = row.limit / row.median;
    row.bound = *limit.bound && row.bytes > 0 ? limit.bound : NULL;
    b->options.row(b->options.user, &row);
}

static void report_profile(struct bench *b, const char *step_name, struct zq_profile *p)
{
    struct zq_cost sum = {0};
    if (!p->steps.n) return;
    for (int i = 0; i < ZQ_PROFILE_LINES; i++) {
        if (!p->lines[i].samples.n) continue;
        report_line(b, step_name, zq_profile_name(i), &p->lines[i].samples, &p->lines[i].cost);
        zq_cost_add(&sum, &p->lines[i].cost);
    }
    report_line(b, step_name, "step", &p->steps, &sum);
}

/* ---- the run */

static zq_status prepare(struct bench *b)
{
    zq_bench_options *o = &b->options;
    size_t tokens;
    if (!zq_mul(o->batch, o->prompt, &tokens)) return zq_fail(b->err, ZQ_EINVAL, "%zu prompts of %zu tokens are too many", o->batch, o->prompt);
    const zq_session_options session = {.n_threads = o->n_threads, .n_sequences = o->batch, .max_length = o->prompt + o->decode,
                                        .max_batch_tokens = tokens};
    zq_status st = zq_session_create(&b->session, b->model, &session, b->err);
    if (!st && o->unfused) st = zq_unfused_begin(&b->unfused, b->session, b->err);
    if (st) return st;
    b->session->together = o->together || o->unfused;
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
    if (options->ops && options->unfused) return zq_fail(err, ZQ_EINVAL, "operators are listed for the fused step only");
    zq_status st = prepare(&b);
    if (!st) st = run_passes(&b);
    if (!st && options->ops) {
        report_profile(&b, model->config.arch->causal ? "prompt" : "encode", &b.prompt_profile);
        report_profile(&b, "decode", &b.step_profile);
    } else if (!st) {
        report_rates(&b);
    }
    zq_unfused_end(b.unfused);
    zq_session_close(b.session);
    zq_free(b.ids);
    zq_free(b.inputs);
    free_samples(&b);
    return st;
}
