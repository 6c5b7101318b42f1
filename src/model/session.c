/* Sessions: sizing and carving their memory, checking the inputs of a step, and the step itself. */
#include "model/session.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "base/carve.h"
#include "model/simulate.h"

#include <string.h>

static struct zq_rows carve_rows(const struct zq_session *s, struct zq_carver *c, size_t n, size_t width, bool codes)
{
    struct zq_rows r = {.ld = width, .h_dtype = s->model->halves};
    if (s->model->halves != ZQ_F32) r.h = zq_carve(c, n * width, sizeof *r.h);
    r.f = zq_carve_floats(c, n, width);
    if (codes) {
        r.q = zq_carve(c, n * zq_codes_ld(s->ops.plugin, width), 1);
        r.scale = zq_carve(c, n, sizeof(float));
    }
    return r;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What any block wants of its inputs: which INT8 buffers must exist. */
static struct zq_forms all_forms(const struct zq_model *m, size_t offset)
{
    struct zq_forms all = {0};
    for (size_t l = 0; l < m->config.n_layers; l++) {
        struct zq_forms f;
        memcpy(&f, (const uint8_t *)&m->blocks[l] + offset, sizeof f);
        all.f |= f.f;
        all.q |= f.q;
    }
    return all;
}

static size_t thread_floats(const struct zq_model *m)
{
    const struct zq_config *c = &m->config;
    const struct zq_heads heads = {.n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim};
    size_t n = zq_attention_thread_floats(&m->kernels, &heads);
    for (size_t l = 0; l < c->n_layers; l++)
        for (int r = 0; r < ZQ_N_LINEARS; r++)
            if (zq_linear_exists(&m->blocks[l].linear[r])) n = max_size(n, zq_linear_thread_floats(&m->blocks[l].linear[r]));
    const struct zq_linear *const around[] = {&m->project_in, &m->project_out, &m->head, &m->pooler, &m->classifier, &m->mlm_dense};
    for (size_t i = 0; i < ZQ_LEN(around); i++)
        if (zq_linear_exists(around[i])) n = max_size(n, zq_linear_thread_floats(around[i]));
    return (n + 15) / 16 * 16;
}

/* c: where operators run; here: what this processor reads and writes. They are the same without a device. */
static void carve_activations(struct zq_session *s, struct zq_carver *c, struct zq_carver *here)
{
    const struct zq_model *m = s->model;
    const struct zq_config *g = &m->config;
    const size_t T = s->max_batch_tokens, R = s->max_logit_rows, D = g->width;
    const size_t row_bytes = (g->kind == ZQ_ENCODER_CLASSIFY ? g->n_labels : g->vocab) * sizeof(float);
    const bool attention_q = all_forms(m, offsetof(struct zq_block, attention_in)).q, ffn_q = all_forms(m, offsetof(struct zq_block, ffn_in)).q;
    const bool post = g->norm == ZQ_NORM_POST;
    s->x = carve_rows(s, c, T, D, post && (attention_q || ffn_q));
    if (zq_linear_exists(&m->project_in)) s->embedded = zq_carve_floats(c, T, g->embed_width);
    if (!post) s->h = carve_rows(s, c, T, D, attention_q || ffn_q);
    if (g->norm == ZQ_NORM_PARALLEL && m->blocks[0].norm2.gamma) s->h2 = carve_rows(s, c, T, D, ffn_q);
    s->ld_qkv = (g->n_heads + 2 * g->n_kv_heads) * g->head_dim;
    s->qkv = zq_carve_floats(c, T, s->ld_qkv);
    s->attended = carve_rows(s, c, T, g->n_heads * g->head_dim, all_forms(m, offsetof(struct zq_block, o_in)).q);
    s->ffn = carve_rows(s, c, T, g->ffn_width, all_forms(m, offsetof(struct zq_block, down_in)).q);
    if (g->gated) s->gate = zq_carve_floats(c, T, g->ffn_width);
    s->selected = carve_rows(s, c, R, D, true);
    s->transformed = carve_rows(s, c, R, D, true);
    if (zq_linear_exists(&m->project_out)) s->projected = zq_carve_floats(c, R, g->embed_width);
    if (g->kind != ZQ_ENCODER) s->logits = zq_carve(c, R, row_bytes);
    s->host_logits = s->logits;
    s->host_x = NULL;
    if (c != here) {
        if (g->kind != ZQ_ENCODER) s->host_logits = zq_carve(here, R, row_bytes);
        if (!g->arch->causal) s->host_x = zq_carve_floats(here, T, D);
    }
    if (s->keep_hidden) s->hidden = zq_carve_floats(here, (g->n_layers + 1) * T, D);
    s->token_rows = zq_carve(here, T, sizeof *s->token_rows);
    if (m->simulation) s->simulated = zq_carve_floats(here, T, m->simulation->widest);
}

/* Caches on a device are arrays over the positions of all sequences and layers. */
static void carve_device_step(struct zq_session *s, struct zq_carver *c, struct zq_carver *here)
{
    const struct zq_config *g = &s->model->config;
    struct zq_device_step *d = &s->there;
    size_t values, scales;
    d->cache.dtype = zq_kept_dtype(s);
    if (!zq_mul(s->kv_capacity, g->n_kv_heads * g->head_dim * zq_dtype_bytes(d->cache.dtype), &values) ||
        !zq_mul(s->kv_capacity, d->cache.dtype == ZQ_I8 ? g->n_kv_heads : 0, &scales)) {
        c->overflow = true;
        return;
    }
    d->cache.k = zq_carve(c, s->n_kv, values);
    d->cache.v = zq_carve(c, s->n_kv, values);
    d->cache.k_scale = zq_carve_floats(c, s->n_kv, scales);
    d->cache.v_scale = zq_carve_floats(c, s->n_kv, scales);
    const size_t step_bytes = s->max_batch_tokens * sizeof(struct zq_device_token) + s->max_logit_rows * sizeof(int32_t);
    d->step = zq_carve(c, step_bytes, 1);
    d->host_step = zq_carve(here, step_bytes, 1);
    d->arrived = zq_carve(c, s->max_batch_tokens + ZQ_DEVICE_SPLIT_BLOCKS, sizeof *d->arrived);
    d->joined = d->arrived ? d->arrived + s->max_batch_tokens : NULL;
    const struct zq_heads heads = {.n_heads = g->n_heads, .n_kv_heads = g->n_kv_heads, .head_dim = g->head_dim};
    d->parts = zq_carve_floats(c, s->model->math == ZQ_MATH_FAST, zq_device_parts(&heads));
    if (!g->arch->causal) return;
    d->choices = zq_carve(c, s->n_sequences, sizeof *d->choices);
    d->weights = zq_carve(c, s->n_sequences, g->vocab * sizeof *d->weights);
    d->ids = zq_carve(c, s->n_sequences, sizeof *d->ids);
    d->host_choices = zq_carve(here, s->n_sequences, sizeof *d->host_choices);
}

static void carve_state(struct zq_session *s, struct zq_carver *c, struct zq_carver *here)
{
    const struct zq_config *g = &s->model->config;
    const bool causal = g->arch->causal;
    s->kv_capacity = causal ? (s->max_length + 15) / 16 * 16 : s->max_batch_tokens + 16 * s->n_sequences;
    s->n_kv = causal ? s->n_sequences * g->n_layers : 1;
    if (!zq_mul(s->kv_capacity, zq_kept_bytes(s), &s->kv_bytes)) c->overflow = true;
    if (s->ops.plugin) carve_device_step(s, c, here);
    else s->kv = zq_carve(c, s->n_kv, s->kv_bytes);
    s->cos = zq_carve_floats(c, s->max_length, g->n_rotated / 2);
    s->sin = zq_carve_floats(c, s->max_length, g->n_rotated / 2);
    s->lengths = zq_carve(here, s->n_sequences, sizeof *s->lengths);
    s->spans = zq_carve(here, s->n_sequences, sizeof *s->spans);
    s->slots = zq_carve(here, s->n_sequences, sizeof *s->slots);
    s->groups = zq_carve(here, s->n_sequences + 1, sizeof *s->groups);
    s->tiles = zq_carve(here, s->max_batch_tokens / 16 + 2 * s->n_sequences, sizeof *s->tiles);
    s->ops.thread_floats = s->ops.plugin ? 0 : thread_floats(s->model);
    s->ops.scratch = zq_carve_floats(here, (size_t)zq_team_size(s->ops.team), s->ops.thread_floats);
}

static zq_status resolve(struct zq_session *s, const zq_session_options *o, zq_error *err)
{
    enum { MAX_SEQUENCES = 1 << 16, DEFAULT_BATCH = 512 };
    const struct zq_config *g = &s->model->config;
    if (o->n_sequences > MAX_SEQUENCES) return zq_fail(err, ZQ_ELIMIT, "%zu sequences, the limit is %d", o->n_sequences, (int)MAX_SEQUENCES);
    if (o->max_length > g->max_length)
        return zq_fail(err, ZQ_ELIMIT, "max_length %zu is above the model's limit of %zu", o->max_length, g->max_length);
    s->n_sequences = o->n_sequences ? o->n_sequences : 1;
    s->max_length = o->max_length ? o->max_length : g->max_length;
    s->max_batch_tokens = o->max_batch_tokens ? o->max_batch_tokens : s->max_length < DEFAULT_BATCH ? s->max_length : DEFAULT_BATCH;
    if (!g->arch->causal) s->max_batch_tokens = max_size(s->max_batch_tokens, s->max_length);
    if (s->max_batch_tokens > s->n_sequences * s->max_length) s->max_batch_tokens = s->n_sequences * s->max_length;
    s->max_logit_rows = max_size(o->max_logit_rows, s->n_sequences);
    s->keep_hidden = o->keep_hidden;
    /* attention reads keys and values in as few bits */
    const bool halves = s->model->math == ZQ_MATH_FAST && (s->model->device || s->model->kernels.bf16_attention);
    s->kv_format = !g->arch->causal ? halves ? ZQ_KV_F16 : ZQ_KV_F32 : o->kv ? o->kv : s->model->kv;
    s->ops = (struct zq_ops){.kernels = &s->model->kernels, .team = zq_team_create(zq_thread_count(o->n_threads))};
    if (!s->ops.team) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for threads", s->model->dir);
    const struct zq_device *device = s->model->device;
    char why[256];
    if (!device) return ZQ_OK;
    s->ops.plugin = device->plugin;
    if (device->plugin->open(&s->ops.queue, device->index, 0, why, sizeof why)) return zq_fail(err, ZQ_EUNSUPPORTED, "%s", why);
    device->plugin->tuned(s->ops.queue, device->tuning.items, device->tuning.n);
    return ZQ_OK;
}

/* Keys and values are read as weights are: in huge pages. A large cache is mostly room for tokens that may never come; it gets pages as
 * they do. */
static void *here_memory(size_t n_bytes)
{
    const size_t most = (size_t)256 << 20;
    return n_bytes <= most ? zq_alloc_pages(n_bytes) : zq_alloc(n_bytes);
}

static zq_status take_memory(struct zq_session *s, zq_error *err)
{
    const struct zq_ops *ops = &s->ops;
    struct zq_carver c = {0}, apart = {0}, *here = ops->plugin ? &apart : &c;
    carve_activations(s, &c, here);
    carve_state(s, &c, here);
    const bool overflow = c.overflow || here->overflow;
    s->memory = overflow ? NULL : ops->plugin ? ops->plugin->alloc(ops->queue, c.used) : here_memory(c.used);
    if (ops->plugin && s->memory) s->host_memory = zq_alloc(apart.used);
    s->n_bytes = c.used + apart.used;
    if (!s->memory || (ops->plugin && !s->host_memory))
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a session of %zu MiB, of which %zu MiB are keys and values in %s", s->model->dir,
                       s->n_bytes >> 20, s->n_kv * s->kv_bytes >> 20, zq_kv_name(s->kv_format));
    c = (struct zq_carver){.base = s->memory};
    apart = (struct zq_carver){.base = s->host_memory};
    carve_activations(s, &c, here);
    carve_state(s, &c, here);
    return ZQ_OK;
}

