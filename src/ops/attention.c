/* Attention dealt out in one of two ways; the bits are the same.
 *   By heads, where there are enough of them: a thread takes a key head of an input and keeps its new keys and values, so that nobody else
 *   reads or writes them in this step; then all queries of its heads attend.
 *   By tiles of tokens: keys and values are kept first; then a thread computes all heads of a tile, or some where tiles are few.
 * Whoever computes the last heads of a tile turns its rows into INT8. */
#include "ops/ops.h"

struct attention_work {
    const struct zq_ops *ops;
    const struct zq_attention *a;
    struct zq_rows out;
    struct zq_forms forms;
    size_t n_head_groups;
};

size_t zq_attention_thread_floats(const struct zq_kernels *kernels, const struct zq_heads *heads)
{
    return kernels->attend_scratch(heads);
}

/* Tokens [begin, end) and key heads [head_begin, head_end) of an input. */
static void keep(const struct attention_work *w, const struct zq_span *s, size_t begin, size_t end, size_t head_begin, size_t head_end)
{
    const struct zq_attention *a = w->a;
    const struct zq_keep args = {
        .qkv = a->qkv + s->row * a->ld_qkv, .ld = a->ld_qkv, .n_tokens = s->n_tokens, .position = s->position,
        .heads = a->heads, .rotary = a->rotary, .kv = s->kv,
    };
    w->ops->kernels->keep(&args, begin, end, head_begin, head_end);
}

/* Heads [head_begin, head_end), which need not share keys. */
static void attend(const struct attention_work *w, const struct zq_span *s, size_t begin, size_t end, size_t head_begin, size_t head_end, int thread)
{
    const struct zq_attention *a = w->a;
    const struct zq_attend args = {
        .qkv = a->qkv + s->row * a->ld_qkv, .ld = a->ld_qkv, .n_tokens = s->n_tokens, .position = s->position, .n_keys = s->n_keys,
        .window = a->window, .causal = a->causal, .scale = a->scale, .heads = a->heads, .kv = s->kv,
        .out = w->out.f + s->row * w->out.ld, .ld_out = w->out.ld,
        .scratch = w->ops->scratch + (size_t)thread * w->ops->thread_floats,
    };
    w->ops->kernels->attend(&args, begin, end, head_begin, head_end);
}

static void keep_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct attention_work *w = work;
    for (size_t i = begin; i < end; i++) {
        const struct zq_tile *t = &w->a->tiles[i];
        keep(w, &w->a->spans[t->sequence], t->begin, t->end, 0, w->a->heads.n_kv_heads);
    }
}

static void quantize_tokens(const struct attention_work *w, size_t row, size_t n)
{
    const struct zq_activate args = {
        .x = w->out.f, .ld_x = w->out.ld, .n = w->a->heads.n_heads * w->a->heads.head_dim, .act = ZQ_ACT_NONE,
        .out = {.q = w->out.q, .scale = w->out.scale, .ld_q = w->out.ld},
    };
    w->ops->kernels->activate(&args, row, row + n);
}

/* n more heads of a tile are computed. */
static void arrive(const struct attention_work *w, struct zq_tile *t, size_t n)
{
    const size_t n_heads = w->a->heads.n_heads;
    if (!w->forms.q || (n < n_heads && atomic_fetch_add(&t->done, n) + n < n_heads)) return;
    atomic_store(&t->done, 0);
    quantize_tokens(w, w->a->spans[t->sequence].row + t->begin, t->end - t->begin);
}

/* Of n tiles those at the beginning that are neighbours in a sequence: what brings keys into another form does so once for them. */
static size_t tiles_together(const struct zq_tile *t, size_t n)
{
    enum { MOST = 3 };
    size_t i = 1;
    while (i < n && i < MOST && t[i].sequence == t->sequence) i++;
    return i;
}

/* Items are key heads of inputs. */
static void heads_range(void *work, size_t begin, size_t end, int thread)
{
    const struct attention_work *w = work;
    const size_t n_kv_heads = w->a->heads.n_kv_heads, shared = w->a->heads.n_heads / n_kv_heads;
    for (size_t i = begin; i < end; i++) {
        const struct zq_span *s = &w->a->spans[i / n_kv_heads];
        const size_t h = i % n_kv_heads;
        struct zq_tile *t = &w->a->tiles[s->first_tile], *stop = t + s->n_tiles;
        keep(w, s, 0, s->n_tokens, h, h + 1);
        while (t < stop) {
            const size_t n = tiles_together(t, (size_t)(stop - t));
            attend(w, s, t->begin, t[n - 1].end, h * shared, (h + 1) * shared, thread);
            for (size_t k = 0; k < n; k++) arrive(w, t++, shared);
        }
    }
}

