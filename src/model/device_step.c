/* A step on a device. Kernels read what changes from step to step (ids, positions, lengths) from device memory, so a decode step, one
 * token of each of some sequences, is always the same list of launches: it is recorded once and then replayed as one. What a newcomer
 * would get wrong: such a step is padded to a power of two tokens, so session->n_tokens is larger than the inputs' while it runs; padding
 * tokens have no keys, and nothing of theirs is kept. */
#include "model/device_step.h"

#include "model/session.h"

static bool is_decode(const struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    if (!s->model->config.arch->causal || s->keep_hidden || s->tap.see || s->ops.watch.see) return false; /* a replay cannot be looked into */
    for (size_t i = 0; i < n_inputs; i++)
        if (inputs[i].n != 1) return false;
    return true;
}

static size_t graph_of(size_t n)
{
    size_t i = 0;
    while (((size_t)1 << i) < n) i++;
    return i;
}

/* Rows that a step of n sequences is padded to. */
static size_t padded(const struct zq_session *s, size_t n)
{
    const size_t all = (size_t)1 << graph_of(n), room = s->max_batch_tokens < s->max_logit_rows ? s->max_batch_tokens : s->max_logit_rows;
    return all < room ? all : room;
}

static void fill_tokens(const struct zq_session *s, struct zq_device_token *token, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_config *c = &s->model->config;
    size_t used = 0; /* encoders: positions of the shared cache that earlier inputs take */
    for (size_t i = 0; i < n_inputs; i++) {
        const struct zq_span *span = &s->spans[i];
        const size_t capacity = c->arch->causal ? s->kv_capacity : (span->n_tokens + 15) / 16 * 16;
        for (size_t t = 0; t < inputs[i].n; t++)
            token[span->row + t] = (struct zq_device_token){
                .cache = c->arch->causal ? s->slots[i] * c->n_layers * s->kv_capacity : used, .capacity = (uint32_t)capacity,
                .position = (uint32_t)(span->position + t), .n_keys = (uint32_t)span->n_keys, .id = inputs[i].ids[t],
                .type = inputs[i].types ? inputs[i].types[t] : 0,
            };
        used += capacity;
    }
}

static size_t fill_rows(const struct zq_session *s, int32_t *rows, const zq_input *inputs, size_t n_inputs)
{
    const zq_model_kind kind = s->model->config.kind;
    size_t n = 0;
    if (kind == ZQ_ENCODER) return 0;
    for (size_t i = 0; i < n_inputs; i++) {
        const bool all = inputs[i].all_logits && kind != ZQ_ENCODER_CLASSIFY;
        const size_t first = all || kind == ZQ_ENCODER_CLASSIFY ? 0 : inputs[i].n - 1;
        for (size_t t = 0; t < (all ? inputs[i].n : 1); t++) rows[n++] = (int32_t)(s->spans[i].row + first + t);
    }
    return n;
}

void zq_device_step_send(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    struct zq_device_step *d = &s->there;
    struct zq_device_token *tokens = (struct zq_device_token *)(void *)d->host_step;
    const size_t n = s->n_tokens, n_rows = is_decode(s, inputs, n_inputs) ? padded(s, n) : n;
    int32_t *rows = (int32_t *)(void *)(tokens + n_rows);
    fill_tokens(s, tokens, inputs, n_inputs);
    size_t n_logits = fill_rows(s, rows, inputs, n_inputs);
    for (size_t i = n; i < n_rows; i++) {
        tokens[i] = (struct zq_device_token){.capacity = 16};
        rows[n_logits++] = (int32_t)i;
    }
    s->n_tokens = n_rows;
    s->n_logit_rows = n_logits;
    d->tokens = (const struct zq_device_token *)(const void *)d->step;
    d->rows = (const int32_t *)(const void *)(d->tokens + n_rows);
    s->ops.plugin->upload(s->ops.queue, d->step, d->host_step, n_rows * sizeof *tokens + n_logits * sizeof *rows);
    d->logits_fetched = false;
}

void zq_device_step_run(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_plugin *plugin = s->ops.plugin;
    struct zq_device_step *d = &s->there;
    const size_t i = graph_of(n_inputs);
    if (!is_decode(s, inputs, n_inputs) || i >= ZQ_N_GRAPHS || !d->ran[i] || d->refused[i]) {
        zq_step_forward(s, inputs, n_inputs);
        if (i < ZQ_N_GRAPHS && is_decode(s, inputs, n_inputs)) d->ran[i] = true;
        return;
    }
    if (!d->graphs[i]) {
        plugin->begin_graph(s->ops.queue);
        zq_step_forward(s, inputs, n_inputs);
        d->graphs[i] = plugin->end_graph(s->ops.queue);
    }
    if (d->graphs[i]) plugin->run_graph(s->ops.queue, d->graphs[i]);
    else {
        d->refused[i] = true;
        zq_step_forward(s, inputs, n_inputs);
    }
}

void zq_device_step_close(struct zq_session *s)
{
    for (size_t i = 0; i < ZQ_N_GRAPHS; i++) s->ops.plugin->free_graph(s->there.graphs[i]);
}
