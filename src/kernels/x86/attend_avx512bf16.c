/* Attention with products of BF16 pairs, for --math fast. Keys and values of a tile become pairs once for up to MANY queries of their head:
 * scores sum over pairs of dimensions, mixed values over pairs of keys. Softmax, and what is summed of it, stays F32. For too few queries to
 * pay for that the attention of exact serves.
 *
 * Register plan: 6 queries x 4 vectors of 16 keys or dimensions are 24 sums; 4 of keys or values, 1 of a query's pair in all lanes. */
#include "kernels/x86/pairs.h"

#include "kernels/chain.h"
#include "kernels/crossovers.h"
#include "kernels/math.h"

#include "kernels/attend.inc"

enum { MANY = 48 };

/* What a call has in work. Scratch, in this order: */
struct bf16_tile {
    pair *k;       /* [head_dim / 2][TILE] */
    pair *v;       /* [TILE / 2][padded(head_dim)] */
    float *scores; /* [T_MANY][TILE]: p of the queries of a block */
    pair *weights; /* [T_MANY][TILE / 2]: p as pairs of keys */
    pair *x;       /* [MANY][padded_pairs(head_dim)]: the queries */
    float *mixed;  /* [MANY][padded(head_dim)]: o of the queries */
};

ZQ_INLINE size_t padded_pairs(size_t head_dim) { return up_to(head_dim, STEP_COLS) / 2; }

static size_t attend_scratch_bf16(const struct zq_heads *heads)
{
    const size_t n = heads->head_dim;
    const size_t tile = (n + 1) / 2 * TILE + TILE / 2 * padded(n) + T_MANY * TILE + T_MANY * TILE / 2 + MANY * (padded_pairs(n) + padded(n));
    const size_t exact = LEVEL(attend_scratch)(heads);
    return tile > exact ? tile : exact;
}

static struct bf16_tile scratch_of(const struct zq_attend *a)
{
    const size_t n = a->heads.head_dim;
    struct bf16_tile t = {.k = (pair *)(void *)a->scratch};
    t.v = t.k + n / 2 * TILE;
    t.scores = (float *)(void *)(t.v + TILE / 2 * padded(n));
    t.weights = (pair *)(void *)(t.scores + T_MANY * TILE);
    t.x = t.weights + T_MANY * TILE / 2;
    t.mixed = (float *)(void *)(t.x + MANY * padded_pairs(n));
    return t;
}

/* n <= TILE keys of a tile: vectors of 16 keys, of which those past the last are not looked at. */
ZQ_INLINE void fill_keys(pair *to, struct keys at, size_t n, size_t head_dim, struct kept kept)
{
    for (size_t v = 0; v * 16 < n; v++) {
        const uint8_t *k = at.k + v * head_dim * 16 * kept.value_bytes;
        const vec scale = kept.scaled ? v_load(at.k_scale + v * 16) : v_set(1);
        for (size_t d = 0; d < head_dim; d += 2, k += 2 * 16 * kept.value_bytes) {
            vec even = kept.load(k, 16), odd = kept.load(k + 16 * kept.value_bytes, 16);
            if (kept.scaled) {
                even = v_mul(even, scale);
                odd = v_mul(odd, scale);
            }
            _mm512_storeu_si512(to + d / 2 * TILE + v * 16, make_pairs(even, odd));
        }
    }
}

/* Dimensions d .. d + 15 of value j of the tile; zeros from n on. */
ZQ_INLINE vec load_value(struct keys at, size_t j, size_t n, size_t d, size_t head_dim, struct kept kept)
{
    if (j >= n) return v_set(0);
    const vec x = kept.load(at.v + (j * head_dim + d) * kept.value_bytes, zq_smaller(head_dim - d, 16));
    return kept.scaled ? v_mul(x, v_set(at.v_scale[j])) : x;
}

ZQ_INLINE void fill_values(pair *to, struct keys at, size_t n, size_t head_dim, struct kept kept)
{
    for (size_t j = 0; j < n; j += 2, to += padded(head_dim))
        for (size_t d = 0; d < head_dim; d += 16)
            _mm512_storeu_si512(to + d, make_pairs(load_value(at, j, n, d, head_dim, kept), load_value(at, j + 1, n, d, head_dim, kept)));
}

