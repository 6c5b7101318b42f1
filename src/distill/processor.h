/* The operators of training on this processor. */
#ifndef ZQ_DISTILL_PROCESSOR_H
#define ZQ_DISTILL_PROCESSOR_H

#include "kernels/training.h"

/* What they take first. */
struct zq_processor {
    int n_threads;
    float *scratch; /* [n_threads, thread_floats] */
    size_t thread_floats;
    zq_matmul_fn *fast; /* for products that may be fast: struct zq_kernels. NULL: none are */
};
extern const struct zq_training_ops zq_processor_ops;

/* Scratch of one thread for sequences of max_length tokens, and rows or tokens of n_cols values. */
size_t zq_processor_floats(size_t max_length, size_t n_cols);

#endif
