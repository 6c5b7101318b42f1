/* Softmax attention in training: forward, and two passes backward, one by queries and one by keys, so that every gradient has one owner and no float
 * is added atomically. No score matrix exists: probabilities are computed again from each row's maximum and sum, which the forward pass leaves in
 * `stats` with, from the backward pass, the product of a row's output and its gradient (which is the sum of p dp: FlashAttention-2, section 3.1.2).
 *
 * FP32 throughout: a step's products of weights are ten times as many. A block of 128 threads has a tile of rows; LANES neighbouring threads have a
 * row, and of a tile's other side and of the head each LANES-th value. */
#ifndef ZQ_CUDA_TRAINING_ATTEND_CUH
#define ZQ_CUDA_TRAINING_ATTEND_CUH

#include "cuda/training.cuh"

enum { ATTEND_THREADS = 128 };
#define UNSEEN (-3e38f) /* below any score */

template <int DIM> struct attend_shape {
    enum { ROWS = DIM <= 128 ? 16 : 8, LANES = ATTEND_THREADS / ROWS, EACH = ROWS > LANES ? ROWS / LANES : 1, VALUES = DIM / LANES, LD = DIM + 1,
           WIDTH = ROWS + 1 };
};

struct rotate_args {
    struct zq_attention_pass a;
    float *rows; /* qkv or its gradient */
    float sense; /* 1, or -1 for the gradient: the transposed rotation */
};

KERNEL(ATTEND_THREADS) train_rotate(const rotate_args args)
{
    const struct zq_attention_pass *a = &args.a;
    const struct zq_heads *h = &a->heads;
    const size_t half = a->rotary.n_rotated / 2, position = a->positions[block_x()];
    const float *cos = a->rotary.cos + position * half, *sin = a->rotary.sin + position * half;
    float *token = args.rows + (size_t)block_x() * a->ld;
    for (size_t i = thread_x(); i < (h->n_heads + h->n_kv_heads) * half; i += ATTEND_THREADS) {
        const size_t head = i / half, kv = head - h->n_heads, at = i % half;
        float *x = token + (head < h->n_heads ? h->q_offset + head * h->q_stride : h->k_offset + kv * h->kv_stride);
        float *left = a->rotary.pairs ? x + 2 * at : x + at, *right = a->rotary.pairs ? x + 2 * at + 1 : x + at + half;
        const float s = mul(args.sense, sin[at]), turned = sub(mul(*left, cos[at]), mul(*right, s));
        *right = add(mul(*right, cos[at]), mul(*left, s));
        *left = turned;
    }
}

/* tile [ROWS, LD] = the first `count` rows of x [.., ld], n values each; zeros beyond. */
template <int DIM> DEVICE void load_tile(float *tile, const float *x, size_t ld, unsigned count, unsigned n)
{
    using shape = attend_shape<DIM>;
    for (unsigned i = thread_x(); i < shape::ROWS * DIM; i += ATTEND_THREADS) {
        const unsigned r = i / DIM, d = i % DIM;
        tile[r * shape::LD + d] = r < count && d < n ? x[r * ld + d] : 0.0f;
    }
}

/* Two tiles at once in the place of what all threads have read. */
template <int DIM>
DEVICE void next_tiles(float *tile_x, const float *x, size_t ld_x, float *tile_y, const float *y, size_t ld_y, unsigned count, unsigned n)
{
    using shape = attend_shape<DIM>;
    sync_block();
    for (unsigned i = thread_x(); i < shape::ROWS * DIM; i += ATTEND_THREADS) {
        const unsigned r = i / DIM, d = i % DIM;
        const bool real = r < count && d < n;
        tile_x[r * shape::LD + d] = real ? x[r * ld_x + d] : 0.0f;
        tile_y[r * shape::LD + d] = real ? y[r * ld_y + d] : 0.0f;
    }
    sync_block();
}

DEVICE float dot_rows(const float *x, const float *y, unsigned n)
{
    float total = 0;
    for (unsigned d = 0; d < n; d++) total = fma_rn(x[d], y[d], total);
    return total;
}