/* Scores of n_vecs * 16 keys from `from` for n queries, whose pairs lie at x, into their p. */
ZQ_INLINE void score_pairs(const struct zq_attend *a, struct query *queries, const pair *x, size_t n, size_t n_vecs, const pair *keys, size_t from)
{
    const size_t head_dim = a->heads.head_dim;
    const pair *row[T_MANY];
    vec s[T_MANY * V_MANY];
    for (size_t t = 0; t < n; t++) row[t] = x + t * padded_pairs(head_dim);
    ZQ_UNROLL
    for (size_t i = 0; i < n * n_vecs; i++) s[i] = v_set(0);
    multiply_pairs(s, n, n_vecs, row, head_dim / 2, keys + from, TILE);
    ZQ_UNROLL
    for (size_t i = 0; i < n * n_vecs; i++) v_store(queries[i / n_vecs].p + from + i % n_vecs * 16, v_mul(s[i], v_set(a->scale)));
}

/* o[d ..] += p . v over the pairs of keys [begin, end) for n queries, whose weights lie at p. */
ZQ_INLINE void mix_pairs(struct query *queries, const pair *p, size_t n, size_t n_vecs, const pair *values, size_t ld, size_t begin, size_t end,
                         size_t d)
{
    const pair *row[T_MANY];
    vec o[T_MANY * V_MANY];
    for (size_t t = 0; t < n; t++) row[t] = p + t * (TILE / 2) + begin;
    ZQ_UNROLL
    for (size_t i = 0; i < n * n_vecs; i++) o[i] = v_load(queries[i / n_vecs].o + d + i % n_vecs * 16);
    multiply_pairs(o, n, n_vecs, row, end - begin, values + begin * ld + d, ld);
    ZQ_UNROLL
    for (size_t i = 0; i < n * n_vecs; i++) v_store(queries[i / n_vecs].o + d + i % n_vecs * 16, o[i]);
}

/* The weights of a query as pairs of keys, 0 for those it does not see. */
static void weigh_pairs(struct query *query, pair *to, struct range r, size_t head_dim)
{
    for (size_t j = 0; j < TILE; j += 16)
        if (j + 16 <= r.begin || j >= r.end) v_store(query->p + j, v_set(0));
    if (r.begin < r.end) weigh(query, r, head_dim, NULL);
    for (size_t j = 0; j < TILE; j += STEP_COLS) store_pairs(to + j / 2, v_load(query->p + j), v_load(query->p + j + 16));
}

/* A tile of n_keys keys for n queries of a block, a constant; x: their pairs. */
ZQ_INLINE void attend_block_bf16(const struct zq_attend *a, const struct bf16_tile *t, struct query *queries, const pair *x, size_t n, size_t tile)
{
    const size_t head_dim = a->heads.head_dim, ld = padded(head_dim);
    struct range any = {TILE, 0}, r[T_MANY];
    for (size_t i = 0; i < n; i++) {
        queries[i].p = t->scores + i * TILE;
        r[i] = visible(&queries[i], tile);
        if (r[i].begin >= r[i].end) continue;
        any.begin = zq_smaller(any.begin, r[i].begin);
        if (r[i].end > any.end) any.end = r[i].end;
    }
    if (any.begin >= any.end) return;

    size_t v = any.begin / 16, d = 0;
    const size_t v_end = (any.end + 15) / 16, begin = any.begin / 2, end = (any.end + 1) / 2;
    for (; v + V_MANY <= v_end; v += V_MANY) score_pairs(a, queries, x, n, V_MANY, t->k, v * 16);
    for (; v < v_end; v++) score_pairs(a, queries, x, n, 1, t->k, v * 16);
    for (size_t i = 0; i < n; i++) weigh_pairs(&queries[i], t->weights + i * (TILE / 2), r[i], head_dim);
    for (; d + V_MANY * 16 <= ld; d += V_MANY * 16) mix_pairs(queries, t->weights, n, V_MANY, t->v, ld, begin, end, d);
    for (; d < ld; d += 16) mix_pairs(queries, t->weights, n, 1, t->v, ld, begin, end, d);
}

