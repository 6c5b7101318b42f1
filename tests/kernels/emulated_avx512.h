/* The words of AVX-512, AVX-512 BF16 and AVX-VNNI that our kernels use, as pairs of AVX2 registers. The build of zqcheck puts this before the kernel
 * files of levels that a machine may lack (-include), so that every processor with AVX2 proves them. Semantics: Intel SDM vol. 2.
 * A kernel that uses a further word gets a line here; else it does not compile. Aligned stores check their addresses. */
#ifndef ZQ_EMULATED_AVX512_H
#define ZQ_EMULATED_AVX512_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EMULATED static inline __attribute__((always_inline, unused))
#define ZQ_SETTLE(a) (void)(a) /* level.h: a pair has no register of its own */

typedef struct { __m256i low, high; } emulated_ints;
typedef struct { __m256 low, high; } emulated_floats;

/* Functions of halves. */
#define EMULATED_UNARY(name, to, from, op) EMULATED to emulated_##name(from a) { return (to){op(a.low), op(a.high)}; }
#define EMULATED_BINARY(name, type, op) EMULATED type emulated_##name(type a, type b) { return (type){op(a.low, b.low), op(a.high, b.high)}; }

EMULATED_BINARY(add_epi32, emulated_ints, _mm256_add_epi32)
EMULATED_BINARY(sub_epi32, emulated_ints, _mm256_sub_epi32)
EMULATED_BINARY(and_si512, emulated_ints, _mm256_and_si256)
EMULATED_BINARY(add_ps, emulated_floats, _mm256_add_ps)
EMULATED_BINARY(sub_ps, emulated_floats, _mm256_sub_ps)
EMULATED_BINARY(mul_ps, emulated_floats, _mm256_mul_ps)
EMULATED_BINARY(div_ps, emulated_floats, _mm256_div_ps)
EMULATED_BINARY(max_ps, emulated_floats, _mm256_max_ps)
EMULATED_BINARY(min_ps, emulated_floats, _mm256_min_ps)
EMULATED_BINARY(unpacklo_epi32, emulated_ints, _mm256_unpacklo_epi32)
EMULATED_BINARY(unpackhi_epi32, emulated_ints, _mm256_unpackhi_epi32)
EMULATED_BINARY(unpacklo_epi64, emulated_ints, _mm256_unpacklo_epi64)
EMULATED_BINARY(unpackhi_epi64, emulated_ints, _mm256_unpackhi_epi64)
EMULATED_UNARY(cvtepi32_ps, emulated_floats, emulated_ints, _mm256_cvtepi32_ps)
EMULATED_UNARY(cvtps_epi32, emulated_ints, emulated_floats, _mm256_cvtps_epi32)
EMULATED_UNARY(castsi512_ps, emulated_floats, emulated_ints, _mm256_castsi256_ps)

