/* Made by tools/make-polynomials.py; do not edit. Coefficients from the constant term upwards; errors measured there. */
#ifndef ZQ_KERNELS_POLYNOMIALS_H
#define ZQ_KERNELS_POLYNOMIALS_H

#ifndef ZQ_TABLE
#define ZQ_TABLE static const /* device code says more */
#endif

/* exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2) / 2; ln(2) as a part whose product with n is exact, and the rest.
 * exp of [-87, 88]: 1.02 ulp. */
ZQ_TABLE float exp_p[] = {0x1p-1f, 0x1.5554dcp-3f, 0x1.5554b8p-5f, 0x1.120b66p-7f, 0x1.6d753ap-10f};
ZQ_TABLE float exp_log2e = 0x1.715476p+0f;
ZQ_TABLE float exp_ln2_high = 0x1.62ep-1f;
ZQ_TABLE float exp_ln2_low = 0x1.0bfbe8p-15f;

/* tanh(x) = x + x z P(z), z = x^2, for |x| < tanh_small; beyond, 1 - 2 / (exp(2x) + 1).
 * 0.78 ulp below, 1.23 ulp beyond. */
ZQ_TABLE float tanh_p[] = {-0x1.555552p-2f, 0x1.110e3ep-3f, -0x1.b92c2cp-5f, 0x1.583aacp-6f, -0x1.90a25cp-8f};
ZQ_TABLE float tanh_small = 0x1.4p-1f;

/* GELU(x) = max(x, 0) - t exp(P(t)), t = |x| cut at gelu_limit, where the second term is 5e-20: P is the logarithm of the
 * normal distribution's upper tail, |P - ln tail| sqrt(tail) <= GELU_ERROR.
 * 2.07 ulp for x > 0, 3.05 for -1 < x < 0, 64 for -4 < x < -1. */
ZQ_TABLE float gelu_p[] = {-0x1.62e42ep-1f, -0x1.9884bep-1f, -0x1.45eb44p-2f, -0x1.2a828p-5f, 0x1.450ee4p-8f, -0x1.11eb28p-13f,
                               -0x1.03aa34p-13f, 0x1.fb6fd4p-16f, -0x1.b07882p-19f, 0x1.26a464p-23f};
ZQ_TABLE float gelu_limit = 0x1.4p+3f;
#define GELU_ERROR 4.6e-08

#endif
