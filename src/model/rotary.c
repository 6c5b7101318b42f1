/* Rotary tables. Frequencies and angles are rounded to float where the reference library (transformers, FP32) rounds them:
 * inv_freq is a float, the angle is the float product position * inv_freq. */
#include "model/session.h"

#include <math.h>

/* sin and cos of x >= 0 to about 1e-16. Reduction by multiples of pi/2 in two parts (the first has 33 significant bits, so that
 * k * part is exact up to k = 2^20), then Taylor series on [-pi/4, pi/4]: the first term left out is below 5e-17. */
static void sin_cos(double x, double *s, double *c)
{
    const double k = rint(x * 0.63661977236758134308); /* 2 / pi */
    const double r = (x - k * 0x1.921fb544p+0) - k * 0x1.0b4611a626331p-34, q = r * r;
    const double sine = r + r * q * (-1.0 / 6 + q * (1.0 / 120 + q * (-1.0 / 5040 + q * (1.0 / 362880 + q * (-1.0 / 39916800 +
                        q * (1.0 / 6227020800.0 + q * (-1.0 / 1307674368000.0)))))));
    const double cosine = 1 + q * (-0.5 + q * (1.0 / 24 + q * (-1.0 / 720 + q * (1.0 / 40320 + q * (-1.0 / 3628800 +
                          q * (1.0 / 479001600 + q * (-1.0 / 87178291200.0 + q * (1.0 / 20922789888000.0))))))));
    const int quadrant = (int)fmod(k, 4);
    *s = quadrant == 0 ? sine : quadrant == 1 ? cosine : quadrant == 2 ? -sine : -cosine;
    *c = quadrant == 0 ? cosine : quadrant == 1 ? -sine : quadrant == 2 ? -cosine : sine;
}

/* "llama3" scaling: long wavelengths are slowed by factor, short ones stay, those between are blended. */
static double llama3(const struct zq_config *c, double inv)
{
    const double wavelength = 2 * 3.14159265358979323846 / inv, original = (double)c->rope_original;
    if (wavelength < original / c->rope_high) return inv;
    if (wavelength > original / c->rope_low) return inv / c->rope_factor;
    const double smooth = (original / wavelength - c->rope_low) / (c->rope_high - c->rope_low);
    return (1 - smooth) * inv / c->rope_factor + smooth * inv;
}

static float frequency(const struct zq_config *c, size_t i)
{
    const double inv = 1 / pow(c->theta, (double)(2 * i) / (double)c->n_rotated);
    switch (c->rope) {
    case ZQ_ROPE_LINEAR: return (float)(inv / c->rope_factor);
    case ZQ_ROPE_LLAMA3: return (float)llama3(c, inv);
    case ZQ_ROPE_DEFAULT: break;
    }
    return (float)inv;
}

void zq_rotary_tables(const struct zq_config *c, size_t n_positions, float *cos_table, float *sin_table)
{
    const size_t half = c->n_rotated / 2;
    for (size_t i = 0; i < half; i++) {
        const float inv = frequency(c, i);
        for (size_t p = 0; p < n_positions; p++) {
            const float angle = (float)p * inv;
            double s, co;
            sin_cos(angle, &s, &co);
            cos_table[p * half + i] = (float)co;
            sin_table[p * half + i] = (float)s;
        }
    }
}
