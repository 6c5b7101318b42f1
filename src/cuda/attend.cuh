/* Attention, one query (a token's head) per block: 64 threads score the keys of a tile, then every thread mixes its dimensions of the
 * values. The order of kernels.h throughout, so the bits are the CPU's; no score matrix beyond a tile of 64 keys. */
#ifndef ZQ_CUDA_ATTEND_CUH
#define ZQ_CUDA_ATTEND_CUH

#include "cuda/device.h"
#include "cuda/math.cuh"
#include "cuda/tokenize.cuh"

enum { ATTEND_THREADS = 128, ATTEND_TILE = 64, ATTEND_DIMS = ZQ_DEVICE_MAX_HEAD_DIM / ATTEND_THREADS };

DEVICE float kept_value(const float *p) { return *p; }
DEVICE float kept_value(const uint16_t *p) { return half_value(*p); }
DEVICE float kept_value(const int8_t *p) { return from_int(*p); }

template <class T> DEVICE void attend_row(const struct zq_device_attention &a)
{
    SHARED(float, q, ZQ_DEVICE_MAX_HEAD_DIM);
    SHARED(float, scores, ATTEND_TILE);
    SHARED(float, weights, ATTEND_TILE);
    SHARED(float, mixed, ATTEND_TILE); /* weights times the scales of INT8 values */
    SHARED(float, sums, 16);
    const struct zq_heads *heads = &a.heads;
    const size_t token = block_x(), head = block_y(), kv_head = head * heads->n_kv_heads / heads->n_heads, head_dim = heads->head_dim;
    const struct zq_device_token at = a.tokens[token];
    const size_t position = at.position;
    const size_t last = a.causal && position + 1 < at.n_keys ? position + 1 : at.n_keys; /* visible: first .. last - 1 */
    const size_t first = a.window && position >= a.window ? position - a.window + 1 : 0;
    const size_t row = (at.cache + a.layer_first) * heads->n_kv_heads + kv_head * at.capacity;
    const T *keys = (const T *)a.cache.k + row * head_dim, *values = (const T *)a.cache.v + row * head_dim;
    const unsigned t = thread_x();

    for (size_t d = t; d < head_dim; d += ATTEND_THREADS) q[d] = a.qkv[token * a.ld + heads->q_offset + head * heads->q_stride + d];
    if (!last) {
        for (size_t d = t; d < head_dim; d += ATTEND_THREADS) a.out.f[token * a.out.ld_f + head * head_dim + d] = 0;
        return;
    }
    float o[ATTEND_DIMS], m = -INFINITY, l = 0;
    UNROLL
    for (int i = 0; i < ATTEND_DIMS; i++) o[i] = 0;
    sync_block();

    for (size_t tile = first / ATTEND_TILE * ATTEND_TILE; tile < last; tile += ATTEND_TILE) {
        const size_t begin = first > tile ? first - tile : 0, end = last - tile < ATTEND_TILE ? last - tile : (size_t)ATTEND_TILE;
        if (t < ATTEND_TILE) {
            const T *k = keys + (tile + t) / 16 * 16 * head_dim + t % 16;
            float s = 0;
            if (t >= begin && t < end)
                for (size_t d = 0; d < head_dim; d++) s = fma_rn(q[d], kept_value(&k[d * 16]), s);
            if (sizeof(T) == 1 && t >= begin && t < end) s = mul(s, a.cache.k_scale[row + tile + t]);
            scores[t] = t >= begin && t < end ? mul(s, a.scale) : -INFINITY;
        }
        if (!MUTANT(1)) sync_block();
        float top = m;
        for (size_t j = begin; j < end; j++) top = larger(top, scores[j]);
        const float rescale = exp_of(sub(m, top));
        m = top;
        if (t < ATTEND_TILE) {
            const float p = exp_of(sub(scores[t], top));
            weights[t] = p;
            if (sizeof(T) == 1) mixed[t] = t >= begin && t < end ? mul(p, a.cache.v_scale[row + tile + t]) : 0.0f;
        }
        sync_block();
        if (t < 16) {
            l = fma_rn(l, rescale, weights[t]);
            for (unsigned j = t + 16; j < ATTEND_TILE; j += 16) l = add(l, weights[j]);
        }
        const float *p = sizeof(T) == 1 ? mixed : weights;
        UNROLL
        for (int i = 0; i < ATTEND_DIMS; i++) {
            const size_t d = t + (size_t)i * ATTEND_THREADS;
            if (d >= head_dim) break;
            float sum = mul(o[i], rescale);
            for (size_t j = begin; j < end; j++) sum = fma_rn(p[j], kept_value(&values[(tile + j) * head_dim + d]), sum);
            o[i] = sum;
        }
    }

    if (t < 16) sums[t] = l;
    sync_block();
    float s8[8];
    UNROLL
    for (int i = 0; i < 8; i++) s8[i] = add(sums[i], sums[i + 8]);
    UNROLL
    for (int width = 4; width; width /= 2) {
        UNROLL
        for (int i = 0; i < width; i++) s8[i] = add(s8[i], s8[i + width]);
    }
    UNROLL
    for (int i = 0; i < ATTEND_DIMS; i++) {
        const size_t d = t + (size_t)i * ATTEND_THREADS;
        if (d < head_dim) a.out.f[token * a.out.ld_f + head * head_dim + d] = divide(o[i], s8[0]);
    }
}

template <class T> KERNEL_RESIDENT(ATTEND_THREADS, 4) attend_query(const struct zq_device_attention a)
{
    SHARED(uint32_t, done, 1);
    attend_row<T>(a);
    finish_tokens<ATTEND_THREADS>(a, block_x(), block_x() + 1, 1, done);
}

#endif
