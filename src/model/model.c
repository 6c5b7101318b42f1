/* Opening a directory and answering questions about it: the public functions about models. */
#include "model/model.h"

#include "base/alloc.h"
#include "cuda/layout.h"
#include "model/simulate.h"

#include <stdio.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20 };

static zq_status read_labels(struct zq_model *m, zq_error *err)
{
    const size_t n = m->config.n_labels;
    if (!n) return ZQ_OK;
    const json_t *names = json_object_get(m->ckpt->config, "id2label");
    m->labels = zq_alloc_array(n, sizeof *m->labels);
    if (!m->labels) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for %zu labels", m->dir, n);
    for (size_t i = 0; i < n; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        const char *name = json_string_value(json_object_get(names, key));
        m->labels[i] = name ? zq_strdup(name) : zq_format("LABEL_%zu", i);
        if (!m->labels[i]) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for %zu labels", m->dir, n);
    }
    return ZQ_OK;
}

static void add_end_id(struct zq_model *m, const json_t *id)
{
    const json_int_t v = json_integer_value(id);
    if (json_is_integer(id) && v >= 0 && v <= INT32_MAX && m->n_end_ids < ZQ_LEN(m->end_ids)) m->end_ids[m->n_end_ids++] = (int32_t)v;
}

static void add_end_ids(struct zq_model *m, const json_t *config)
{
    const json_t *ids = json_object_get(config, "eos_token_id");
    if (!json_is_array(ids)) add_end_id(m, ids);
    for (size_t i = 0; i < json_array_size(ids); i++) add_end_id(m, json_array_get(ids, i));
}

/* eos_token_id of generation_config.json, where that exists. */
static zq_status read_generation_config(struct zq_model *m, zq_error *err)
{
    char *path = zq_path_join(m->dir, "generation_config.json");
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", m->dir);
    json_t *generation = NULL;
    zq_status st = zq_file_exists(path) ? zq_json_read(&generation, path, MAX_CONFIG_BYTES, err) : ZQ_OK;
    if (!st) add_end_ids(m, generation);
    json_decref(generation);
    zq_free(path);
    return st;
}

/* A directory without tokenizer files is legal: ids can still be run. */
static zq_status read_tokenizer(struct zq_model *m, zq_error *err)
{
    zq_error local = {0};
    const zq_status st = zq_tokenizer_open(&m->tokenizer, m->dir, &local);
    if (st && st != ZQ_EIO && err) *err = local;
    return st == ZQ_EIO ? ZQ_OK : st;
}

static bool rounds_tokens(const struct zq_model *m)
{
    for (size_t l = 0; l < m->config.n_layers; l++) {
        const struct zq_block *b = &m->blocks[l];
        if (b->attention_in.q || b->o_in.q || b->ffn_in.q || b->down_in.q) return true;
    }
    return false;
}

/* Where attention differs in its last bits, some INT8 codes of the tokens behind it round the other way, and a whole model's figures move by more
 * than fast promises: the cosine of an encoder's embeddings to those of exact fell to 0.995, the perplexity of a small W4A8 decoder rose by
 * 0.19 %. So only models whose tokens stay float get the attention of fast. */
static void choose_attention(struct zq_model *m)
{
    if (m->math == ZQ_MATH_FAST && !m->device && !rounds_tokens(m)) zq_kernels_fast_attention(&m->kernels);
}

