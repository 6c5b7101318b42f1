/* Bytes are those of the stored form, not of the kernels' tiles: padding and bookkeeping are a kernel's own affair, and cost it its share of
 * the limit. */
#include "bench/cost.h"

#include <math.h>
#include <stdio.h>

void zq_cost_add(struct zq_cost *to, const struct zq_cost *from)
{
    for (enum zq_work w = 0; w < ZQ_N_WORKS; w++) to->ops[w] += from->ops[w];
    to->weight_bytes += from->weight_bytes;
    to->other_bytes += from->other_bytes;
}

struct zq_cost zq_cost_of_map(const struct zq_stored *w, size_t n_tokens, bool bf16)
{
    const bool integer = w->spec.a_bits == 8;
    const enum zq_work work = !integer ? (bf16 ? ZQ_WORK_BF16 : ZQ_WORK_F32) : w->spec.w_bits < 8 ? ZQ_WORK_INT4 : ZQ_WORK_INT8;
    struct zq_cost cost = {.weight_bytes = (double)w->weight->n_bytes + (w->scale ? (double)w->scale->n_bytes : 0)};
    cost.ops[work] = 2.0 * (double)w->n_rows * (double)w->n_cols * (double)n_tokens;
    return cost;
}

/* Rows of activations that module i multiplies in a step; 0: it is no part of it. */
static size_t tokens_of(const struct zq_model *m, size_t i, size_t batch, size_t n_tokens)
{
    const struct zq_module *module = &m->modules.items[i];
    if (module->in_block) return batch * n_tokens;
    if (module->part == ZQ_PART_TOKENS) return m->config.tied && m->config.kind != ZQ_ENCODER && m->config.kind != ZQ_ENCODER_CLASSIFY ? batch : 0;
    return m->config.kind == ZQ_ENCODER ? 0 : batch;
}

struct zq_cost zq_cost_of_step(const struct zq_model *m, size_t batch, size_t n_tokens, size_t position, double kv_value_bytes)
{
    const struct zq_config *c = &m->config;
    struct zq_cost sum = {0};
    for (size_t i = 0; i < m->modules.n; i++) {
        const size_t rows = tokens_of(m, i, batch, n_tokens);
        const struct zq_cost cost = zq_cost_of_map(&m->stored[i], rows, m->kernels.bf16);
        if (rows) zq_cost_add(&sum, &cost);
    }
    const size_t keys = c->window && c->window < position ? c->window : position;
    if (c->arch->causal)
        sum.other_bytes += 2.0 * (double)(batch * keys) * (double)(c->n_layers * c->n_kv_heads * c->head_dim) * kv_value_bytes;
    return sum;
}

double zq_cost_kv_value_bytes(const struct zq_session *s)
{
    const struct zq_config *c = &s->model->config;
    return (double)s->kv_bytes / (2 * (double)s->kv_capacity * (double)(c->n_kv_heads * c->head_dim));
}

double zq_model_bytes(const struct zq_model *m)
{
    return zq_cost_of_step(m, 1, 1, 0, 0).weight_bytes;
}

double zq_model_all_bytes(const struct zq_model *m)
{
    struct zq_cost sum = {0};
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_cost cost = zq_cost_of_map(&m->stored[i], 1, m->kernels.bf16);
        zq_cost_add(&sum, &cost);
    }
    return sum.weight_bytes;
}

struct zq_limit zq_limit_of(const struct zq_cost *cost, const struct zq_machine *machine, unsigned levels, bool weights_in_cache)
{
    static const struct zq_limit unknown = {NAN, ""};
    const bool cached = weights_in_cache && machine->cache.best > 0;
    const double bandwidth = cached ? machine->cache.best : machine->memory.best;
    struct zq_limit limit = {0};
    double largest = 0;
    for (enum zq_work w = 0; w < ZQ_N_WORKS; w++) {
        unsigned level;
        if (!(cost->ops[w] > 0)) continue;
        const double part = cost->ops[w] / zq_machine_ops(machine, levels, w, &level);
        if (!level) return unknown;
        if (part > largest) snprintf(limit.bound, sizeof limit.bound, "%s %s", zq_work_name(w), zq_levels_name(level));
        largest = fmax(part, largest);
        limit.seconds += part;
    }
    if (!(bandwidth > 0)) return unknown;
    const double reading = (cost->weight_bytes + cost->other_bytes) / bandwidth;
    if (reading <= limit.seconds) return limit;
    limit = (struct zq_limit){.seconds = reading};
    snprintf(limit.bound, sizeof limit.bound, "%s", cached ? "cache" : "memory");
    return limit;
}
