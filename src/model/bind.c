/* Binding: from tensor names to the fields of struct zq_model. Shapes come from the configuration; a missing or misshaped
 * tensor is an error that names it, a tensor nobody asked for is a note. */
#include "model/model.h"

#include "base/alloc.h"
#include "base/pattern.h"

#include <stdio.h>
#include <string.h>

struct binder {
    struct zq_model *m;
    struct zq_packing packing;
    bool *used; /* [ckpt->n_tensors], in the order of ckpt->tensors */
    zq_error *err;
    zq_status status; /* of the first failure; later calls do nothing */
};

static void mark_used(struct binder *b, const struct zq_tensor *t)
{
    for (size_t i = 0; t && i < b->m->ckpt->n_tensors; i++)
        if (b->m->ckpt->tensors[i] == t) b->used[i] = true;
}

/* A float tensor of n values as F32. optional: *out stays NULL when the file has none. */
static void read_vector(struct binder *b, float **out, const char *prefix, const char *pattern, size_t layer, const char *suffix, size_t n,
                        bool optional)
{
    if (b->status) return;
    char *name = zq_tensor_name(prefix, pattern, layer, suffix);
    if (!name) {
        b->status = zq_fail(b->err, ZQ_ENOMEM, "%s: no memory for tensor names", b->m->dir);
        return;
    }
    const struct zq_tensor *t = zq_checkpoint_find(b->m->ckpt, name);
    mark_used(b, t);
    if (!t && !optional) b->status = zq_fail(b->err, ZQ_EFORMAT, "%s: tensor %s is missing", b->m->dir, name);
    else if (t && !zq_dtype_is_float(t->dtype))
        b->status = zq_fail(b->err, ZQ_EFORMAT, "%s: tensor %s is %s, expected F32, F16 or BF16", b->m->dir, name, zq_dtype_name(t->dtype));
    else if (t && (t->n_dims != 1 || t->n_values != n))
        b->status = zq_fail(b->err, ZQ_EFORMAT, "%s: tensor %s has %zu values in %zu dimensions, expected [%zu]", b->m->dir, name, t->n_values,
                            t->n_dims, n);
    else if (t && !(*out = zq_alloc_array(n, sizeof(float))))
        b->status = zq_fail(b->err, ZQ_ENOMEM, "no memory for %s", name);
    else if (t) {
        zq_to_float(*out, t->bytes, t->dtype, n);
        b->status = zq_device_take(b->m->device, (void **)out, n * sizeof(float), b->err);
    }
    zq_free(name);
}

/* A norm under either of its historic spellings (gamma/beta in early BERT files). */
static void read_norm(struct binder *b, struct zq_norm_weights *out, const char *prefix, const char *pattern, size_t layer)
{
    const size_t n = b->m->config.width;
    const bool beta = !b->m->config.arch->rms;
    if (!pattern) return;
    read_vector(b, &out->gamma, prefix, pattern, layer, ".gamma", n, true);
    if (!out->gamma) read_vector(b, &out->gamma, prefix, pattern, layer, ".weight", n, false);
    if (beta) read_vector(b, &out->beta, prefix, pattern, layer, ".beta", n, true);
    if (beta && !out->beta) read_vector(b, &out->beta, prefix, pattern, layer, ".bias", n, false);
}

/* A tensor beside a module's weight, if the file has it. */
static void mark_beside(struct binder *b, const char *module, const char *suffix)
{
    if (b->status) return;
    char *name = zq_tensor_name(module, "", 0, suffix);
    if (!name) b->status = zq_fail(b->err, ZQ_ENOMEM, "%s: no memory for tensor names", b->m->dir);
    else mark_used(b, zq_checkpoint_find(b->m->ckpt, name));
    zq_free(name);
}

static void mark_stored(struct binder *b, const struct zq_stored *w)
{
    static const char *const suffixes[] = {".weight_shape", ".weight_zero_point", ".weight_g_idx"};
    mark_used(b, w->weight);
    mark_used(b, w->scale);
    for (size_t i = 0; i < ZQ_LEN(suffixes); i++) mark_beside(b, w->name, suffixes[i]);
}

