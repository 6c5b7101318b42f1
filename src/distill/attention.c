/* Softmax attention, forward and backward. One item of work is a key head of a sequence with all query heads that share it, so
 * that sums over queries (gradients of keys and values) have one owner. Queries go in blocks: of a causal or windowed score
 * matrix only the part that can be seen is computed, and probabilities are computed again for the backward pass rather than
 * kept, as they would be the largest array of all. */
#include "distill/attention.h"

#include "base/clones.h"
#include "base/threads.h"
#include "distill/exp.h"
#include "distill/matmul.h"

#include <string.h>

enum { BLOCK = 64, LANES = 16 }; /* queries of a block; partial sums of a row */

size_t zq_attention_floats(size_t max_length)
{
    return 2 * BLOCK * max_length; /* probabilities and their gradients */
}

/* ---- rotary positions ------------------------------------------------------------------------------------------------ */

struct rotate_work {
    const struct zq_attention_pass *a;
    float *rows; /* qkv or its gradient */
    float sense; /* 1, or -1 for the gradient: the transposed rotation */
};

ZQ_CLONES static void rotate_head(const struct zq_rotary *r, float *x, const float *cos, const float *sin, float sense)
{
    const size_t half = r->n_rotated / 2;
    const bool pairs = r->pairs;
    for (size_t i = 0; i < half; i++) {
        float *a = pairs ? x + 2 * i : x + i, *b = pairs ? x + 2 * i + 1 : x + i + half;
        const float s = sense * sin[i], turned = *a * cos[i] - *b * s;
        *b = *b * cos[i] + *a * s;
        *a = turned;
    }
}

static void rotate_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct rotate_work *w = work;
    const struct zq_attention_pass *a = w->a;
    const size_t half = a->rotary.n_rotated / 2;
    for (size_t t = begin; t < end; t++) {
        const float *cos = a->rotary.cos + a->positions[t] * half, *sin = a->rotary.sin + a->positions[t] * half;
        float *q = w->rows + t * a->ld + a->heads.q_offset, *k = w->rows + t * a->ld + a->heads.k_offset;
        for (size_t h = 0; h < a->heads.n_heads; h++) rotate_head(&a->rotary, q + h * a->heads.q_stride, cos, sin, w->sense);
        for (size_t h = 0; h < a->heads.n_kv_heads; h++) rotate_head(&a->rotary, k + h * a->heads.kv_stride, cos, sin, w->sense);
    }
}

static void rotate(const struct zq_attention_pass *a, float *rows, float sense, int n_threads)
{
    struct rotate_work work = {a, rows, sense};
    if (a->rotary.n_rotated) zq_parallel(n_threads, a->n_tokens, 8, rotate_range, &work);
}

/* ---- one block of queries -------------------------------------------------------------------------------------------- */

/* Queries [begin, end) of a sequence against the keys [first, last) that any of them sees. */
struct block {
    size_t begin, end, first, last;
};

static struct block block_at(const struct zq_attention_pass *a, size_t begin, size_t length)
{
    struct block b = {.begin = begin, .end = begin + BLOCK < length ? begin + BLOCK : length, .last = length};
    if (a->causal) b.last = b.end;
    if (a->window && begin >= a->window) b.first = begin - a->window + 1;
    return b;
}

static inline float largest(const float *x, size_t n)
{
    float lane[LANES], top = x[0];
    size_t i = 0;
    for (size_t l = 0; l < LANES; l++) lane[l] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t l = 0; l < LANES; l++) top = lane[l] > top ? lane[l] : top;
    return top;
}

/* x = exp(x - top); returns the sum. */
static inline float exponentiate(float *x, size_t n, float top)
{
    float lane[LANES] = {0}, total = 0;
    for (size_t i = 0; i < n; i++) x[i] = zq_exp(x[i] - top);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += x[i + l];
    for (size_t l = 0; i + l < n; l++) lane[l] += x[i + l];
    for (size_t l = 0; l < LANES; l++) total += lane[l];
    return total;
}

