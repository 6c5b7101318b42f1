/* Attention on a device: in the written order against plain C, in bits; on tensor cores against exact arithmetic, within a bound. */
#include "device.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

enum { SEQUENCES = 3, LAYERS = 2 };

/* Tokens of several sequences, one behind the other, some of them padding; caches of two layers, each sequence's with a place of its own. */
struct attention_case {
    struct zq_device_attention a;
    struct zq_device_token *tokens;
    struct {
        size_t row, n_tokens, position, n_keys, cache, capacity;
    } spans[SEQUENCES];
    size_t layer, n_positions, n_qkv, n_table, n_out, n_q;
};

/* In the written order; many tokens, or few ones, on tensor cores. */
enum way { WRITTEN, PROMPT, DECODE };

static struct attention_case make_attention(struct check *c, enum way way)
{
    const bool prompt = way == PROMPT;
    struct attention_case s = {.layer = check_random(c, LAYERS), .n_positions = 16, .a.layer_first = 16};
    struct zq_heads *h = &s.a.heads;
    h->n_kv_heads = 1 + check_random(c, 2);
    h->n_heads = h->n_kv_heads * (way == DECODE ? CHECK_PICK(c, 1, 1, 3, 8, 17) : 1 + check_random(c, prompt ? 3 : 2));
    h->head_dim = way == DECODE   ? CHECK_PICK(c, 8, 64, 80, 96, 128, 256)
                  : way == PROMPT ? CHECK_PICK(c, 8, 32, 64, 80, 96, 128, 256)
                                  : CHECK_PICK(c, 2, 8, 20, 64, 130);
    h->q_stride = h->kv_stride = h->head_dim;
    h->k_offset = h->n_heads * h->head_dim;
    h->v_offset = h->k_offset + h->n_kv_heads * h->head_dim;
    s.a.ld = (h->n_heads + 2 * h->n_kv_heads) * h->head_dim + check_random(c, 3);
    s.a.rotary = (struct zq_rotary){.n_rotated = check_coin(c) ? h->head_dim / 4 * 2 : 0, .pairs = check_coin(c)};
    s.a.causal = check_coin(c);
    s.a.scale = 0.3f;
    if (s.a.causal && check_coin(c)) s.a.window = 1 + check_random(c, 90);
    size_t most = 0;
    for (size_t i = 0; i < SEQUENCES; i++) {
        s.spans[i].row = s.a.n_tokens;
        s.spans[i].n_tokens = check_random(c, 4) ? 1 + check_random(c, prompt ? 60 : 3) : 0;
        s.spans[i].position = way == DECODE ? CHECK_PICK(c, 0, 15, 64, 150, 300, 511, 600) : CHECK_PICK(c, 0, 1, 15, 62, 63, 64, 100, 150);
        s.spans[i].n_keys = s.spans[i].position + s.spans[i].n_tokens;
        s.spans[i].capacity = (s.spans[i].n_keys + 15) / 16 * 16;
        s.spans[i].cache = s.n_positions;
        s.n_positions += LAYERS * s.spans[i].capacity;
        s.a.n_tokens += s.spans[i].n_tokens;
        if (s.spans[i].capacity > most) most = s.spans[i].capacity;
    }
    s.a.n_tokens += s.a.n_tokens == 0 || check_coin(c); /* padding */
    s.tokens = check_buffer(c, s.a.n_tokens * sizeof *s.tokens, sizeof(uint64_t));
    for (size_t t = 0; t < s.a.n_tokens; t++) s.tokens[t] = (struct zq_device_token){.capacity = 16};
    for (size_t i = 0; i < SEQUENCES; i++)
        for (size_t t = 0; t < s.spans[i].n_tokens; t++)
            s.tokens[s.spans[i].row + t] = (struct zq_device_token){
                .cache = s.spans[i].cache + s.layer * s.spans[i].capacity - s.a.layer_first, .capacity = (uint32_t)s.spans[i].capacity,
                .position = (uint32_t)(s.spans[i].position + t), .n_keys = (uint32_t)s.spans[i].n_keys};
    s.n_qkv = row_values(s.a.n_tokens, s.a.ld, (h->n_heads + 2 * h->n_kv_heads) * h->head_dim);
    s.n_table = most * (s.a.rotary.n_rotated / 2);
    s.a.fast = way != WRITTEN;
    s.a.n_sequences = prompt ? 0 : SEQUENCES; /* 0: few tokens are a prompt, too */
    s.a.out.ld_f = h->n_heads * h->head_dim + check_random(c, 3);
    s.n_out = row_values(s.a.n_tokens, s.a.out.ld_f, h->n_heads * h->head_dim);
    s.a.out.ld_q = (h->n_heads * h->head_dim + 15) / 16 * 16;
    s.n_q = row_values(s.a.n_tokens, s.a.out.ld_q, h->n_heads * h->head_dim);
    return s;
}

