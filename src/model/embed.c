/* Embeddings: token + token type + position, added in this order, then the family's embedding norm, or INT8 tokens where blocks begin without
 * one. Here that is one operator; on a device what follows the sums is one of its own. */
#include "model/session.h"

static struct zq_lookup float_table(const struct zq_tensor *t)
{
    return t ? (struct zq_lookup){.values = t->bytes, .dtype = t->dtype} : (struct zq_lookup){0};
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

static void fill_rows(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const size_t offset = (size_t)s->model->config.arch->position_offset;
    for (size_t i = 0; i < n_inputs; i++)
        for (size_t t = 0; t < inputs[i].n; t++)
            s->token_rows[s->spans[i].row + t] =
                (struct zq_token_rows){.token = (uint32_t)inputs[i].ids[t], .type = inputs[i].types ? (uint32_t)inputs[i].types[t] : 0,
                                       .position = (uint32_t)(s->spans[i].position + t + offset)};
}

/* Each row of a table in the mapped file brings the 64 KiB around it into the process. Where the same matrix is packed as the head, all are
 * let go after so many that they would count; elsewhere the table is needed once, and stays. */
static void look_up(struct zq_session *s, struct zq_embed e, struct zq_rows out, struct zq_forms forms)
{
    enum { PIECE = 256, ROW_BYTES = 64 << 10 };
    const struct zq_model *m = s->model;
    const struct zq_tensor *table = m->tokens.weight;
    const bool twice = e.tokens.values && m->config.arch->causal && m->config.tied && !m->blas && table->n_bytes > PIECE * ROW_BYTES;
    if (!twice) {
        zq_embed_run(&s->ops, &e, s->n_tokens, out, forms);
        return;
    }
    for (size_t begin = 0, n; begin < s->n_tokens; begin += n, e.rows += n) {
        n = s->n_tokens - begin < PIECE ? s->n_tokens - begin : PIECE;
        zq_embed_run(&s->ops, &e, n, zq_rows_from(out, begin), forms);
        s->looked_up += n;
        if (s->looked_up < PIECE) continue;
        zq_map_drop(table->map, table->bytes, table->n_bytes);
        s->looked_up = 0;
    }
}

/* Where operators are a plug-in's though the model lies here (the step without fusion), the norm and the codes are left to them. */
static void embed_here(struct zq_session *s, struct zq_forms forms)
{
    const struct zq_model *m = s->model;
    const bool project = zq_linear_exists(&m->project_in);
    struct zq_embed e = {.rows = s->token_rows, .tokens = zq_stored_lookup(&m->tokens), .n = m->config.width};
    if (project) {
        e.n = m->config.embed_width;
        look_up(s, e, (struct zq_rows){.f = s->embedded, .ld = e.n}, (struct zq_forms){.f = true});
        zq_linear_run(&s->ops, &m->project_in, (struct zq_rows){.f = s->embedded, .ld = e.n}, s->n_tokens, NULL, s->x.f, m->config.width);
        e.n = m->config.width;
        e.tokens = (struct zq_lookup){0};
    }
    e.types = float_table(m->types);
    e.positions = float_table(m->positions);
    if (!s->ops.plugin) {
        e.gamma = m->embed_norm.gamma;
        e.beta = m->embed_norm.beta;
        e.eps = (float)m->config.norm_eps;
        e.rms = m->config.arch->rms;
    } else forms.q = false;
    look_up(s, e, s->x, forms);
}

void zq_embed_inputs(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const struct zq_model *m = s->model;
    const size_t width = m->config.width;
    const struct zq_forms forms = {.f = true, .q = s->x.q != NULL, .h = s->x.h != NULL};
    if (m->device) {
        embed_on_device(s);
    } else {
        fill_rows(s, inputs, n_inputs);
        embed_here(s, forms);
    }
    if (!s->ops.plugin) return;
    if (m->embed_norm.gamma)
        zq_norm_run(&s->ops, &m->embed_norm, m->config.arch->rms, (float)m->config.norm_eps, s->x.f, width, s->n_tokens, width, s->x, forms);
    else if (forms.q || forms.h)
        zq_activate_run(&s->ops, ZQ_ACT_NONE, s->x.f, NULL, width, s->n_tokens, width, s->x, (struct zq_forms){.q = forms.q, .h = forms.h});
}
