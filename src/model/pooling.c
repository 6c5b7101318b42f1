/* Sentence embeddings: which hidden states are pooled, as the files of the sentence-transformers library say, and the pooling. */
#include "model/session.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 20 };

/* dir/a/b as JSON; *out stays NULL if the file does not exist. */
static zq_status read_optional(json_t **out, const char *dir, const char *a, const char *b, zq_error *err)
{
    *out = NULL;
    char *path = zq_format("%s/%s%s%s", dir, a, *a ? "/" : "", b);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
    zq_status st = zq_file_exists(path) ? zq_json_read(out, path, MAX_FILE_BYTES, err) : ZQ_OK;
    zq_free(path);
    return st;
}

static zq_status read_mode(struct zq_model *m, const char *folder, zq_error *err)
{
    json_t *config;
    zq_status st = read_optional(&config, m->dir, folder, "config.json", err);
    if (st || !config) return st;
    if (json_is_true(json_object_get(config, "pooling_mode_cls_token"))) m->pooling = ZQ_POOL_CLS;
    else if (!json_is_true(json_object_get(config, "pooling_mode_mean_tokens")))
        st = zq_fail(err, ZQ_EUNSUPPORTED, "%s/%s: pools neither the mean nor the first token", m->dir, folder);
    json_decref(config);
    return st;
}

zq_status zq_pooling_read(struct zq_model *m, zq_error *err)
{
    json_t *modules;
    m->pooling = ZQ_POOL_MEAN;
    zq_status st = read_optional(&modules, m->dir, "", "modules.json", err);
    bool found = false;
    for (size_t i = 0; !st && i < json_array_size(modules); i++) {
        const json_t *item = json_array_get(modules, i);
        const char *type = json_string_value(json_object_get(item, "type")), *path = json_string_value(json_object_get(item, "path"));
        if (!type || !path || strstr(path, "..") || path[0] == '/') continue;
        if (strstr(type, "Pooling")) {
            found = true;
            st = read_mode(m, path, err);
        } else if (strstr(type, "Normalize")) {
            m->pool_normalize = true;
        }
    }
    json_decref(modules);
    if (!st && !found) st = read_mode(m, "1_Pooling", err);
    return st;
}

static void normalize(float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)v[i] * v[i];
    const double length = sqrt(sum);
    for (size_t i = 0; i < n && length > 0; i++) v[i] = (float)(v[i] / length);
}

zq_status zq_session_embed(zq_session *session, const int32_t *ids, const uint8_t *types, size_t n, zq_pooling pooling, bool unit, float *out,
                           zq_error *err)
{
    const zq_model *m = session->model;
    if (pooling == ZQ_POOL_AUTO) {
        pooling = m->pooling;
        unit = unit || m->pool_normalize;
    }
    if (m->config.arch->causal)
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: embeddings need an encoder, this is a %s model", m->dir, m->config.arch->model_type);
    const zq_input input = {.ids = ids, .types = types, .n = n};
    zq_status st = zq_session_step(session, &input, 1, err);
    if (st) return st;
    const size_t width = m->config.width;
    const float *hidden = zq_session_hidden(session, m->config.n_layers, NULL);
    for (size_t d = 0; d < width; d++) {
        double sum = 0;
        for (size_t t = 0; t < n && pooling == ZQ_POOL_MEAN; t++) sum += hidden[t * width + d];
        out[d] = pooling == ZQ_POOL_MEAN ? (float)(sum / (double)n) : hidden[d];
    }
    if (unit) normalize(out, width);
    return ZQ_OK;
}
