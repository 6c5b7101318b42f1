/* Integer codes of weights: the range of a run of values, the scale that the range calls for, and the codes under a scale.
 * The formats are rows of one table. */
#ifndef ZQ_QUANT_CODES_H
#define ZQ_QUANT_CODES_H

#include "quant/types.h"

/* Smallest and largest of a run of values. */
struct zq_range {
    float min, max;
};
/* Of w [n], n >= 1. false if a value is NaN or infinite; *out is then meaningless. */
bool zq_range_of(struct zq_range *out, const float *w, size_t n);
/* The range of both runs together. */
struct zq_range zq_range_join(struct zq_range a, struct zq_range b);

struct zq_code_format {
    int bits;
    int min, max; /* codes */
};
/* 8: codes -127 .. 127. b of 4, 3, 2: codes -2^(b-1) .. 2^(b-1) - 1. NULL for other widths. */
const struct zq_code_format *zq_code_format(int bits);

/* Rounded to what `stored` holds, the dtype that a scale lies in on disk. */
float zq_scale_stored(float scale, enum zq_dtype stored);

/* The scale of round-to-nearest for a range, under which the whole range has codes: max(range.max / max, range.min / min), rounded
 * to `stored`, the dtype that the scale lies in on disk, before any code is computed. 1 where that gives 0:
 * all values are zero, or so small that their scale has no value in `stored` (F16: below 2^-24); all codes are then 0. `stored` must be
 * the weights' own dtype or F32, so that nothing overflows. */
float zq_scale_nearest(int bits, struct zq_range range, enum zq_dtype stored);

/* codes[i] = clamp(round_half_even(w[i] / scale)); w [n] finite, scale > 0. */
void zq_codes(int8_t *codes, const float *w, size_t n, float scale, int bits);

/* The code of one value in units of the scale, as zq_codes() has it; min and max: of the format. */
static inline float zq_nearest_code(float x, float min, float max)
{
    x = x < min ? min : x;
    x = x > max ? max : x;
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

/* How far codes are from the weights: sums of squares of W - Wq and of W. */
struct zq_deviation {
    double error, norm;
};
/* Adds n values under one scale, in an order that depends on n alone. */
void zq_deviation_add(struct zq_deviation *d, const float *w, const int8_t *codes, size_t n, float scale);

#endif
