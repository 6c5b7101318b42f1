/* Activation functions in training, with or without a gate. */
#ifndef ZQ_DISTILL_ACTIVATION_H
#define ZQ_DISTILL_ACTIVATION_H

#include "kernels/kernels.h"

/* All arrays hold n values. y = act(u), or act(u) * times. out may be u only in the forward direction. */
struct zq_activation_pass {
    enum zq_activation act;
    size_t n;
    const float *u;
    const float *times; /* NULL: no gate */
};
void zq_activation_forward(const struct zq_activation_pass *p, float *out, int n_threads);
/* du, and with a gate dtimes, from dy; du or dtimes may be dy. */
void zq_activation_backward(const struct zq_activation_pass *p, const float *dy, float *du, float *dtimes, int n_threads);

#endif