/* The linear map of module i, with its bias if the file has one. */
static void bind_linear(struct binder *b, struct zq_linear *out, size_t i)
{
    const struct zq_stored *w = &b->m->stored[i];
    if (b->status) return;
    b->status = zq_linear_make(out, w, &b->packing, b->err);
    read_vector(b, &out->bias, w->name, "", 0, ".bias", w->n_rows, true);
}

static bool is_module(const struct zq_module *module, const char *end)
{
    const size_t n = strlen(module->name), m = strlen(end);
    return n >= m && !strcmp(module->name + n - m, end);
}

static void bind_module(struct binder *b, size_t i)
{
    struct zq_model *m = b->m;
    const struct zq_module *module = &m->modules.items[i];
    const struct zq_tensor_names *names = &m->config.arch->names;
    if (module->in_block) bind_linear(b, &m->blocks[module->layer].linear[module->role], i);
    else if (module->part == ZQ_PART_TOKENS) m->tokens = m->stored[i];
    else if (module->part == ZQ_PART_HEAD) bind_linear(b, &m->head, i);
    else if (names->project_in && is_module(module, names->project_in)) bind_linear(b, &m->project_in, i);
    else if (names->project_out && is_module(module, names->project_out)) bind_linear(b, &m->project_out, i);
    else if (is_module(module, "transform.dense")) bind_linear(b, &m->mlm_dense, i);
    else if (is_module(module, "classifier")) bind_linear(b, &m->classifier, i);
    else if (is_module(module, "pooler.dense") && m->config.kind == ZQ_ENCODER_CLASSIFY) bind_linear(b, &m->pooler, i);
}

/* Position or token type table [n_rows, n_cols]. */
static const struct zq_tensor *bind_table(struct binder *b, const char *pattern, size_t n_rows, size_t n_cols)
{
    if (b->status || !pattern) return NULL;
    char *name = zq_tensor_name(b->m->modules.prefix, pattern, 0, ".weight");
    const struct zq_tensor *t = name ? zq_checkpoint_find(b->m->ckpt, name) : NULL;
    mark_used(b, t);
    if (!name) b->status = zq_fail(b->err, ZQ_ENOMEM, "%s: no memory for tensor names", b->m->dir);
    else if (!t) b->status = zq_fail(b->err, ZQ_EFORMAT, "%s: tensor %s is missing", b->m->dir, name);
    else if (!zq_dtype_is_float(t->dtype) || t->n_dims != 2 || t->shape[0] != n_rows || t->shape[1] != n_cols)
        b->status = zq_fail(b->err, ZQ_EFORMAT, "%s: tensor %s is not a float tensor of shape [%zu, %zu]", b->m->dir, name, n_rows, n_cols);
    zq_free(name);
    return t;
}

static void require(struct binder *b, const struct zq_linear *l, const char *name)
{
    if (!b->status && !zq_linear_exists(l)) b->status = zq_fail(b->err, ZQ_EFORMAT, "%s: tensor %s.weight is missing", b->m->dir, name);
}

/* Copies of a tied head that files keep: its weight, or the scale that lets other readers find the codes of the embedding. */
static void mark_tied_head(struct binder *b)
{
    const struct zq_config *c = &b->m->config;
    const char *head = c->kind == ZQ_ENCODER_MLM ? "cls.predictions.decoder" : c->arch->head;
    static const char *const suffixes[] = {".weight", ".weight_scale", ".bias"};
    for (size_t i = 0; i < ZQ_LEN(suffixes) && c->tied && head && !b->status; i++) {
        char *name = zq_tensor_name("", head, 0, suffixes[i]);
        if (!name) b->status = zq_fail(b->err, ZQ_ENOMEM, "%s: no memory for tensor names", b->m->dir);
        else mark_used(b, zq_checkpoint_find(b->m->ckpt, name));
        zq_free(name);
    }
}