/* Arrays of a cache of one kind; random as they are before this step. */
static struct zq_device_cache make_cache(struct check *c, enum zq_dtype dtype, size_t n, size_t n_scales)
{
    struct zq_device_cache r = {.dtype = dtype};
    void **const values[] = {&r.k, &r.v};
    for (int i = 0; i < 2; i++) {
        const float *x = check_floats(c, n, VALUES_NORMAL);
        if (dtype == ZQ_I8) *values[i] = check_codes(c, n, -127, 127);
        else zq_from_float(*values[i] = check_buffer(c, n * zq_dtype_bytes(dtype), 64), dtype, x, n);
    }
    r.k_scale = dtype == ZQ_I8 ? check_floats(c, n_scales, VALUES_NORMAL) : NULL;
    r.v_scale = dtype == ZQ_I8 ? check_floats(c, n_scales, VALUES_NORMAL) : NULL;
    return r;
}

static struct zq_device_cache copy_cache(struct check *c, struct zq_device_cache from, size_t n, size_t n_scales)
{
    const size_t n_bytes = n * zq_dtype_bytes(from.dtype);
    from.k = copy_of(c, from.k, n_bytes, 64);
    from.v = copy_of(c, from.v, n_bytes, 64);
    if (from.k_scale) from.k_scale = copy_of(c, from.k_scale, n_scales * sizeof(float), sizeof(float));
    if (from.v_scale) from.v_scale = copy_of(c, from.v_scale, n_scales * sizeof(float), sizeof(float));
    return from;
}

/* Plain C, sequence by sequence. */
static void plain_attention(struct device *d, const struct attention_case *s, float *qkv, const struct zq_device_cache *cache, float *out)
{
    const struct zq_heads *h = &s->a.heads;
    const size_t width = h->n_kv_heads * h->head_dim * zq_dtype_bytes(cache->dtype);
    float *scratch = check_buffer(&d->c, d->layouts.attend_scratch(h) * sizeof(float), 64);
    for (size_t t = 0; t < s->a.n_tokens; t++)
        if (!s->tokens[t].n_keys) memset(out + t * s->a.out.ld_f, 0, h->n_heads * h->head_dim * sizeof *out);
    for (size_t i = 0; i < SEQUENCES; i++) {
        const size_t n = s->spans[i].n_tokens, at = s->spans[i].cache + s->layer * s->spans[i].capacity;
        const struct zq_kv kv = {.dtype = cache->dtype, .k = (char *)cache->k + at * width, .v = (char *)cache->v + at * width,
                                 .k_scale = cache->k_scale ? cache->k_scale + at * h->n_kv_heads : NULL,
                                 .v_scale = cache->v_scale ? cache->v_scale + at * h->n_kv_heads : NULL, .capacity = s->spans[i].capacity};
        const struct zq_keep keep = {.qkv = qkv + s->spans[i].row * s->a.ld, .ld = s->a.ld, .n_tokens = n, .position = s->spans[i].position,
                                     .heads = *h, .rotary = s->a.rotary, .kv = kv};
        const struct zq_attend attend = {.qkv = keep.qkv, .ld = keep.ld, .n_tokens = n, .position = keep.position, .n_keys = s->spans[i].n_keys,
                                         .window = s->a.window, .causal = s->a.causal, .scale = s->a.scale, .heads = *h, .kv = keep.kv,
                                         .out = out + s->spans[i].row * s->a.out.ld_f, .ld_out = s->a.out.ld_f,
                                         .scratch = scratch};
        if (!n) continue;
        d->layouts.keep(&keep, 0, n, 0, h->n_kv_heads);
        d->layouts.attend(&attend, 0, n, 0, h->n_heads);
    }
}

