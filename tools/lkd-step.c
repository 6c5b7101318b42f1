/* lkd-step: seconds of training steps of one block, for bench/lkd_peer.py. A step is all that `--lkd paper` does in one: a batch is gathered, the
 * student's forward pass through rounded weights and INT8 tokens, the loss, the backward pass, AdamW, and new codes.
 *
 *     lkd-step [--steps N] [--batch N] [--length T] [--threads N] [--scheme S] [--math exact|fast]
 *
 * Defaults: 3 steps, 8 x 512 tokens, all cores, w8a8, exact.
 *
 * The block is one of GPT-2's (124M: width 768, 12 heads, 3072 in the feed-forward part) with random weights. Prints the seconds of each step, one
 * a line; the first, which touches memory, is left out. */
#include "base/alloc.h"
#include "base/rng.h"
#include "base/threads.h"
#include "bench/samples.h"
#include "distill/lkd.h"
#include "model/modules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    size_t steps, batch, length;
    int n_threads;
    const char *scheme, *math;
};

static bool read_arguments(struct arguments *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        const size_t n = (size_t)strtoul(value, NULL, 10);
        if (!strcmp(argv[i], "--steps")) a->steps = n;
        else if (!strcmp(argv[i], "--batch")) a->batch = n;
        else if (!strcmp(argv[i], "--length")) a->length = n;
        else if (!strcmp(argv[i], "--threads")) a->n_threads = (int)n;
        else if (!strcmp(argv[i], "--scheme")) a->scheme = value;
        else if (!strcmp(argv[i], "--math")) a->math = value;
        else return false;
    }
    if (strcmp(a->math, "exact") && strcmp(a->math, "fast")) return false;
    return a->steps && a->batch && a->batch < 1024 && a->length && a->length <= 1024 && a->n_threads > 0 && a->n_threads < 1024;
}

static zq_status make_block(struct zq_student **s, const struct arguments *a, zq_error *err)
{
    const struct zq_arch *arch = zq_arch_find("gpt2");
    const struct zq_config c = {
        .arch = arch, .n_layers = 1, .width = 768, .n_heads = 12, .n_kv_heads = 12, .head_dim = 64, .ffn_width = 3072, .max_length = 1024,
        .norm = arch->norm, .activation = ZQ_ACT_GELU_TANH, .norm_eps = 1e-5,
    };
    struct zq_student_options o = {.config = &c, .max_sequences = a->batch, .max_length = a->length, .max_tokens = a->batch * a->length,
                                   .trains = true, .adam = true, .n_threads = a->n_threads};
    struct zq_recipe recipe;
    zq_status st = zq_recipe_parse(&recipe, a->scheme, (struct zq_grouping){0}, err);
    for (int r = 0; !st && r < ZQ_N_LINEARS; r++)
        if (arch->names.linear[r]) o.layouts[r] = zq_recipe_layout(recipe, zq_linear_rows(&c, r), zq_linear_cols(&c, r), ZQ_F32);
    if (!st) st = zq_student_create(s, &o, err);
    if (st) return st;
    uint64_t seed = 1;
    for (size_t i = 0; i < (*s)->n_params; i++) (*s)->params[i] = 0.04f * (zq_rng_float(&seed) - 0.5f);
    for (size_t i = 0; i < c.width; i++) (*s)->norm1.gamma[i] = (*s)->norm2.gamma[i] = 1;
    return ZQ_OK;
}

static zq_status time_steps(struct zq_student *s, const struct arguments *a, zq_error *err)
{
    const size_t n_values = a->batch * a->length * s->config.width;
    float *x = zq_alloc_array(2 * n_values, sizeof *x);
    if (!x) return zq_fail(err, ZQ_ENOMEM, "no memory for a batch");
    uint64_t seed = 2;
    for (size_t i = 0; i < n_values; i++) x[i] = 2 * zq_rng_float(&seed) - 1;
    const struct zq_lkd_samples samples = {.x = x, .target = x + n_values, .n = a->batch, .length = a->length};
    const struct zq_lkd_options options = {.n_iterations = a->steps + 1, .batch = a->batch, .rate = 5e-6};
    struct zq_lkd run;
    zq_lkd_teach(s, &samples, a->batch, x + n_values);
    zq_student_begin_training(s, !strcmp(a->math, "fast"));
    zq_status st = zq_lkd_begin(&run, s, &samples, &options, err);
    for (size_t i = 0; !st && i <= a->steps; i++) {
        const double start = zq_bench_clock();
        zq_lkd_step(&run);
        if (i) printf("%.6f\n", zq_bench_clock() - start);
    }
    zq_free(x);
    return st;
}

int main(int argc, char **argv)
{
    struct arguments a = {3, 8, 512, zq_available_cores(), "w8a8", "exact"};
    struct zq_student *s = NULL;
    zq_error err = {0};
    if (!read_arguments(&a, argc, argv)) {
        fprintf(stderr, "usage: lkd-step [--steps N] [--batch N] [--length T] [--threads N] [--scheme S] [--math exact|fast]\n");
        return 2;
    }
    zq_status st = make_block(&s, &a, &err);
    if (!st) st = time_steps(s, &a, &err);
    if (st) fprintf(stderr, "lkd-step: %s\n", err.message);
    zq_student_free(s);
    return st ? 1 : 0;
}