/* Rotary tables, computed here wherever they are read. */
static zq_status make_tables(struct zq_session *s, zq_error *err)
{
    const struct zq_config *c = &s->model->config;
    const size_t n = s->max_length * (c->n_rotated / 2);
    if (!n) return ZQ_OK;
    if (!s->ops.plugin) {
        zq_rotary_tables(c, s->max_length, s->cos, s->sin);
        return ZQ_OK;
    }
    float *tables = zq_alloc_array(2 * n, sizeof *tables);
    if (!tables) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for rotary tables", s->model->dir);
    zq_rotary_tables(c, s->max_length, tables, tables + n);
    s->ops.plugin->upload(s->ops.queue, s->cos, tables, n * sizeof *tables);
    s->ops.plugin->upload(s->ops.queue, s->sin, tables + n, n * sizeof *tables);
    zq_free(tables);
    return ZQ_OK;
}

/* Counters on a device begin at 0 and return to it. */
static zq_status clear_counters(struct zq_session *s, zq_error *err)
{
    if (!s->ops.plugin) return ZQ_OK;
    const size_t n_bytes = (s->max_batch_tokens + ZQ_DEVICE_SPLIT_BLOCKS) * sizeof *s->there.arrived;
    void *zeros = zq_alloc_zero(n_bytes);
    if (!zeros) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for counters", s->model->dir);
    s->ops.plugin->upload(s->ops.queue, s->there.arrived, zeros, n_bytes);
    zq_free(zeros);
    return ZQ_OK;
}

