/* config.json -> struct zq_config. transformers 4 spells rotary settings rope_theta, rope_scaling, rotary_pct; transformers 5
 * puts them all into rope_parameters: both are looked up, the newer place first. */
#include "model/config.h"

#include <stdio.h>
#include <string.h>

/* Sizes above these are damaged files, not models; they keep products of sizes far from overflow. */
enum { MAX_LAYERS = 4096, MAX_HEADS = 4096, MAX_WIDTH = 1 << 17, MAX_VOCAB = 1 << 24, MAX_LENGTH = 1 << 24 };

static const struct {
    const char *name;
    enum zq_activation activation;
} activations[] = {
    {"gelu", ZQ_ACT_GELU},           {"gelu_new", ZQ_ACT_GELU_TANH}, {"gelu_pytorch_tanh", ZQ_ACT_GELU_TANH}, {"gelu_fast", ZQ_ACT_GELU_TANH},
    {"quick_gelu", ZQ_ACT_QUICK_GELU}, {"relu", ZQ_ACT_RELU},        {"silu", ZQ_ACT_SILU},                   {"swish", ZQ_ACT_SILU},
};

struct reader {
    const json_t *config;
    const char *name;
    zq_error *err;
    zq_status status; /* of the first failure; later reads do nothing */
};

/* A required (fallback 0) or optional size in [1, max]. key may be NULL: the fallback. */
static size_t read_size(struct reader *r, const char *key, int64_t max, size_t fallback)
{
    int64_t v = (int64_t)fallback;
    if (r->status || !key) return fallback;
    r->status = zq_json_int(r->config, key, 1, max, v, &v, r->name, r->err);
    if (!r->status && !v) r->status = zq_fail(r->err, ZQ_EFORMAT, "%s: \"%s\" is missing", r->name, key);
    return (size_t)v;
}

static bool read_flag(struct reader *r, const char *key, bool fallback)
{
    bool v = fallback;
    if (!r->status) r->status = zq_json_bool(r->config, key, fallback, &v, r->name, r->err);
    return v;
}

static double read_real(struct reader *r, const json_t *from, const char *key, double fallback)
{
    double v = fallback;
    if (!r->status && key) r->status = zq_json_real(from, key, fallback, &v, r->name, r->err);
    return v;
}

static const char *read_text(struct reader *r, const json_t *from, const char *key, const char *fallback)
{
    const char *v = fallback;
    if (!r->status && key) r->status = zq_json_string(from, key, fallback, &v, r->name, r->err);
    return r->status ? fallback : v;
}

static void fail(struct reader *r, zq_status status, const char *what, const char *value)
{
    if (!r->status) r->status = zq_fail(r->err, status, "%s: %s \"%s\" is not supported", r->name, what, value);
}

static void read_activation(struct reader *r, struct zq_config *c)
{
    const char *name = read_text(r, r->config, c->arch->keys.activation, c->arch->default_activation);
    for (size_t i = 0; i < ZQ_LEN(activations); i++) {
        if (strcmp(name, activations[i].name)) continue;
        c->activation = activations[i].activation;
        return;
    }
    fail(r, ZQ_EUNSUPPORTED, "activation", name);
}

static void read_rope_scaling(struct reader *r, struct zq_config *c, const json_t *s)
{
    const char *type = read_text(r, s, "rope_type", read_text(r, s, "type", "default"));
    if (!strcmp(type, "default")) return;
    c->rope_factor = read_real(r, s, "factor", 0);
    if (!r->status && !(c->rope_factor >= 1)) r->status = zq_fail(r->err, ZQ_EFORMAT, "%s: rope scaling needs a \"factor\" >= 1", r->name);
    if (!strcmp(type, "linear")) {
        c->rope = ZQ_ROPE_LINEAR;
    } else if (!strcmp(type, "llama3")) {
        c->rope = ZQ_ROPE_LLAMA3;
        c->rope_low = read_real(r, s, "low_freq_factor", 1);
        c->rope_high = read_real(r, s, "high_freq_factor", 4);
        const double original = read_real(r, s, "original_max_position_embeddings", 8192);
        if (!r->status && !(c->rope_high > c->rope_low && c->rope_low > 0 && original >= 1 && original <= MAX_LENGTH))
            r->status = zq_fail(r->err, ZQ_EFORMAT, "%s: llama3 rope scaling is out of range", r->name);
        c->rope_original = r->status ? 0 : (size_t)original;
    } else {
        fail(r, ZQ_EUNSUPPORTED, "rope type", type);
    }
}

