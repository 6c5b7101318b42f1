/* exp, tanh and the activation functions over the vocabulary of a level's vec_*.h, which must be included before. One
 * written order of operations: the same bits at every level. Accuracy: polynomials.h. */
#ifndef ZQ_KERNELS_MATH_H
#define ZQ_KERNELS_MATH_H

#include "kernels/polynomials.h"

/* c[0] + x (c[1] + x (c[2] + ...)), each step one fma. */
#define v_horner(c, x) v_polynomial(c, ZQ_LEN(c), x)
ZQ_INLINE vec v_polynomial(const float *c, size_t n, vec x)
{
    vec y = v_set(c[n - 1]);
    ZQ_UNROLL
    for (size_t i = n - 1; i-- > 0;) y = v_fma(y, x, v_set(c[i]));
    return y;
}

/* Beyond the cuts the exact result rounds to 0 or is infinite, and so is ours. NaN gives 0. */
ZQ_INLINE vec v_exp(vec x)
{
    x = v_min(v_max(x, v_set(-104)), v_set(89));
    const vec n = v_round(v_mul(x, v_set(exp_log2e)));
    vec r = v_fma(n, v_set(-exp_ln2_high), x);
    r = v_fma(n, v_set(-exp_ln2_low), r);
    const vec y = v_add(v_fma(v_mul(r, r), v_horner(exp_p, r), r), v_set(1));
    return v_ldexp(y, n);
}

ZQ_INLINE vec v_tanh(vec x)
{
    const vec t = v_abs(x), z = v_mul(x, x), one = v_set(1);
    const vec near = v_fma(v_mul(t, z), v_horner(tanh_p, z), t);
    const vec far = v_sub(one, v_div(v_set(2), v_add(v_exp(v_add(t, t)), one)));
    const vec y = v_if_less(t, v_set(tanh_small), near, far);
    return v_if_less(x, v_set(0), v_sub(v_set(0), y), y);
}

/* x (1 + erf(x / sqrt 2)) / 2 */
ZQ_INLINE vec v_gelu(vec x)
{
    const vec t = v_min(v_abs(x), v_set(gelu_limit));
    return v_fma(v_sub(v_set(0), t), v_exp(v_horner(gelu_p, t)), v_max(x, v_set(0)));
}

/* x / (1 + exp(-u)) */
ZQ_INLINE vec v_times_sigmoid(vec x, vec u) { return v_div(x, v_add(v_set(1), v_exp(v_sub(v_set(0), u)))); }

/* x (1 + tanh u) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
ZQ_INLINE vec v_gelu_tanh(vec x)
{
    const vec slope = v_fma(v_mul(x, x), v_set(0x1.2444f2p-4f), v_set(0x1.988454p+0f));
    return v_times_sigmoid(x, v_mul(x, slope));
}

/* `act` is a constant wherever this is used. */
ZQ_INLINE vec v_activate(enum zq_activation act, vec x)
{
    switch (act) {
    case ZQ_ACT_NONE: return x;
    case ZQ_ACT_RELU: return v_max(x, v_set(0));
    case ZQ_ACT_GELU: return v_gelu(x);
    case ZQ_ACT_GELU_TANH: return v_gelu_tanh(x);
    case ZQ_ACT_SILU: return v_times_sigmoid(x, x);
    case ZQ_ACT_QUICK_GELU: return v_times_sigmoid(x, v_mul(x, v_set(1.702f)));
    case ZQ_ACT_TANH: return v_tanh(x);
    }
    return x;
}

#endif