zq_status zq_session_create(zq_session **out, const zq_model *model, const zq_session_options *options, zq_error *err)
{
    static const zq_session_options defaults = {0};
    *out = NULL;
    if (!model->ready) return zq_fail(err, ZQ_EINVAL, "%s was opened with header_only: it cannot run", model->dir);
    zq_session *s = zq_alloc_zero(sizeof *s);
    if (!s) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a session", model->dir);
    s->model = model;
    zq_status st = resolve(s, options ? options : &defaults, err);
    if (!st) st = take_memory(s, err);
    if (!st) st = make_tables(s, err);
    if (!st) st = clear_counters(s, err);
    if (st) {
        zq_session_close(s);
        return st;
    }
    memset(s->lengths, 0, s->n_sequences * sizeof *s->lengths);
    *out = s;
    return ZQ_OK;
}

void zq_session_close(zq_session *s)
{
    if (!s) return;
    zq_team_free(s->ops.team);
    if (!s->ops.plugin) zq_free(s->memory);
    else if (s->ops.queue) {
        zq_device_step_close(s);
        s->ops.plugin->free(s->ops.queue, s->memory);
        s->ops.plugin->close(s->ops.queue);
    }
    zq_free(s->host_memory);
    zq_free(s);
}

static zq_status check_ids(const struct zq_config *c, const zq_input *in, size_t index, zq_error *err)
{
    for (size_t t = 0; t < in->n; t++) {
        if (in->ids[t] < 0 || (size_t)in->ids[t] >= c->vocab)
            return zq_fail(err, ZQ_EINVAL, "input %zu: id %d at %zu is outside the vocabulary of %zu", index, in->ids[t], t, c->vocab);
        if (in->types && in->types[t] && in->types[t] >= c->n_types)
            return zq_fail(err, ZQ_EINVAL, "input %zu: token type %d at %zu, the model has %zu", index, in->types[t], t, c->n_types);
    }
    return ZQ_OK;
}

