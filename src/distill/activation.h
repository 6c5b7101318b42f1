/* Activation functions in training, with or without a gate. */
#ifndef ZQ_DISTILL_ACTIVATION_H
#define ZQ_DISTILL_ACTIVATION_H

#include "kernels/training.h"

/* out may be u. */
void zq_activation_forward(const struct zq_activation_pass *p, float *out, int n_threads);
/* du, and with a gate dtimes, from dy; du or dtimes may be dy. */
void zq_activation_backward(const struct zq_activation_pass *p, const float *dy, float *du, float *dtimes, int n_threads);

#endif
