/* Training's operators on codes: fake quantization of tokens and weights as the exporter has it, and learned roundings. kernels/training.h gives the
 * contract; the bits are the processor's. */
#ifndef ZQ_CUDA_TRAINING_CODES_CUH
#define ZQ_CUDA_TRAINING_CODES_CUH

#include "cuda/training.cuh"

/* Of the formats of quant/codes.c. */
DEVICE float code_min(int bits) { return bits == 8 ? -127.0f : -from_int(1 << (bits - 1)); }
DEVICE float code_max(int bits) { return bits == 8 ? 127.0f : from_int((1 << (bits - 1)) - 1); }

DEVICE float within_codes(float x, int bits)
{
    const float min = code_min(bits), max = code_max(bits);
    x = x < min ? min : x;
    return x > max ? max : x;
}

/* An integer as float, never -0. */
DEVICE float nearest_code(float x, int bits) { return from_int((int32_t)round_even(within_codes(x, bits))); }

/* Rounded to what a dtype holds. */
DEVICE float stored_scale(float scale, enum zq_dtype dtype)
{
    if (dtype == ZQ_F32) return scale;
    const uint16_t h = half_form(dtype, scale);
    return dtype == ZQ_F16 ? half_value(h) : bits_float((uint32_t)h << 16);
}

/* Smallest and largest of some values, and whether all are finite. */
struct value_range {
    float min, max;
    uint32_t top; /* bits of the largest magnitude, which order as the magnitudes do */
};
DEVICE value_range no_values() { return value_range{bits_float(0x7f800000u), bits_float(0xff800000u), 0}; }
DEVICE value_range join(value_range a, value_range b)
{
    return value_range{smaller(a.min, b.min), larger(a.max, b.max), a.top > b.top ? a.top : b.top};
}
DEVICE value_range range_with(value_range a, float x)
{
    const uint32_t top = float_bits(x) & 0x7fffffffu;
    return join(a, value_range{x, x, top});
}
DEVICE value_range warp_range(value_range a)
{
    for (unsigned mask = 16; mask; mask /= 2)
        a = join(a, value_range{shuffle_xor(a.min, mask), shuffle_xor(a.max, mask), float_bits(shuffle_xor(bits_float(a.top), mask))});
    return a;
}
DEVICE bool is_finite(value_range a) { return a.top < 0x7f800000u; }

DEVICE float nearest_scale(value_range r, int bits, enum zq_dtype dtype)
{
    const float above = divide(r.max, code_max(bits)), below = divide(r.min, code_min(bits));
    const float scale = stored_scale(above > below ? above : below, dtype);
    return scale == 0 ? 1 : scale;
}

/* The range of all threads' values, for all. parts: [TRAIN_WARPS] */
DEVICE value_range block_range(value_range *parts, value_range mine)
{
    mine = warp_range(mine);
    if (thread_x() % 32 == 0) parts[thread_x() / 32] = mine;
    if (!MUTANT(31)) sync_block();
    mine = parts[0];
    for (unsigned w = 1; w < TRAIN_WARPS; w++) mine = join(mine, parts[w]);
    return mine;
}

struct tokens_args {
    const float *x;
    float *out;
    size_t n;
};

/* A thread reads and writes the same values, so that out may be x. */
KERNEL(TRAIN_THREADS) train_tokens(const tokens_args a)
{
    SHARED(value_range, parts, TRAIN_WARPS);
    const float *x = a.x + (size_t)block_x() * a.n;
    float *out = a.out + (size_t)block_x() * a.n;
    value_range range = no_values();
    for (size_t i = thread_x(); i < a.n; i += TRAIN_THREADS) range = range_with(range, x[i]);
    range = block_range(parts, range);
    const float scale = nearest_scale(range, 8, ZQ_F32);
    for (size_t i = thread_x(); i < a.n; i += TRAIN_THREADS)
        out[i] = is_finite(range) ? mul(nearest_code(divide(x[i], scale), 8), scale) : x[i];
}

struct weights_args {
    const float *w;
    float *out, *shared;
    size_t n_rows, n_cols, n_groups, row_groups;
    int bits;
    enum zq_dtype dtype;
    uint32_t *bad;
};

/* As quant/scheme.c: the first row of group g. */
DEVICE size_t first_of_group(size_t g, size_t n_rows, size_t n_groups) { return (g * n_rows + n_groups - 1) / n_groups; }

/* A block for each group of rows: its scale, once per row. */
KERNEL(TRAIN_THREADS) train_shared_scales(const weights_args a)
{
    SHARED(value_range, parts, TRAIN_WARPS);
    const size_t first = first_of_group(block_x(), a.n_rows, a.row_groups), last = first_of_group(block_x() + 1, a.n_rows, a.row_groups);
    value_range range = no_values();
    for (size_t i = first * a.n_cols + thread_x(); i < last * a.n_cols; i += TRAIN_THREADS) range = range_with(range, a.w[i]);
    range = block_range(parts, range);
    for (size_t r = first + thread_x(); r < last; r += TRAIN_THREADS) a.shared[r] = nearest_scale(range, a.bits, a.dtype);
}