static void read_rotary(struct reader *r, struct zq_config *c)
{
    if (c->arch->positions == ZQ_POS_LEARNED) return;
    const json_t *v5 = json_object_get(r->config, "rope_parameters"), *v4 = json_object_get(r->config, "rope_scaling");
    if (json_is_object(v5) && json_is_object(json_object_get(v5, "full_attention"))) v5 = json_object_get(v5, "full_attention");
    c->theta = read_real(r, r->config, "rope_theta", read_real(r, r->config, "rotary_emb_base", c->arch->default_theta));
    double part =
        read_real(r, r->config, "partial_rotary_factor", read_real(r, r->config, "rotary_pct", c->arch->qkv_rows == ZQ_QKV_BY_HEAD ? 0.25 : 1));
    if (json_is_object(v5)) {
        c->theta = read_real(r, v5, "rope_theta", c->theta);
        part = read_real(r, v5, "partial_rotary_factor", part);
        read_rope_scaling(r, c, v5);
    } else if (json_is_object(v4)) {
        read_rope_scaling(r, c, v4);
    }
    if (!r->status && !(part > 0 && part <= 1 && c->theta > 0))
        r->status = zq_fail(r->err, ZQ_EFORMAT, "%s: rotary settings are out of range", r->name);
    if (r->status) return;
    c->n_rotated = (size_t)((double)c->head_dim * part);
    c->n_rotated = read_size(r, c->arch->keys.rotary_dim, (int64_t)c->head_dim, c->n_rotated);
    if (!r->status && (!c->n_rotated || c->n_rotated % 2))
        r->status =
            zq_fail(r->err, ZQ_EFORMAT, "%s: %zu rotary dimensions of a head of %zu, expected an even number", r->name, c->n_rotated, c->head_dim);
}

static void read_kind(struct reader *r, struct zq_config *c)
{
    const char *class_name = json_string_value(json_array_get(json_object_get(r->config, "architectures"), 0));
    c->kind = c->arch->causal ? ZQ_DECODER : ZQ_ENCODER;
    if (c->arch->causal) {
        if (class_name && strstr(class_name, "ForSequenceClassification")) fail(r, ZQ_EUNSUPPORTED, "a classifier on a decoder,", class_name);
        return;
    }
    if (!class_name) return;
    if (strstr(class_name, "ForMaskedLM") || strstr(class_name, "ForPreTraining")) c->kind = ZQ_ENCODER_MLM;
    else if (strstr(class_name, "ForSequenceClassification")) c->kind = ZQ_ENCODER_CLASSIFY;
    else if (strstr(class_name, "For")) fail(r, ZQ_EUNSUPPORTED, "model class", class_name);
    if (c->kind != ZQ_ENCODER_CLASSIFY) return;
    const size_t named = json_object_size(json_object_get(r->config, "id2label"));
    c->n_labels = read_size(r, "num_labels", 1 << 16, named ? named : 2);
}

static void read_family_switches(struct reader *r, struct zq_config *c)
{
    const struct zq_arch *a = c->arch;
    c->norm = a->norm;
    c->final_norm = a->names.final_norm != NULL;
    if (!strcmp(a->model_type, "gpt_neox") && !read_flag(r, "use_parallel_residual", true)) c->norm = ZQ_NORM_PRE;
    if (!strcmp(a->model_type, "opt")) {
        if (!read_flag(r, "do_layer_norm_before", true)) c->norm = ZQ_NORM_POST;
        if (c->norm == ZQ_NORM_POST || read_flag(r, "_remove_final_layer_norm", false)) c->final_norm = false;
        c->embed_width = read_size(r, "word_embed_proj_dim", MAX_WIDTH, c->width);
        if (!read_flag(r, "layer_norm_elementwise_affine", true)) fail(r, ZQ_EUNSUPPORTED, "layer_norm_elementwise_affine", "false");
    }
    if (a->names.types) c->n_types = read_size(r, "type_vocab_size", 256, 2);
    if (!strcmp(a->model_type, "bert")) {
        const char *position = read_text(r, r->config, "position_embedding_type", "absolute");
        if (strcmp(position, "absolute")) fail(r, ZQ_EUNSUPPORTED, "position_embedding_type", position);
        if (read_flag(r, "is_decoder", false)) fail(r, ZQ_EUNSUPPORTED, "is_decoder", "true");
    }
    if (!strcmp(a->model_type, "gpt2")) {
        if (read_flag(r, "scale_attn_by_inverse_layer_idx", false)) fail(r, ZQ_EUNSUPPORTED, "scale_attn_by_inverse_layer_idx", "true");
        if (!read_flag(r, "scale_attn_weights", true)) fail(r, ZQ_EUNSUPPORTED, "scale_attn_weights", "false");
    }
    if (!strcmp(a->model_type, "qwen2") && read_flag(r, "use_sliding_window", false)) fail(r, ZQ_EUNSUPPORTED, "use_sliding_window", "true");
    if (a->sliding_window) {
        int64_t window = 0;
        if (!r->status) r->status = zq_json_int(r->config, "sliding_window", 1, MAX_LENGTH, 0, &window, r->name, r->err);
        c->window = (size_t)window;
    }
}