static zq_status check_inputs(struct zq_session *s, const zq_input *inputs, size_t n_inputs, zq_error *err)
{
    const struct zq_config *c = &s->model->config;
    size_t tokens = 0, rows = 0;
    if (!n_inputs || n_inputs > s->n_sequences) return zq_fail(err, ZQ_EINVAL, "%zu inputs in a step, expected 1 to %zu", n_inputs, s->n_sequences);
    for (size_t i = 0; i < n_inputs; i++) {
        const zq_input *in = &inputs[i];
        if (in->sequence >= s->n_sequences)
            return zq_fail(err, ZQ_EINVAL, "input %zu: slot %zu, the session has %zu", i, in->sequence, s->n_sequences);
        for (size_t j = 0; j < i; j++)
            if (inputs[j].sequence == in->sequence) return zq_fail(err, ZQ_EINVAL, "inputs %zu and %zu name the same slot %zu", j, i, in->sequence);
        if (!in->n) return zq_fail(err, ZQ_EINVAL, "input %zu is empty", i);
        const size_t held = c->arch->causal ? s->lengths[in->sequence] : 0;
        if (in->n > s->max_length - held)
            return zq_fail(err, ZQ_ELIMIT, "input %zu: %zu tokens after %zu are above the limit of %zu", i, in->n, held, s->max_length);
        zq_status st = check_ids(c, in, i, err);
        if (st) return st;
        tokens += in->n;
        rows += in->all_logits && c->kind != ZQ_ENCODER_CLASSIFY ? in->n : 1;
    }
    if (tokens > s->max_batch_tokens)
        return zq_fail(err, ZQ_ELIMIT, "%zu tokens in a step, the session was made for %zu", tokens, s->max_batch_tokens);
    if (rows > s->max_logit_rows && c->kind != ZQ_ENCODER)
        return zq_fail(err, ZQ_ELIMIT, "%zu rows of logits in a step, the session was made for %zu", rows, s->max_logit_rows);
    return ZQ_OK;
}

