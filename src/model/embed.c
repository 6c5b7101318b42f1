/* Embeddings: token + token type + position, added in this order, then the family's embedding norm. */
#include "model/session.h"

static const uint8_t *table_row(const struct zq_tensor *t, size_t row)
{
    return t->bytes + row * t->shape[1] * zq_dtype_bytes(t->dtype);
}

static void add_row(struct zq_session *s, float *x, const struct zq_tensor *table, size_t row, size_t n)
{
    s->ops.kernels->to_float(s->row, table_row(table, row), table->dtype, n);
    for (size_t d = 0; d < n; d++) x[d] += s->row[d];
}

static void embed_on_device(struct zq_session *s)
{
    const struct zq_model *m = s->model;
    const struct zq_linear *table = m->lookup;
    const bool project = zq_linear_exists(&m->project_in);
    struct zq_device_embed a = {.tokens = s->there.tokens, .n_tokens = s->n_tokens, .n = m->config.embed_width, .table = &table->w,
                                .format = zq_device_format(table->spec), .out = project ? s->embedded : s->x.f, .ld_out = m->config.embed_width};
    if (project) {
        s->ops.plugin->embed(s->ops.queue, &a);
        zq_linear_run(&s->ops, &m->project_in, (struct zq_rows){.f = s->embedded, .ld = a.n}, s->n_tokens, NULL, s->x.f, m->config.width);
        a = (struct zq_device_embed){.tokens = s->there.tokens, .n_tokens = s->n_tokens, .n = m->config.width, .out = s->x.f,
                                     .ld_out = m->config.width};
    }
    a.types = m->device_types;
    a.positions = m->device_positions;
    a.position_offset = (size_t)m->config.arch->position_offset;
    s->ops.plugin->embed(s->ops.queue, &a);
}

static void embed_here(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_model *m = s->model;
    const size_t width = m->config.width, embed_width = m->config.embed_width;
    const bool project = zq_linear_exists(&m->project_in);
    float *const first = project ? s->embedded : s->x.f;
    for (size_t i = 0; i < n_inputs; i++)
        for (size_t t = 0; t < inputs[i].n; t++)
            zq_stored_row(&m->tokens, s->ops.kernels, (size_t)inputs[i].ids[t], first + (s->spans[i].row + t) * embed_width, s->codes);
    if (project) zq_linear_run(&s->ops, &m->project_in, (struct zq_rows){.f = s->embedded, .ld = embed_width}, s->n_tokens, NULL, s->x.f, width);

    for (size_t i = 0; i < n_inputs; i++) {
        for (size_t t = 0; t < inputs[i].n; t++) {
            float *x = s->x.f + (s->spans[i].row + t) * width;
            if (m->types) add_row(s, x, m->types, inputs[i].types ? inputs[i].types[t] : 0, width);
            if (m->positions) add_row(s, x, m->positions, s->spans[i].position + t + (size_t)m->config.arch->position_offset, width);
        }
    }
}

void zq_embed_inputs(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_model *m = s->model;
    const size_t width = m->config.width;
    if (s->model->device) embed_on_device(s);
    else embed_here(s, inputs, n_inputs);
    const struct zq_forms forms = {.f = true, .q = s->x.q != NULL, .h = s->x.h != NULL};
    if (m->embed_norm.gamma)
        zq_norm_run(&s->ops, &m->embed_norm, m->config.arch->rms, (float)m->config.norm_eps, s->x.f, width, s->n_tokens, width, s->x, forms);
    else if (forms.q || forms.h)
        zq_activate_run(&s->ops, ZQ_ACT_NONE, s->x.f, NULL, width, s->n_tokens, width, s->x, (struct zq_forms){.q = forms.q, .h = forms.h});
}
