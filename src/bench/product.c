/* One linear map by itself, as a step runs it: floats become INT8 tokens, and those meet the weights. Maps of the same size are used in
 * turn, so many that their weights do not stay in a cache. */
#include "zeroquant.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "base/rng.h"
#include "bench/cost.h"
#include "bench/random.h"
#include "bench/samples.h"
#include "quant/scheme.h"

#include <math.h>
#include <stdio.h>

struct product_bench {
    zq_product_bench_options options; /* defaults filled in */
    struct zq_kernels kernels;
    struct zq_ops ops;
    struct zq_spec spec;
    struct zq_linear *maps; /* [n_maps] */
    size_t n_maps;
    uint8_t *packed;        /* all maps' weights */
    float *x, *out;           /* [n_tokens, n_cols], [n_tokens, n_rows] */
    struct zq_rows tokens;    /* of x */
    double stored_bytes;      /* of a map's codes and scales */
    struct zq_samples whole, products;
};

static zq_status read_spec(struct product_bench *b, zq_error *err)
{
    const zq_product_bench_options *o = &b->options;
    const struct zq_scheme *scheme;
    struct zq_grouping group;
    zq_status st = zq_scheme_parse(&scheme, o->scheme, err);
    if (!st) st = zq_grouping_parse(&group, o->group, err);
    if (st) return st;
    if (scheme->ffn.a != 8 || scheme->ffn.w < 4)
        return zq_fail(err, ZQ_EUNSUPPORTED, "products are measured for w8a8 and w4a8, not '%s'", o->scheme);
    const struct zq_layout layout = zq_recipe_layout((struct zq_recipe){scheme->ffn, group}, o->n_rows, o->n_cols, ZQ_BF16);
    b->spec = layout.spec;
    const double n_weights = (double)o->n_rows * (double)o->n_cols, n_scales = (double)o->n_rows * (double)zq_spec_n_groups(b->spec, o->n_cols);
    b->stored_bytes = n_weights * b->spec.w_bits / 8 + n_scales * (double)zq_dtype_bytes(layout.scale_dtype);
    return ZQ_OK;
}

/* All maps have the same codes: what lies where is what counts. false: out of memory. */
static bool make_maps(struct product_bench *b, int8_t *codes, float *scales)
{
    enum { MOST_MAPS = 2048 }; /* maps under 64 KiB may stay in a cache */
    const zq_product_bench_options *o = &b->options;
    const struct zq_gemm *gemm = b->spec.w_bits == 8 ? &b->kernels.w8_a8 : &b->kernels.w4_a8;
    zq_random_codes(codes, o->n_rows * o->n_cols, b->spec.w_bits); /* kernels may be quicker with small codes (kernels/x86/gemm_pairs.h) */
    for (size_t i = 0; i < o->n_rows * zq_spec_n_groups(b->spec, o->n_cols); i++) scales[i] = 0.01f;
    const struct zq_linear one = {.spec = b->spec, .gemm = gemm, .w = {.n_rows = o->n_rows, .n_cols = o->n_cols, .k_group = b->spec.k_group}};
    const size_t bytes = (gemm->packed_bytes(&one.w) + 63) / 64 * 64;
    const size_t enough = 1 + zq_memory_array_bytes() / 2 / bytes; /* at least twice the last-level cache */
    b->n_maps = enough < MOST_MAPS ? enough : MOST_MAPS;
    b->maps = zq_alloc_array(b->n_maps, sizeof *b->maps);
    b->packed = zq_alloc_pages(b->n_maps * bytes);
    if (!b->maps || !b->packed) return false;
    for (size_t i = 0; i < b->n_maps; i++) {
        b->maps[i] = one;
        b->maps[i].w.packed = b->packed + i * bytes;
        gemm->pack(&b->maps[i].w, 0, o->n_rows, codes, scales);
    }
    return true;
}

