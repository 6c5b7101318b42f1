/* Where keys and values of a session lie. A cache holds those of one sequence in one layer: all keys, all values, then the scales of INT8. */
#include "model/session.h"

enum zq_dtype zq_kept_dtype(const struct zq_session *s)
{
    return s->kv_format == ZQ_KV_INT8 ? ZQ_I8 : s->kv_format == ZQ_KV_F16 ? ZQ_F16 : ZQ_F32;
}

const char *zq_kv_name(zq_kv_format kv)
{
    return kv == ZQ_KV_INT8 ? "int8" : kv == ZQ_KV_F16 ? "f16" : "f32";
}

size_t zq_kept_bytes(const struct zq_session *s)
{
    const struct zq_config *g = &s->model->config;
    const size_t values = g->n_kv_heads * g->head_dim, scales = s->kv_format == ZQ_KV_INT8 ? g->n_kv_heads : 0;
    return 2 * (values * zq_dtype_bytes(zq_kept_dtype(s)) + scales * sizeof(float));
}

struct zq_kv zq_session_cache(const struct zq_session *s, size_t index, size_t position, size_t capacity)
{
    const struct zq_config *g = &s->model->config;
    const size_t row = g->n_kv_heads * g->head_dim * zq_dtype_bytes(zq_kept_dtype(s)); /* of one position's keys */
    uint8_t *k = s->kv + index * s->kv_bytes, *v = k + s->kv_capacity * row;
    struct zq_kv kv = {.dtype = zq_kept_dtype(s), .k = k + position * row, .v = v + position * row, .capacity = capacity};
    if (s->kv_format != ZQ_KV_INT8) return kv;
    kv.k_scale = (float *)(void *)(v + s->kv_capacity * row) + position * g->n_kv_heads;
    kv.v_scale = kv.k_scale + s->kv_capacity * g->n_kv_heads;
    return kv;
}
