/* The vector vocabulary on AVX-512 F, BW, VL and DQ: one register. What each word means: c/vec_c.h. */
#ifndef ZQ_KERNELS_X86_VEC_AVX512_H
#define ZQ_KERNELS_X86_VEC_AVX512_H

#include "kernels/level.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LEVEL(name) name##_avx512vnni

/* 32 registers: 6 tokens x 4 vectors of accumulators, 4 of weights, one of the token's value. */
enum { V_TILE = 4, T_MANY = 6, V_MANY = 4 };

typedef __m512 vec;

ZQ_INLINE __mmask16 lanes_below(size_t n) { return (__mmask16)((1u << n) - 1); }

ZQ_INLINE vec v_set(float a) { return _mm512_set1_ps(a); }
ZQ_INLINE void v_settle(vec *a) { ZQ_SETTLE(*a); }
ZQ_INLINE vec v_load(const void *p) { return _mm512_loadu_ps(p); }
ZQ_INLINE vec v_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
ZQ_INLINE void v_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
ZQ_INLINE void v_store_n(float *p, vec a, size_t n) { _mm512_mask_storeu_ps(p, lanes_below(n), a); }
ZQ_INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
ZQ_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
ZQ_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
ZQ_INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
ZQ_INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
ZQ_INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
ZQ_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
ZQ_INLINE vec v_abs(vec a) { return _mm512_abs_ps(a); }
ZQ_INLINE vec v_round(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
ZQ_INLINE vec v_ldexp(vec a, vec n) { return _mm512_scalef_ps(a, n); } /* rounds once, too */
ZQ_INLINE vec v_if_less(vec a, vec b, vec x, vec y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x); }

ZQ_INLINE vec v_keep(vec a, size_t begin, size_t end, vec b)
{
    return _mm512_mask_blend_ps((__mmask16)(lanes_below(end) & ~lanes_below(begin)), b, a);
}

ZQ_INLINE float v_sum(vec a)
{
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

ZQ_INLINE float v_top(vec a)
{
    const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

ZQ_INLINE void v_store_q8(int8_t *q, vec a, size_t n)
{
    _mm_mask_storeu_epi8(q, lanes_below(n), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}

ZQ_INLINE void v_store_f16(void *p, vec a, size_t n)
{
    const __m256i h = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if (n == 16) _mm256_storeu_si256(p, h);
    else memcpy(p, &h, n * sizeof(uint16_t));
}

ZQ_INLINE vec v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }

ZQ_INLINE vec v_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

ZQ_INLINE vec v_load_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }

ZQ_INLINE vec v_load_i4(const void *p)
{
    const __m128i bytes = _mm_loadl_epi64(p), mask = _mm_set1_epi8(15);
    const __m128i codes = _mm_unpacklo_epi64(_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), _mm512_set1_epi32(8)));
}

#endif
