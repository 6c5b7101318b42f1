/* Row operators: norms with their INT8 tokens, activation functions with theirs, rotary positions with the cache's new entries.
 *
 * Sums over a row keep the written order of kernels.h: 16 lanes. So a norm gives a row to half a warp, which is as wide as memory
 * wants it where there are many rows, and costs a microsecond or two where there is one. Maxima have no order, so activations give
 * a row to a whole block. */
#ifndef ZQ_CUDA_ROWS_CUH
#define ZQ_CUDA_ROWS_CUH

#include "cuda/device.h"
#include "cuda/math.cuh"

enum { NORM_THREADS = 128, NORM_ROWS = NORM_THREADS / 16, ROW_THREADS = 256 };

struct norm_args {
    struct zq_norm a;
    size_t n_rows;
};

DEVICE float normed(const struct zq_norm *a, float x, size_t i, float mean, float r)
{
    const float y = mul(sub(x, mean), r);
    return a->beta ? fma_rn(y, a->gamma[i], a->beta[i]) : mul(y, a->gamma[i]);
}

KERNEL(NORM_THREADS) norm_rows(const norm_args args)
{
    const struct zq_norm *a = &args.a;
    const unsigned lane = thread_x() % 16;
    const size_t row = (size_t)block_x() * NORM_ROWS + thread_x() / 16, n = a->n;
    const bool real = row < args.n_rows; /* the others go along, because shuffles want whole warps */
    const size_t end = real ? n : 0;
    const float *x = a->x + (real ? row * a->ld_x : 0);

    float mean = 0;
    if (!a->rms) {
        float sum = 0;
        for (size_t i = lane; i < end; i += 16) sum = add(sum, x[i]);
        mean = divide(half_warp_sum(sum), from_int((int32_t)n));
    }
    float squares = 0;
    for (size_t i = lane; i < end; i += 16) {
        const float d = sub(x[i], mean);
        squares = fma_rn(d, d, squares);
    }
    const float variance = divide(half_warp_sum(squares), from_int((int32_t)n));
    const float r = divide(1.0f, root(add(variance, a->eps)));

    /* f may be x: each value is read and written by one thread, and codes are made of what was written */
    float *f = a->out.f && real ? a->out.f + row * a->out.ld_f : NULL;
    float top = 0;
    for (size_t i = lane; i < end; i += 16) {
        const float y = normed(a, x[i], i, mean, r);
        if (f) f[i] = y;
        if (a->out.h) a->out.h[row * a->out.ld_f + i] = half_form(a->out.h_dtype, y);
        top = larger(top, magnitude(y));
    }
    if (!a->out.q) return;
    for (unsigned mask = 8; mask; mask /= 2) top = larger(top, shuffle_xor(top, mask));
    if (!real) return;
    const float scale = token_scale(top);
    if (lane == 0) a->out.scale[row] = scale;
    int8_t *q = a->out.q + row * a->out.ld_q;
    for (size_t i = lane; i < n; i += 16) q[i] = code_of(f ? f[i] : normed(a, x[i], i, mean, r), scale);
}

DEVICE float activated(const struct zq_activate *a, const float *x, const float *times, size_t i)
{
    const float y = activate_value(a->act, x[i]);
    return times ? mul(y, times[i]) : y;
}

KERNEL(ROW_THREADS) activate_rows(const struct zq_activate a)
{
    SHARED(float, tops, ROW_THREADS / 32);
    const size_t row = block_x();
    const float *x = a.x + row * a.ld_x, *times = a.times ? a.times + row * a.ld_times : NULL;
    float *f = a.out.f ? a.out.f + row * a.out.ld_f : NULL;
    const size_t end = a.n + MUTANT(9);
    float top = 0;
    for (size_t i = thread_x(); i < end; i += ROW_THREADS) {
        const float y = activated(&a, x, times, i);
        if (f) f[i] = y;
        if (a.out.h) a.out.h[row * a.out.ld_f + i] = half_form(a.out.h_dtype, y);
        top = larger(top, magnitude(y));
    }
    if (!a.out.q) return;
    top = warp_top(top);
    if (thread_x() % 32 == 0) tops[thread_x() / 32] = top;
    if (!MUTANT(4)) sync_block();
    top = tops[0];
    for (unsigned w = 1; w < ROW_THREADS / 32; w++) top = larger(top, tops[w]);
    const float scale = token_scale(top);
    if (thread_x() == 0) a.out.scale[row] = scale;
    int8_t *q = a.out.q + row * a.out.ld_q;
    for (size_t i = thread_x(); i < a.n; i += ROW_THREADS) q[i] = code_of(f ? f[i] : activated(&a, x, times, i), scale);
}