/* What the device and what plain C work on. */
struct attention_run {
    float *qkv[2], *out[2], *scale[2];
    int8_t *q[2]; /* NULL: floats only */
    uint16_t *h;
    uint32_t *arrived, *joined;
    float *parts;
    struct zq_device_cache got, want;
    size_t n_scales, kv_bytes;
};

/* Nothing may come of positions that no token has filled: NaN; of INT8 the scales are. */
static void spoil(const struct attention_case *s, const struct zq_device_cache *cache)
{
    const size_t n_kv = s->a.heads.n_kv_heads, dim = s->a.heads.head_dim, value = zq_dtype_bytes(cache->dtype);
    for (size_t i = 0; i < SEQUENCES; i++) {
        const size_t capacity = s->spans[i].capacity, at = s->spans[i].cache + s->layer * capacity;
        for (size_t h = 0; h < n_kv; h++) {
            for (size_t p = s->spans[i].n_keys; p < capacity; p++) {
                const size_t row = at * n_kv + h * capacity;
                memset((char *)cache->v + (row + p) * dim * value, 0xff, dim * value);
                for (size_t d = 0; d < dim; d++) memset((char *)cache->k + (row * dim + (p / 16 * dim + d) * 16 + p % 16) * value, 0xff, value);
                if (cache->k_scale) memset(cache->k_scale + row + p, 0xff, sizeof(float));
                if (cache->v_scale) memset(cache->v_scale + row + p, 0xff, sizeof(float));
            }
        }
    }
}

/* Both sides' keep(), the device's attention, and plain C's into out[1]. */
static struct attention_run run_attention(struct device *d, struct attention_case *s, enum zq_dtype dtype)
{
    struct check *c = &d->c;
    struct attention_run r = {.n_scales = s->n_positions * s->a.heads.n_kv_heads};
    const size_t n_kv = r.n_scales * s->a.heads.head_dim, scale_bytes = r.n_scales * sizeof(float), qkv_bytes = s->n_qkv * sizeof(float);
    const size_t table_bytes = s->n_table * sizeof(float);
    const bool tokens = check_coin(c);
    if (check_coin(c)) r.h = check_buffer(c, s->n_out * sizeof *r.h, sizeof *r.h);
    r.kv_bytes = n_kv * zq_dtype_bytes(dtype);
    r.got = make_cache(c, dtype, n_kv, r.n_scales);
    spoil(s, &r.got);
    r.want = copy_cache(c, r.got, n_kv, r.n_scales);
    r.qkv[0] = check_floats(c, s->n_qkv, VALUES_NORMAL);
    const float *cosines = check_floats(c, s->n_table, VALUES_NORMAL), *sines = check_floats(c, s->n_table, VALUES_NORMAL);
    r.qkv[1] = copy_of(c, r.qkv[0], qkv_bytes, sizeof(float));
    for (int j = 0; j < 2; j++) {
        r.out[j] = check_buffer(c, s->n_out * sizeof(float), sizeof(float));
        if (tokens) r.q[j] = check_buffer(c, s->n_q, 16);
        if (tokens) r.scale[j] = check_buffer(c, s->a.n_tokens * sizeof(float), sizeof(float));
    }
    r.arrived = memset(check_buffer(c, s->a.n_tokens * sizeof *r.arrived, sizeof *r.arrived), 0, s->a.n_tokens * sizeof *r.arrived);
    r.joined = memset(check_buffer(c, ZQ_DEVICE_SPLIT_BLOCKS * sizeof *r.joined, 4), 0, ZQ_DEVICE_SPLIT_BLOCKS * sizeof *r.joined);
    r.parts = check_buffer(c, zq_device_parts(&s->a.heads) * sizeof *r.parts, 4);
    s->a.rotary.cos = cosines;
    s->a.rotary.sin = sines;
    plain_attention(d, s, r.qkv[1], &r.want, r.out[1]);

