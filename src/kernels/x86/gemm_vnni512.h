/* Words of 512 bits for gemm.inc and its micro-kernel with vpdpbusd; the AMX level uses it for few tokens. */
#ifndef ZQ_KERNELS_X86_GEMM_VNNI512_H
#define ZQ_KERNELS_X86_GEMM_VNNI512_H

#include "kernels/level.h"

#include <immintrin.h>
#include <string.h>

enum { LANES = 16, VECS = 4, T_WIDE = 6, T_MID = 4, OFFSET_W8 = 128 };

typedef __m512i ints;
typedef __m512 floats;

ZQ_INLINE ints i_set(int32_t a) { return _mm512_set1_epi32(a); }
ZQ_INLINE ints i_load(const int32_t *p) { return _mm512_loadu_si512(p); }
ZQ_INLINE ints i_add(ints a, ints b) { return _mm512_add_epi32(a, b); }
ZQ_INLINE floats i_to_float(ints a) { return _mm512_cvtepi32_ps(a); }
ZQ_INLINE floats f_set(float a) { return _mm512_set1_ps(a); }
ZQ_INLINE floats f_load(const float *p) { return _mm512_loadu_ps(p); }
ZQ_INLINE floats f_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
ZQ_INLINE void f_store_n(float *p, floats a, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
ZQ_INLINE floats f_add(floats a, floats b) { return _mm512_add_ps(a, b); }
ZQ_INLINE floats f_mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
ZQ_INLINE floats f_fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }

ZQ_INLINE ints load_q(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

static int32_t code_sum(const int8_t *q, size_t n)
{
    const ints ones = _mm512_set1_epi8(1);
    ints sums = i_set(0);
    size_t k = 0;
    for (; k + 64 <= n; k += 64) sums = _mm512_dpbusd_epi32(sums, ones, _mm512_loadu_si512(q + k));
    int32_t lanes[LANES], sum = 0;
    memcpy(lanes, &sums, sizeof lanes);
    for (size_t i = 0; i < LANES; i++) sum += lanes[i];
    for (; k < n; k++) sum += q[k];
    return sum;
}

ZQ_INLINE void load_w(ints w[VECS], const uint8_t *p, int bits)
{
    if (bits == 8) {
        ZQ_UNROLL
        for (size_t v = 0; v < VECS; v++) w[v] = _mm512_loadu_si512(p + 64 * v);
        return;
    }
    const ints mask = _mm512_set1_epi8(15);
    ZQ_UNROLL
    for (size_t v = 0; v < VECS / 2; v++) {
        const ints both = _mm512_loadu_si512(p + 64 * v);
        w[v] = _mm512_and_si512(both, mask);
        w[VECS / 2 + v] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
}

/* Far enough ahead to cover memory latency, and past the page boundaries at which the processor's own prefetcher stops. */
enum { AHEAD_BYTES = 2048 };

ZQ_INLINE void dot_steps(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps, int bits)
{
    const size_t n_bytes = 64 * VECS * (size_t)bits / 8;
    for (size_t s = 0; s < n_steps; s++, w += n_bytes) {
        ints right[VECS];
        for (size_t i = 0; i < n_bytes && n_tokens < T_WIDE; i += 64) _mm_prefetch((const char *)w + AHEAD_BYTES + i, _MM_HINT_T0);
        load_w(right, w, bits);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) {
            const ints left = load_q(q[t] + 4 * s);
            ZQ_UNROLL
            for (size_t v = 0; v < VECS; v++) acc[t * VECS + v] = _mm512_dpbusd_epi32(acc[t * VECS + v], right[v], left);
        }
    }
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * VECS; i++) ZQ_SETTLE(acc[i]);
}

#endif
