/* Attention's rows as INT8 tokens, or as F16 or BF16. The heads of a token are written by different blocks, and one scale spans them all:
 * whoever writes the last head of a token, as a counter tells, turns the whole row into codes. So no launch exists only to quantize. */
#ifndef ZQ_CUDA_TOKENIZE_CUH
#define ZQ_CUDA_TOKENIZE_CUH

#include "cuda/device.h"
#include "cuda/math.cuh"

/* Called by all threads of a block when they have written their parts of a.out.f: rows [begin, end) where row r is head r % group, of those
 * heads that blocks of the same kind share, of token r / group. done: [end - begin]. */
template <int THREADS> DEVICE void finish_tokens(const struct zq_device_attention &a, uint32_t begin, uint32_t end, uint32_t group, uint32_t *done)
{
    if (!a.out.q && !a.out.h) return;
    const uint32_t first = begin / group, n = (end - 1) / group + 1 - first, lane = thread_x() % 32;
    publish();
    if (!MUTANT(19)) sync_block();
    for (uint32_t i = thread_x(); i < n; i += THREADS) {
        const uint32_t from = (first + i) * group, heads = least(end, from + group) - (from > begin ? from : begin);
        done[i] = arrive(&a.arrived[first + i], heads) + heads == (uint32_t)a.heads.n_heads;
        if (done[i]) a.arrived[first + i] = 0; /* nobody else comes in this launch */
    }
    if (!MUTANT(14)) sync_block();
    publish();
    const size_t width = a.heads.n_heads * a.heads.head_dim;
    for (uint32_t i = thread_x() / 32; i < n; i += THREADS / 32) {
        if (!done[i]) continue;
        const float *x = a.out.f + (first + i) * a.out.ld_f;
        for (size_t d = lane; a.out.h && d < width; d += 32)
            a.out.h[(first + i) * a.out.ld_f + d] = half_form(a.out.h_dtype, load_fresh(&x[d]));
        if (!a.out.q) continue;
        int8_t *q = a.out.q + (first + i) * a.out.ld_q;
        float top = 0;
        for (size_t d = lane; d < width; d += 32) top = larger(top, magnitude(load_fresh(&x[d])));
        const float scale = token_scale(warp_top(top));
        if (lane == 0) a.out.scale[first + i] = scale;
        for (size_t d = lane; d < width; d += 32) q[d] = code_of(load_fresh(&x[d]), scale);
    }
}

#endif
