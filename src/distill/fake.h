/* Fake quantization: floats that hold exactly the values which integer codes and their scales stand for. Weights go through the
 * encoder of the exporter, tokens through the arithmetic of the INT8 operators, so that training sees the numbers that will run.
 * Gradients pass straight through: d(fake(x)) = dx, scales are constants. */
#ifndef ZQ_DISTILL_FAKE_H
#define ZQ_DISTILL_FAKE_H

#include "kernels/training.h"

/* Scratch of one thread, in floats, for rows or tokens of up to n_cols values. */
size_t zq_fake_thread_floats(size_t n_cols);

/* scratch: [n_threads, thread_floats]. false if a weight is NaN or infinite; out is then incomplete. */
bool zq_fake_weights(const struct zq_fake_weights *a, int n_threads, float *scratch, size_t thread_floats);

/* out [n_tokens, n] = INT8 tokens of x, one scale each; out may be x. A token with a NaN or an infinity stays as it is. */
void zq_fake_tokens(const float *x, float *out, size_t n_tokens, size_t n, int n_threads, float *scratch, size_t thread_floats);
/* The same, and its codes [n_tokens, n] and scales [n_tokens], NaN with codes of 0 for a token that stays as it is. */
void zq_code_tokens(const float *x, float *out, int8_t *q, float *scale, size_t n_tokens, size_t n, int n_threads);

#endif
