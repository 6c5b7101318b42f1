/* 16-bit floats in plain C: IEEE binary16 (F16) and bfloat16 (BF16), conversions to nearest even, subnormals kept. */
#ifndef ZQ_BASE_HALF_H
#define ZQ_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t zq_float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float zq_bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline float zq_bf16_to_float(uint16_t h)
{
    return zq_bits_float((uint32_t)h << 16);
}

static inline uint16_t zq_float_to_bf16(float f)
{
    const uint32_t u = zq_float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float zq_f16_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) return zq_bits_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    /* shifted into place the exponent is 112 too small; the product is exact, also for subnormals */
    return zq_bits_float(sign | zq_float_bits(zq_bits_float(magnitude << 13) * 0x1p112f));
}

static inline uint16_t zq_float_to_f16(float f)
{
    const uint32_t u = zq_float_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 65536 or more */
    if (a < 0x38800000u) /* subnormal: adding 0.5 leaves the rounded value * 2^24 in the low bits */
        return (uint16_t)(sign | (zq_float_bits(zq_bits_float(a) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (((a + 0xfffu + (a >> 13 & 1)) >> 13) - (112u << 10)));
}

#endif
