/* exp for loops that compilers turn into vectors: no branch, no library call, no fma. Training needs speed and the same bits on
 * one machine, not the last bit: the error is below 2 ulp. Inference has its own (kernels/math.h). */
#ifndef ZQ_DISTILL_EXP_H
#define ZQ_DISTILL_EXP_H

#include "base/half.h"
#include "kernels/polynomials.h"

/* Below -87 the result is exp(-87) = 1.6e-38, above 88 exp(88): never 0, infinite or subnormal. NaN stays NaN. */
static inline float zq_exp(float x)
{
    x = x < -87 ? -87 : x;
    x = x > 88 ? 88 : x;
    const float shifted = x * exp_log2e + 0x1.8p23f; /* rounds to an integer, which lies in the low bits */
    const float n = shifted - 0x1.8p23f, r = x - n * exp_ln2_high - n * exp_ln2_low;
    const float p = exp_p[0] + r * (exp_p[1] + r * (exp_p[2] + r * (exp_p[3] + r * exp_p[4])));
    return (1 + (r + r * r * p)) * zq_bits_float((zq_float_bits(shifted) << 23) + 0x3f800000u);
}

#endif