/* Over the LANES threads of a row. */
template <int LANES> DEVICE float row_total(float a)
{
    for (unsigned mask = LANES / 2; mask; mask /= 2) a = add(a, shuffle_xor(a, mask));
    return a;
}
template <int LANES> DEVICE float row_top(float a)
{
    for (unsigned mask = LANES / 2; mask; mask /= 2) a = larger(a, shuffle_xor(a, mask));
    return a;
}

DEVICE bool sees(const struct zq_attention_pass *a, unsigned query, unsigned key)
{
    return (!a->causal || key <= query) && (!a->window || key + a->window > query);
}

/* A sequence and a head of it, and what its block looks at. */
struct attend_place {
    size_t first;    /* row of the sequence's first token */
    unsigned length; /* of the sequence */
    unsigned head, kv_head;
    const float *q, *k, *v; /* of the first token */
};
DEVICE attend_place place_of(const struct zq_attention_pass *a, unsigned sequence, unsigned head, unsigned kv_head)
{
    attend_place p;
    p.first = a->begins[sequence];
    p.length = a->begins[sequence + 1] - a->begins[sequence];
    p.head = head;
    p.kv_head = kv_head;
    const float *at = a->qkv + p.first * a->ld;
    p.q = at + a->heads.q_offset + head * a->heads.q_stride;
    p.k = at + a->heads.k_offset + kv_head * a->heads.kv_stride;
    p.v = at + a->heads.v_offset + kv_head * a->heads.kv_stride;
    return p;
}
DEVICE attend_place place_of_query_head(const struct zq_attention_pass *a)
{
    const unsigned n = (unsigned)a->heads.n_heads, head = block_x() % n;
    return place_of(a, block_x() / n, head, head * (unsigned)a->heads.n_kv_heads / n);
}

/* The keys that any query of [begin, end) sees: tiles from `from` to below `to`. */
DEVICE unsigned first_key(const struct zq_attention_pass *a, unsigned begin, unsigned rows)
{
    const unsigned from = a->window && begin >= a->window ? begin - (unsigned)a->window + 1 : 0;
    return from / rows * rows;
}
DEVICE unsigned end_of_keys(const struct zq_attention_pass *a, unsigned begin, unsigned rows, unsigned length)
{
    return a->causal ? least(begin + rows, length) : length;
}

DEVICE float *stats_of(const struct zq_attention_pass *a, size_t row, unsigned head) { return a->stats + (row * a->heads.n_heads + head) * 3; }

/* Grid: (sequences * heads, tiles of queries). The running maximum of a row is finite from the start, so that a tile of which it sees nothing
 * changes nothing. */
template <int DIM> KERNEL(ATTEND_THREADS) train_attend(const struct zq_attention_pass a)
{
    using shape = attend_shape<DIM>;
    SHARED(float, q, shape::ROWS * shape::LD);
    SHARED(float, k, shape::ROWS * shape::LD);
    SHARED(float, v, shape::ROWS * shape::LD);
    SHARED(float, weights, shape::ROWS * shape::WIDTH);
    const attend_place p = place_of_query_head(&a);
    const unsigned begin = block_y() * shape::ROWS, n = (unsigned)a.heads.head_dim, row = thread_x() / shape::LANES, lane = thread_x() % shape::LANES;
    if (begin >= p.length) return;
    const bool real = begin + row < p.length;
    float out[shape::VALUES] = {}, top = UNSEEN, sum = 0;
    load_tile<DIM>(q, p.q + begin * a.ld, a.ld, p.length - begin, n);
    for (unsigned key = first_key(&a, begin, shape::ROWS); key < end_of_keys(&a, begin, shape::ROWS, p.length); key += shape::ROWS) {
        next_tiles<DIM>(k, p.k + key * a.ld, a.ld, v, p.v + key * a.ld, a.ld, p.length - key, n);
        float scores[shape::EACH], most = top;
        UNROLL
        for (unsigned i = 0; i < shape::EACH; i++) {
            const unsigned j = i * shape::LANES + lane;
            const bool seen = j < shape::ROWS && real && key + j < p.length && sees(&a, begin + row, key + j);
            scores[i] = seen ? mul(a.scale, dot_rows(q + row * shape::LD, k + j * shape::LD, n)) : UNSEEN;
            most = larger(most, scores[i]);
        }
        most = row_top<shape::LANES>(most);
        const float shrink = training_exp(sub(top, most));
        top = most;
        sum = mul(sum, shrink);
        UNROLL
        for (unsigned i = 0; i < shape::EACH; i++) {
            const float w = scores[i] > UNSEEN ? training_exp(sub(scores[i], top)) : 0;
            if (i * shape::LANES + lane < shape::ROWS) weights[row * shape::WIDTH + i * shape::LANES + lane] = w;
            sum = add(sum, w);
        }
        if (!MUTANT(32)) sync_block();
        UNROLL
        for (unsigned i = 0; i < shape::VALUES; i++) {
            out[i] = mul(out[i], shrink);
            for (unsigned j = 0; j < shape::ROWS; j++)
                out[i] = fma_rn(weights[row * shape::WIDTH + j], v[j * shape::LD + i * shape::LANES + lane], out[i]);
        }
    }
    sum = row_total<shape::LANES>(sum);
    if (!real) return;
    float *to = a.attended + (p.first + begin + row) * (a.heads.n_heads * n) + p.head * n, *stats = stats_of(&a, p.first + begin + row, p.head);
    UNROLL
    for (unsigned i = 0; i < shape::VALUES; i++)
        if (i * shape::LANES + lane < n) to[i * shape::LANES + lane] = divide(out[i], sum);
    if (lane) return;
    stats[0] = top;
    stats[1] = sum;
}