static void check_heads(struct reader *r, const struct zq_config *c)
{
    if (r->status) return;
    if (c->n_heads % c->n_kv_heads)
        r->status = zq_fail(r->err, ZQ_EFORMAT, "%s: %zu heads cannot share %zu key/value heads", r->name, c->n_heads, c->n_kv_heads);
    else if (c->head_dim * c->n_heads > MAX_WIDTH)
        r->status = zq_fail(r->err, ZQ_EFORMAT, "%s: %zu heads of %zu dimensions are more than %d", r->name, c->n_heads, c->head_dim, MAX_WIDTH);
}

zq_status zq_config_read(struct zq_config *out, const json_t *config, const char *name, zq_error *err)
{
    *out = (struct zq_config){0};
    struct reader r = {config, name, err, ZQ_OK};
    if (!json_is_object(config)) return zq_fail(err, ZQ_EFORMAT, "%s is not a JSON object", name);
    const char *model_type = read_text(&r, config, "model_type", NULL);
    if (r.status) return r.status;
    if (!model_type) return zq_fail(err, ZQ_EFORMAT, "%s: \"model_type\" is missing", name);
    struct zq_config c = {.arch = zq_arch_find(model_type)};
    if (!c.arch) {
        char known[256];
        size_t used = 0;
        for (const struct zq_arch *a = zq_archs; a->model_type && used < sizeof known; a++)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", a->model_type);
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: model_type \"%s\" is not supported, only %s are", name, model_type, known);
    }
    const struct zq_config_keys *k = &c.arch->keys;
    c.width = read_size(&r, k->width, MAX_WIDTH, 0);
    c.embed_width = c.width;
    c.n_layers = read_size(&r, k->n_layers, MAX_LAYERS, 0);
    c.n_heads = read_size(&r, k->n_heads, MAX_HEADS, 0);
    c.n_kv_heads = read_size(&r, k->n_kv_heads, MAX_HEADS, c.n_heads);
    if (!r.status && !json_is_integer(json_object_get(config, k->head_dim ? k->head_dim : "")) && c.width % c.n_heads)
        r.status = zq_fail(err, ZQ_EFORMAT, "%s: width %zu is no multiple of %zu heads", name, c.width, c.n_heads);
    c.head_dim = read_size(&r, k->head_dim, MAX_WIDTH, r.status ? 1 : c.width / c.n_heads);
    c.ffn_width = read_size(&r, k->ffn_width, 1 << 20, 4 * c.width);
    c.max_length = read_size(&r, k->max_length, MAX_LENGTH, 0);
    c.vocab = read_size(&r, k->vocab, MAX_VOCAB, 0);
    c.norm_eps = read_real(&r, config, k->norm_eps, c.arch->default_norm_eps);
    c.gated = c.arch->names.linear[ZQ_GATE] != NULL;
    c.tied = read_flag(&r, "tie_word_embeddings", c.arch->tied_by_default);
    const char *dtype = read_text(&r, config, "dtype", read_text(&r, config, "torch_dtype", "float32"));
    if (!r.status) c.dtype = !strcmp(dtype, "float16") ? ZQ_F16 : !strcmp(dtype, "bfloat16") ? ZQ_BF16 : ZQ_F32;
    read_activation(&r, &c);
    read_kind(&r, &c);
    read_family_switches(&r, &c);
    check_heads(&r, &c);
    read_rotary(&r, &c);
    if (!r.status) *out = c;
    return r.status;
}