    s->a.rotary.cos = place(d, cosines, table_bytes);
    s->a.rotary.sin = place(d, sines, table_bytes);
    s->a.tokens = place(d, s->tokens, s->a.n_tokens * sizeof *s->tokens);
    s->a.qkv = place(d, r.qkv[0], qkv_bytes);
    s->a.cache = (struct zq_device_cache){dtype, place(d, r.got.k, r.kv_bytes), place(d, r.got.v, r.kv_bytes),
                                          place(d, r.got.k_scale, scale_bytes), place(d, r.got.v_scale, scale_bytes)};
    s->a.out.f = place(d, r.out[0], s->n_out * sizeof(float));
    s->a.out.q = place(d, r.q[0], s->n_q);
    s->a.out.h = place(d, r.h, s->n_out * sizeof *r.h);
    s->a.out.h_dtype = tokens ? ZQ_F16 : ZQ_BF16;
    s->a.out.scale = place(d, r.scale[0], s->a.n_tokens * sizeof(float));
    s->a.arrived = place(d, r.arrived, s->a.n_tokens * sizeof *r.arrived);
    s->a.joined = place(d, r.joined, ZQ_DEVICE_SPLIT_BLOCKS * sizeof *r.joined);
    s->a.parts = place(d, r.parts, zq_device_parts(&s->a.heads) * sizeof *r.parts);
    d->plugin->keep(d->queue, &s->a);
    d->plugin->attend(d->queue, &s->a);
    fetch(d);
    return r;
}

/* INT8 tokens are those of the floats beside them, and the counters are as they were. */
static void check_tokens(struct device *d, const struct attention_case *s, const struct attention_run *r)
{
    struct check *c = &d->c;
    for (size_t t = 0; t < s->a.n_tokens; t++)
        if (r->arrived[t]) check_fail(c, "the counter of token %zu is left at %u", t, r->arrived[t]);
    for (size_t i = 0; i < ZQ_DEVICE_SPLIT_BLOCKS; i++)
        if (r->joined[i]) check_fail(c, "the counter of joint %zu is left at %u", i, r->joined[i]);
    const size_t width = s->a.heads.n_heads * s->a.heads.head_dim, ld = s->a.out.ld_f;
    for (size_t t = 0; r->h && t < s->a.n_tokens; t++) check_halves(c, r->h + t * ld, r->out[0] + t * ld, width, s->a.out.h_dtype);
    if (!r->q[0]) return;
    const struct zq_activate a = {.x = r->out[0], .ld_x = s->a.out.ld_f, .n = s->a.heads.n_heads * s->a.heads.head_dim,
                                  .out = {.q = r->q[1], .scale = r->scale[1], .ld_q = s->a.out.ld_q}};
    d->layouts.activate(&a, 0, s->a.n_tokens);
    check_same_floats(c, r->scale[0], r->scale[1], s->a.n_tokens, "scale");
    check_same_bytes(c, r->q[0], r->q[1], s->n_q, "q");
}

void device_attention(struct device *d)
{
    struct check *c = &d->c;
    for (size_t i = 0; i < 30 && !c->failed; i++) {
        check_begin(c);
        struct attention_case s = make_attention(c, WRITTEN);
        const enum zq_dtype dtype = (enum zq_dtype[]){ZQ_F32, ZQ_F16, ZQ_I8}[i % 3];
        const struct attention_run r = run_attention(d, &s, dtype);
        check_same_floats(c, r.qkv[0], r.qkv[1], s.n_qkv, "qkv");
        check_same_bytes(c, r.got.k, r.want.k, r.kv_bytes, "keys");
        check_same_bytes(c, r.got.v, r.want.v, r.kv_bytes, "values");
        if (dtype == ZQ_I8) check_same_floats(c, r.got.k_scale, r.want.k_scale, r.n_scales, "scales of keys");
        if (dtype == ZQ_I8) check_same_floats(c, r.got.v_scale, r.want.v_scale, r.n_scales, "scales of values");
        check_same_floats(c, r.out[0], r.out[1], s.n_out, "out");
        check_tokens(d, &s, &r);
    }
}

/* ---- tensor cores: against exact arithmetic, within the bound of device.h ---- */