EMULATED emulated_ints emulated_set1_epi32(int a) { return (emulated_ints){_mm256_set1_epi32(a), _mm256_set1_epi32(a)}; }
EMULATED emulated_ints emulated_set1_epi8(char a) { return (emulated_ints){_mm256_set1_epi8(a), _mm256_set1_epi8(a)}; }
EMULATED emulated_floats emulated_set1_ps(float a) { return (emulated_floats){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
EMULATED emulated_ints emulated_srli_epi16(emulated_ints a, unsigned n)
{
    return (emulated_ints){_mm256_srli_epi16(a.low, (int)n), _mm256_srli_epi16(a.high, (int)n)};
}
EMULATED emulated_ints emulated_slli_epi32(emulated_ints a, unsigned n)
{
    return (emulated_ints){_mm256_slli_epi32(a.low, (int)n), _mm256_slli_epi32(a.high, (int)n)};
}
EMULATED emulated_floats emulated_fmadd_ps(emulated_floats a, emulated_floats b, emulated_floats c)
{
    return (emulated_floats){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
EMULATED emulated_floats emulated_abs_ps(emulated_floats a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (emulated_floats){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

/* Two quarters of a, then two of b, each chosen by two bits. */
EMULATED emulated_ints emulated_shuffle_i32x4(emulated_ints a, emulated_ints b, unsigned which)
{
    __m128i from[8], to[4];
    memcpy(from, &a, sizeof a);
    memcpy(from + 4, &b, sizeof b);
    for (unsigned i = 0; i < 4; i++) to[i] = from[(i < 2 ? 0 : 4) + (which >> 2 * i & 3)];
    memcpy(&a, to, sizeof a);
    return a;
}

/* a * 2^floor(b), rounded once */
EMULATED emulated_floats emulated_scalef_ps(emulated_floats a, emulated_floats b)
{
    float x[16], n[16];
    memcpy(x, &a, sizeof x);
    memcpy(n, &b, sizeof n);
    for (int i = 0; i < 16; i++) x[i] = n[i] != n[i] ? n[i] : ldexpf(x[i], (int)floorf(n[i] > 1000 ? 1000 : n[i] < -1000 ? -1000 : n[i]));
    memcpy(&a, x, sizeof a);
    return a;
}

/* ---- memory and masks ---- */

EMULATED emulated_ints emulated_loadu_si512(const void *p)
{
    return (emulated_ints){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
EMULATED emulated_floats emulated_loadu_ps(const void *p) { return (emulated_floats){_mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8)}; }
EMULATED void emulated_storeu_si512(void *p, emulated_ints a) { memcpy(p, &a, sizeof a); }
EMULATED void emulated_storeu_ps(void *p, emulated_floats a) { memcpy(p, &a, sizeof a); }
EMULATED void emulated_check_aligned(const void *p)
{
    if ((uintptr_t)p % 64) abort();
}
EMULATED void emulated_store_si512(void *p, emulated_ints a)
{
    emulated_check_aligned(p);
    memcpy(p, &a, sizeof a);
}
EMULATED void emulated_store_ps(void *p, emulated_floats a)
{
    emulated_check_aligned(p);
    memcpy(p, &a, sizeof a);
}

/* All ones in lane i where bit i of the mask is set. */
EMULATED __m256i emulated_lanes(unsigned mask)
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)mask), bits), bits);
}
EMULATED emulated_floats emulated_maskz_loadu_ps(__mmask16 mask, const void *p)
{
    return (emulated_floats){_mm256_maskload_ps(p, emulated_lanes(mask)), _mm256_maskload_ps((const float *)p + 8, emulated_lanes(mask >> 8))};
}
EMULATED void emulated_mask_storeu_ps(void *p, __mmask16 mask, emulated_floats a)
{
    _mm256_maskstore_ps(p, emulated_lanes(mask), a.low);
    _mm256_maskstore_ps((float *)p + 8, emulated_lanes(mask >> 8), a.high);
}
EMULATED emulated_floats emulated_mask_blend_ps(__mmask16 mask, emulated_floats clear, emulated_floats set)
{
    return (emulated_floats){_mm256_blendv_ps(clear.low, set.low, _mm256_castsi256_ps(emulated_lanes(mask))),
                             _mm256_blendv_ps(clear.high, set.high, _mm256_castsi256_ps(emulated_lanes(mask >> 8)))};
}
EMULATED __mmask16 emulated_mask_of(__m256 low, __m256 high) { return (__mmask16)(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8); }
EMULATED void emulated_mask_storeu_epi8(void *p, __mmask16 mask, __m128i a)
{
    int8_t bytes[16];
    memcpy(bytes, &a, sizeof bytes);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) ((int8_t *)p)[i] = bytes[i];
}

/* ---- widening and narrowing ---- */

EMULATED emulated_ints emulated_cvtepi8_epi32(__m128i a)
{
    return (emulated_ints){_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8))};
}
EMULATED emulated_ints emulated_cvtepu8_epi32(__m128i a)
{
    return (emulated_ints){_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))};
}
EMULATED emulated_ints emulated_cvtepu16_epi32(__m256i a)
{
    return (emulated_ints){_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))};
}
EMULATED emulated_floats emulated_cvtph_ps(__m256i a)
{
    return (emulated_floats){_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
}
EMULATED __m256i emulated_cvtps_ph(emulated_floats a)
{
    return _mm256_set_m128i(_mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT), _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
}
EMULATED __m128i emulated_cvtepi32_epi8(emulated_ints a)
{
    int32_t wide[16];
    int8_t bytes[16];
    memcpy(wide, &a, sizeof wide);
    for (int i = 0; i < 16; i++) bytes[i] = (int8_t)(uint8_t)wide[i];
    return _mm_loadu_si128((const __m128i *)bytes);
}

/* ---- VNNI: four products of unsigned a and signed b added to each sum, without saturation ---- */

EMULATED __m256i emulated_dpbusd_256(__m256i sum, __m256i a, __m256i b)
{
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
EMULATED emulated_ints emulated_dpbusd_epi32(emulated_ints sum, emulated_ints a, emulated_ints b)
{
    return (emulated_ints){emulated_dpbusd_256(sum.low, a.low, b.low), emulated_dpbusd_256(sum.high, a.high, b.high)};
}

/* ---- BF16: to nearest even; subnormals on the way in and out count as 0 ---- */

EMULATED __m256 emulated_flush(__m256 a)
{
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i tiny = _mm256_cmpeq_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000)), _mm256_setzero_si256());
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_and_si256(tiny, _mm256_set1_epi32(0x7fffffff)), bits));
}
/* In the low halves of 32 bits; no NaN. */
EMULATED __m256i emulated_to_bf16(__m256 a)
{
    const __m256i bits = _mm256_castps_si256(emulated_flush(a)), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
EMULATED __m256i emulated_16_to_bf16(emulated_floats a)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(emulated_to_bf16(a.low), emulated_to_bf16(a.high)), 0xd8);
}
EMULATED emulated_ints emulated_cvtne2ps_pbh(emulated_floats high, emulated_floats low)
{
    return (emulated_ints){emulated_16_to_bf16(low), emulated_16_to_bf16(high)};
}
EMULATED emulated_ints emulated_permutexvar_epi16(emulated_ints order, emulated_ints a)
{
    uint16_t from[32], to[32], at[32];
    memcpy(from, &a, sizeof from);
    memcpy(at, &order, sizeof at);
    for (int i = 0; i < 32; i++) to[i] = from[at[i] % 32];
    memcpy(&a, to, sizeof a);
    return a;
}
/* Two products each, the odd one first, each added with one rounding. */
EMULATED __m256 emulated_dpbf16_256(__m256 sum, __m256i a, __m256i b)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000);
    const __m256 a1 = emulated_flush(_mm256_castsi256_ps(_mm256_and_si256(a, high)));
    const __m256 b1 = emulated_flush(_mm256_castsi256_ps(_mm256_and_si256(b, high)));
    const __m256 a0 = emulated_flush(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)));
    const __m256 b0 = emulated_flush(_mm256_castsi256_ps(_mm256_slli_epi32(b, 16)));
    return emulated_flush(_mm256_fmadd_ps(a0, b0, emulated_flush(_mm256_fmadd_ps(a1, b1, emulated_flush(sum)))));
}
EMULATED emulated_floats emulated_dpbf16_ps(emulated_floats sum, emulated_ints a, emulated_ints b)
{
    return (emulated_floats){emulated_dpbf16_256(sum.low, a.low, b.low), emulated_dpbf16_256(sum.high, a.high, b.high)};
}

