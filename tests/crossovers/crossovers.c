/* Measures from how many tokens on the driver for many is the quicker one, for the table in src/kernels/crossovers.h. The kernels
 * are linked twice, built with always_few.h and with always_many.h. What counts is the processor time of one thread, a quick tenth of
 * many runs, so that other programs matter little (the very best may be a slip of the clock); matrices fit the second-level cache, so that
 * memory does not either. */
#include "kernels/kernels.h"

#include "base/alloc.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void zq_gemm_avx2_few(struct zq_kernels *k);
void zq_gemm_avx2_many(struct zq_kernels *k);

enum { WIDTH = 512, MOST_TOKENS = 20, RUNS = 200 };

struct format {
    const char *name;
    size_t k_group;
    int bits;
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

/* GOP/s; 0: out of memory. */
static double rate(const struct zq_gemm *gemm, const struct format *f, size_t n_tokens)
{
    static int8_t codes[WIDTH * WIDTH], q[MOST_TOKENS * WIDTH];
    static float scales[WIDTH * WIDTH], token_scales[MOST_TOKENS], out[MOST_TOKENS * WIDTH];
    struct zq_matrix w = {.n_rows = WIDTH, .n_cols = WIDTH, .k_group = f->k_group};
    const struct zq_product p = {.w = &w, .n_tokens = n_tokens, .q = q, .scale = token_scales, .ld_x = WIDTH, .out = out, .ld_out = WIDTH};
    uint64_t rng = 1;
    for (size_t i = 0; i < (size_t)WIDTH * WIDTH; i++) codes[i] = code(&rng, f->bits);
    for (size_t i = 0; i < sizeof q; i++) q[i] = code(&rng, 8);
    w.packed = zq_alloc(gemm->packed_bytes(&w));
    if (!w.packed) return 0;
    gemm->pack(&w, 0, WIDTH, codes, scales);
    double seconds[RUNS];
    for (int i = 0; i < RUNS; i++) {
        const double start = cpu_seconds();
        gemm->run(&p, 0, WIDTH);
        seconds[i] = cpu_seconds() - start;
    }
    zq_free(w.packed);
    qsort(seconds, RUNS, sizeof *seconds, compare);
    return 2e-9 * (double)n_tokens * WIDTH * WIDTH / seconds[RUNS / 10];
}

int main(void)
{
    static const struct format formats[] = {{"w8 channel", 0, 8}, {"w4 channel", 0, 4}, {"w4 k:64", 64, 4}};
    struct zq_kernels few, many;
    unsigned levels;
    zq_error err;
    if (zq_levels_detect(&levels, &err) || !(levels & ZQ_LEVEL_AVX2)) {
        fprintf(stderr, "crossovers: skipped: no AVX2\n");
        return 77;
    }
    zq_gemm_avx2_few(&few);
    zq_gemm_avx2_many(&many);
    for (size_t i = 0; i < ZQ_LEN(formats); i++) {
        const struct format *f = &formats[i];
        printf("avx2 %-10s", f->name);
        for (size_t n = 2; n <= MOST_TOKENS; n += n < 10 ? 1 : 5) {
            const double a = rate(f->bits == 8 ? &few.w8_a8 : &few.w4_a8, f, n), b = rate(f->bits == 8 ? &many.w8_a8 : &many.w4_a8, f, n);
            printf("  %zu: %.0f / %.0f", n, a, b);
        }
        printf("\n");
    }
    return 0;
}
