/* What the integer products of both ARM levels share: words on 4 lanes for gemm.inc, and loads of weights. Codes of both sides
 * are signed; nibbles have 8 added, as gemm.inc has it. */
#ifndef ZQ_KERNELS_ARM_GEMM_NEON_H
#define ZQ_KERNELS_ARM_GEMM_NEON_H

#include "kernels/level.h"

#include <arm_neon.h>
#include <string.h>

enum { LANES = 4, VECS = 4, T_WIDE = 6, T_MID = 4, OFFSET_W8 = 0 };

typedef int32x4_t ints;
typedef float32x4_t floats;

ZQ_INLINE ints i_set(int32_t a) { return vdupq_n_s32(a); }
ZQ_INLINE ints i_load(const int32_t *p) { return vld1q_s32(p); }
ZQ_INLINE ints i_add(ints a, ints b) { return vaddq_s32(a, b); }
ZQ_INLINE floats i_to_float(ints a) { return vcvtq_f32_s32(a); }
ZQ_INLINE floats f_set(float a) { return vdupq_n_f32(a); }
ZQ_INLINE floats f_load(const float *p) { return vld1q_f32(p); }
ZQ_INLINE floats f_add(floats a, floats b) { return vaddq_f32(a, b); }
ZQ_INLINE floats f_mul(floats a, floats b) { return vmulq_f32(a, b); }
ZQ_INLINE floats f_fma(floats a, floats b, floats c) { return vfmaq_f32(c, a, b); }

ZQ_INLINE floats f_load_n(const float *p, size_t n)
{
    if (n == LANES) return vld1q_f32(p);
    float lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return vld1q_f32(lanes);
}

ZQ_INLINE void f_store_n(float *p, floats a, size_t n)
{
    if (n == LANES) vst1q_f32(p, a);
    else memcpy(p, &a, n * sizeof *p);
}

static int32_t code_sum(const int8_t *q, size_t n)
{
    ints sums = vdupq_n_s32(0);
    size_t k = 0;
    for (; k + 16 <= n; k += 16) sums = vpadalq_s16(sums, vpaddlq_s8(vld1q_s8(q + k)));
    int32_t sum = vaddvq_s32(sums);
    for (; k < n; k++) sum += q[k];
    return sum;
}

/* The weights of a step of 4 columns: vector v holds 4 codes of each of the rows 4 v .. 4 v + 3. */
ZQ_INLINE void load_w(int8x16_t w[VECS], const uint8_t *p, int bits)
{
    if (bits == 8) {
        ZQ_UNROLL
        for (size_t v = 0; v < VECS; v++) w[v] = vreinterpretq_s8_u8(vld1q_u8(p + 16 * v));
        return;
    }
    ZQ_UNROLL
    for (size_t v = 0; v < VECS / 2; v++) {
        const uint8x16_t both = vld1q_u8(p + 16 * v);
        w[v] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        w[VECS / 2 + v] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
    }
}

/* One step of 4 columns with sdot: 4 products added to each lane. */
ZQ_INLINE void dot_step(ints *acc, size_t n_tokens, const int8_t *const *q, size_t column, const int8x16_t w[VECS])
{
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) {
        int32_t four;
        memcpy(&four, q[t] + column, sizeof four);
        const int8x16_t left = vreinterpretq_s8_s32(vdupq_n_s32(four));
        ZQ_UNROLL
        for (size_t v = 0; v < VECS; v++) acc[t * VECS + v] = vdotq_s32(acc[t * VECS + v], w[v], left);
    }
}

#endif
