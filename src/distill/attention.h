/* Attention in training. */
#ifndef ZQ_DISTILL_ATTENTION_H
#define ZQ_DISTILL_ATTENTION_H

#include "kernels/training.h"

/* Scratch of one thread, in floats. */
size_t zq_attention_floats(size_t max_length);

/* Rotates queries and keys of qkv and leaves attention in `attended`. scratch: [n_threads, thread_floats]. */
void zq_attention_forward(const struct zq_attention_pass *a, int n_threads, float *scratch, size_t thread_floats);
/* d_qkv from d_attended. */
void zq_attention_backward(const struct zq_attention_pass *a, int n_threads, float *scratch, size_t thread_floats);

#endif
