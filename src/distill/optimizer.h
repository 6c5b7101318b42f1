/* Optimizers over a flat array of parameters. */
#ifndef ZQ_DISTILL_OPTIMIZER_H
#define ZQ_DISTILL_OPTIMIZER_H

#include "kernels/training.h"

/* AdamW with the constants that the published LKD script uses, which are PyTorch's: betas 0.9 and 0.999, eps 1e-8, decay 0.01.
 * moments [2, n], zero before the first step; steps count from 1. */
struct zq_adamw_pass zq_adamw_pass_at(double rate, size_t step, float *params, const float *grads, float *moments, size_t n);
void zq_adamw_run(const struct zq_adamw_pass *a, int n_threads);

/* For offsets of roundings, which no step may carry beyond a neighbour. Means are zero before the first step. */
void zq_signsgd_run(const struct zq_sign_pass *a, int n_threads);

#endif