static double kept(const void *values, size_t i, const struct zq_device_cache *cache, const float *scale)
{
    if (cache->dtype == ZQ_I8) return (double)((const int8_t *)values)[i] * (double)*scale;
    if (cache->dtype == ZQ_F16) return (double)zq_f16_to_float(((const uint16_t *)values)[i]);
    return (double)((const float *)values)[i];
}

/* One token's head: what it should be, and by how much it may differ. */
static void exact_row(const struct attention_case *s, const struct attention_run *r, size_t t, size_t head, double *want, double *bound)
{
    const struct zq_heads *h = &s->a.heads;
    const struct zq_device_token *at = &s->tokens[t];
    const struct zq_device_cache *cache = &r->want;
    const size_t dim = h->head_dim, row = (at->cache + s->a.layer_first) * h->n_kv_heads + head * h->n_kv_heads / h->n_heads * at->capacity;
    const size_t end = s->a.causal && at->position + 1 < at->n_keys ? at->position + 1 : at->n_keys;
    const size_t first = s->a.window && at->position >= s->a.window ? at->position - s->a.window + 1 : 0;
    const float *q = r->qkv[1] + t * s->a.ld + h->q_offset + head * h->q_stride;
    double score[1024], top = -INFINITY, most = 0, sum = 0, largest = 0;
    memset(want, 0, dim * sizeof *want);
    memset(bound, 0, dim * sizeof *bound);
    if (!at->n_keys) return;
    for (size_t j = first; j < end; j++) {
        double dot = 0, size = 0;
        for (size_t d = 0; d < dim; d++) {
            const double x = (double)q[d] * kept(cache->k, row * dim + (j / 16 * dim + d) * 16 + j % 16, cache, cache->k_scale + row + j);
            dot += x;
            size += fabs(x);
        }
        score[j] = dot * (double)s->a.scale;
        top = fmax(top, score[j]);
        most = fmax(most, size * (double)s->a.scale);
    }
    for (size_t j = first; j < end; j++) {
        const double p = exp(score[j] - top);
        sum += p;
        for (size_t d = 0; d < dim; d++) {
            const double v = kept(cache->v, (row + j) * dim + d, cache, cache->v_scale + row + j);
            want[d] += p * v;
            bound[d] += p * fabs(v);
            largest = fmax(largest, fabs(v));
        }
    }
    const double delta = most * (0x1p-10 + (double)dim * 0x1p-22), keys = (double)at->n_keys;
    for (size_t d = 0; d < dim; d++) {
        want[d] /= sum;
        bound[d] = (expm1(2 * delta) + 0x1p-9 + keys * 0x1p-22) * bound[d] / sum + keys * 0x1p-24 * (largest + 1);
    }
}

static void check_fast(struct device *d, enum way way, enum zq_dtype dtype)
{
    struct check *c = &d->c;
    double want[ZQ_DEVICE_FAST_HEAD_DIM], bound[ZQ_DEVICE_FAST_HEAD_DIM];
    check_begin(c);
    struct attention_case s = make_attention(c, way);
    s.a.scale = 1.0f / sqrtf((float)s.a.heads.head_dim);
    const struct attention_run r = run_attention(d, &s, dtype);
    for (size_t t = 0; t < s.a.n_tokens && !c->failed; t++) {
        for (size_t head = 0; head < s.a.heads.n_heads; head++) {
            exact_row(&s, &r, t, head, want, bound);
            check_near(c, r.out[0] + t * s.a.out.ld_f + head * s.a.heads.head_dim, want, bound, s.a.heads.head_dim, "out");
        }
    }
    check_tokens(d, &s, &r);
}

void device_prompt(struct device *d)
{
    for (size_t i = 0; i < 12 && !d->c.failed; i++) check_fast(d, PROMPT, (enum zq_dtype[]){ZQ_F32, ZQ_F16, ZQ_I8}[i % 3]);
}

void device_decode(struct device *d)
{
    for (size_t i = 0; i < 12 && !d->c.failed; i++) check_fast(d, DECODE, (enum zq_dtype[]){ZQ_F16, ZQ_I8}[i % 2]);
}
