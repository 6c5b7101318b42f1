/* Checkpoints of random weights that exist only as a configuration and a few megabytes of values: models of any size can be opened,
 * packed and measured by the same code as those on disk. */
#ifndef ZQ_BENCH_RANDOM_H
#define ZQ_BENCH_RANDOM_H

#include "bench/shape.h"
#include "checkpoint/checkpoint.h"
#include "quant/scheme.h"

struct zq_random_options {
    struct zq_scheme scheme;  /* bits by part of the block; 16 bits of weights: float */
    struct zq_grouping group;
    bool embeddings_int8;
    enum zq_dtype dtype;      /* of what stays float */
    size_t n_layers;          /* 0: all */
};
/* Codes are those of normal weights, rounded to nearest. Tensors are windows into few values that repeat, which take no memory; only the
 * matrices of a model that is float throughout have memory of their own, because such a model runs from where it lies.
 * ZQ_ENOMEM if that is more than the machine has. */
zq_status zq_random_checkpoint(struct zq_checkpoint **out, const struct zq_shape *shape, const struct zq_random_options *options, zq_error *err);

/* n codes of normal weights, rounded to nearest; after some thousand they repeat. bits: 4 or 8. */
void zq_random_codes(int8_t *codes, size_t n, int bits);

#endif
