/* What follows the blocks: the final norm on the rows that are asked for, and the head of each kind of model. */
#include "model/session.h"

#include <string.h>

/* Copies the rows of x that the head reads to s->selected. */
static void select_rows(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const size_t width = s->model->config.width;
    const zq_model_kind kind = s->model->config.kind;
    size_t n = 0;
    if (s->model->device) {
        s->ops.plugin->gather(s->ops.queue, s->selected.f, s->x.f, s->there.rows, s->n_logit_rows, width);
        return;
    }
    for (size_t i = 0; i < n_inputs; i++) {
        const bool all = inputs[i].all_logits && kind != ZQ_ENCODER_CLASSIFY;
        const size_t first = all || kind == ZQ_ENCODER_CLASSIFY ? 0 : inputs[i].n - 1, count = all ? inputs[i].n : 1;
        memcpy(s->selected.f + n * width, s->x.f + (s->spans[i].row + first) * width, count * width * sizeof(float));
        n += count;
    }
    s->n_logit_rows = n;
}

/* Adds the form that the map wants to rows of floats. */
static struct zq_rows ready(struct zq_session *s, const struct zq_linear *l, struct zq_rows r)
{
    const struct zq_forms missing = {.q = l->spec.a_bits == 8, .h = l->halves};
    if (missing.q || missing.h) zq_activate_run(&s->ops, ZQ_ACT_NONE, r.f, NULL, r.ld, s->n_logit_rows, l->w.n_cols, r, missing);
    return r;
}

static void run_head(struct zq_session *s, struct zq_rows in)
{
    zq_linear_run(&s->ops, &s->model->head, in, s->n_logit_rows, NULL, s->logits, s->model->config.vocab);
}

static void lm_head(struct zq_session *s)
{
    const struct zq_model *m = s->model;
    const struct zq_config *c = &m->config;
    const bool project = zq_linear_exists(&m->project_out);
    const bool codes = !project && m->head.spec.a_bits == 8, halves = !project && m->head.halves;
    if (m->final_norm.gamma)
        zq_norm_run(&s->ops, &m->final_norm, c->arch->rms, (float)c->norm_eps, s->selected.f, c->width, s->n_logit_rows, c->width, s->selected,
                    (struct zq_forms){.f = true, .q = codes, .h = halves});
    else if (codes || halves) ready(s, &m->head, s->selected);
    if (!project) {
        run_head(s, s->selected);
        return;
    }
    zq_linear_run(&s->ops, &m->project_out, ready(s, &m->project_out, s->selected), s->n_logit_rows, NULL, s->projected, c->embed_width);
    struct zq_rows projected = s->selected; /* codes go where those of the wider rows went */
    projected.f = s->projected, projected.ld = c->embed_width;
    run_head(s, ready(s, &m->head, projected));
}

static void mlm_head(struct zq_session *s)
{
    const struct zq_model *m = s->model;
    const struct zq_config *c = &m->config;
    const struct zq_rows t = s->transformed;
    zq_linear_run(&s->ops, &m->mlm_dense, ready(s, &m->mlm_dense, s->selected), s->n_logit_rows, NULL, t.f, c->width);
    zq_activate_run(&s->ops, c->activation, t.f, NULL, c->width, s->n_logit_rows, c->width, t, (struct zq_forms){.f = true});
    zq_norm_run(&s->ops, &m->mlm_norm, c->arch->rms, (float)c->norm_eps, t.f, c->width, s->n_logit_rows, c->width, t,
                (struct zq_forms){.f = true, .q = m->head.spec.a_bits == 8, .h = m->head.halves});
    run_head(s, t);
}

static void classifier(struct zq_session *s)
{
    const struct zq_model *m = s->model;
    const struct zq_config *c = &m->config;
    const struct zq_rows t = s->transformed;
    zq_linear_run(&s->ops, &m->pooler, ready(s, &m->pooler, s->selected), s->n_logit_rows, NULL, t.f, c->width);
    zq_activate_run(&s->ops, ZQ_ACT_TANH, t.f, NULL, c->width, s->n_logit_rows, c->width, t,
                    (struct zq_forms){.f = true, .q = m->classifier.spec.a_bits == 8});
    zq_linear_run(&s->ops, &m->classifier, t, s->n_logit_rows, NULL, s->logits, c->n_labels);
}

static void keep_last_hidden(struct zq_session *s)
{
    const struct zq_model *m = s->model;
    const struct zq_config *c = &m->config;
    float *last = s->hidden + c->n_layers * s->max_batch_tokens * c->width;
    struct zq_rows normed = {.f = s->ops.plugin ? s->attended.f : last, .ld = c->width}; /* on a device: where there is room */
    if (m->final_norm.gamma)
        zq_norm_run(&s->ops, &m->final_norm, c->arch->rms, (float)c->norm_eps, s->x.f, c->width, s->n_tokens, c->width, normed,
                    (struct zq_forms){.f = true});
    else normed.f = s->x.f;
    if (normed.f != last) zq_session_fetch(s, last, normed.f, s->n_tokens * c->width);
}

void zq_heads_forward(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    if (s->keep_hidden) keep_last_hidden(s);
    if (!s->model->device) s->n_logit_rows = 0; /* a device knows them from the start */
    if (s->model->config.kind == ZQ_ENCODER) return;
    select_rows(s, inputs, n_inputs);
    switch (s->model->config.kind) {
    case ZQ_DECODER: lm_head(s); break;
    case ZQ_ENCODER_MLM: mlm_head(s); break;
    case ZQ_ENCODER_CLASSIFY: classifier(s); break;
    case ZQ_ENCODER: break;
    }
}
