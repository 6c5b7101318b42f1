/* One pass over given ids, written to a safetensors file: what tests and comparisons with other software read. */
#include "base/alloc.h"
#include "checkpoint/safetensors.h"

#include <stdio.h>

/* Adds "logits" and "hidden.N" to the list. Names are constant or in `names`. */
static size_t list_tensors(struct zq_tensor *tensors, char (*names)[32], const zq_model_info *info, size_t n_rows, size_t n_tokens, bool hidden)
{
    size_t n = 0;
    if (n_rows) {
        snprintf(names[n], sizeof names[n], "logits");
        tensors[n] = (struct zq_tensor){.name = names[n], .dtype = ZQ_F32, .n_dims = 2, .shape = {n_rows, info->n_outputs}};
        n++;
    }
    for (size_t l = 0; hidden && l <= info->n_layers; l++, n++) {
        snprintf(names[n], sizeof names[n], "hidden.%zu", l);
        tensors[n] = (struct zq_tensor){.name = names[n], .dtype = ZQ_F32, .n_dims = 2, .shape = {n_tokens, info->width}};
    }
    return n;
}

static zq_status save(const zq_session *s, const zq_model_info *info, bool hidden, const char *path, zq_error *err)
{
    size_t n_rows, n_tokens;
    const float *logits = zq_session_logits(s, &n_rows);
    zq_session_hidden(s, info->n_layers, &n_tokens);
    struct zq_tensor *tensors = zq_alloc_array(info->n_layers + 2, sizeof *tensors);
    char (*names)[32] = zq_alloc_array(info->n_layers + 2, sizeof *names);
    struct zq_safetensors_writer w = {0};
    zq_status st = tensors && names ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its header", path);
    if (!st) st = zq_safetensors_begin(&w, path, tensors, list_tensors(tensors, names, info, n_rows, n_tokens, hidden), err);
    if (!st && n_rows) st = zq_safetensors_put(&w, logits, n_rows * info->n_outputs * sizeof(float), err);
    for (size_t l = 0; hidden && l <= info->n_layers && !st; l++)
        st = zq_safetensors_put(&w, zq_session_hidden(s, l, NULL), n_tokens * info->width * sizeof(float), err);
    if (!st) st = zq_safetensors_end(&w, err);
    zq_safetensors_abandon(&w);
    zq_free(tensors);
    zq_free(names);
    return st;
}

zq_status zq_forward_save(const zq_model *model, const int32_t *ids, const uint8_t *types, size_t n, bool hidden, int n_threads, const char *path,
                          zq_error *err)
{
    zq_model_info info;
    zq_model_info_get(model, &info);
    if (!n) return zq_fail(err, ZQ_EINVAL, "there are no ids to run");
    if (n > info.max_length) return zq_fail(err, ZQ_ELIMIT, "%zu ids are above the model's limit of %zu", n, info.max_length);
    zq_session *s;
    const zq_session_options o = {.n_threads = n_threads, .max_length = n, .max_batch_tokens = n, .max_logit_rows = n, .keep_hidden = hidden};
    zq_status st = zq_session_create(&s, model, &o, err);
    const zq_input input = {.ids = ids, .types = types, .n = n, .all_logits = true};
    if (!st) st = zq_session_step(s, &input, 1, err);
    if (!st) st = save(s, &info, hidden, path, err);
    zq_session_close(s);
    return st;
}
