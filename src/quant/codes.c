/* The arithmetic of round-to-nearest. Everything is F32, as in the reference: a true division (not a product with the
 * reciprocal, which rounds differently), then round half to even. Loops are written so that compilers vectorise them without
 * changing a bit: comparisons of integers, no library call for rounding, sums in fixed lanes. */
#include "quant/codes.h"

#include "base/half.h"

static const struct zq_code_format formats[] = {
    {.bits = 8, .min = -127, .max = 127},
    {.bits = 4, .min = -8, .max = 7},
    {.bits = 3, .min = -4, .max = 3},
    {.bits = 2, .min = -2, .max = 1},
};

const struct zq_code_format *zq_code_format(int bits)
{
    for (size_t i = 0; i < ZQ_LEN(formats); i++)
        if (formats[i].bits == bits) return &formats[i];
    return NULL;
}

/* An integer that orders as the float does, -NaN < -inf < .. < -0 < +0 < .. < inf < NaN; its own inverse. */
static inline int32_t order_key(int32_t bits)
{
    return bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1);
}

bool zq_range_of(struct zq_range *out, const float *w, size_t n)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
    for (size_t i = 0; i < n; i++) {
        const int32_t key = order_key((int32_t)zq_float_bits(w[i]));
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    out->min = zq_bits_float((uint32_t)order_key(low));
    out->max = zq_bits_float((uint32_t)order_key(high));
    const int32_t infinity = 0x7f800000;
    return low > order_key((int32_t)0xff800000) && high < infinity;
}

struct zq_range zq_range_join(struct zq_range a, struct zq_range b)
{
    return (struct zq_range){a.min < b.min ? a.min : b.min, a.max > b.max ? a.max : b.max};
}

float zq_scale_stored(float scale, enum zq_dtype stored)
{
    uint8_t bytes[4];
    zq_from_float(bytes, stored, &scale, 1);
    zq_to_float(&scale, bytes, stored, 1);
    return scale;
}

float zq_scale_nearest(int bits, struct zq_range range, enum zq_dtype stored)
{
    const struct zq_code_format *f = zq_code_format(bits);
    const float above = range.max / (float)f->max, below = range.min / (float)f->min;
    const float scale = zq_scale_stored(above > below ? above : below, stored);
    return scale == 0 ? 1 : scale;
}

void zq_codes(int8_t *codes, const float *w, size_t n, float scale, int bits)
{
    const struct zq_code_format *format = zq_code_format(bits);
    const float min = (float)format->min, max = (float)format->max;
    for (size_t i = 0; i < n; i++) {
        float q = w[i] / scale;
        q = q < min ? min : q;
        q = q > max ? max : q;
        /* the sum with 1.5 * 2^23 is rounded half to even, and leaves the integer in its low bits; the bounds are integers, so
         * that clamping before rounding is the same as after */
        codes[i] = (int8_t)zq_float_bits(q + 0x1.8p23f);
    }
}

void zq_deviation_add(struct zq_deviation *d, const float *w, const int8_t *codes, size_t n, float scale)
{
    enum { LANES = 4 }; /* two vectors of doubles on the smallest x86 */
    double error[LANES] = {0}, norm[LANES] = {0};
    const size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            const double x = w[i + l], e = x - (double)codes[i + l] * scale;
            error[l] += e * e;
            norm[l] += x * x;
        }
    }
    for (size_t i = whole; i < n; i++) {
        const double x = w[i], e = x - (double)codes[i] * scale;
        error[i - whole] += e * e;
        norm[i - whole] += x * x;
    }
    for (size_t l = 0; l < LANES; l++) {
        d->error += error[l];
        d->norm += norm[l];
    }
}