static zq_status read_checkpoint(struct zq_model *m, const zq_open_options *options, zq_error *err)
{
    char *config_path = zq_path_join(m->dir, "config.json");
    if (!config_path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", m->dir);
    unsigned levels = 0;
    zq_status st = zq_levels_detect(&levels, err);
    zq_kernels_init(&m->kernels, levels);
    if (!st) st = zq_device_open(&m->device, options->device, err);
    m->math = options->math;
    m->kv = options->kv ? options->kv : m->math == ZQ_MATH_FAST ? ZQ_KV_F16 : ZQ_KV_F32;
    if (m->device) zq_device_layouts(&m->kernels);
    else if (m->math == ZQ_MATH_FAST) zq_kernels_fast(&m->kernels);
    if (!st) st = zq_config_read(&m->config, m->ckpt->config, config_path, err);
    if (!st) st = zq_compressed_parse(&m->compressed, m->ckpt->config, config_path, err);
    if (!st) st = zq_modules_list(&m->modules, &m->config, m->ckpt, err);
    if (!st) st = zq_model_bind(m, options, err);
    if (!st) choose_attention(m);
    if (!st) st = read_labels(m, err);
    if (!st) add_end_ids(m, m->ckpt->config);
    zq_free(config_path);
    return st;
}

zq_status zq_model_make(zq_model **out, struct zq_checkpoint *ckpt, const zq_open_options *options, zq_error *err)
{
    static const zq_open_options defaults = {0};
    *out = NULL;
    zq_model *m = zq_alloc_zero(sizeof *m);
    if (!m) {
        const zq_status st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a model", ckpt->dir);
        zq_checkpoint_close(ckpt);
        return st;
    }
    m->ckpt = ckpt;
    m->pooling = ZQ_POOL_MEAN;
    m->dir = zq_strdup(ckpt->dir);
    const zq_status st =
        m->dir ? read_checkpoint(m, options ? options : &defaults, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its path", ckpt->dir);
    if (st) {
        zq_model_close(m);
        return st;
    }
    *out = m;
    return ZQ_OK;
}

zq_status zq_model_open(zq_model **out, const char *dir, const zq_open_options *options, zq_error *err)
{
    *out = NULL;
    struct zq_checkpoint *ckpt;
    zq_model *m = NULL;
    zq_status st = zq_checkpoint_open(&ckpt, dir, err);
    if (!st) st = zq_model_make(&m, ckpt, options, err);
    if (!st) st = read_generation_config(m, err);
    if (!st) st = zq_pooling_read(m, err);
    if (!st) st = read_tokenizer(m, err);
    if (st) {
        zq_model_close(m);
        return st;
    }
    *out = m;
    return ZQ_OK;
}

static void free_norm(const struct zq_model *m, struct zq_norm_weights *n)
{
    zq_device_free(m->device, n->gamma);
    zq_device_free(m->device, n->beta);
}

void zq_model_close(zq_model *m)
{
    if (!m) return;
    for (size_t l = 0; m->blocks && l < m->config.n_layers; l++) {
        free_norm(m, &m->blocks[l].norm1);
        free_norm(m, &m->blocks[l].norm2);
        for (int r = 0; r < ZQ_N_LINEARS; r++) zq_linear_free(&m->blocks[l].linear[r]);
    }
    struct zq_linear *const around[] = {&m->project_in, &m->project_out, &m->head, &m->pooler, &m->classifier, &m->mlm_dense, &m->device_tokens};
    for (size_t i = 0; i < ZQ_LEN(around); i++) zq_linear_free(around[i]);
    zq_device_free(m->device, m->device_positions);
    zq_device_free(m->device, m->device_types);
    free_norm(m, &m->embed_norm);
    free_norm(m, &m->final_norm);
    free_norm(m, &m->mlm_norm);
    for (size_t i = 0; m->labels && i < m->config.n_labels; i++) zq_free(m->labels[i]);
    zq_free(m->labels);
    zq_free(m->blocks);
    if (m->simulation) zq_free(m->simulation->scales);
    zq_free(m->simulation);
    zq_free(m->stored);
    zq_tokenizer_close(m->tokenizer);
    zq_modules_free(&m->modules);
    zq_compressed_free(m->compressed);
    zq_checkpoint_close(m->ckpt);
    zq_device_close(m->device);
    zq_arena_free(&m->arena);
    zq_free(m->dir);
    zq_free(m);
}

static const struct zq_tensor *bias_of(const struct zq_model *m, const char *module)
{
    char name[512];
    const int n = snprintf(name, sizeof name, "%s.bias", module);
    return n < 0 || (size_t)n >= sizeof name ? NULL : zq_checkpoint_find(m->ckpt, name);
}

static uint64_t module_bytes(const struct zq_model *m, size_t i, bool with_bias)
{
    const struct zq_stored *w = &m->stored[i];
    const struct zq_tensor *bias = with_bias ? bias_of(m, w->name) : NULL;
    return w->weight->n_bytes + (w->scale ? w->scale->n_bytes : 0) + (bias ? bias->n_bytes : 0);
}

/* Values of the model that a tensor holds: scales and shapes are none, packed words hold several. */
static uint64_t values_of(const struct zq_model *m, const struct zq_tensor *t)
{
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_stored *w = &m->stored[i];
        if (t == w->weight) return (uint64_t)w->n_rows * w->n_cols;
    }
    const size_t n = strlen(t->name), n_suffix = strlen(".weight_scale"); /* also the one that is repeated for a tied head */
    const bool scale = n > n_suffix && !strcmp(t->name + n - n_suffix, ".weight_scale");
    return zq_dtype_is_float(t->dtype) && !scale ? t->n_values : 0;
}

void zq_model_info_get(const zq_model *m, zq_model_info *out)
{
    const struct zq_config *c = &m->config;
    *out = (zq_model_info){
        .arch = c->arch->model_type, .kind = c->kind, .n_layers = c->n_layers, .width = c->width, .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .ffn_width = c->ffn_width, .vocab = c->vocab, .max_length = c->max_length,
        .n_outputs = c->kind == ZQ_ENCODER ? 0 : c->kind == ZQ_ENCODER_CLASSIFY ? c->n_labels : c->vocab,
        .n_modules = m->modules.n, .file_bytes = m->ckpt->n_bytes,
    };
    uint64_t block_values = 0, block_bytes = 0;
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_stored *w = &m->stored[i];
        if (w->storage != ZQ_STORED_FLOAT) out->quantized = true;
        if (!m->modules.items[i].in_block) continue;
        block_values += (uint64_t)w->n_rows * w->n_cols;
        block_bytes += module_bytes(m, i, false);
    }
    for (size_t t = 0; t < m->ckpt->n_tensors; t++) out->n_parameters += values_of(m, m->ckpt->tensors[t]);
    out->fp16_bytes = 2 * out->n_parameters;
    out->bits_per_weight = block_values ? 8 * (double)block_bytes / (double)block_values : 0;
}

