/* Operators report to the session's watch; a map is told by where it lies in the model. The bytes of a line are what its operator has to
 * read and write: weights as stored, activations in the forms that it takes and leaves. */
#include "bench/profile.h"

#include "quant/pack.h"

static const char *const names[ZQ_PROFILE_LINES] = {
    [ZQ_PROFILE_EMBED] = "embed", [ZQ_PROFILE_NORM] = "norm", [ZQ_PROFILE_ATTENTION] = "attention", [ZQ_PROFILE_ACTIVATE] = "activate",
    [ZQ_PROFILE_HEAD] = "head", [ZQ_PROFILE_OTHER] = "other", [ZQ_PROFILE_MAPS + ZQ_QKV] = "qkv", [ZQ_PROFILE_MAPS + ZQ_Q] = "q",
    [ZQ_PROFILE_MAPS + ZQ_K] = "k", [ZQ_PROFILE_MAPS + ZQ_V] = "v", [ZQ_PROFILE_MAPS + ZQ_O] = "o", [ZQ_PROFILE_MAPS + ZQ_GATE] = "gate",
    [ZQ_PROFILE_MAPS + ZQ_UP] = "up", [ZQ_PROFILE_MAPS + ZQ_DOWN] = "down",
};

const char *zq_profile_name(int line)
{
    return names[line];
}

/* Where a map lies: its module, and its line. false for one that no module stands for. */
static bool find_map(const struct zq_model *m, const struct zq_linear *l, size_t *module, int *line)
{
    *line = ZQ_PROFILE_HEAD;
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_module *where = &m->modules.items[i];
        *module = i;
        if (where->in_block && l == &m->blocks[where->layer].linear[where->role]) {
            *line = ZQ_PROFILE_MAPS + (int)where->role;
            return true;
        }
        if (!where->in_block && l == &m->head && where->part == (m->config.tied ? ZQ_PART_TOKENS : ZQ_PART_HEAD)) return true;
    }
    return false;
}

/* Bytes of rows in the forms f and q, with one scale each. */
static double row_bytes(const struct zq_event *e, size_t n, bool f, bool q)
{
    return (double)e->n_rows * ((f ? 4.0 : 0) * (double)n + (q ? (double)n + 4 : 0));
}

/* Bytes of one token in all tables. */
static double looked_up(const struct zq_embed *e)
{
    const struct zq_lookup *const tables[] = {&e->tokens, &e->types, &e->positions};
    double bytes = 0;
    for (size_t i = 0; i < ZQ_LEN(tables); i++) {
        const struct zq_lookup *t = tables[i];
        if (!t->values) continue;
        bytes += t->dtype == ZQ_I32 ? 4.0 * (double)zq_packed_words(e->n, t->bits) : (double)(e->n * zq_dtype_bytes(t->dtype));
        if (t->scales) bytes += (double)((t->k_group ? e->n / t->k_group : 1) * zq_dtype_bytes(t->scale_dtype));
    }
    return bytes;
}

static struct zq_cost cost_of(const struct zq_session *s, const struct zq_event *e, int *line)
{
    const struct zq_model *m = s->model;
    const struct zq_config *c = &m->config;
    struct zq_cost cost = {0};
    size_t module;
    *line = ZQ_PROFILE_OTHER;
    switch (e->op) {
    case ZQ_OP_EMBED:
        *line = ZQ_PROFILE_EMBED;
        cost.other_bytes = (double)e->n_rows * looked_up(e->embed) + row_bytes(e, e->n, e->f, e->q);
        break;
    case ZQ_OP_PRODUCT:
        if (find_map(m, e->map, &module, line)) cost = zq_cost_of_map(&m->stored[module], e->n_rows, m->kernels.bf16);
        cost.other_bytes = row_bytes(e, e->map->w.n_cols, e->map->spec.a_bits != 8, e->map->spec.a_bits == 8) + row_bytes(e, e->n, true, false) +
                           row_bytes(e, e->n, e->residual, false);
        break;
    case ZQ_OP_NORM:
    case ZQ_OP_ACTIVATE:
        *line = e->op == ZQ_OP_NORM ? ZQ_PROFILE_NORM : ZQ_PROFILE_ACTIVATE;
        cost.other_bytes = row_bytes(e, e->n, true, false) * (e->op == ZQ_OP_ACTIVATE && c->gated ? 2 : 1) + row_bytes(e, e->n, e->f, e->q);
        break;
    case ZQ_OP_ATTENTION:
        *line = ZQ_PROFILE_ATTENTION;
        cost.other_bytes = row_bytes(e, e->n + 2 * c->n_kv_heads * c->head_dim, true, false) + row_bytes(e, e->n, e->f, e->q);
        for (size_t row = 0, i = 0; row < s->n_tokens; row += s->spans[i++].n_tokens) {
            const struct zq_span *span = &s->spans[i];
            const double n = (double)span->n_tokens, keys = (double)span->n_keys, seen = c->arch->causal ? n * (keys - (n - 1) / 2) : n * keys;
            cost.ops[m->kernels.bf16_attention ? ZQ_WORK_BF16 : ZQ_WORK_F32] += 4 * seen * (double)(c->n_heads * c->head_dim);
            cost.other_bytes += 2 * keys * (double)(c->n_kv_heads * c->head_dim) * zq_cost_kv_value_bytes(s);
        }
    }
    return cost;
}

static void see(void *user, const struct zq_event *event)
{
    struct zq_profile *p = user;
    const struct zq_ops *ops = &p->session->ops;
    if (ops->plugin) ops->plugin->finish(ops->queue); /* operators are queued: wait for this one. Failures are the step's to report */
    const double now = zq_bench_clock();
    int line;
    if (event) {
        const struct zq_cost cost = cost_of(p->session, event, &line);
        struct zq_profile_line *l = &p->lines[line];
        l->seconds += now - p->began;
        p->in_operators += now - p->began;
        zq_cost_add(&l->cost, &cost);
        l->n_calls++;
    }
    p->began = zq_bench_clock();
    if (event) p->step_began += p->began - now; /* the profiler's own time */
}

void zq_profile_begin(struct zq_profile *p, struct zq_session *session)
{
    p->session = session;
    for (int i = 0; i < ZQ_PROFILE_LINES; i++) {
        p->lines[i].seconds = 0;
        p->lines[i].cost = (struct zq_cost){0};
        p->lines[i].n_calls = 0;
    }
    p->in_operators = 0;
    session->ops.watch = (struct zq_watch){see, p};
    p->step_began = zq_bench_clock();
}

bool zq_profile_end(struct zq_profile *p, struct zq_session *session)
{
    const double seconds = zq_bench_clock() - p->step_began;
    bool ok = zq_samples_add(&p->steps, seconds);
    session->ops.watch = (struct zq_watch){0};
    p->lines[ZQ_PROFILE_OTHER].seconds = seconds - p->in_operators;
    p->lines[ZQ_PROFILE_OTHER].n_calls = 1;
    for (int i = 0; i < ZQ_PROFILE_LINES && ok; i++)
        if (p->lines[i].n_calls) ok = zq_samples_add(&p->lines[i].samples, p->lines[i].seconds);
    return ok;
}

void zq_profile_free(struct zq_profile *p)
{
    for (int i = 0; i < ZQ_PROFILE_LINES; i++) zq_samples_free(&p->lines[i].samples);
    zq_samples_free(&p->steps);
}