static void attend_range(void *work, size_t begin, size_t end, int thread)
{
    const struct attention_work *w = work;
    const struct zq_attention *a = w->a;
    const size_t groups = w->n_head_groups, n_heads = a->heads.n_heads;
    for (size_t i = begin, n; i < end; i += n) {
        struct zq_tile *t = &a->tiles[i / groups];
        const size_t h = i % groups, first = n_heads * h / groups, last = n_heads * (h + 1) / groups;
        n = groups == 1 ? tiles_together(t, end - i) : 1;
        attend(w, &a->spans[t->sequence], t->begin, t[n - 1].end, first, last, thread);
        for (size_t k = 0; k < n; k++) arrive(w, &t[k], last - first);
    }
}

/* The later tiles of a causal sequence see more keys: they come first. */
static void attend_backwards(void *work, size_t begin, size_t end, int thread)
{
    const struct attention_work *w = work;
    const size_t n = w->a->n_tiles * w->n_head_groups;
    attend_range(work, n - end, n - begin, thread);
}

static void attend_on_device(const struct zq_ops *ops, const struct zq_attention *a, struct zq_rows out, struct zq_forms forms)
{
    const struct zq_device_attention args = {
        .qkv = a->qkv, .ld = a->ld_qkv, .n_tokens = a->n_tokens, .tokens = a->tokens, .heads = a->heads, .rotary = a->rotary,
        .cache = a->cache, .layer_first = a->layer_first, .window = a->window, .causal = a->causal, .fast = a->fast,
        .n_sequences = a->n_sequences, .scale = a->scale, .arrived = a->arrived,
        .joined = a->joined, .parts = a->parts,
        .out = {.f = out.f, .ld_f = out.ld, .q = forms.q ? out.q : NULL, .scale = out.scale, .ld_q = zq_codes_ld(ops->plugin, out.ld),
                .h = forms.h ? out.h : NULL, .h_dtype = out.h_dtype},
    };
    ops->plugin->keep(ops->queue, &args);
    ops->plugin->attend(ops->queue, &args);
}

static void attend_here(const struct zq_ops *ops, const struct zq_attention *a, struct zq_rows out, struct zq_forms forms)
{
    const size_t n_threads = (size_t)zq_team_size(ops->team), enough = 4 * n_threads, n_kv_heads = a->n_sequences * a->heads.n_kv_heads;
    const bool one_tile_each = a->n_tiles == a->n_sequences, few = n_threads > 1 && a->n_tiles < enough;
    struct attention_work work = {ops, a, out, forms, few ? a->heads.n_kv_heads : 1};
    if (n_threads > 1 && (n_kv_heads >= enough || one_tile_each)) {
        zq_team_run(ops->team, n_kv_heads, 1, heads_range, &work);
        return;
    }
    zq_team_run(ops->team, a->n_tiles, 1, keep_range, &work);
    if (a->causal) zq_team_run_uneven(ops->team, a->n_tiles * work.n_head_groups, 1, attend_backwards, &work);
    else zq_team_run(ops->team, a->n_tiles * work.n_head_groups, 1, attend_range, &work);
}

/* A plug-in that has no tokens on a device only stands in for other operators: quantizing is one of them. */
void zq_attention_run(const struct zq_ops *ops, const struct zq_attention *a, struct zq_rows out, struct zq_forms forms)
{
    const size_t width = a->heads.n_heads * a->heads.head_dim;
    const bool there = ops->plugin && a->tokens, apart = ops->plugin && !there && forms.q;
    const struct zq_event event = {.op = ZQ_OP_ATTENTION, .n_rows = a->n_tokens, .n = width, .f = forms.f || apart, .q = forms.q && !apart};
    zq_watch_see(ops, NULL);
    if (there) attend_on_device(ops, a, out, forms);
    else attend_here(ops, a, out, (struct zq_forms){.f = forms.f, .q = forms.q && !apart});
    zq_watch_see(ops, &event);
    if (apart) zq_activate_run(ops, ZQ_ACT_NONE, out.f, NULL, out.ld, a->n_tokens, width, out, (struct zq_forms){.q = true});
}