/* Turns the scores p [queries, keys] of a block into probabilities, 0 for keys that a query does not see. */
ZQ_CLONES static void softmax(const struct zq_attention_pass *a, struct block b, float *p)
{
    const size_t n_keys = b.last - b.first;
    for (size_t i = b.begin; i < b.end; i++, p += n_keys) {
        const size_t from = (a->window && i >= a->window ? i - a->window + 1 : 0), to = a->causal ? i + 1 : b.last;
        const size_t low = from > b.first ? from - b.first : 0, high = to - b.first;
        memset(p, 0, low * sizeof *p);
        memset(p + high, 0, (n_keys - high) * sizeof *p);
        const float sum = exponentiate(p + low, high - low, largest(p + low, high - low));
        for (size_t k = low; k < high; k++) p[k] /= sum;
    }
}

/* dp := p (dp - sum of p dp): the gradient of the scores. */
ZQ_CLONES static void softmax_back(const float *p, float *dp, size_t n_queries, size_t n_keys)
{
    for (size_t i = 0; i < n_queries; i++, p += n_keys, dp += n_keys) {
        float lane[LANES] = {0}, total = 0;
        size_t at = 0;
        for (; at + LANES <= n_keys; at += LANES)
            for (size_t l = 0; l < LANES; l++) lane[l] += p[at + l] * dp[at + l];
        for (size_t l = 0; at + l < n_keys; l++) lane[l] += p[at + l] * dp[at + l];
        for (size_t l = 0; l < LANES; l++) total += lane[l];
        for (size_t k = 0; k < n_keys; k++) dp[k] = p[k] * (dp[k] - total);
    }
}

/* The arrays of one query head and its key head, first token of the sequence. */
struct head {
    const float *q, *k, *v;
    size_t ld, n; /* row stride, head_dim */
};

static struct head head_of(const struct zq_attention_pass *a, size_t row, size_t h)
{
    const struct zq_heads *heads = &a->heads;
    const float *at = a->qkv + row * a->ld;
    const size_t kv = h * heads->n_kv_heads / heads->n_heads * heads->kv_stride;
    return (struct head){
        .q = at + heads->q_offset + h * heads->q_stride, .k = at + heads->k_offset + kv, .v = at + heads->v_offset + kv,
        .ld = a->ld, .n = heads->head_dim,
    };
}

static void multiply(const struct zq_attention_pass *a, const struct zq_matmul *p)
{
    if (a->product) a->product(p);
    else zq_matmul_serial(p);
}

static void probabilities(const struct zq_attention_pass *a, const struct head *h, struct block b, float *p)
{
    const size_t n_keys = b.last - b.first;
    multiply(a, &(struct zq_matmul){
        .m = b.end - b.begin, .n = n_keys, .k = h->n, .alpha = a->scale, .a = h->q + b.begin * h->ld, .lda = h->ld,
        .b = h->k + b.first * h->ld, .ldb = h->ld, .turn_b = true, .c = p, .ldc = n_keys,
    });
    softmax(a, b, p);
}

/* ---- forward --------------------------------------------------------------------------------------------------------- */

static void attend_head(const struct zq_attention_pass *a, size_t sequence, size_t h, float *p)
{
    const size_t row = a->begins[sequence], length = a->begins[sequence + 1] - row, ld = a->heads.n_heads * a->heads.head_dim;
    const struct head head = head_of(a, row, h);
    for (size_t begin = 0; begin < length; begin += BLOCK) {
        const struct block b = block_at(a, begin, length);
        const size_t n_keys = b.last - b.first;
        probabilities(a, &head, b, p);
        multiply(a, &(struct zq_matmul){
            .m = b.end - b.begin, .n = head.n, .k = n_keys, .alpha = 1, .a = p, .lda = n_keys, .b = head.v + b.first * head.ld, .ldb = head.ld,
            .c = a->attended + (row + begin) * ld + h * head.n, .ldc = ld,
        });
    }
}

struct attention_work {
    const struct zq_attention_pass *a;
    float *scratch; /* [threads, thread_floats] */
    size_t thread_floats;
};

static void attend_range(void *work, size_t begin, size_t end, int thread)
{
    const struct attention_work *w = work;
    const struct zq_attention_pass *a = w->a;
    const size_t n_shared = a->heads.n_heads / a->heads.n_kv_heads;
    for (size_t i = begin; i < end; i++)
        for (size_t h = 0; h < n_shared; h++)
            attend_head(a, i / a->heads.n_kv_heads, i % a->heads.n_kv_heads * n_shared + h, w->scratch + (size_t)thread * w->thread_floats);
}

