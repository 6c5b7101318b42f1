/* Prints for each bound of src/kernels/crossovers.h the one that is best on this machine beside the one in use, and the rates of both drivers
 * around it. The kernels are linked twice, built with always_few.h and with always_many.h. What counts is the processor time of one thread, a
 * quick tenth of many runs, so that other programs matter little (the very best may be a slip of the clock); matrices, keys and values fit the
 * second-level cache, so that memory does not either. */
#include "kernels/crossovers.h"
#include "kernels/kernels.h"

#include "base/alloc.h"
#include "base/rng.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WIDTH = 512, KEYS = 512, HEAD_DIM = 64, HEADS = 2, MOST = 48, RUNS = 200 };

/* A file of kernels, built both ways. */
struct drivers {
    unsigned level;
    void (*few)(struct zq_kernels *k), (*many)(struct zq_kernels *k);
    size_t first; /* number of tokens or queries that is measured: below, the two are the same */
};
#define DRIVERS(kernel, level, first)                                                    \
    void zq_##kernel##_few(struct zq_kernels *k), zq_##kernel##_many(struct zq_kernels *k); \
    static const struct drivers kernel = {level, zq_##kernel##_few, zq_##kernel##_many, first};
DRIVERS(gemm_avx2, ZQ_LEVEL_AVX2, 1)
DRIVERS(gemm_amx, ZQ_LEVEL_AMX, 16)
DRIVERS(bf16mul_avx512bf16, ZQ_LEVEL_AVX512BF16, 1)
DRIVERS(bf16mul_amx, ZQ_LEVEL_AMX, 1)
DRIVERS(attend_avx512bf16, ZQ_LEVEL_AVX512BF16, 1)

struct crossover {
    const char *what;
    const struct drivers *drivers;
    const char *bound;
    size_t used;          /* up to so many are few */
    size_t slot, k_group; /* products: which struct zq_gemm, columns that share a scale */
    int bits;             /* of their codes; 0: attention */
    enum zq_dtype kept;   /* attention: keys and values */
};

#define BOUND(expression) #expression, expression
#define SLOT(name) offsetof(struct zq_kernels, name)
static const struct crossover crossovers[] = {
    {"w8a8 channel", &gemm_avx2, BOUND(FEW_TOKENS_W8_AVX2), SLOT(w8_a8), 0, 8, ZQ_F32},
    {"w4a8 channel", &gemm_avx2, BOUND(FEW_TOKENS_W4_AVX2), SLOT(w4_a8), 0, 4, ZQ_F32},
    {"w4a8 k:64", &gemm_avx2, BOUND(FEW_TOKENS_W4_AVX2), SLOT(w4_a8), 64, 4, ZQ_F32},
    {"w8a8 channel", &gemm_amx, BOUND(MIN_TILE_TOKENS - 1), SLOT(w8_a8), 0, 8, ZQ_F32},
    {"w4a8 channel", &gemm_amx, BOUND(MIN_TILE_TOKENS - 1), SLOT(w4_a8), 0, 4, ZQ_F32},
    {"w4a8 k:64", &gemm_amx, BOUND(MIN_TILE_TOKENS - 1), SLOT(w4_a8), 64, 4, ZQ_F32},
    {"w8a16 channel", &bf16mul_avx512bf16, BOUND(FEW_TOKENS_BF16), SLOT(w8_a16), 0, 8, ZQ_F32},
    {"w4a16 channel", &bf16mul_avx512bf16, BOUND(FEW_TOKENS_BF16), SLOT(w4_a16), 0, 4, ZQ_F32},
    {"w4a16 k:64", &bf16mul_avx512bf16, BOUND(FEW_TOKENS_BF16), SLOT(w4_a16), 64, 4, ZQ_F32},
    {"w8a16 channel", &bf16mul_amx, BOUND(FEW_TOKENS_BF16), SLOT(w8_a16), 0, 8, ZQ_F32},
    {"w4a16 channel", &bf16mul_amx, BOUND(FEW_TOKENS_BF16), SLOT(w4_a16), 0, 4, ZQ_F32},
    {"w4a16 k:64", &bf16mul_amx, BOUND(FEW_TOKENS_BF16), SLOT(w4_a16), 64, 4, ZQ_F32},
    {"attention F32", &attend_avx512bf16, BOUND(FEW_QUERIES_BF16), 0, 0, 0, ZQ_F32},
    {"attention F16", &attend_avx512bf16, BOUND(FEW_QUERIES_BF16), 0, 0, 0, ZQ_F16},
    {"attention INT8", &attend_avx512bf16, BOUND(FEW_QUERIES_BF16), 0, 0, 0, ZQ_I8},
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Codes as models have them: sums of uniform values, nearly normal. */
static int8_t code(uint64_t *rng, int bits)
{
    const int range = bits == 8 ? 60 : 5, most = bits == 8 ? 127 : 7;
    int sum = -2 * range;
    for (int i = 0; i < 4; i++) sum += (int)(zq_rng_next(rng) % (unsigned)(range + 1));
    return (int8_t)(sum > most ? most : sum < -most ? -most : sum);
}

/* What is run: a product, or attention. */
struct work {
    const struct zq_kernels *k;
    const struct zq_gemm *gemm; /* NULL: attention */
    struct zq_product product;
    struct zq_attend attend;
};

static double seconds_of(const struct work *w)
{
    const double start = cpu_seconds();
    if (w->gemm) w->gemm->run(&w->product, 0, WIDTH);
    else w->k->attend(&w->attend, 0, w->attend.n_tokens, 0, HEADS);
    return cpu_seconds() - start;
}

/* GOP/s of both, in turns, so that both meet the same clock. */
static void take_rates(double *rates, const struct work *few, const struct work *many, double ops)
{
    double a[RUNS], b[RUNS];
    for (int i = 0; i < RUNS; i++) {
        a[i] = seconds_of(few);
        b[i] = seconds_of(many);
    }
    qsort(a, RUNS, sizeof *a, compare);
    qsort(b, RUNS, sizeof *b, compare);
    rates[0] = 1e-9 * ops / a[RUNS / 10];
    rates[1] = 1e-9 * ops / b[RUNS / 10];
}

/* Products of n tokens. false: out of memory. */
static bool product_rates(double *rates, const struct zq_kernels *k, const struct crossover *x, size_t n)
{
    static int8_t codes[WIDTH * WIDTH], q[MOST * WIDTH];
    static float scales[WIDTH * WIDTH], token_scales[MOST], floats[MOST * WIDTH], out[MOST * WIDTH];
    struct zq_matrix w[2];
    struct work works[2];
    uint64_t rng = 1;
    for (size_t i = 0; i < (size_t)WIDTH * WIDTH; i++) codes[i] = code(&rng, x->bits);
    for (size_t i = 0; i < sizeof q; i++) q[i] = code(&rng, 8), floats[i] = q[i];
    for (int i = 0; i < 2; i++) {
        const struct zq_gemm *gemm = (const struct zq_gemm *)(const void *)((const char *)&k[i] + x->slot);
        w[i] = (struct zq_matrix){.n_rows = WIDTH, .n_cols = WIDTH, .k_group = x->k_group};
        w[i].packed = zq_alloc(gemm->packed_bytes(&w[i]));
        if (w[i].packed) gemm->pack(&w[i], 0, WIDTH, codes, scales);
        works[i] = (struct work){.gemm = gemm, .product = {.w = &w[i], .n_tokens = n, .q = q, .scale = token_scales, .x = floats, .ld_x = WIDTH,
                                                           .out = out, .ld_out = WIDTH}};
    }
    const bool ok = w[0].packed && w[1].packed;
    if (ok) take_rates(rates, &works[0], &works[1], 2.0 * (double)n * WIDTH * WIDTH);
    zq_free(w[0].packed);
    zq_free(w[1].packed);
    return ok;
}

/* The same of n queries of each head. */
static bool attention_rates(double *rates, const struct zq_kernels *k, const struct crossover *x, size_t n)
{
    static float qkv[MOST * HEADS * HEAD_DIM], out[MOST * HEADS * HEAD_DIM], scales[HEADS * KEYS];
    const struct zq_heads heads = {.n_heads = HEADS, .n_kv_heads = HEADS, .head_dim = HEAD_DIM, .q_stride = HEAD_DIM};
    const size_t n_bytes = (size_t)HEADS * KEYS * HEAD_DIM * sizeof(float);
    struct zq_attend a = {.qkv = qkv, .ld = HEADS * HEAD_DIM, .n_tokens = n, .n_keys = KEYS, .scale = 0.125f, .heads = heads, .out = out,
                          .ld_out = HEADS * HEAD_DIM};
    a.kv = (struct zq_kv){.dtype = x->kept, .k = zq_alloc_zero(n_bytes), .v = zq_alloc_zero(n_bytes), .k_scale = scales, .v_scale = scales,
                          .capacity = KEYS};
    a.scratch = zq_alloc(k[1].attend_scratch(&heads) * sizeof(float)); /* BF16's is the larger one, and both come with it */
    uint64_t rng = 1;
    for (size_t i = 0; i < sizeof qkv / sizeof *qkv; i++) qkv[i] = (float)code(&rng, 8) * 0x1p-6f;
    const bool ok = a.kv.k && a.kv.v && a.scratch;
    const struct work few = {.k = &k[0], .attend = a}, many = {.k = &k[1], .attend = a};
    if (ok) take_rates(rates, &few, &many, 4.0 * (double)n * KEYS * HEADS * HEAD_DIM);
    zq_free(a.kv.k);
    zq_free(a.kv.v);
    zq_free(a.scratch);
    return ok;
}

/* The bound with which the sizes together, each weighing the same, come nearest to the quicker of their two drivers. */
static size_t best_bound(const size_t *sizes, const double (*rates)[2], size_t n)
{
    size_t best = 0;
    double least = 0;
    for (size_t bound = 0; bound <= n; bound++) { /* so many sizes are few */
        double cost = 0;
        for (size_t i = 0; i < n; i++) {
            const double quicker = rates[i][0] > rates[i][1] ? rates[i][0] : rates[i][1];
            cost += quicker / rates[i][i < bound ? 0 : 1];
        }
        if (bound && cost >= least) continue;
        least = cost;
        best = bound;
    }
    return best ? sizes[best - 1] : sizes[0] - 1;
}

/* false: out of memory. */
static bool measure(const struct crossover *x, unsigned levels)
{
    static const size_t all[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 17, 20, 24, 31, 32, MOST};
    struct zq_kernels k[2]; /* always few, always many */
    size_t sizes[ZQ_LEN(all)], n = 0;
    double rates[ZQ_LEN(all)][2];
    zq_kernels_init(&k[0], levels);
    k[1] = k[0];
    x->drivers->few(&k[0]);
    x->drivers->many(&k[1]);
    for (size_t i = 0; i < ZQ_LEN(all); i++) {
        if (all[i] < x->drivers->first) continue;
        sizes[n] = all[i];
        if (!(x->bits ? product_rates : attention_rates)(rates[n++], k, x, all[i])) return false;
    }
    printf("few up to %zu, in use %zu (%s)\n   ", best_bound(sizes, (const double (*)[2])rates, n), x->used, x->bound);
    for (size_t i = 0; i < n; i++) printf(" %s%zu: %.0f / %.0f", i ? " " : "", sizes[i], rates[i][0], rates[i][1]);
    printf("\n");
    fflush(stdout);
    return true;
}

int main(void)
{
    unsigned levels;
    zq_error err;
    if (zq_levels_detect(&levels, &err)) {
        fprintf(stderr, "crossovers: %s\n", err.message);
        return 2;
    }
    printf("GOP/s of one thread, the driver for few / for many\n");
    for (size_t i = 0; i < ZQ_LEN(crossovers); i++) {
        const struct crossover *x = &crossovers[i];
        const char *level = zq_levels_name(x->drivers->level);
        printf("%-11s%-15s ", level, x->what);
        if (!(levels & x->drivers->level)) printf("skipped: no %s here\n", level);
        else if (!measure(x, levels)) {
            fprintf(stderr, "crossovers: out of memory\n");
            return 1;
        }
    }
    return 0;
}
