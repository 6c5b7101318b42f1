/* Products with float inputs (w8a16, w4a16, float weights: mostly the LM head): a thread per output row, 8 tokens per block, each a
 * chain of fma over rising columns as kernels.h writes it. Neighbouring rows lie side by side, so a warp reads whole lines. Up to 4 tokens
 * are the business of floatgemv.cuh. */
#ifndef ZQ_CUDA_FLOATMUL_CUH
#define ZQ_CUDA_FLOATMUL_CUH

#include "cuda/gemv.cuh"

enum { SIDE_F32, SIDE_F16, SIDE_BF16, SIDE_I8, SIDE_I4 };
enum { SIDE_THREADS = 64, SIDE_TOKENS = 8 };

template <int FORMAT> DEVICE float side_value(const uint8_t *w, size_t i)
{
    switch (FORMAT) {
    case SIDE_F32: return ((const float *)w)[i];
    case SIDE_F16: return half_value(((const uint16_t *)w)[i]);
    case SIDE_BF16: return bits_float((uint32_t)((const uint16_t *)w)[i] << 16);
    case SIDE_I8: return from_int(((const int8_t *)w)[i]);
    default: return from_int((int)(w[i / 2] >> (i % 2 ? 4 : 0) & 15) - 8);
    }
}

/* Value i of the tokens. h beats x: in the type of the weights. */
template <int FORMAT> DEVICE float side_input(const product_args &a, size_t i)
{
    if ((FORMAT == SIDE_F16 || FORMAT == SIDE_BF16) && a.h) return side_value<FORMAT>((const uint8_t *)a.h, i);
    return a.x[i];
}

/* What follows the sum of a row and token. sum: of products, or (scaled) of scaled groups. */
template <int FORMAT> DEVICE void finish_side(const product_args &a, size_t token, uint32_t row, float sum, bool scaled)
{
    const size_t at = token * a.ld_out + row;
    const float bias = a.bias ? a.bias[row] : 0.0f;
    float y = FORMAT >= SIDE_I8 && !scaled ? fma_rn(sum, a.w_scale[row], bias) : add(sum, bias);
    if (a.residual) y = add(y, a.residual[at]);
    a.out[at] = y;
}

template <int FORMAT> KERNEL(SIDE_THREADS) float_product(const product_args a)
{
    const uint32_t row = block_x() * SIDE_THREADS + thread_x(), first = block_y() * SIDE_TOKENS;
    const uint32_t n_tokens = least(a.n_tokens - first, SIDE_TOKENS), n_groups = FORMAT < SIDE_I8 ? 1 : a.n_cols / a.group;
    const uint32_t group = FORMAT < SIDE_I8 ? a.n_cols : a.group;
    const bool grouped = n_groups > 1 || a.step != 0; /* step is 0 without groups */
    const size_t width = a.cols;
    if (row >= a.n_rows) return;
    float sum[SIDE_TOKENS], y[SIDE_TOKENS];
    UNROLL
    for (int t = 0; t < SIDE_TOKENS; t++) sum[t] = y[t] = 0;
    for (uint32_t g = 0; g < n_groups; g++) {
        for (uint32_t k = g * group; k < (g + 1) * group; k++) {
            const float w = side_value<FORMAT>(a.w, k * width + row);
            UNROLL
            for (int t = 0; t < SIDE_TOKENS; t++)
                if ((uint32_t)t < n_tokens) sum[t] = fma_rn(side_input<FORMAT>(a, (first + t) * a.ld_x + k), w, sum[t]);
        }
        if (FORMAT < SIDE_I8 || !grouped) break;
        const float scale = a.w_scale[(size_t)g * a.n_rows + row];
        UNROLL
        for (int t = 0; t < SIDE_TOKENS; t++) {
            y[t] = fma_rn(sum[t], scale, y[t]);
            sum[t] = 0;
        }
    }
    UNROLL
    for (int t = 0; t < SIDE_TOKENS; t++) {
        if ((uint32_t)t >= n_tokens) break;
        finish_side<FORMAT>(a, first + t, row, FORMAT >= SIDE_I8 && grouped ? y[t] : sum[t], grouped);
    }
}

#endif
