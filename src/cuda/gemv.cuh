/* INT8 products for up to 4 tokens, bound by reading weights: a warp takes a row, a lane 32 columns at a time with dp4a. Tokens are
 * quantized on the way in if they come as floats; every block does that again, which is cheaper than a kernel of its own.
 *
 * K-groups: a running sum over all columns so far is enough, because int32 wraps: the sum of a group is the difference of two running
 * sums, and fits. A scan over lanes yields the running sum at each group's end; the float sum then takes groups in rising order. */
#ifndef ZQ_CUDA_GEMV_CUH
#define ZQ_CUDA_GEMV_CUH

#include "cuda/layout.h"
#include "cuda/math.cuh"

enum { GEMV_THREADS = 128, GEMV_WARPS = GEMV_THREADS / 32, GEMV_ROWS = 2, GEMV_COLS = 8192 };

/* A product on the device: zq_product with what the host knows of the matrix. */
struct product_args {
    const int8_t *q;      /* [n_tokens, ld_x], or NULL: x */
    const float *scale, *x;
    const uint16_t *h;    /* instead of x: of the type of float weights */
    size_t ld_x;
    const uint8_t *w;     /* codes, cuda/layout.h */
    const float *w_scale; /* [n_groups, n_rows] */
    uint32_t n_tokens, n_rows, n_cols;
    uint32_t group, step; /* columns of a group, and of a padded one; group = n_cols without groups */
    uint32_t cols;        /* of a padded row */
    const float *bias, *residual;
    float *out;
    size_t ld_out;
};

/* What follows the sum of a row and token. sum: of codes (no groups), or of scaled groups. */
struct row_terms {
    float scale, bias;
};
template <bool GROUPED> DEVICE row_terms terms_of_row(const product_args &a, uint32_t row)
{
    return row_terms{GROUPED ? 1.0f : a.w_scale[row], a.bias ? a.bias[row] : 0.0f};
}
template <bool GROUPED> DEVICE void finish_sum(const product_args &a, uint32_t token, uint32_t row, float sum, float token_scale, row_terms of)
{
    const size_t at = token * a.ld_out + row;
    float y = fma_rn(sum, GROUPED ? token_scale : mul(token_scale, of.scale), of.bias);
    if (a.residual) y = add(y, a.residual[at]);
    a.out[at] = y;
}
template <bool GROUPED> DEVICE void finish_product(const product_args &a, uint32_t token, uint32_t row, float sum, float token_scale)
{
    finish_sum<GROUPED>(a, token, row, sum, token_scale, terms_of_row<GROUPED>(a, row));
}

/* Column c of a padded row in the unpadded one; n_cols where it is padding. */
DEVICE uint32_t source_column(const product_args &a, uint32_t c)
{
    const uint32_t g = c / a.step, within = c % a.step;
    return within < a.group ? g * a.group + within : a.n_cols;
}

/* The scales of float tokens, all threads together. */
DEVICE void scale_tokens(const product_args &a, float *token_scales, float *tops)
{
    for (uint32_t t = 0; t < a.n_tokens; t++) {
        float top = 0;
        for (uint32_t i = thread_x(); i < a.n_cols; i += GEMV_THREADS) top = larger(top, magnitude(a.x[t * a.ld_x + i]));
        top = warp_top(top);
        if (thread_x() % 32 == 0) tops[t * GEMV_WARPS + thread_x() / 32] = top;
    }
    sync_block();
    if (thread_x() < a.n_tokens) {
        float top = tops[thread_x() * GEMV_WARPS];
        for (unsigned w = 1; w < GEMV_WARPS; w++) top = larger(top, tops[thread_x() * GEMV_WARPS + w]);
        token_scales[thread_x()] = token_scale(top);
    }
    sync_block();
}

/* Codes of padded columns [from, from + n) into shared memory; n is a multiple of 32. */
DEVICE void stage_tokens(const product_args &a, int8_t *codes, const float *token_scales, uint32_t from, uint32_t n)
{
    for (uint32_t t = 0; t < a.n_tokens; t++) {
        if (a.q && (a.step == a.cols || a.step == a.group)) { /* columns lie as they come */
            for (uint32_t i = thread_x() * 16; i < n; i += GEMV_THREADS * 16) {
                const uint32_t left = from + i < a.n_cols ? least(a.n_cols - from - i, 16) : 0;
                copy_async(codes + t * GEMV_COLS + i, a.q + t * a.ld_x + (left ? from + i : 0), left);
            }
            continue;
        }
        for (uint32_t i = thread_x(); i < n; i += GEMV_THREADS) {
            const uint32_t c = source_column(a, from + i);
            int8_t code = 0;
            if (c < a.n_cols) code = a.q ? a.q[t * a.ld_x + c] : code_of(a.x[t * a.ld_x + c], token_scales[t]);
            codes[t * GEMV_COLS + i] = code;
        }
    }
    copy_commit();
    if (!MUTANT(6)) copy_wait<0>();
}

