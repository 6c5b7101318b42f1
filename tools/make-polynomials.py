#!/usr/bin/env python3
"""Prints src/kernels/polynomials.h: minimax polynomials for exp, tanh and GELU in float arithmetic.

    pip install mpmath; tools/make-polynomials.py > src/kernels/polynomials.h

Coefficients come from Remez exchange in 60 digits. The errors in the comments are measured by evaluating exactly as
src/kernels/math.h does (float operations, fma rounded once) against mpmath; 1 ulp is the distance of neighbouring floats
at the exact result."""
import math
import random
import struct

from mpmath import mp, mpf

mp.dps = 60


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def fma(a, b, c):
    """a * b is exact in double; the sum is rounded twice, which differs from one rounding in 1 of 2^29 cases."""
    return f32(a * b + c)


def ulp(x):
    return 2.0 ** max(math.frexp(x)[1] - 24, -149)


def remez(f, weight, lo, hi, degree):
    """The polynomial of that degree with the smallest maximum of |f - p| * weight over [lo, hi], lowest coefficient first."""
    count = degree + 2
    # an even number of points: none lies in the middle, where f may be 0/0
    grid = [lo + (hi - lo) * (1 - mp.cos(mp.pi * i / 1999)) / 2 for i in range(2000)]
    exact, weights = [f(x) for x in grid], [weight(x) for x in grid]
    where = [round(1999 * i / (count - 1)) for i in range(count)]
    for _ in range(40):
        a, b = mp.matrix(count, count), mp.matrix(count, 1)
        for row, g in enumerate(where):
            for k in range(degree + 1):
                a[row, k] = grid[g] ** k
            a[row, degree + 1] = (-1) ** row / weights[g]
            b[row] = exact[g]
        p = list(mp.lu_solve(a, b))[: degree + 1]
        error = [(mp.polyval(p[::-1], x) - y) * w for x, y, w in zip(grid, exact, weights)]
        peaks = []  # the largest error of each run of equal sign
        for i, e in enumerate(error):
            if not peaks or (error[peaks[-1]] > 0) != (e > 0):
                peaks.append(i)
            elif abs(e) > abs(error[peaks[-1]]):
                peaks[-1] = i
        while len(peaks) > count:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        assert len(peaks) == count
        if peaks == where:
            break
        where = peaks
    return [f32(float(c)) for c in p]


def horner(coefficients, x):
    y = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        y = fma(y, x, c)
    return y


def worst(evaluate, f, lo, hi, n=40000):
    """Largest error over [lo, hi] in ulp, from points spread evenly and points spread by their logarithm."""
    draw = random.Random(1)
    points = [f32(draw.uniform(lo, hi)) for _ in range(n)]
    if lo >= 0:
        points += [f32(hi * math.exp(-draw.uniform(0, 15))) for _ in range(n // 4)]
        points = [x for x in points if x >= lo]
    return max(abs(float(evaluate(x) - f(x))) / ulp(float(f(x))) for x in points)


def text(x):
    mantissa, exponent = x.hex().split("p")
    return "%sp%sf" % (mantissa.rstrip("0").rstrip("."), exponent)


def show(name, value):
    if isinstance(value, list):
        lines = [", ".join(text(c) for c in value[i : i + 6]) for i in range(0, len(value), 6)]
        print("ZQ_TABLE float %s[] = {%s};" % (name, ",\n                               ".join(lines)))
    else:
        print("ZQ_TABLE float %s = %s;" % (name, text(value)))


half_ln2 = mp.log(2) / 2
exp_p = remez(lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: mpf(1), -half_ln2, half_ln2, 4)
exp_log2e = f32(float(1 / mp.log(2)))
exp_ln2_high = float(mp.floor(mp.log(2) * 2**13 + mpf(1) / 2) / 2**13)  # 13 bits: n * high is exact for |n| <= 2^11
exp_ln2_low = f32(float(mp.log(2) - exp_ln2_high))


def exp(x):
    n = float(round(f32(x * exp_log2e)))
    r = fma(n, -exp_ln2_low, fma(n, -exp_ln2_high, x))
    return f32(math.ldexp(f32(fma(f32(r * r), horner(exp_p, r), r) + 1.0), int(n)))


tanh_small = f32(0.625)
tanh_p = remez(lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: mpf(1), mpf(1) / 10**9, mpf(tanh_small) ** 2, 4)


def tanh(x):
    z = f32(x * x)
    if x < tanh_small:
        return fma(f32(x * z), horner(tanh_p, z), x)
    return f32(1.0 - f32(2.0 / f32(exp(f32(2.0 * x)) + 1.0)))


gelu_limit = f32(10.0)


def upper(t):
    """The upper tail of the normal distribution."""
    return mp.erfc(t / mp.sqrt(2)) / 2


gelu_p = remez(lambda t: mp.log(upper(t)), lambda t: mp.sqrt(upper(t)), mpf(0), mpf(gelu_limit), 9)

gelu_error = max(abs(mp.polyval([mpf(c) for c in gelu_p[::-1]], t) - mp.log(upper(t))) * mp.sqrt(upper(t)) for t in mp.linspace(0, gelu_limit, 5000))


def gelu(x):
    t = min(abs(x), gelu_limit)
    return fma(-t, exp(horner(gelu_p, t)), max(x, 0.0))


if __name__ == "__main__":
    print("/* Made by tools/make-polynomials.py; do not edit. Coefficients from the constant term upwards; errors measured there. */")
    print("#ifndef ZQ_KERNELS_POLYNOMIALS_H\n#define ZQ_KERNELS_POLYNOMIALS_H\n")
    print("#ifndef ZQ_TABLE\n#define ZQ_TABLE static const /* device code says more */\n#endif\n")
    print("/* exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2) / 2; ln(2) as a part whose product with n is exact, and the rest.")
    print(" * exp of [-87, 88]: %.2f ulp. */" % worst(exp, mp.exp, -87, 88))
    show("exp_p", exp_p)
    show("exp_log2e", exp_log2e)
    show("exp_ln2_high", exp_ln2_high)
    show("exp_ln2_low", exp_ln2_low)
    print("\n/* tanh(x) = x + x z P(z), z = x^2, for |x| < tanh_small; beyond, 1 - 2 / (exp(2x) + 1).")
    print(" * %.2f ulp below, %.2f ulp beyond. */" % (worst(tanh, mp.tanh, 0, tanh_small), worst(tanh, mp.tanh, tanh_small, 9.5)))
    show("tanh_p", tanh_p)
    show("tanh_small", tanh_small)
    exact = lambda x: x * upper(-x)
    print("\n/* GELU(x) = max(x, 0) - t exp(P(t)), t = |x| cut at gelu_limit, where the second term is %.0e: P is the logarithm of the" % -gelu(-2 * gelu_limit))
    print(" * normal distribution's upper tail, |P - ln tail| sqrt(tail) <= GELU_ERROR.")
    print(" * %.2f ulp for x > 0, %.2f for -1 < x < 0, %.0f for -4 < x < -1. */" % (
        worst(gelu, exact, 1e-6, 12), worst(gelu, exact, -1, -1e-6), worst(gelu, exact, -4, -1)))
    show("gelu_p", gelu_p)
    show("gelu_limit", gelu_limit)
    print("#define GELU_ERROR %.1e" % (1.05 * gelu_error))
    print("\n#endif")
