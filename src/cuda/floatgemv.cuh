/* Products with float inputs for up to 4 tokens, bound by reading weights: a thread per output row, as in floatmul.cuh, so that its chain of
 * fma is the written one; but weights come through four stages of asynchronous copies, 16 bytes each, and tokens with them.
 *
 * A chain of n_cols fma, one after the other, is the least time of a launch: matrices of few rows do not reach the memory's rate. */
#ifndef ZQ_CUDA_FLOATGEMV_CUH
#define ZQ_CUDA_FLOATGEMV_CUH

#include "cuda/floatmul.cuh"

enum { SIDE_STAGES = 4, SIDE_FEW = 4 };

/* Bits of a weight, and columns of a stage: 4 KiB of weights (w4: 2). */
template <int FORMAT> struct side_stage {
    static constexpr int BITS = FORMAT == SIDE_F32 ? 32 : FORMAT < SIDE_I8 ? 16 : FORMAT == SIDE_I8 ? 8 : 4;
    static constexpr int COLS = FORMAT == SIDE_F32 ? 16 : FORMAT < SIDE_I8 ? 32 : 64;
    static constexpr int BYTES = COLS * SIDE_THREADS * BITS / 8;
};

/* Starts the copy of columns [from, from + COLS) of the block's rows and of the tokens. What lies outside becomes zero: a product that leaves
 * the sum as it is, but for the sign of a zero, which adding +0 (no bias, or the sum of groups before the first) would take anyway. */
template <int FORMAT, int TOKENS> DEVICE void load_side(const product_args &a, uint8_t *w, float *x, uint32_t from)
{
    using stage = side_stage<FORMAT>;
    constexpr uint32_t PER = SIDE_THREADS * stage::BITS / 128; /* chunks of a column */
    const size_t row_bytes = (size_t)a.cols * stage::BITS / 8;
    UNROLL
    for (uint32_t i = thread_x(); i < stage::COLS * PER; i += SIDE_THREADS) {
        const uint32_t column = from + i / PER;
        const bool real = column < a.n_cols;
        copy_async(w + i * 16, real ? a.w + column * row_bytes + (block_x() * PER + i % PER) * 16 : a.w, real ? 16 : 0);
    }
    UNROLL
    for (uint32_t i = thread_x(); i < TOKENS * stage::COLS; i += SIDE_THREADS) {
        const uint32_t t = i / stage::COLS, column = from + i % stage::COLS;
        const bool real = t < a.n_tokens && column < a.n_cols;
        copy_async4(x + i, real ? a.x + t * a.ld_x + column : a.x, real ? 4 : 0);
    }
}

/* GROUPED: K-groups of multiples of 4 columns. */
template <int FORMAT, bool GROUPED, int TOKENS> KERNEL_RESIDENT(SIDE_THREADS, 8) float_gemv(const product_args a)
{
    using stage = side_stage<FORMAT>;
    SHARED(uint8_t, w, SIDE_STAGES * stage::BYTES);
    SHARED(float, x, SIDE_STAGES * TOKENS * stage::COLS);
    const uint32_t row = block_x() * SIDE_THREADS + thread_x();
    const uint32_t n_stages = (a.n_cols + (MUTANT(36) ? 0 : stage::COLS - 1)) / stage::COLS;
    const float *scale = a.w_scale + least(row, a.n_rows - 1); /* of this row's next group */
    float sum[TOKENS], y[TOKENS], group_scale = GROUPED ? *scale : 0;
    uint32_t end = a.group;
    UNROLL
    for (int t = 0; t < TOKENS; t++) sum[t] = y[t] = 0;

    for (uint32_t s = 0; s < SIDE_STAGES - 1; s++) {
        load_side<FORMAT, TOKENS>(a, w + s * stage::BYTES, x + s * TOKENS * stage::COLS, s * stage::COLS);
        copy_commit();
    }
    for (uint32_t s = 0; s < n_stages; s++) {
        if (MUTANT(34)) copy_wait<SIDE_STAGES - 1>();
        else copy_wait<SIDE_STAGES - 2>();
        if (!MUTANT(35)) sync_block(); /* everybody's copies have landed, and nobody reads stage s - 1 any more */
        const uint32_t next = s + SIDE_STAGES - 1, to = next % SIDE_STAGES, at = s % SIDE_STAGES;
        load_side<FORMAT, TOKENS>(a, w + to * stage::BYTES, x + to * TOKENS * stage::COLS, next * stage::COLS);
        copy_commit();
        UNROLL
        for (uint32_t c = 0; c < stage::COLS; c += 4) {
            if (GROUPED && s * stage::COLS + c == end && end < a.n_cols) {
                UNROLL
                for (int t = 0; t < TOKENS; t++) {
                    y[t] = fma_rn(sum[t], group_scale, y[t]);
                    sum[t] = 0;
                }
                end += a.group;
                group_scale = *(scale += a.n_rows);
            }
            chunk16 inputs[TOKENS];
            UNROLL
            for (int t = 0; t < TOKENS; t++) inputs[t] = load16(x + (at * TOKENS + t) * stage::COLS + c);
            UNROLL
            for (int i = 0; i < 4; i++) {
                const float weight = side_value<FORMAT>(w + at * stage::BYTES, (c + i) * SIDE_THREADS + thread_x());
                UNROLL
                for (int t = 0; t < TOKENS; t++) sum[t] = fma_rn(bits_float(inputs[t].word[i]), weight, sum[t]);
            }
        }
    }
    copy_wait<0>();

    if (row >= a.n_rows) return;
    UNROLL
    for (int t = 0; t < TOKENS; t++)
        if ((uint32_t)t < a.n_tokens) finish_side<FORMAT>(a, t, row, GROUPED ? fma_rn(sum[t], group_scale, y[t]) : sum[t], GROUPED);
}

#endif