static void attend_many(const struct zq_attend *a, const struct bf16_tile *t, struct query *queries, size_t n_queries, size_t tile)
{
    const pair *x = t->x;
    const size_t ld = padded_pairs(a->heads.head_dim);
    for (size_t i = 0, n; i < n_queries; i += n, x += n * ld) {
        n = block_of(n_queries - i);
        if (n == T_MANY) attend_block_bf16(a, t, queries + i, x, T_MANY, tile);
        else if (n == T_MANY - 1) attend_block_bf16(a, t, queries + i, x, T_MANY - 1, tile);
        else if (n == T_LEAST) attend_block_bf16(a, t, queries + i, x, T_LEAST, tile);
        else
            for (size_t j = 0; j < n; j++) attend_block_bf16(a, t, queries + i + j, x + j * ld, 1, tile);
    }
}

/* All tiles of keys for n queries of one key head. */
ZQ_INLINE void attend_queries(const struct zq_attend *a, const struct bf16_tile *t, struct query *queries, size_t n, size_t kv_head, struct kept kept)
{
    const size_t head_dim = a->heads.head_dim;
    const struct range seen = seen_by(queries, n);
    for (size_t i = 0; i < n; i++) token_pairs(t->x + i * padded_pairs(head_dim), queries[i].q, head_dim, 2 * padded_pairs(head_dim));
    for (size_t tile = seen.begin / TILE * TILE; tile < seen.end; tile += TILE) {
        const struct keys at = keys_at(a, kv_head, tile, kept);
        const size_t n_keys = zq_smaller(seen.end - tile, TILE);
        fill_keys(t->k, at, n_keys, head_dim, kept);
        fill_values(t->v, at, n_keys, head_dim, kept);
        attend_many(a, t, queries, n, tile);
    }
    for (size_t i = 0; i < n; i++) end_query(&queries[i], head_dim);
}

ZQ_INLINE void attend_heads_bf16(const struct zq_attend *a, size_t begin, size_t end, size_t head_begin, size_t head_end, struct kept kept)
{
    const struct bf16_tile t = scratch_of(a);
    for (size_t h = head_begin, h_end; h < head_end; h = h_end) {
        h_end = end_of_group(&a->heads, h, head_end);
        const size_t n_heads = h_end - h, n_queries = (end - begin) * n_heads;
        for (size_t i = 0, n; i < n_queries; i += n) {
            struct query queries[MANY];
            n = zq_smaller(n_queries - i, MANY);
            for (size_t j = 0; j < n; j++)
                begin_query(&queries[j], a, begin + (i + j) / n_heads, h + (i + j) % n_heads, NULL, t.mixed + j * padded(a->heads.head_dim));
            attend_queries(a, &t, queries, n, kv_head_of(&a->heads, h), kept);
        }
    }
}

static void attend_bf16(const struct zq_attend *a, size_t begin, size_t end, size_t head_begin, size_t head_end)
{
    const size_t group = a->heads.n_heads / a->heads.n_kv_heads;
    if ((end - begin) * group <= FEW_QUERIES_BF16 || a->heads.head_dim % 2) {
        LEVEL(attend)(a, begin, end, head_begin, head_end);
        return;
    }
    switch (a->kv.dtype) {
    case ZQ_F16: attend_heads_bf16(a, begin, end, head_begin, head_end, (struct kept){2, kept_f16, false}); break;
    case ZQ_I8: attend_heads_bf16(a, begin, end, head_begin, head_end, (struct kept){1, kept_i8, true}); break;
    default: attend_heads_bf16(a, begin, end, head_begin, head_end, (struct kept){4, load_f32, false});
    }
}

void zq_attend_avx512bf16(struct zq_kernels *k)
{
    k->attend_scratch = attend_scratch_bf16;
    k->attend = attend_bf16;
}