/* Gradient of the queries, and the third of `stats`. Grid as above. */
template <int DIM> KERNEL(ATTEND_THREADS) train_attend_queries(const struct zq_attention_pass a)
{
    using shape = attend_shape<DIM>;
    SHARED(float, q, shape::ROWS * shape::LD);
    SHARED(float, dout, shape::ROWS * shape::LD);
    SHARED(float, k, shape::ROWS * shape::LD);
    SHARED(float, v, shape::ROWS * shape::LD);
    SHARED(float, slopes, shape::ROWS * shape::WIDTH);
    const attend_place p = place_of_query_head(&a);
    const unsigned begin = block_y() * shape::ROWS, n = (unsigned)a.heads.head_dim, row = thread_x() / shape::LANES, lane = thread_x() % shape::LANES;
    if (begin >= p.length) return;
    const bool real = begin + row < p.length;
    const size_t at = p.first + begin + (real ? row : 0), ld = a.heads.n_heads * n;
    float *stats = stats_of(&a, at, p.head), dq[shape::VALUES] = {}, both = 0;
    load_tile<DIM>(q, p.q + begin * a.ld, a.ld, p.length - begin, n);
    load_tile<DIM>(dout, a.d_attended + (p.first + begin) * ld + p.head * n, ld, p.length - begin, n);
    const float *x = a.attended + at * ld + p.head * n, *dx = a.d_attended + at * ld + p.head * n;
    for (unsigned d = lane; d < n; d += shape::LANES) both = fma_rn(x[d], dx[d], both);
    both = row_total<shape::LANES>(both);
    const float top = stats[0], sum = stats[1];
    if (real && lane == 0) stats[2] = both;
    for (unsigned key = first_key(&a, begin, shape::ROWS); key < end_of_keys(&a, begin, shape::ROWS, p.length); key += shape::ROWS) {
        next_tiles<DIM>(k, p.k + key * a.ld, a.ld, v, p.v + key * a.ld, a.ld, p.length - key, n);
        for (unsigned j = lane; j < shape::ROWS; j += shape::LANES) {
            const bool seen = real && key + j < p.length && sees(&a, begin + row, key + j);
            const float score = mul(a.scale, dot_rows(q + row * shape::LD, k + j * shape::LD, n));
            const float dp = dot_rows(dout + row * shape::LD, v + j * shape::LD, n);
            slopes[row * shape::WIDTH + j] = seen ? mul(divide(training_exp(sub(score, top)), sum), sub(dp, both)) : 0;
        }
        if (!MUTANT(33)) sync_block();
        UNROLL
        for (unsigned i = 0; i < shape::VALUES; i++)
            for (unsigned j = 0; j < shape::ROWS; j++)
                dq[i] = fma_rn(slopes[row * shape::WIDTH + j], k[j * shape::LD + i * shape::LANES + lane], dq[i]);
    }
    if (!real) return;
    float *to = a.d_qkv + at * a.ld + a.heads.q_offset + p.head * a.heads.q_stride;
    UNROLL
    for (unsigned i = 0; i < shape::VALUES; i++)
        if (i * shape::LANES + lane < n) to[i * shape::LANES + lane] = mul(a.scale, dq[i]);
}