void zq_plan_step(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    s->n_tokens = s->n_tiles = 0;
    for (size_t i = 0; i < n_inputs; i++) {
        const size_t n = inputs[i].n, held = s->model->config.arch->causal ? s->lengths[inputs[i].sequence] : 0;
        s->slots[i] = inputs[i].sequence;
        s->spans[i] = (struct zq_span){.row = s->n_tokens, .n_tokens = n, .position = held, .n_keys = held + n, .first_tile = s->n_tiles};
        for (size_t t = 0; t < n;) {
            const size_t room = 16 - (held + t) % 16, end = n - t < room ? n : t + room;
            s->tiles[s->n_tiles++] = (struct zq_tile){.sequence = i, .begin = t, .end = end};
            t = end;
        }
        s->spans[i].n_tiles = s->n_tiles - s->spans[i].first_tile;
        s->n_tokens += n;
    }
}

void zq_session_fetch(const struct zq_session *s, float *to, const float *from, size_t n)
{
    if (s->ops.plugin) s->ops.plugin->download(s->ops.queue, to, from, n * sizeof *to);
    else memcpy(to, from, n * sizeof *to);
}

void zq_blocks_forward(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_config *c = &s->model->config;
    zq_embed_inputs(s, inputs, n_inputs);
    for (size_t layer = 0; layer < c->n_layers; layer++) {
        if (s->keep_hidden)
            zq_session_fetch(s, s->hidden + layer * s->max_batch_tokens * c->width, s->x.f, s->n_tokens * c->width);
        zq_block_forward(s, layer, n_inputs);
    }
}

void zq_step_forward(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    zq_blocks_forward(s, inputs, n_inputs);
    zq_heads_forward(s, inputs, n_inputs);
}