static void bind_heads(struct binder *b)
{
    struct zq_model *m = b->m;
    const struct zq_config *c = &m->config;
    if (c->kind == ZQ_ENCODER_CLASSIFY) {
        require(b, &m->pooler, "bert.pooler.dense");
        require(b, &m->classifier, "classifier");
        return;
    }
    if (c->kind == ZQ_ENCODER) return;
    if (c->tied && !b->status) b->status = zq_linear_make(&m->head, &m->tokens, &b->packing, b->err);
    if (c->tied && c->arch->head) mark_beside(b, c->arch->head, ".weight_scale"); /* the scale of a tied INT8 embedding, repeated for transformers */
    mark_tied_head(b);
    if (c->kind == ZQ_ENCODER_MLM) {
        require(b, &m->mlm_dense, "cls.predictions.transform.dense");
        read_norm(b, &m->mlm_norm, "cls.predictions.transform.", "LayerNorm", 0);
        require(b, &m->head, "cls.predictions.decoder");
        if (!m->head.bias) read_vector(b, &m->head.bias, "", "cls.predictions", 0, ".bias", c->vocab, true);
    } else {
        require(b, &m->head, c->arch->head);
        if (!m->head.bias) read_vector(b, &m->head.bias, "", c->arch->head, 0, ".bias", c->vocab, true);
    }
}

static void want(struct zq_forms *forms, const struct zq_linear *l)
{
    if (!zq_linear_exists(l)) return;
    if (l->spec.a_bits == 8) forms->q = true;
    else if (l->halves) forms->h = true;
    else forms->f = true;
}

/* With --math fast float maps of 16 bits multiply on a device's tensor cores, and what comes before leaves their input as they read it. */
static void choose_halves(struct zq_model *m, struct zq_linear *l)
{
    if (!m->device || m->math != ZQ_MATH_FAST || !zq_linear_exists(l) || l->spec.w_bits != 16 || l->w.dtype == ZQ_F32) return;
    if (m->halves == ZQ_F32) m->halves = l->w.dtype;
    l->halves = l->w.dtype == m->halves;
}

static void note_forms(struct zq_block *block)
{
    for (int r = ZQ_QKV; r <= ZQ_V; r++) want(&block->attention_in, &block->linear[r]);
    want(&block->o_in, &block->linear[ZQ_O]);
    want(&block->ffn_in, &block->linear[ZQ_GATE]);
    want(&block->ffn_in, &block->linear[ZQ_UP]);
    want(&block->down_in, &block->linear[ZQ_DOWN]);
}

/* Remarks on tensors that nothing asked for and that the row does not know. */
static void note_extras(struct binder *b, const zq_open_options *options)
{
    const struct zq_arch *arch = b->m->config.arch;
    const struct zq_checkpoint *ckpt = b->m->ckpt;
    struct zq_pattern *known[ZQ_LEN(arch->ignored)] = {0};
    for (size_t i = 0; i < ZQ_LEN(known) && arch->ignored[i] && !b->status; i++)
        b->status = zq_pattern_compile(&known[i], arch->ignored[i], true, b->err);
    for (size_t t = 0; t < ckpt->n_tensors && !b->status; t++) {
        bool ignore = b->used[t];
        for (size_t i = 0; i < ZQ_LEN(known) && known[i] && !ignore && !b->status; i++)
            b->status = zq_pattern_match(known[i], ckpt->tensors[t]->name, &ignore, b->err);
        if (ignore || b->status) continue;
        char sentence[600];
        snprintf(sentence, sizeof sentence, "tensor %.400s is not used by a %s model", ckpt->tensors[t]->name, arch->model_type);
        options->note(options->user, sentence);
    }
    for (size_t i = 0; i < ZQ_LEN(known); i++) zq_pattern_free(known[i]);
}

static void find_stored(struct binder *b)
{
    struct zq_model *m = b->m;
    m->stored = zq_alloc_array(m->modules.n, sizeof *m->stored);
    if (!m->stored) b->status = zq_fail(b->err, ZQ_ENOMEM, "%s: no memory for %zu modules", m->dir, m->modules.n);
    m->blas = true;
    for (size_t i = 0; i < m->modules.n && !b->status; i++) {
        b->status = zq_stored_find(&m->stored[i], &m->modules.items[i], m->ckpt, m->compressed, b->err);
        if (b->status) break;
        mark_stored(b, &m->stored[i]);
        if (m->stored[i].storage != ZQ_STORED_FLOAT) m->blas = false;
    }
    if (!b->status && m->device && m->device->plugin->simulated && m->blas)
        b->status = zq_fail(b->err, ZQ_EUNSUPPORTED, "%s is not quantized: the simulated device runs quantized models only", m->dir);
    if (!b->status && m->device && m->config.head_dim > ZQ_DEVICE_MAX_HEAD_DIM)
        b->status = zq_fail(b->err, ZQ_EUNSUPPORTED, "%s: heads of %zu dimensions, the limit of the device is %d", m->dir, m->config.head_dim,
                            (int)ZQ_DEVICE_MAX_HEAD_DIM);
    if (m->device || m->kernels.bf16) m->blas = false; /* BLAS has F32 products, a half or less of the peak of BF16 ones */
#ifndef ZQ_WITH_BLAS
    m->blas = false;
#endif
}