#undef _mm_mask_storeu_epi8
#undef _mm256_dpbusd_epi32
#undef _mm512_cmp_ps_mask
#undef _mm512_cvtps_ph
#undef _mm512_roundscale_ps
#undef _mm512_extractf32x8_ps
#undef _mm512_srli_epi16
#undef _mm512_shuffle_i32x4
#undef _mm512_slli_epi32
#define __m512 emulated_floats
#define __m512i emulated_ints
#define __m512bh emulated_ints
#define _mm_mask_storeu_epi8 emulated_mask_storeu_epi8
#define _mm256_dpbusd_epi32 emulated_dpbusd_256
#define _mm512_abs_ps emulated_abs_ps
#define _mm512_add_epi32 emulated_add_epi32
#define _mm512_add_ps emulated_add_ps
#define _mm512_and_si512 emulated_and_si512
#define _mm512_castps512_ps256(a) ((a).low)
#define _mm512_castsi512_ps emulated_castsi512_ps
#define _mm512_cmp_ps_mask(a, b, test) emulated_mask_of(_mm256_cmp_ps((a).low, (b).low, test), _mm256_cmp_ps((a).high, (b).high, test))
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps_pbh
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtps_ph(a, to_nearest) emulated_cvtps_ph(a)
#define _mm512_div_ps emulated_div_ps
#define _mm512_dpbf16_ps emulated_dpbf16_ps
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
#define _mm512_extractf32x8_ps(a, half) ((half) ? (a).high : (a).low)
#define _mm512_fmadd_ps emulated_fmadd_ps
#define _mm512_loadu_ps emulated_loadu_ps
#define _mm512_loadu_si512 emulated_loadu_si512
#define _mm512_mask_blend_ps emulated_mask_blend_ps
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_max_ps emulated_max_ps
#define _mm512_min_ps emulated_min_ps
#define _mm512_mul_ps emulated_mul_ps
#define _mm512_permutexvar_epi16 emulated_permutexvar_epi16
#define _mm512_roundscale_ps(a, how) ((emulated_floats){_mm256_round_ps((a).low, how), _mm256_round_ps((a).high, how)})
#define _mm512_scalef_ps emulated_scalef_ps
#define _mm512_shuffle_i32x4 emulated_shuffle_i32x4
#define _mm512_set1_epi32 emulated_set1_epi32
#define _mm512_set1_epi8 emulated_set1_epi8
#define _mm512_set1_ps emulated_set1_ps
#define _mm512_slli_epi32 emulated_slli_epi32
#define _mm512_srli_epi16 emulated_srli_epi16
#define _mm512_store_ps emulated_store_ps
#define _mm512_store_si512 emulated_store_si512
#define _mm512_storeu_ps emulated_storeu_ps
#define _mm512_storeu_si512 emulated_storeu_si512
#define _mm512_sub_epi32 emulated_sub_epi32
#define _mm512_sub_ps emulated_sub_ps
#define _mm512_unpackhi_epi32 emulated_unpackhi_epi32
#define _mm512_unpackhi_epi64 emulated_unpackhi_epi64
#define _mm512_unpacklo_epi32 emulated_unpacklo_epi32
#define _mm512_unpacklo_epi64 emulated_unpacklo_epi64

#endif
