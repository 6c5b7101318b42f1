/* Pairs of BF16 values, over vec_avx512.h: two neighbours along the dimension that is summed over, the even one in the low half, which the
 * instructions multiply and add as one. */
#ifndef ZQ_KERNELS_X86_PAIRS_H
#define ZQ_KERNELS_X86_PAIRS_H

#include "kernels/x86/vec_avx512.h"

enum { STEP_COLS = 32 }; /* 16 pairs: a register, or a row of one tile of AMX */

typedef uint32_t pair;

ZQ_INLINE size_t up_to(size_t n, size_t step) { return (n + step - 1) / step * step; }

ZQ_INLINE __m512i as_ints(__m512bh a)
{
    __m512i b;
    memcpy(&b, &a, sizeof b);
    return b;
}

ZQ_INLINE __m512bh as_bf16(__m512i a)
{
    __m512bh b;
    memcpy(&b, &a, sizeof b);
    return b;
}

/* 16 pairs of 32 floats in their order. */
ZQ_INLINE __m512i line_pairs(vec first, vec second) { return as_ints(_mm512_cvtne2ps_pbh(second, first)); }
ZQ_INLINE void store_pairs(pair *to, vec first, vec second) { _mm512_storeu_si512(to, line_pairs(first, second)); }

/* 16 pairs, each of a float of `even` and the one of `odd` in the same lane. */
ZQ_INLINE __m512i make_pairs(vec even, vec odd)
{
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), line_pairs(even, odd));
}

/* n floats in their order as pairs; zeros up to n_cols, a multiple of STEP_COLS less than that above n. */
static inline void token_pairs(pair *to, const float *x, size_t n, size_t n_cols)
{
    size_t k = 0;
    for (; k + STEP_COLS <= n; k += STEP_COLS) store_pairs(to + k / 2, v_load(x + k), v_load(x + k + 16));
    if (k == n_cols) return;
    const size_t rest = n - k, low = zq_smaller(rest, 16);
    store_pairs(to + k / 2, v_load_n(x + k, low), v_load_n(x + k + low, rest - low));
}

/* s[t][v] += x[t] . w[][v] over n_pairs; n_vecs vectors of 16 lie side by side at w + k * ld. n_tokens and n_vecs are constants where this is
 * used. */
ZQ_INLINE void multiply_pairs(vec *s, size_t n_tokens, size_t n_vecs, const pair *const *x, size_t n_pairs, const pair *w, size_t ld)
{
    for (size_t k = 0; k < n_pairs; k++, w += ld) {
        __m512bh right[V_TILE];
        ZQ_UNROLL
        for (size_t v = 0; v < n_vecs; v++) right[v] = as_bf16(_mm512_loadu_si512(w + v * 16));
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) {
            const __m512bh left = as_bf16(_mm512_set1_epi32((int)x[t][k]));
            ZQ_UNROLL
            for (size_t v = 0; v < n_vecs; v++) s[t * n_vecs + v] = _mm512_dpbf16_ps(s[t * n_vecs + v], left, right[v]);
        }
    }
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * n_vecs; i++) v_settle(&s[i]);
}

#endif