static zq_status prepare(struct product_bench *b, zq_error *err)
{
    const zq_product_bench_options *o = &b->options;
    size_t n_weights, n_in, n_out, bytes;
    if (!o->n_tokens || !o->n_rows || !o->n_cols || !zq_mul(o->n_rows, o->n_cols, &n_weights) || !zq_mul(o->n_tokens, o->n_cols, &n_in) ||
        !zq_mul(o->n_tokens, o->n_rows, &n_out) || !zq_mul(n_weights + n_in + n_out, sizeof(float), &bytes) || bytes > (size_t)16 << 30)
        return zq_fail(err, ZQ_ELIMIT, "a product of %zu tokens, %zu inputs and %zu outputs: each at least 1, all together at most 16 GiB",
                       o->n_tokens, o->n_cols, o->n_rows);
    const zq_status st = read_spec(b, err);
    if (st) return st;
    int8_t *codes = zq_alloc(n_weights);
    float *scales = zq_alloc_array(o->n_rows * zq_spec_n_groups(b->spec, o->n_cols), sizeof *scales);
    b->x = zq_alloc_array(n_in, sizeof *b->x);
    b->out = zq_alloc_array(n_out, sizeof *b->out);
    b->tokens = (struct zq_rows){.q = zq_alloc(n_in), .scale = zq_alloc_array(o->n_tokens, sizeof(float)), .ld = o->n_cols};
    b->ops = (struct zq_ops){.kernels = &b->kernels, .team = zq_team_create(zq_thread_count(o->n_threads))};
    const bool enough = codes && scales && b->x && b->out && b->tokens.q && b->tokens.scale && b->ops.team && make_maps(b, codes, scales);
    zq_free(codes);
    zq_free(scales);
    if (!enough) return zq_fail(err, ZQ_ENOMEM, "no memory for products of %zu x %zu weights", o->n_rows, o->n_cols);
    uint64_t state = 2;
    for (size_t i = 0; i < n_in; i++) b->x[i] = (float)(zq_rng_next(&state) % 2001) / 1000 - 1;
    return ZQ_OK;
}

/* false: out of memory. */
static bool run_once(struct product_bench *b, const struct zq_linear *l)
{
    const zq_product_bench_options *o = &b->options;
    const double start = zq_bench_clock();
    zq_activate_run(&b->ops, ZQ_ACT_NONE, b->x, NULL, o->n_cols, o->n_tokens, o->n_cols, b->tokens, (struct zq_forms){.q = true});
    const double quantized = zq_bench_clock();
    zq_linear_run(&b->ops, l, b->tokens, o->n_tokens, NULL, b->out, o->n_rows);
    const double end = zq_bench_clock();
    return zq_samples_add(&b->whole, end - start) && zq_samples_add(&b->products, end - quantized);
}

static void report(struct product_bench *b, const char *what, struct zq_samples *s)
{
    const zq_product_bench_options *o = &b->options;
    const double gops = 2e-9 * (double)o->n_tokens * (double)o->n_rows * (double)o->n_cols;
    struct zq_cost cost = {.weight_bytes = b->stored_bytes};
    cost.ops[b->spec.w_bits == 8 ? ZQ_WORK_INT8 : ZQ_WORK_INT4] = 1e9 * gops;
    struct zq_limit limit = {.seconds = NAN};
    if (o->machine) limit = zq_limit_of(&cost, o->machine, b->kernels.levels, false);
    char name[96];
    snprintf(name, sizeof name, "%s.%zux%zux%zu", what, o->n_tokens, o->n_cols, o->n_rows);
    const double median = zq_samples_median(s);
    const zq_bench_row row = {
        .name = name, .unit = "GOP/s", .median = gops / median, .best = gops / zq_samples_best(s), .limit = gops / limit.seconds,
        .share = limit.seconds / median, .bound = *limit.bound ? limit.bound : NULL, .threads = zq_team_size(b->ops.team),
        .level = zq_levels_name(b->kernels.levels), .math = "exact", .batch = 1, .length = o->n_tokens,
    };
    o->row(o->user, &row);
}

zq_status zq_bench_product(const zq_product_bench_options *options, zq_error *err)
{
    enum { LEAST = 5 };
    struct product_bench b = {.options = *options};
    unsigned levels;
    if (b.options.seconds <= 0) b.options.seconds = 2;
    zq_status st = zq_levels_detect(&levels, err);
    if (st) return st;
    zq_kernels_init(&b.kernels, levels);
    st = prepare(&b, err);
    if (!st && !run_once(&b, &b.maps[0])) st = zq_fail(err, ZQ_ENOMEM, "no memory for measured times");
    b.whole.n = b.products.n = 0; /* the first touches memory */
    const double start = zq_bench_clock();
    for (size_t i = 0; !st && (i < LEAST || zq_bench_clock() - start < b.options.seconds); i++)
        if (!run_once(&b, &b.maps[i % b.n_maps])) st = zq_fail(err, ZQ_ENOMEM, "no memory for measured times");
    if (!st) report(&b, "product", &b.products);
    if (!st) report(&b, "quantized", &b.whole);
    zq_free(b.packed);
    zq_free(b.maps);
    zq_free(b.x);
    zq_free(b.out);
    zq_free(b.tokens.q);
    zq_free(b.tokens.scale);
    zq_team_free(b.ops.team);
    zq_samples_free(&b.whole);
    zq_samples_free(&b.products);
    return st;
}
