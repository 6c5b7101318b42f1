/* The one transformer block. Its row of the architecture table says where the norms stand, whether the two halves run in
 * parallel, whether the FFN is gated and how QKV rows lie; there is no other forward code. */
#include "model/session.h"
#include "model/simulate.h"

#include <math.h>

static void norm(struct zq_session *s, const struct zq_norm_weights *w, struct zq_rows out, struct zq_forms forms)
{
    const struct zq_config *c = &s->model->config;
    zq_norm_run(&s->ops, w, c->arch->rms, (float)c->norm_eps, s->x.f, c->width, s->n_tokens, c->width, out, forms);
}

/* out = map `role` of a block (+ residual); a tap sees its input first. */
static void run_map(struct zq_session *s, const struct zq_block *b, enum zq_linear_role role, struct zq_rows in, const float *residual, float *out,
                    size_t ld_out)
{
    const size_t layer = (size_t)(b - s->model->blocks);
    if (s->tap.see) s->tap.see(s->tap.user, layer, role, &in, s->n_tokens);
    if (s->model->simulation) in = zq_simulate_input(s, layer, role, in);
    zq_linear_run(&s->ops, &b->linear[role], in, s->n_tokens, residual, out, ld_out);
}

/* The same for maps of one input. */
static void run_maps(struct zq_session *s, const struct zq_linear_output *maps, size_t n, const struct zq_block *b, struct zq_rows in, size_t ld_out)
{
    const bool apart = s->tap.see || s->model->simulation; /* what each of them reads may be another thing */
    if (!apart) zq_linear_run_all(&s->ops, maps, n, in, s->n_tokens, ld_out);
    for (size_t i = 0; i < n && apart; i++) run_map(s, b, (enum zq_linear_role)(maps[i].l - b->linear), in, NULL, maps[i].out, ld_out);
}

static struct zq_heads heads_of(const struct zq_config *c)
{
    const size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    struct zq_heads h = {.n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
                         .k_offset = q, .v_offset = q + kv, .q_stride = c->head_dim, .kv_stride = c->head_dim};
    if (c->arch->qkv_rows == ZQ_QKV_BY_HEAD) {
        h.k_offset = c->head_dim;
        h.v_offset = 2 * c->head_dim;
        h.q_stride = h.kv_stride = 3 * c->head_dim;
    }
    return h;
}

/* Points every span at its caches of this layer. */
static void choose_caches(struct zq_session *s, size_t layer, size_t n_inputs)
{
    const struct zq_config *c = &s->model->config;
    size_t used = s->kv_first; /* encoders: positions of the shared cache that earlier inputs take */
    for (size_t i = 0; i < n_inputs; i++) {
        struct zq_span *span = &s->spans[i];
        if (c->arch->causal) {
            span->kv = zq_session_cache(s, s->slots[i] * c->n_layers + layer, 0, s->kv_capacity);
        } else {
            const size_t capacity = zq_encoder_positions(span->n_tokens);
            span->kv = zq_session_cache(s, 0, used, capacity);
            used += capacity;
        }
    }
}

static void attention(struct zq_session *s, const struct zq_block *b, struct zq_rows in, size_t n_inputs)
{
    const struct zq_config *c = &s->model->config;
    const struct zq_heads heads = heads_of(c);
    struct zq_linear_output maps[ZQ_V - ZQ_QKV + 1];
    size_t at = 0, n_maps = 0;
    for (int r = ZQ_QKV; r <= ZQ_V; r++) {
        if (!zq_linear_exists(&b->linear[r])) continue;
        maps[n_maps++] = (struct zq_linear_output){&b->linear[r], s->qkv + at};
        at += b->linear[r].w.n_rows;
    }
    run_maps(s, maps, n_maps, b, in, s->ld_qkv);
    const struct zq_attention a = {
        .qkv = s->qkv, .ld_qkv = s->ld_qkv, .heads = heads,
        .rotary = {.cos = s->cos, .sin = s->sin, .n_rotated = c->n_rotated, .pairs = c->arch->positions == ZQ_POS_ROTARY_PAIRS},
        .window = c->window, .causal = c->arch->causal, .scale = (float)(1 / sqrt((double)c->head_dim)),
        .spans = s->spans, .tiles = s->tiles, .n_tiles = s->n_tiles, .n_tokens = s->n_tokens,
        .tokens = s->there.tokens, .cache = s->there.cache, .n_sequences = n_inputs, .fast = s->model->math == ZQ_MATH_FAST,
        .arrived = s->there.arrived, .joined = s->there.joined, .parts = s->there.parts,
        .layer_first = c->arch->causal ? (size_t)(b - s->model->blocks) * s->kv_capacity : 0,
    };
    zq_attention_run(&s->ops, &a, s->attended, b->o_in);
}

/* x += down(act(up(in))) or x += down(act(gate(in)) * up(in)) */
static void ffn(struct zq_session *s, const struct zq_block *b, struct zq_rows in)
{
    const struct zq_config *c = &s->model->config;
    const size_t n = s->n_tokens, width = c->ffn_width;
    const struct zq_linear_output maps[] = {{&b->linear[ZQ_UP], s->ffn.f}, {&b->linear[ZQ_GATE], s->gate}};
    run_maps(s, maps, c->gated ? 2 : 1, b, in, width);
    struct zq_rows y = s->ffn; /* overwrites what it is computed from, so that act() is computed once for range and codes */
    if (c->gated) y.f = s->gate;
    zq_activate_run(&s->ops, c->activation, y.f, c->gated ? s->ffn.f : NULL, width, n, width, y, (struct zq_forms){true, b->down_in.q, b->down_in.h});
    run_map(s, b, ZQ_DOWN, y, s->x.f, s->x.f, c->width);
}

static struct zq_forms either(struct zq_forms a, struct zq_forms b)
{
    return (struct zq_forms){a.f || b.f, a.q || b.q, a.h || b.h};
}

void zq_block_forward(struct zq_session *s, size_t layer, size_t n_inputs)
{
    const struct zq_config *c = &s->model->config;
    const struct zq_block *b = &s->model->blocks[layer];
    const bool post = c->norm == ZQ_NORM_POST, parallel = c->norm == ZQ_NORM_PARALLEL, two_norms = b->norm2.gamma != NULL;
    const struct zq_forms stream = {.f = true, .q = s->x.q != NULL, .h = s->x.h != NULL};
    struct zq_rows in = post ? s->x : s->h;

    if (!post) norm(s, &b->norm1, s->h, parallel && !two_norms ? either(b->attention_in, b->ffn_in) : b->attention_in);
    if (!s->model->device) choose_caches(s, layer, n_inputs);
    attention(s, b, in, n_inputs);
    if (parallel && two_norms) norm(s, &b->norm2, s->h2, b->ffn_in); /* reads x before attention is added to it */
    run_map(s, b, ZQ_O, s->attended, s->x.f, s->x.f, c->width);

    if (post) norm(s, &b->norm1, s->x, stream);
    else if (!parallel) norm(s, &b->norm2, s->h, b->ffn_in);
    if (parallel && two_norms) in = s->h2;
    ffn(s, b, in);
    if (post) norm(s, &b->norm2, s->x, stream);
}
