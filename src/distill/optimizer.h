/* Optimizers over a flat array of parameters. */
#ifndef ZQ_DISTILL_OPTIMIZER_H
#define ZQ_DISTILL_OPTIMIZER_H

#include <stddef.h>

/* AdamW with the constants that the published LKD script uses, which are PyTorch's: betas 0.9 and 0.999, eps 1e-8, decay 0.01.
 * moments [2, n], zero before the first step; steps count from 1. */
void zq_adamw_step(double rate, size_t step, float *params, const float *grads, float *moments, size_t n, int n_threads);

/* params -= rate * sign(grads), kept within [-limit, limit]: for offsets of roundings, which no step may carry beyond a neighbour. */
void zq_signsgd_step(float rate, float limit, float *params, const float *grads, size_t n, int n_threads);

#endif
