/* Learned roundings of one map: what kernels/training.h says of them, on this processor. */
#ifndef ZQ_DISTILL_ROUNDING_H
#define ZQ_DISTILL_ROUNDING_H

#include "kernels/training.h"

void zq_rounding_begin(const struct zq_rounding *a, int n_threads);
void zq_rounding_round(const struct zq_rounding *a, int n_threads);
void zq_rounding_slopes(const struct zq_rounding *a, int n_threads);
void zq_rounding_keep(const struct zq_rounding *a, int n_threads);
void zq_rounding_decode(const struct zq_rounding *a, int n_threads);

#endif