/* Whether the planned step goes through the blocks as one. */
static bool goes_together(const struct zq_session *s, size_t n_inputs)
{
    return s->model->config.arch->causal || s->keep_hidden || n_inputs == 1;
}

/* Runs the step on the device, brings back what callers read (logits: when they are asked for), and says what went wrong, if something
 * did. */
static const char *step_on_device(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_config *c = &s->model->config;
    const size_t n_tokens = s->n_tokens;
    zq_device_step_send(s, inputs, n_inputs);
    const size_t padding = s->n_tokens - n_tokens;
    zq_device_step_run(s, inputs, n_inputs);
    s->n_tokens = n_tokens;
    s->n_logit_rows -= padding;
    if (s->host_x) zq_session_fetch(s, s->host_x, s->x.f, s->n_tokens * c->width);
    return s->ops.plugin->finish(s->ops.queue);
}

zq_status zq_session_step(zq_session *s, const zq_input *inputs, size_t n_inputs, zq_error *err)
{
    const char *failure = NULL;
    zq_status st = check_inputs(s, inputs, n_inputs, err);
    if (st) return st;
    zq_alloc_freeze();
    zq_plan_step(s, inputs, n_inputs);
    if (s->model->device) failure = step_on_device(s, inputs, n_inputs);
    else if (goes_together(s, n_inputs)) zq_step_forward(s, inputs, n_inputs);
    else zq_encode(s, inputs, n_inputs);
    if (failure) {
        zq_alloc_thaw();
        s->n_tokens = s->n_logit_rows = 0;
        return zq_fail(err, ZQ_EIO, "%s: %s", s->model->dir, failure);
    }
    for (size_t i = 0; i < n_inputs; i++) s->lengths[s->slots[i]] = s->spans[i].n_keys;
    zq_alloc_thaw();
    return ZQ_OK;
}

void zq_session_memory_get(const zq_session *s, zq_session_memory *out)
{
    *out = (zq_session_memory){s->kv_format, s->n_kv * s->kv_bytes, s->n_bytes};
}

static size_t n_outputs(const struct zq_config *c)
{
    return c->kind == ZQ_ENCODER_CLASSIFY ? c->n_labels : c->vocab;
}

const float *zq_session_logits(const zq_session *s, size_t *n_rows)
{
    if (n_rows) *n_rows = s->n_logit_rows;
    if (s->model->device && s->n_logit_rows && !s->there.logits_fetched) {
        zq_session_fetch(s, s->host_logits, s->logits, s->n_logit_rows * n_outputs(&s->model->config));
        ((zq_session *)(uintptr_t)s)->there.logits_fetched = true; /* seen from outside, nothing has changed */
    }
    return s->n_logit_rows ? s->host_logits : NULL;
}

const float *zq_session_hidden(const zq_session *s, size_t layer, size_t *n_tokens)
{
    const struct zq_config *c = &s->model->config;
    if (n_tokens) *n_tokens = s->n_tokens;
    if (layer > c->n_layers || !s->n_tokens) return NULL;
    if (s->keep_hidden) return s->hidden + layer * s->max_batch_tokens * c->width;
    return layer == c->n_layers && !c->arch->causal ? s->host_x ? s->host_x : s->x.f : NULL;
}

size_t zq_session_length(const zq_session *s, size_t sequence)
{
    return sequence < s->n_sequences ? s->lengths[sequence] : 0;
}

zq_status zq_session_rewind(zq_session *s, size_t sequence, size_t length, zq_error *err)
{
    if (sequence >= s->n_sequences) return zq_fail(err, ZQ_EINVAL, "slot %zu, the session has %zu", sequence, s->n_sequences);
    if (length > s->lengths[sequence])
        return zq_fail(err, ZQ_EINVAL, "slot %zu holds %zu tokens, it cannot be rewound to %zu", sequence, s->lengths[sequence], length);
    s->lengths[sequence] = length;
    return ZQ_OK;
}