zq_status zq_model_module(const zq_model *m, size_t index, zq_module_info *out, zq_error *err)
{
    *out = (zq_module_info){0};
    if (index >= m->modules.n) return zq_fail(err, ZQ_EINVAL, "%s has %zu modules, there is no number %zu", m->dir, m->modules.n, index);
    const struct zq_stored *w = &m->stored[index];
    *out = (zq_module_info){
        .name = m->modules.items[index].name, .n_rows = w->n_rows, .n_cols = w->n_cols, .in_block = m->modules.items[index].in_block,
        .bytes = module_bytes(m, index, true),
    };
    zq_spec_scheme_text(w->spec, out->scheme);
    zq_spec_group_text(w->spec, out->group);
    snprintf(out->dtype, sizeof out->dtype, "%s", zq_dtype_name(w->weight->dtype));
    return ZQ_OK;
}

const char *zq_model_label(const zq_model *m, size_t index)
{
    return index < m->config.n_labels ? m->labels[index] : NULL;
}

const zq_tokenizer *zq_model_tokenizer(const zq_model *m)
{
    return m->tokenizer;
}

bool zq_model_is_end(const zq_model *m, int32_t id)
{
    for (size_t i = 0; i < m->n_end_ids; i++)
        if (m->end_ids[i] == id) return true;
    return false;
}