/* Gradients of keys and values. Grid: (sequences * key heads, tiles of keys). */
template <int DIM> KERNEL(ATTEND_THREADS) train_attend_keys(const struct zq_attention_pass a)
{
    using shape = attend_shape<DIM>;
    SHARED(float, k, shape::ROWS * shape::LD);
    SHARED(float, v, shape::ROWS * shape::LD);
    SHARED(float, q, shape::ROWS * shape::LD);
    SHARED(float, dout, shape::ROWS * shape::LD);
    SHARED(float, weights, shape::ROWS * shape::WIDTH);
    SHARED(float, slopes, shape::ROWS * shape::WIDTH);
    const unsigned n_kv = (unsigned)a.heads.n_kv_heads, kv = block_x() % n_kv, group = (unsigned)a.heads.n_heads / n_kv;
    const unsigned n = (unsigned)a.heads.head_dim, begin = block_y() * shape::ROWS, row = thread_x() / shape::LANES, lane = thread_x() % shape::LANES;
    const attend_place first = place_of(&a, block_x() / n_kv, kv * group, kv);
    if (begin >= first.length) return;
    const bool real = begin + row < first.length;
    const size_t ld = a.heads.n_heads * n;
    const unsigned from = a.causal ? begin : 0, reach = a.window ? begin + shape::ROWS - 1 + (unsigned)a.window : first.length;
    float dk[shape::VALUES] = {}, dv[shape::VALUES] = {};
    load_tile<DIM>(k, first.k + begin * a.ld, a.ld, first.length - begin, n);
    load_tile<DIM>(v, first.v + begin * a.ld, a.ld, first.length - begin, n);
    for (unsigned head = kv * group; head < (kv + 1) * group; head++) {
        const float *queries = first.q + (head - kv * group) * a.heads.q_stride, *d_attended = a.d_attended + first.first * ld + head * n;
        for (unsigned query = from; query < least(reach, first.length); query += shape::ROWS) {
            next_tiles<DIM>(q, queries + query * a.ld, a.ld, dout, d_attended + query * ld, ld, first.length - query, n);
            for (unsigned j = lane; j < shape::ROWS; j += shape::LANES) {
                float w = 0, slope = 0;
                if (real && query + j < first.length && sees(&a, query + j, begin + row)) {
                    const float *stats = stats_of(&a, first.first + query + j, head);
                    const float score = mul(a.scale, dot_rows(q + j * shape::LD, k + row * shape::LD, n));
                    w = divide(training_exp(sub(score, stats[0])), stats[1]);
                    slope = mul(w, sub(dot_rows(dout + j * shape::LD, v + row * shape::LD, n), stats[2]));
                }
                weights[row * shape::WIDTH + j] = w;
                slopes[row * shape::WIDTH + j] = slope;
            }
            sync_block();
            UNROLL
            for (unsigned i = 0; i < shape::VALUES; i++)
                for (unsigned j = 0; j < shape::ROWS; j++) {
                    dk[i] = fma_rn(slopes[row * shape::WIDTH + j], q[j * shape::LD + i * shape::LANES + lane], dk[i]);
                    dv[i] = fma_rn(weights[row * shape::WIDTH + j], dout[j * shape::LD + i * shape::LANES + lane], dv[i]);
                }
        }
    }
    if (!real) return;
    float *to = a.d_qkv + (first.first + begin + row) * a.ld + kv * a.heads.kv_stride;
    UNROLL
    for (unsigned i = 0; i < shape::VALUES; i++) {
        const unsigned d = i * shape::LANES + lane;
        if (d >= n) continue;
        to[a.heads.k_offset + d] = mul(a.scale, dk[i]);
        to[a.heads.v_offset + d] = dv[i];
    }
}

#endif