/* sum[t] += 32 columns of a row against each token. */
template <int BITS, int TOKENS> DEVICE void dot_chunk(int32_t *sum, const uint8_t *w, const int8_t *codes)
{
    uint32_t weights[8];
    const chunk16 low = load16(w);
    if (BITS == 8) {
        const chunk16 high = load16(w + 16);
        UNROLL
        for (int i = 0; i < 4; i++) {
            weights[i] = low.word[i];
            weights[4 + i] = high.word[i];
        }
    } else {
        UNROLL
        for (int i = 0; i < 4; i++) {
            weights[i] = low.word[i] << 4 & 0xf0f0f0f0u;
            weights[4 + i] = low.word[i] & 0xf0f0f0f0u;
        }
    }
    UNROLL
    for (int t = 0; t < TOKENS; t++) {
        const chunk16 a = load16(codes + t * GEMV_COLS), b = load16(codes + t * GEMV_COLS + 16);
        UNROLL
        for (int i = 0; i < 4; i++) sum[t] = dot4(weights[4 + i], b.word[i], dot4(weights[i], a.word[i], sum[t]));
    }
}

DEVICE int32_t warp_sum(int32_t a)
{
    for (unsigned by = 16; by; by /= 2) a = (int32_t)((uint32_t)a + (uint32_t)shuffle(a, (thread_x() % 32 + by) % 32));
    return a;
}

/* Running sum over lanes, this lane's included. */
DEVICE int32_t warp_scan(int32_t a)
{
    for (unsigned by = 1; by < 32; by *= 2) {
        const int32_t below = shuffle_up(a, by);
        if (thread_x() % 32 >= by) a = (int32_t)((uint32_t)a + (uint32_t)below);
    }
    return a;
}

/* What a warp keeps of one row and token between passes. */
struct row_sum {
    int32_t all;   /* without groups: this lane's sum; with: the running sum at the end of the last group */
    int32_t carry; /* with groups: the running sum before this pass */
    float f;
};

/* Adds the groups that end within the pass of 32 chunks at padded column c. */
DEVICE void add_groups(const product_args &a, struct row_sum *s, int32_t mine, uint32_t row, uint32_t c)
{
    const int32_t running = (int32_t)((uint32_t)warp_scan(mine) + (uint32_t)s->carry);
    s->carry = shuffle(running, 31);
    for (uint32_t end = (c / a.step + 1) * a.step; end <= least(c + 1024, a.cols); end += a.step) {
        const int32_t at_end = shuffle(running, (end - c) / 32 - 1);
        s->f = fma_rn(from_int((int32_t)((uint32_t)at_end - (uint32_t)s->all)), a.w_scale[(size_t)(end / a.step - 1) * a.n_rows + row], s->f);
        s->all = at_end;
    }
}

template <int BITS, bool GROUPED, int TOKENS> KERNEL_RESIDENT(GEMV_THREADS, 4) gemv(const product_args a)
{
    SHARED(int8_t, codes, TOKENS * GEMV_COLS);
    SHARED(float, token_scales, 4);
    SHARED(float, tops, 4 * GEMV_WARPS);
    const unsigned lane = thread_x() % 32;
    const uint32_t first_row = (block_x() * GEMV_WARPS + thread_x() / 32) * GEMV_ROWS;
    const size_t row_bytes = (size_t)a.cols * BITS / 8;
    row_sum sums[GEMV_ROWS][TOKENS];
    UNROLL
    for (int i = 0; i < GEMV_ROWS * TOKENS; i++) sums[i / TOKENS][i % TOKENS] = row_sum{0, 0, 0};
    if (!a.q) scale_tokens(a, token_scales, tops);

    for (uint32_t from = 0; from < a.cols; from += GEMV_COLS) {
        const uint32_t n = least(a.cols - from, GEMV_COLS);
        if (from) sync_block(); /* all have read the columns before */
        stage_tokens(a, codes, token_scales, from, n);
        if (!MUTANT(2)) sync_block();
        UNROLL
        for (int r = 0; r < GEMV_ROWS; r++) {
            const uint32_t row = first_row + r;
            if (row >= a.n_rows) break;
            for (uint32_t c = 0; c < n; c += 1024) {
                const uint32_t at = c + lane * 32;
                int32_t mine[TOKENS];
                UNROLL
                for (int t = 0; t < TOKENS; t++) mine[t] = 0;
                if (at < n) dot_chunk<BITS, TOKENS>(mine, a.w + row * row_bytes + (size_t)(from + at) * BITS / 8, codes + at);
                UNROLL
                for (int t = 0; t < TOKENS; t++) {
                    if (GROUPED) add_groups(a, &sums[r][t], mine[t], row, from + c);
                    else sums[r][t].all = (int32_t)((uint32_t)sums[r][t].all + (uint32_t)mine[t]);
                }
            }
        }
    }

    UNROLL
    for (int r = 0; r < GEMV_ROWS; r++) {
        UNROLL
        for (int t = 0; t < TOKENS; t++) {
            const float sum = GROUPED ? sums[r][t].f : from_int(warp_sum(sums[r][t].all));
            if (lane == 0 && first_row + r < a.n_rows && (uint32_t)t < a.n_tokens)
                finish_product<GROUPED>(a, t, first_row + r, sum, a.q ? a.scale[t] : token_scales[t]);
        }
    }
}

#endif
