/* Products of codes in training: the student's forward pass multiplies INT8 tokens and weights in integers, by the kernels that will run them. */
#ifndef ZQ_DISTILL_CODED_H
#define ZQ_DISTILL_CODED_H

#include "kernels/training.h"

/* Bytes of a map packed for `gemm`, and of one thread's scratch to pack it, in floats. */
size_t zq_coded_bytes(const struct zq_gemm *gemm, const struct zq_matrix *w);
size_t zq_coded_thread_floats(const struct zq_gemm *gemm, size_t n_cols);

/* scratch: [n_threads, thread_floats] */
void zq_coded_pack(const struct zq_gemm *gemm, const struct zq_coded_map *a, int n_threads, float *scratch, size_t thread_floats);
void zq_coded_product(const struct zq_gemm *gemm, const struct zq_product *p, int n_threads);

#endif