void zq_attention_forward(const struct zq_attention_pass *a, int n_threads, float *scratch, size_t thread_floats)
{
    struct attention_work work = {a, scratch, thread_floats};
    rotate(a, a->qkv, 1, n_threads);
    zq_parallel(n_threads, a->n_sequences * a->heads.n_kv_heads, 1, attend_range, &work);
}

/* ---- backward -------------------------------------------------------------------------------------------------------- */

static void clear_columns(float *x, size_t ld, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows; r++) memset(x + r * ld, 0, n * sizeof *x);
}

/* Gradients of what a struct head points at. */
struct head_gradient {
    float *q, *k, *v;
};

/* Adds to the gradients of keys and values, sets that of the queries. dout: of the block's first query. */
static void back_block(const struct zq_attention_pass *a, const struct head *h, struct block b, const float *dout, struct head_gradient d, float *p)
{
    const size_t n_queries = b.end - b.begin, n_keys = b.last - b.first, ld_out = a->heads.n_heads * a->heads.head_dim;
    float *dp = p + BLOCK * a->max_length;
    probabilities(a, h, b, p);
    multiply(a, &(struct zq_matmul){ /* d.v += p^T dout */
        .m = n_keys, .n = h->n, .k = n_queries, .alpha = 1, .a = p, .lda = n_keys, .turn_a = true, .b = dout, .ldb = ld_out,
        .c = d.v + b.first * h->ld, .ldc = h->ld, .add = true,
    });
    multiply(a, &(struct zq_matmul){ /* dp = dout v^T */
        .m = n_queries, .n = n_keys, .k = h->n, .alpha = 1, .a = dout, .lda = ld_out, .b = h->v + b.first * h->ld, .ldb = h->ld, .turn_b = true,
        .c = dp, .ldc = n_keys,
    });
    softmax_back(p, dp, n_queries, n_keys);
    multiply(a, &(struct zq_matmul){ /* d.q = scale dp k */
        .m = n_queries, .n = h->n, .k = n_keys, .alpha = a->scale, .a = dp, .lda = n_keys, .b = h->k + b.first * h->ld, .ldb = h->ld,
        .c = d.q + b.begin * h->ld, .ldc = h->ld,
    });
    multiply(a, &(struct zq_matmul){ /* d.k += scale dp^T q */
        .m = n_keys, .n = h->n, .k = n_queries, .alpha = a->scale, .a = dp, .lda = n_keys, .turn_a = true, .b = h->q + b.begin * h->ld,
        .ldb = h->ld, .c = d.k + b.first * h->ld, .ldc = h->ld, .add = true,
    });
}

static void back_range(void *work, size_t begin, size_t end, int thread)
{
    const struct attention_work *w = work;
    const struct zq_attention_pass *a = w->a;
    const struct zq_heads *heads = &a->heads;
    const size_t n_shared = heads->n_heads / heads->n_kv_heads, ld_out = heads->n_heads * heads->head_dim;
    float *p = w->scratch + (size_t)thread * w->thread_floats;
    for (size_t i = begin; i < end; i++) {
        const size_t sequence = i / heads->n_kv_heads, g = i % heads->n_kv_heads, row = a->begins[sequence], length = a->begins[sequence + 1] - row;
        float *at = a->d_qkv + row * a->ld;
        struct head_gradient d = {.k = at + heads->k_offset + g * heads->kv_stride, .v = at + heads->v_offset + g * heads->kv_stride};
        clear_columns(d.k, a->ld, length, heads->head_dim);
        clear_columns(d.v, a->ld, length, heads->head_dim);
        for (size_t h = g * n_shared; h < (g + 1) * n_shared; h++) {
            const struct head head = head_of(a, row, h);
            const float *dout = a->d_attended + row * ld_out + h * heads->head_dim;
            d.q = at + heads->q_offset + h * heads->q_stride;
            for (size_t q = 0; q < length; q += BLOCK) back_block(a, &head, block_at(a, q, length), dout + q * ld_out, d, p);
        }
    }
}

void zq_attention_backward(const struct zq_attention_pass *a, int n_threads, float *scratch, size_t thread_floats)
{
    struct attention_work work = {a, scratch, thread_floats};
    zq_parallel(n_threads, a->n_sequences * a->heads.n_kv_heads, 1, back_range, &work);
    rotate(a, a->d_qkv, -1, n_threads);
}
