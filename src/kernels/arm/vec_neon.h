/* The vector vocabulary on AArch64: four registers of 4 floats. What each word means: c/vec_c.h. */
#ifndef ZQ_KERNELS_ARM_VEC_NEON_H
#define ZQ_KERNELS_ARM_VEC_NEON_H

#include "kernels/level.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define LEVEL(name) name##_dotprod

/* 32 registers: one token takes 4 x 4 accumulators, four tokens the same. */
enum { V_TILE = 4, T_MANY = 4, V_MANY = 1 };

typedef struct { float32x4_t part[4]; } vec;

#define EACH_PART(i) for (int i = 0; i < 4; i++)

#define EACH_OF_ONE(name, expression)                                    \
    ZQ_INLINE vec name(vec a)                                            \
    {                                                                    \
        EACH_PART(i)                                                     \
        {                                                                \
            const float32x4_t x = a.part[i];                             \
            a.part[i] = expression;                                      \
        }                                                                \
        return a;                                                        \
    }
#define EACH_OF_TWO(name, expression)                                    \
    ZQ_INLINE vec name(vec a, vec b)                                     \
    {                                                                    \
        EACH_PART(i)                                                     \
        {                                                                \
            const float32x4_t x = a.part[i], y = b.part[i];              \
            a.part[i] = expression;                                      \
        }                                                                \
        return a;                                                        \
    }
EACH_OF_TWO(v_add, vaddq_f32(x, y))
EACH_OF_TWO(v_sub, vsubq_f32(x, y))
EACH_OF_TWO(v_mul, vmulq_f32(x, y))
EACH_OF_TWO(v_div, vdivq_f32(x, y))
EACH_OF_TWO(v_max, vbslq_f32(vcgtq_f32(x, y), x, y)) /* fmax has other ideas of NaN and of -0 */
EACH_OF_TWO(v_min, vbslq_f32(vcltq_f32(x, y), x, y))
EACH_OF_ONE(v_abs, vabsq_f32(x))
EACH_OF_ONE(v_round, vrndnq_f32(x))

ZQ_INLINE vec v_set(float a) { return (vec){{vdupq_n_f32(a), vdupq_n_f32(a), vdupq_n_f32(a), vdupq_n_f32(a)}}; }
ZQ_INLINE void v_settle(vec *a) { __asm__("" : "+w"(a->part[0]), "+w"(a->part[1]), "+w"(a->part[2]), "+w"(a->part[3])); }

ZQ_INLINE vec v_load(const void *p)
{
    vec r;
    EACH_PART(i) r.part[i] = vld1q_f32((const float *)p + 4 * i);
    return r;
}

ZQ_INLINE void v_store(float *p, vec a) { EACH_PART(i) vst1q_f32(p + 4 * i, a.part[i]); }

ZQ_INLINE vec v_load_n(const float *p, size_t n)
{
    if (n == 16) return v_load(p);
    float lanes[16] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return v_load(lanes);
}

ZQ_INLINE void v_store_n(float *p, vec a, size_t n)
{
    if (n == 16) {
        v_store(p, a);
        return;
    }
    float lanes[16];
    v_store(lanes, a);
    memcpy(p, lanes, n * sizeof *p);
}

ZQ_INLINE vec v_fma(vec a, vec b, vec c)
{
    EACH_PART(i) c.part[i] = vfmaq_f32(c.part[i], a.part[i], b.part[i]);
    return c;
}

ZQ_INLINE float32x4_t power_of_two(int32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }

ZQ_INLINE vec v_ldexp(vec a, vec n)
{
    EACH_PART(i)
    {
        const int32x4_t all = vcvtnq_s32_f32(n.part[i]), half = vshrq_n_s32(all, 1);
        a.part[i] = vmulq_f32(vmulq_f32(a.part[i], power_of_two(half)), power_of_two(vsubq_s32(all, half)));
    }
    return a;
}

ZQ_INLINE vec v_if_less(vec a, vec b, vec x, vec y)
{
    EACH_PART(i) x.part[i] = vbslq_f32(vcltq_f32(a.part[i], b.part[i]), x.part[i], y.part[i]);
    return x;
}

ZQ_INLINE vec v_keep(vec a, size_t begin, size_t end, vec b)
{
    static const uint32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint32x4_t first = vdupq_n_u32((uint32_t)begin), past = vdupq_n_u32((uint32_t)end);
    EACH_PART(i)
    {
        const uint32x4_t lane = vld1q_u32(numbers + 4 * i);
        b.part[i] = vbslq_f32(vandq_u32(vcgeq_u32(lane, first), vcltq_u32(lane, past)), a.part[i], b.part[i]);
    }
    return b;
}

ZQ_INLINE float v_sum(vec a)
{
    const float32x4_t s4 = vaddq_f32(vaddq_f32(a.part[0], a.part[2]), vaddq_f32(a.part[1], a.part[3]));
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

/* vec_c.h keeps the second of two unless the first is greater; so does this. */
ZQ_INLINE float32x4_t greater(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }

ZQ_INLINE float v_top(vec a)
{
    const float32x4_t s4 = greater(greater(a.part[0], a.part[2]), greater(a.part[1], a.part[3]));
    const float32x4_t s2 = greater(s4, vextq_f32(s4, s4, 2));
    return vgetq_lane_f32(greater(s2, vextq_f32(s2, s2, 1)), 0);
}

ZQ_INLINE void v_store_q8(int8_t *q, vec a, size_t n)
{
    const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.part[0])), vqmovn_s32(vcvtnq_s32_f32(a.part[1])));
    const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.part[2])), vqmovn_s32(vcvtnq_s32_f32(a.part[3])));
    const int8x16_t codes = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
    if (n == 16) vst1q_s8(q, codes);
    else memcpy(q, &codes, n);
}

ZQ_INLINE void v_store_f16(void *p, vec a, size_t n)
{
    uint16_t h[16];
    EACH_PART(i) vst1_u16(h + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.part[i])));
    memcpy(p, h, n * sizeof *h);
}

ZQ_INLINE vec v_load_f16(const void *p)
{
    vec r;
    EACH_PART(i) r.part[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)p + 4 * i)));
    return r;
}

ZQ_INLINE vec v_load_bf16(const void *p)
{
    vec r;
    EACH_PART(i) r.part[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)p + 4 * i), 16));
    return r;
}

/* 16 codes in a register as floats. */
ZQ_INLINE vec from_codes(int8x16_t codes)
{
    const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_s8(vget_high_s8(codes));
    return (vec){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}

ZQ_INLINE vec v_load_i8(const void *p) { return from_codes(vld1q_s8(p)); }

ZQ_INLINE vec v_load_i4(const void *p)
{
    const uint8x8_t bytes = vld1_u8(p);
    const uint8x16_t nibbles = vcombine_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
    return from_codes(vsubq_s8(vreinterpretq_s8_u8(nibbles), vdupq_n_s8(8)));
}

#endif
