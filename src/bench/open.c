/* Models of a shape: the words of a user become a checkpoint of random weights, and that a model. */
#include "zeroquant.h"

#include "bench/granularity.h"
#include "bench/random.h"
#include "model/model.h"

#include <string.h>

static const struct {
    const char *name;
    enum zq_dtype dtype;
} floats[] = {{"bf16", ZQ_BF16}, {"float", ZQ_BF16}, {"f16", ZQ_F16}, {"f32", ZQ_F32}};

const char *zq_shape_name(size_t index)
{
    size_t i = 0;
    while (i < index && zq_shapes[i].name) i++;
    return zq_shapes[i].name;
}

static zq_status read_scheme(struct zq_random_options *out, const char *name, zq_error *err)
{
    for (size_t i = 0; name && i < ZQ_LEN(floats); i++) {
        if (strcmp(name, floats[i].name)) continue;
        out->dtype = floats[i].dtype;
        out->scheme = (struct zq_scheme){name, {16, 16}, {16, 16}, {16, 16}};
        return ZQ_OK;
    }
    const struct zq_scheme *scheme;
    const zq_status st = zq_scheme_parse(&scheme, name, err);
    if (st) return st;
    if (scheme->ffn.w < 4)
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s is a scheme for studies, which runs by the kernels of w4: what is to be timed is that", name);
    out->scheme = *scheme;
    return ZQ_OK;
}

zq_status zq_shape_open(zq_model **out, const char *name, const zq_shape_options *options, zq_error *err)
{
    static const zq_shape_options defaults = {0};
    const zq_shape_options *o = options ? options : &defaults;
    struct zq_random_options random = {.embeddings_int8 = o->embeddings_int8, .dtype = ZQ_BF16, .n_layers = o->n_layers};
    const struct zq_shape *shape;
    struct zq_checkpoint *ckpt = NULL;
    *out = NULL;
    zq_status st = zq_shape_find(&shape, name, err);
    if (!st) st = read_scheme(&random, o->scheme, err);
    if (!st) st = zq_granularity_parse(&random.group, o->group, err);
    if (!st) st = zq_random_checkpoint(&ckpt, shape, &random, err);
    return st ? st : zq_model_make(out, ckpt, &o->open, err);
}
