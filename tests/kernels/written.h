/* The written order of kernels.h, spelled out in scalars: what the checks of plain C compare it with. */
#ifndef ZQ_CHECK_WRITTEN_H
#define ZQ_CHECK_WRITTEN_H

#include <stddef.h>
#include <stdint.h>

/* The lanes' tree: l and l + 8, then 4, 2, 1. */
float written_tree(const float *lanes);
/* lanes(n) over x, or over fma(d, d, sum) with d = x - mean. */
float written_sum(const float *x, size_t n);
float written_squares(const float *x, size_t n, float mean);
/* One INT8 token; returns its scale. */
float written_token(int8_t *q, const float *y, size_t n);
/* exp of kernels/math.h at level C: its accuracy is checked on its own. */
float written_exp(float x);
/* The BF16 value nearest to f, ties to even. */
float written_bf16(float f);
/* Of GELU's polynomial: the sum of its terms' magnitudes at t, and its error times the root of the tail. */
double written_gelu_mass(double t);
double written_gelu_error(void);

#endif
