/* The vector vocabulary in plain C: 16 floats side by side. The float kernels (rows.inc, attend.inc, floatmul.inc) are
 * written in these words only, and compiled once per level over that level's vec_*.h; every word means the same bits
 * everywhere, so that levels differ in speed alone.
 *
 * fmaf is a call into libm, which picks the processor's instruction or computes the same result without it. */
#ifndef ZQ_KERNELS_C_VEC_C_H
#define ZQ_KERNELS_C_VEC_C_H

#include "base/half.h"
#include "kernels/level.h"

#include <math.h>

#define LEVEL(name) name##_c

/* Register tiles of products: vectors side by side in one packed tile, which are also those taken with one token; and
 * tokens x vectors where there are many tokens. */
enum { V_TILE = 1, T_MANY = 4, V_MANY = 1 };

typedef struct { float lane[16]; } vec;

#if defined(__SANITIZE_ADDRESS__) /* sixteen lanes with their checks are too much to repeat in each use */
#define WORD static __attribute__((noinline, unused))
#else
#define WORD ZQ_INLINE
#endif

#define EACH(l) for (int l = 0; l < 16; l++)

WORD vec v_set(float a)
{
    vec r;
    EACH(l) r.lane[l] = a;
    return r;
}

WORD vec v_load(const void *p)
{
    vec r;
    memcpy(&r, p, sizeof r);
    return r;
}

/* Says that a is used here. Right after a loop it keeps accumulators in their registers: gcc 12 else keeps a second copy of
 * each in memory, written in every round. */
WORD void v_settle(vec *a) { (void)a; }

/* The first n <= 16 floats; 0 in the other lanes. */
WORD vec v_load_n(const float *p, size_t n)
{
    vec r = v_set(0);
    memcpy(&r, p, n * sizeof *p);
    return r;
}

WORD void v_store(float *p, vec a) { memcpy(p, &a, sizeof a); }
WORD void v_store_n(float *p, vec a, size_t n) { memcpy(p, &a, n * sizeof *p); }

#define EACH_OF_TWO(name, expression)       \
    WORD vec name(vec a, vec b)        \
    {                                       \
        vec r;                              \
        EACH(l)                             \
        {                                   \
            const float x = a.lane[l], y = b.lane[l]; \
            r.lane[l] = expression;         \
        }                                   \
        return r;                           \
    }
EACH_OF_TWO(v_add, x + y)
EACH_OF_TWO(v_sub, x - y)
EACH_OF_TWO(v_mul, x * y)
EACH_OF_TWO(v_div, x / y)
EACH_OF_TWO(v_max, x > y ? x : y) /* the second if one is NaN, as the x86 instructions */
EACH_OF_TWO(v_min, x < y ? x : y)

/* a * b + c, rounded once. */
WORD vec v_fma(vec a, vec b, vec c)
{
    vec r;
    EACH(l) r.lane[l] = fmaf(a.lane[l], b.lane[l], c.lane[l]);
    return r;
}

WORD vec v_abs(vec a)
{
    EACH(l) a.lane[l] = fabsf(a.lane[l]);
    return a;
}

/* To the nearest integer, ties to even. */
WORD vec v_round(vec a)
{
    EACH(l) a.lane[l] = rintf(a.lane[l]);
    return a;
}

/* a * 2^n rounded once, for integers -250 <= n <= 250: two factors, of which the first is exact for 2^-1 < |a| < 2. */
WORD vec v_ldexp(vec a, vec n)
{
    EACH(l)
    {
        const int32_t all = (int32_t)n.lane[l], half = all >> 1;
        a.lane[l] = a.lane[l] * zq_bits_float((uint32_t)(127 + half) << 23) * zq_bits_float((uint32_t)(127 + all - half) << 23);
    }
    return a;
}

/* Where a < b lanes of x, else of y. */
WORD vec v_if_less(vec a, vec b, vec x, vec y)
{
    EACH(l) if (!(a.lane[l] < b.lane[l])) x.lane[l] = y.lane[l];
    return x;
}

/* Lanes [begin, end) of a, the others of b. */
WORD vec v_keep(vec a, size_t begin, size_t end, vec b)
{
    for (size_t l = begin; l < end; l++) b.lane[l] = a.lane[l];
    return b;
}

/* Lanes l and l + 8 added, then l + 4, l + 2, l + 1. */
WORD float v_sum(vec a)
{
    for (int width = 8; width; width /= 2)
        for (int l = 0; l < width; l++) a.lane[l] += a.lane[l + width];
    return a.lane[0];
}

/* The largest lane, by the same tree. */
WORD float v_top(vec a)
{
    for (int width = 8; width; width /= 2)
        for (int l = 0; l < width; l++) a.lane[l] = a.lane[l] > a.lane[l + width] ? a.lane[l] : a.lane[l + width];
    return a.lane[0];
}

/* Stores the first n lanes, -127 .. 127, rounded to int8. */
WORD void v_store_q8(int8_t *q, vec a, size_t n)
{
    for (size_t l = 0; l < n; l++) q[l] = (int8_t)lrintf(a.lane[l]);
}

/* Stores the first n lanes as F16, to nearest even. */
WORD void v_store_f16(void *p, vec a, size_t n)
{
    uint16_t h[16];
    EACH(l) h[l] = zq_float_to_f16(a.lane[l]);
    memcpy(p, h, n * sizeof *h);
}

/* 16 values of a stored format as floats, all exact. Nibbles hold code + 8: lanes 0..7 in the low halves of 8 bytes. */
WORD vec v_load_f16(const void *p)
{
    uint16_t h[16];
    vec r;
    memcpy(h, p, sizeof h);
    EACH(l) r.lane[l] = zq_f16_to_float(h[l]);
    return r;
}

WORD vec v_load_bf16(const void *p)
{
    uint16_t h[16];
    vec r;
    memcpy(h, p, sizeof h);
    EACH(l) r.lane[l] = zq_bf16_to_float(h[l]);
    return r;
}

WORD vec v_load_i8(const void *p)
{
    const int8_t *c = p;
    vec r;
    EACH(l) r.lane[l] = c[l];
    return r;
}

WORD vec v_load_i4(const void *p)
{
    const uint8_t *c = p;
    vec r;
    EACH(l) r.lane[l] = (float)((c[l & 7] >> (l & 8 ? 4 : 0) & 15) - 8);
    return r;
}

#endif
