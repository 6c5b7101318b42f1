/* LayerNorm and RMSNorm in training: forward with what backward needs, and backward. */
#ifndef ZQ_DISTILL_NORM_H
#define ZQ_DISTILL_NORM_H

#include <stdbool.h>
#include <stddef.h>

struct zq_norm_pass {
    size_t n_tokens, n;
    bool rms;
    float eps;
    const float *x;     /* [n_tokens, n]: input of the norm, in both directions */
    float *stats;       /* [n_tokens, 2]: mean (0 for RMSNorm) and 1 / sqrt(variance + eps) */
    const float *gamma; /* [n] */
    const float *beta;  /* [n] or NULL */
};
/* out [n_tokens, n], may be x; fills stats. */
void zq_norm_forward(const struct zq_norm_pass *p, float *out, int n_threads);
/* From dy [n_tokens, n]: dgamma, dbeta [n] (dbeta NULL where beta is), and dx = gradient of x + add, where add may be NULL and
 * either may be dx or dy. */
void zq_norm_backward(const struct zq_norm_pass *p, const float *dy, float *dgamma, float *dbeta, const float *add, float *dx, int n_threads);

/* out[j] = sum over rows of x [n_rows, ld], columns j < n: the gradient of a bias. */
void zq_column_sums(const float *x, size_t ld, size_t n_rows, size_t n, float *out, int n_threads);

#endif
