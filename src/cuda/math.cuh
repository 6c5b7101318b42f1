/* exp, tanh and the activation functions of kernels/math.h for one value: the same polynomials in the same order, hence the same
 * bits as on the CPU. */
#ifndef ZQ_CUDA_MATH_CUH
#define ZQ_CUDA_MATH_CUH

#include "cuda/shim.cuh"
#include "kernels/kernels.h"
#include "kernels/polynomials.h"

template <size_t N> DEVICE float polynomial(const float (&c)[N], float x)
{
    float y = c[N - 1];
    UNROLL
    for (int i = (int)N - 2; i >= 0; i--) y = fma_rn(y, x, c[i]);
    return y;
}

/* NaN gives exp(-104), which rounds to 0, as larger() returns its second operand. */
DEVICE float exp_of(float x)
{
    x = smaller(larger(x, -104.0f), 89.0f);
    const float n = round_even(mul(x, exp_log2e));
    float r = fma_rn(n, -exp_ln2_high, x);
    r = fma_rn(n, -exp_ln2_low, r);
    const float y = add(fma_rn(mul(r, r), polynomial(exp_p, r), r), 1.0f);
    const int all = (int)n, half = all >> 1;
    return mul(mul(y, bits_float((uint32_t)(127 + half) << 23)), bits_float((uint32_t)(127 + all - half) << 23));
}

DEVICE float tanh_of(float x)
{
    const float t = magnitude(x), z = mul(x, x);
    const float near = fma_rn(mul(t, z), polynomial(tanh_p, z), t);
    const float far = sub(1.0f, divide(2.0f, add(exp_of(add(t, t)), 1.0f)));
    const float y = t < tanh_small ? near : far;
    return x < 0 ? sub(0.0f, y) : y;
}

DEVICE float gelu_of(float x)
{
    const float t = smaller(magnitude(x), gelu_limit);
    return fma_rn(sub(0.0f, t), exp_of(polynomial(gelu_p, t)), larger(x, 0.0f));
}

DEVICE float times_sigmoid(float x, float u) { return divide(x, add(1.0f, exp_of(sub(0.0f, u)))); }

DEVICE float gelu_tanh_of(float x)
{
    const float slope = fma_rn(mul(x, x), 0x1.2444f2p-4f, 0x1.988454p+0f);
    return times_sigmoid(x, mul(x, slope));
}

DEVICE float activate_value(enum zq_activation act, float x)
{
    switch (act) {
    case ZQ_ACT_NONE: return x;
    case ZQ_ACT_RELU: return larger(x, 0.0f);
    case ZQ_ACT_GELU: return gelu_of(x);
    case ZQ_ACT_GELU_TANH: return gelu_tanh_of(x);
    case ZQ_ACT_SILU: return times_sigmoid(x, x);
    case ZQ_ACT_QUICK_GELU: return times_sigmoid(x, mul(x, 1.702f));
    case ZQ_ACT_TANH: return tanh_of(x);
    }
    return x;
}

/* ---- INT8 tokens ---- */

DEVICE float token_scale(float top)
{
    const float scale = divide(top, 127.0f);
    return scale == 0 ? 1.0f : scale;
}

DEVICE int8_t code_of(float y, float scale) { return (int8_t)(int)round_even(larger(smaller(divide(y, scale), 127.0f), -127.0f)); }

DEVICE float within_half(float x) { return smaller(larger(x, -65504.0f), 65504.0f); }

/* F16 or BF16, rounded to nearest even. x finite. */
DEVICE uint16_t half_form(enum zq_dtype dtype, float x)
{
    if (dtype == ZQ_F16) return half_bits(within_half(x));
    const uint32_t b = float_bits(x);
    return (uint16_t)((b + 0x7fffu + (b >> 16 & 1)) >> 16);
}

/* The 16 lanes' values added as lanes() says: l and l + 8, then 4, 2, 1. Addition commutes, so all lanes get the same bits. */
DEVICE float half_warp_sum(float a)
{
    for (unsigned mask = 8; mask; mask /= 2) a = add(a, shuffle_xor(a, mask));
    return a;
}

/* The largest of a warp's values, in all lanes. */
DEVICE float warp_top(float top)
{
    for (unsigned mask = 16; mask; mask /= 2) top = larger(top, shuffle_xor(top, mask));
    return top;
}

#endif