/* A table as floats on the device. */
static void send_table(struct binder *b, float **out, const struct zq_tensor *t)
{
    if (b->status || !t) return;
    *out = zq_alloc_array(t->n_values, sizeof(float));
    if (!*out) {
        b->status = zq_fail(b->err, ZQ_ENOMEM, "no memory for %s", t->name);
        return;
    }
    b->m->kernels.to_float(*out, t->bytes, t->dtype, t->n_values);
    b->status = zq_device_take(b->m->device, (void **)out, t->n_values * sizeof(float), b->err);
}

/* Embeddings are looked up where operators run. A tied head's matrix serves for them, too, if it is packed for float inputs. */
static void send_embeddings(struct binder *b)
{
    struct zq_model *m = b->m;
    struct zq_stored tokens = m->tokens;
    if (b->status || !m->device || !b->packing.pack) return;
    if (m->config.tied && zq_linear_exists(&m->head) && m->head.spec.a_bits != 8) m->lookup = &m->head;
    else {
        tokens.spec.a_bits = 16;
        b->status = zq_linear_make(&m->device_tokens, &tokens, &b->packing, b->err);
        m->lookup = &m->device_tokens;
    }
    send_table(b, &m->device_positions, m->positions);
    send_table(b, &m->device_types, m->types);
}

static void bind_all(struct binder *b)
{
    struct zq_model *m = b->m;
    const struct zq_config *c = &m->config;
    const struct zq_tensor_names *names = &c->arch->names;
    const char *prefix = m->modules.prefix;
    m->blocks = zq_alloc_array(c->n_layers, sizeof *m->blocks);
    if (!m->blocks && !b->status) b->status = zq_fail(b->err, ZQ_ENOMEM, "%s: no memory for %zu blocks", m->dir, c->n_layers);
    for (size_t i = 0; i < m->modules.n && !b->status; i++) bind_module(b, i);
    m->positions = bind_table(b, names->positions, c->max_length + (size_t)c->arch->position_offset, c->width);
    m->types = bind_table(b, names->types, c->n_types, c->width);
    read_norm(b, &m->embed_norm, prefix, names->embed_norm, 0);
    if (c->final_norm) read_norm(b, &m->final_norm, prefix, names->final_norm, 0);
    for (size_t l = 0; l < c->n_layers && !b->status; l++) {
        read_norm(b, &m->blocks[l].norm1, prefix, names->norm1, l);
        read_norm(b, &m->blocks[l].norm2, prefix, names->norm2, l);
        for (int r = 0; r < ZQ_N_LINEARS; r++) choose_halves(m, &m->blocks[l].linear[r]);
        note_forms(&m->blocks[l]);
    }
    bind_heads(b);
    choose_halves(m, &m->head);
    send_embeddings(b);
}

zq_status zq_model_bind(struct zq_model *m, const zq_open_options *options, zq_error *err)
{
    struct binder b = {.m = m, .err = err};
    b.used = zq_alloc_array(m->ckpt->n_tensors + 1, sizeof *b.used);
    if (!b.used) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for %zu tensors", m->dir, m->ckpt->n_tensors);
    find_stored(&b);
    b.packing = (struct zq_packing){&m->kernels, zq_thread_count(options->n_threads), !options->header_only, m->device, &m->arena, m->blas};
    if (!b.status) bind_all(&b);
    if (!b.status) b.status = zq_device_wait(m->device, err);
    if (!b.status && options->note) note_extras(&b, options);
    m->ready = !b.status && !options->header_only;
    zq_free(b.used);
    return b.status;
}