/* ---- rotary positions and the cache ---- */

DEVICE void rotate_pair(float *head, const struct zq_rotary *rotary, size_t position, size_t i)
{
    const size_t half = rotary->n_rotated / 2, to_b = rotary->pairs ? 1 : half, at = i * (rotary->pairs ? 2 : 1);
    const float a = head[at], b = head[at + to_b], c = rotary->cos[position * half + i], s = rotary->sin[position * half + i];
    head[at] = fma_rn(a, c, -mul(b, s));
    head[at + to_b] = fma_rn(b, c, mul(a, s));
}

/* What a cache of type T keeps of a value; scale: of codes. */
DEVICE void keep_value(float *p, float x, float scale) { *p = x, (void)scale; }
DEVICE void keep_value(uint16_t *p, float x, float scale) { *p = half_bits(smaller(larger(x, -65504.0f), 65504.0f)), (void)scale; }
DEVICE void keep_value(int8_t *p, float x, float scale) { *p = code_of(x, scale); }

/* A warp takes a head at a time, so that INT8's scale is its own affair. */
template <class T> KERNEL(ROW_THREADS) keep_tokens(const struct zq_device_attention a)
{
    const struct zq_heads *h = &a.heads;
    const struct zq_device_token at = a.tokens[block_x()];
    const size_t half = a.rotary.n_rotated / 2, head_dim = h->head_dim, lane = thread_x() % 32;
    float *token = a.qkv + (size_t)block_x() * a.ld;
    if (!at.n_keys) return;
    for (size_t i = thread_x(); i < (h->n_heads + h->n_kv_heads) * half; i += ROW_THREADS) {
        const size_t head = i / half, kv = head - h->n_heads;
        const size_t begin = head < h->n_heads ? h->q_offset + head * h->q_stride : h->k_offset + kv * h->kv_stride;
        rotate_pair(token + begin, &a.rotary, at.position, i % half);
    }
    if (!MUTANT(3)) sync_block();
    const size_t first = (at.cache + a.layer_first) * h->n_kv_heads;
    T *keys = (T *)a.cache.k + first * head_dim, *values = (T *)a.cache.v + first * head_dim;
    for (size_t head = thread_x() / 32; head < h->n_kv_heads; head += ROW_THREADS / 32) {
        const float *k = token + h->k_offset + head * h->kv_stride, *v = token + h->v_offset + head * h->kv_stride;
        const size_t tile = head * (at.capacity / 16) + at.position / 16, row = head * at.capacity + at.position;
        float k_scale = 1, v_scale = 1;
        if (sizeof(T) == 1) {
            float k_top = 0, v_top = 0;
            for (size_t d = lane; d < head_dim; d += 32) {
                k_top = larger(k_top, magnitude(k[d]));
                v_top = larger(v_top, magnitude(v[d]));
            }
            k_scale = token_scale(warp_top(k_top));
            v_scale = token_scale(warp_top(v_top));
            if (lane == 0) a.cache.k_scale[first + row] = k_scale;
            if (lane == 0) a.cache.v_scale[first + row] = v_scale;
        }
        for (size_t d = lane; d < head_dim; d += 32) {
            keep_value(&keys[(tile * head_dim + d) * 16 + at.position % 16], k[d], k_scale);
            keep_value(&values[row * head_dim + d], v[d], v_scale);
        }
    }
}

#endif
