/* What the student is taught by: its distance from the teacher's output. */
#ifndef ZQ_DISTILL_LOSS_H
#define ZQ_DISTILL_LOSS_H

#include "kernels/training.h"

/* Fills row_sums, and dy unless it is NULL. */
void zq_loss_run(const struct zq_loss_pass *a, int n_threads);
/* The loss that row_sums come to: the mean over tokens (squares: over values). */
double zq_loss_total(const struct zq_loss_pass *a, const double *row_sums);

/* Both in one. Both give a mean over tokens and, unless dy is NULL, its gradient; dy may be y. row_sums: [n_tokens] scratch. */

/* Mean over all values of (y - target)^2. */
double zq_loss_mse(const float *y, const float *target, size_t n_tokens, size_t width, float *dy, double *row_sums, int n_threads);
/* KL(softmax(target) || softmax(y)), the distributions over the channels of a token. */
double zq_loss_kl(const float *y, const float *target, size_t n_tokens, size_t width, float *dy, double *row_sums, int n_threads);

#endif
