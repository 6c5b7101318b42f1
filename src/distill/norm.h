/* LayerNorm and RMSNorm in training: forward with what backward needs, and backward. */
#ifndef ZQ_DISTILL_NORM_H
#define ZQ_DISTILL_NORM_H

#include "kernels/training.h"

/* out [n_tokens, n], may be x; fills stats. */
void zq_norm_forward(const struct zq_norm_pass *p, float *out, int n_threads);
void zq_norm_backward(const struct zq_norm_back *a, int n_threads);

/* out[j] = sum over rows of x [n_rows, ld], columns j < n: the gradient of a bias. */
void zq_column_sums(const float *x, size_t ld, size_t n_rows, size_t n, float *out, int n_threads);

/* sums[j] += sum over rows of x [n_rows, n], row after row. */
void zq_add_columns(const float *x, size_t n_rows, size_t n, double *sums, int n_threads);

#endif
