/* The operators of training on this processor. */
#ifndef ZQ_DISTILL_PROCESSOR_H
#define ZQ_DISTILL_PROCESSOR_H

#include "kernels/training.h"

/* What they take first. */
struct zq_processor {
    int n_threads;
    float *scratch; /* [n_threads, thread_floats] */
    size_t thread_floats;
    struct zq_kernels kernels; /* matmul is of products that may be fast */
};
extern const struct zq_training_ops zq_processor_ops;

/* Fills the kernels: those of --math fast, whose products of codes are those of exact. ZQ_EINVAL as zq_levels_detect(); plain C then. */
zq_status zq_processor_kernels(struct zq_processor *p, zq_error *err);
/* Scratch of one thread for sequences of max_length tokens, and rows or tokens of n_cols values. */
size_t zq_processor_floats(const struct zq_processor *p, size_t max_length, size_t n_cols);

#endif
