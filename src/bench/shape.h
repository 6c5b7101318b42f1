/* Sizes of published models, as configurations without a checkpoint. */
#ifndef ZQ_BENCH_SHAPE_H
#define ZQ_BENCH_SHAPE_H

#include "base/json.h"
#include "model/config.h"

struct zq_shape {
    const char *name, *model_type, *class_name;
    size_t n_layers, width, n_heads, n_kv_heads, ffn_width, vocab, max_length;
    unsigned biased;   /* bits of the linear roles that have a bias */
    bool head_bias;
};
/* ended by a row whose name is NULL */
extern const struct zq_shape zq_shapes[];

/* ZQ_EINVAL lists the names. */
zq_status zq_shape_find(const struct zq_shape **out, const char *name, zq_error *err);
/* Its config.json, with weights of a float dtype; n_layers 0: all. NULL: out of memory. */
json_t *zq_shape_config(const struct zq_shape *shape, size_t n_layers, enum zq_dtype dtype);

#endif
