/* zqcheck: what the checks of kernels share. One check per slot of the kernel table; it is called for every level whose kernel
 * is not that of a lower level, compares it bit for bit with plain C (and plain C with a reference written in the check), and
 * ends by timing it when asked.
 *
 * Buffers come from regions with unreadable pages on both sides. Each check runs twice: once with buffers that end at such a
 * page, once with buffers that begin at one. */
#ifndef ZQ_CHECK_H
#define ZQ_CHECK_H

#include "kernels/kernels.h"

struct check {
    const struct zq_kernels *k; /* the table under test */
    const struct zq_kernels *c; /* plain C */
    bool is_c;                  /* k is plain C: compare it with the check's own reference */
    const char *level;
    const char *slot;
    uint64_t rng;
    bool at_end;                /* buffers end at an unreadable page; else they begin at one */
    bool failed;
};

/* Prints the first failure of a check and marks it; later ones are only marked. */
void check_fail(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Uniform in [0, n). */
size_t check_random(struct check *c, size_t n);
bool check_coin(struct check *c);
/* One of the values; the usual way to draw a size. */
#define CHECK_PICK(c, ...) (((const size_t[]){__VA_ARGS__})[check_random(c, sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t))])

/* Releases all buffers of the last case; fails if something was written beside them. */
void check_begin(struct check *c);
/* n_bytes between unreadable pages, filled with 0xA5; aligned to `align` (with at_end: as near to the page as that allows). */
void *check_buffer(struct check *c, size_t n_bytes, size_t align);

enum check_values { VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY, VALUES_HUGE, VALUES_SUBNORMAL, N_VALUES };
/* n floats of a kind. HUGE goes up to the largest float, TINY down to products that underflow. */
float *check_floats(struct check *c, size_t n, enum check_values kind);
/* n codes of lowest .. highest; sometimes only the extremes, or all equal. */
int8_t *check_codes(struct check *c, size_t n, int lowest, int highest);

/* Fails at the first difference. NaN equals NaN. */
void check_same_floats(struct check *c, const float *got, const float *want, size_t n, const char *what);
void check_same_bytes(struct check *c, const void *got, const void *want, size_t n, const char *what);
/* |got - want| <= bound, element by element. */
void check_near(struct check *c, const float *got, const double *want, const double *bound, size_t n, const char *what);

void check_norm(struct check *c);
void check_activate(struct check *c);
void check_embed(struct check *c);
void check_keep(struct check *c);
void check_to_float(struct check *c);
void check_attend(struct check *c);
void check_gemm_w8_a8(struct check *c);
void check_gemm_w4_a8(struct check *c);
void check_gemm_w8_a16(struct check *c);
void check_gemm_w4_a16(struct check *c);
void check_gemm_f32_a16(struct check *c);
/* The a16 slots as zq_kernels_fast() leaves them. */
void check_gemm_w8_bf16(struct check *c);
void check_gemm_w4_bf16(struct check *c);
void check_gemm_f32_bf16(struct check *c);
void check_attend_bf16(struct check *c);
/* The slot that only they fill. */
void check_matmul_bf16(struct check *c);

/* ---- timing ---- */

/* The machine's limits for a level on all cores, measured once. */
struct limits {
    double int8_ops;   /* products and sums of INT8 per second; 0: unknown (plain C) */
    double int4_ops;   /* the same where weights are INT4, whose sums AVX2 may keep in 16 bits */
    double bf16_ops;   /* of BF16, sums in FP32; 0: no units */
    double float_ops;  /* of FP32 */
    double read_bytes; /* per second, from memory */
};

struct bench {
    const struct zq_kernels *k;
    const char *level;
    struct limits limits;
    int n_threads;
    bool is_c;
};

void bench_norm(struct bench *b);
void bench_activate(struct bench *b);
void bench_embed(struct bench *b);
void bench_keep(struct bench *b);
void bench_to_float(struct bench *b);
void bench_attend(struct bench *b);
void bench_gemm_w8_a8(struct bench *b);
void bench_gemm_w4_a8(struct bench *b);
void bench_gemm_w8_a16(struct bench *b);
void bench_gemm_w4_a16(struct bench *b);
void bench_gemm_f32_a16(struct bench *b);
void bench_gemm_w8_bf16(struct bench *b);
void bench_gemm_w4_bf16(struct bench *b);
void bench_gemm_f32_bf16(struct bench *b);
void bench_attend_bf16(struct bench *b);
void bench_matmul_bf16(struct bench *b);

/* Median seconds of one call of fn on parts of [0, n) that are multiples of grain, on all threads: their processor time while in
 * fn, divided by their number. */
typedef void bench_fn(void *work, size_t begin, size_t end, int thread);
double bench_time(struct bench *b, size_t n, size_t grain, bench_fn *fn, void *work);
/* Prints a line: rate, ratio to the C kernel's rate for the same text, and share of the limit (0: unknown). The unit is
 * "GOP/s" or "GB/s". */
void bench_print(struct bench *b, const char *what, double per_second, const char *unit, double limit);
struct limits bench_limits(unsigned level, int n_threads);

#endif