/* A warp for each run of weights under one scale. */
KERNEL(TRAIN_THREADS) train_weights(const weights_args a)
{
    const size_t run = (size_t)block_x() * TRAIN_WARPS + thread_x() / 32, length = a.n_cols / a.n_groups;
    const size_t n = run < a.n_rows * a.n_groups ? length : 0; /* shuffles want whole warps, and a warp has one run */
    const float *w = a.w + (n ? run * length : 0);
    value_range range = no_values();
    for (size_t i = thread_x() % 32; i < n; i += 32) range = range_with(range, w[i]);
    range = warp_range(range);
    if (!n) return;
    if (!is_finite(range)) *a.bad = 1; /* whoever comes, writes the same */
    const float scale = a.row_groups ? a.shared[run] : nearest_scale(range, a.bits, a.dtype);
    for (size_t i = thread_x() % 32; i < n; i += 32) a.out[run * length + i] = mul(nearest_code(divide(w[i], scale), a.bits), scale);
}

/* ---- learned roundings: blocks go by rows --------------------------------------------------------------------------- */

/* The group of a column of row block_x(). */
DEVICE size_t group_of(const struct zq_rounding &a, size_t column)
{
    return (size_t)block_x() * a.n_groups + (uint32_t)column / (uint32_t)(a.n_cols / a.n_groups);
}

KERNEL(TRAIN_THREADS) train_begin_rounding(const struct zq_rounding a)
{
    EACH_COLUMN(i, a.n_cols) {
        const size_t k = (size_t)block_x() * a.n_cols + i;
        const float code = from_int(a.codes[k]), away = sub(divide(a.w[k], a.first[group_of(a, i)]), code);
        a.centres[k] = add(code, away > a.reach ? a.reach : away < -a.reach ? -a.reach : away);
        a.w[k] = 0;
    }
}

/* As zq_nearest_code(), whose result may be -0. */
DEVICE float nearest_code_or_zero(float x, int bits) { return sub(add(within_codes(x, bits), 0x1.8p23f), 0x1.8p23f); }

/* Every thread computes the scale of its values anew; the one at the beginning of a group writes it down. */
KERNEL(TRAIN_THREADS) train_round(const struct zq_rounding a)
{
    const uint32_t length = (uint32_t)(a.n_cols / a.n_groups);
    EACH_COLUMN(i, a.n_cols) {
        const size_t k = (size_t)block_x() * a.n_cols + i, g = group_of(a, i);
        const float wish = stored_scale(mul(a.first[g], add(1, a.stretch[g])), a.scale_dtype), scale = wish > 0 ? wish : a.first[g];
        if ((uint32_t)i % length == 0) a.present[g] = scale;
        a.fake[k] = mul(nearest_code_or_zero(add(a.centres[k], a.w[k]), a.bits), scale);
    }
}

/* A warp for each group. */
KERNEL(TRAIN_THREADS) train_slopes(const struct zq_rounding a)
{
    const size_t g = (size_t)block_x() * TRAIN_WARPS + thread_x() / 32, length = a.n_cols / a.n_groups;
    const size_t n = g < a.n_rows * a.n_groups ? length : 0;
    const float min = sub(code_min(a.bits), 0.5f), max = add(code_max(a.bits), 0.5f);
    double slope = 0;
    for (size_t k = g * length + thread_x() % 32; k < g * length + n; k += 32) {
        const float x = add(a.centres[k], a.w[k]);
        slope += (double)a.dw[k] * a.fake[k];
        if (x < min || x > max) a.dw[k] = 0;
    }
    slope = warp_sum(slope);
    if (n && thread_x() % 32 == 0) a.slope[g] = (float)slope;
}

/* A block for each group of rows: they share a scale, hence a slope. */
KERNEL(TRAIN_THREADS) train_shared_slopes(const struct zq_rounding a)
{
    SHARED(double, parts, TRAIN_WARPS);
    const size_t first = first_of_group(block_x(), a.n_rows, a.row_groups), last = first_of_group(block_x() + 1, a.n_rows, a.row_groups);
    double slope = 0;
    for (size_t r = first + thread_x(); r < last; r += TRAIN_THREADS) slope += (double)a.slope[r];
    slope = block_total(parts, slope, false);
    for (size_t r = first + thread_x(); r < last; r += TRAIN_THREADS) a.slope[r] = (float)slope;
}

KERNEL(TRAIN_THREADS) train_keep(const struct zq_rounding a)
{
    EACH_COLUMN(i, a.n_cols) {
        const size_t k = (size_t)block_x() * a.n_cols + i;
        a.codes[k] = (int8_t)(int)round_even(divide(a.fake[k], a.present[group_of(a, i)]));
    }
}

KERNEL(TRAIN_THREADS) train_decode(const struct zq_rounding a)
{
    EACH_COLUMN(i, a.n_cols) {
        const size_t k = (size_t)block_x() * a.n_cols + i;
        a.fake[k] = mul(from_int(a.codes[k]), a.scales[group_of(a, i)]);
    }
}

#endif
