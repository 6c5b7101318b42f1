/* The vector vocabulary on AVX2, FMA and F16C: two registers of 8 floats. What each word means: c/vec_c.h. */
#ifndef ZQ_KERNELS_X86_VEC_AVX2_H
#define ZQ_KERNELS_X86_VEC_AVX2_H

#include "kernels/level.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LEVEL(name) name##_avx2

/* 16 registers: one token takes 4 x 2 accumulators, enough to hide the latency of fma; six tokens 6 x 2, 2 of weights and one of a token's
 * value: eight loads serve twelve fma. */
enum { V_TILE = 4, T_MANY = 6, V_MANY = 1 };

typedef struct { __m256 low, high; } vec;

ZQ_INLINE vec v_set(float a) { return (vec){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }

/* All ones in the lanes < n. */
ZQ_INLINE void lanes_below(size_t n, __m256i *low, __m256i *high)
{
    static const int32_t edge[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    *low = _mm256_loadu_si256((const __m256i *)(edge + 16 - n));
    *high = _mm256_loadu_si256((const __m256i *)(edge + 24 - n));
}

ZQ_INLINE void v_settle(vec *a)
{
    ZQ_SETTLE(a->low);
    ZQ_SETTLE(a->high);
}
ZQ_INLINE vec v_load(const void *p) { return (vec){_mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8)}; }

ZQ_INLINE vec v_load_n(const float *p, size_t n)
{
    if (n == 16) return v_load(p);
    __m256i low, high;
    lanes_below(n, &low, &high);
    return (vec){_mm256_maskload_ps(p, low), _mm256_maskload_ps(p + 8, high)};
}

ZQ_INLINE void v_store(float *p, vec a)
{
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}

ZQ_INLINE void v_store_n(float *p, vec a, size_t n)
{
    if (n == 16) {
        v_store(p, a);
        return;
    }
    __m256i low, high;
    lanes_below(n, &low, &high);
    _mm256_maskstore_ps(p, low, a.low);
    _mm256_maskstore_ps(p + 8, high, a.high);
}

ZQ_INLINE vec v_add(vec a, vec b) { return (vec){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
ZQ_INLINE vec v_sub(vec a, vec b) { return (vec){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
ZQ_INLINE vec v_mul(vec a, vec b) { return (vec){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
ZQ_INLINE vec v_div(vec a, vec b) { return (vec){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
ZQ_INLINE vec v_max(vec a, vec b) { return (vec){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
ZQ_INLINE vec v_min(vec a, vec b) { return (vec){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }

ZQ_INLINE vec v_fma(vec a, vec b, vec c)
{
    return (vec){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

ZQ_INLINE vec v_abs(vec a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vec){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

#define TO_NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
ZQ_INLINE vec v_round(vec a) { return (vec){_mm256_round_ps(a.low, TO_NEAREST), _mm256_round_ps(a.high, TO_NEAREST)}; }

ZQ_INLINE __m256 ldexp8(__m256 a, __m256 n)
{
    const __m256i all = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(all, 1), one = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(one, half), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(one, _mm256_sub_epi32(all, half)), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
/* Where no result is subnormal or infinite, n is added to the exponent: the bits of the products, at half the price. */
ZQ_INLINE vec v_ldexp(vec a, vec n)
{
    const vec size = v_abs(n);
    const __m256 far = _mm256_cmp_ps(_mm256_max_ps(size.low, size.high), _mm256_set1_ps(125), _CMP_GT_OQ);
    if (_mm256_movemask_ps(far)) return (vec){ldexp8(a.low, n.low), ldexp8(a.high, n.high)};
    return (vec){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.low), _mm256_slli_epi32(_mm256_cvtps_epi32(n.low), 23))),
                 _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.high), _mm256_slli_epi32(_mm256_cvtps_epi32(n.high), 23)))};
}

ZQ_INLINE vec v_if_less(vec a, vec b, vec x, vec y)
{
    return (vec){_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
                 _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}

ZQ_INLINE vec v_keep(vec a, size_t begin, size_t end, vec b)
{
    __m256i skip_low, skip_high, low, high;
    lanes_below(begin, &skip_low, &skip_high);
    lanes_below(end, &low, &high);
    return (vec){_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(_mm256_andnot_si256(skip_low, low))),
                 _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(_mm256_andnot_si256(skip_high, high)))};
}

ZQ_INLINE float v_sum(vec a)
{
    const __m256 s8 = _mm256_add_ps(a.low, a.high);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

ZQ_INLINE float v_top(vec a)
{
    const __m256 s8 = _mm256_max_ps(a.low, a.high);
    const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

ZQ_INLINE void v_store_q8(int8_t *q, vec a, size_t n)
{
    const __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high));
    const __m256i in_order = _mm256_permute4x64_epi64(pairs, 0xd8); /* packs works within each half */
    const __m128i codes = _mm_packs_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1));
    if (n == 16) _mm_storeu_si128((__m128i *)q, codes);
    else memcpy(q, &codes, n);
}

ZQ_INLINE void v_store_f16(void *p, vec a, size_t n)
{
    const __m128i h[2] = {_mm256_cvtps_ph(a.low, TO_NEAREST), _mm256_cvtps_ph(a.high, TO_NEAREST)};
    if (n == 16) {
        _mm_storeu_si128(p, h[0]);
        _mm_storeu_si128((__m128i *)p + 1, h[1]);
    } else memcpy(p, h, n * sizeof(uint16_t));
}

ZQ_INLINE vec v_load_f16(const void *p)
{
    return (vec){_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1))};
}

ZQ_INLINE __m256 bf16_8(const __m128i *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
ZQ_INLINE vec v_load_bf16(const void *p) { return (vec){bf16_8(p), bf16_8((const __m128i *)p + 1)}; }

ZQ_INLINE vec v_load_i8(const void *p)
{
    const __m128i codes = _mm_loadu_si128(p);
    return (vec){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)))};
}

ZQ_INLINE vec v_load_i4(const void *p)
{
    const __m128i bytes = _mm_loadl_epi64(p), mask = _mm_set1_epi8(15);
    const __m256i zero = _mm256_set1_epi32(8);
    const __m256i low = _mm256_cvtepu8_epi32(_mm_and_si128(bytes, mask));
    const __m256i high = _mm256_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
    return (vec){_mm256_cvtepi32_ps(_mm256_sub_epi32(low, zero)), _mm256_cvtepi32_ps(_mm256_sub_epi32(high, zero))};
}

#endif
