/* INT8 products for many tokens: tensor cores (mma m16n8k32), three stages of asynchronous copies, one barrier per 64 columns.
 *
 * Tiles lie swizzled in shared memory: 16-byte chunk c of row r is stored at chunk c ^ f(r), so that the 8 rows that one matrix load
 * touches fall into different banks; the writer and both readers must agree on f. w4 tiles stay packed in shared memory and are
 * unpacked in registers by a shift and a mask into 16 times their codes; |sum| <= 131072 * 127 * 128 < 2^31 still holds. */
#ifndef ZQ_CUDA_GEMM_CUH
#define ZQ_CUDA_GEMM_CUH

#include "cuda/gemv.cuh"

enum { GEMM_STAGES = 3, GEMM_COLS = 64 };

/* Bytes from the start of a tile of rows of 64 (or for w4 32) bytes to chunk c of row r. */
DEVICE uint32_t chunk64(uint32_t r, uint32_t c) { return r * 64 + (c ^ (r >> 1 & 3)) * 16; }
DEVICE uint32_t chunk32(uint32_t r, uint32_t c) { return r * 32 + (c ^ (r >> 2 & 1)) * 16; }

/* Starts the copy of columns [from, from + 64) of tokens and weights into one stage. What lies outside becomes zero. */
template <int BITS, int TOKENS, int ROWS, int THREADS>
DEVICE void load_stage(const product_args &a, int8_t *x, uint8_t *w, uint32_t token, uint32_t row, uint32_t from)
{
    for (uint32_t i = thread_x(); i < TOKENS * 4; i += THREADS) {
        const uint32_t r = i / 4, c = i % 4, column = from + c * 16;
        const bool real = token + r < a.n_tokens && column < a.n_cols;
        copy_async(x + chunk64(r, c), real ? a.q + (token + r) * a.ld_x + column : a.q, real ? least(a.n_cols - column, 16) : 0);
    }
    const uint32_t chunks = BITS == 8 ? 4 : 2;
    for (uint32_t i = thread_x(); i < ROWS * chunks; i += THREADS) {
        const uint32_t r = i / chunks, c = i % chunks, column = from + c * (BITS == 8 ? 16 : 32);
        const bool real = row + r < a.n_rows && column < a.cols;
        const size_t at = ((size_t)(row + r) * a.cols + column) * BITS / 8;
        copy_async(w + (BITS == 8 ? chunk64(r, c) : chunk32(r, c)), real ? a.w + at : a.w, real ? 16 : 0);
    }
}

/* Fragments of two neighbouring blocks of 8 weight rows for both steps of 32 columns: b[block][step]. */
template <int BITS> DEVICE void load_weights(uint32_t b[2][2][2], const uint8_t *w, uint32_t row)
{
    const uint32_t lane = thread_x() % 32;
    uint32_t r[4];
    if (BITS == 4) {
        load_matrices(r, w + chunk32(row + lane % 8 + lane / 16 * 8, lane / 8 % 2));
        UNROLL
        for (int i = 0; i < 4; i++) {
            b[i / 2][i % 2][0] = r[i] << 4 & 0xf0f0f0f0u;
            b[i / 2][i % 2][1] = r[i] & 0xf0f0f0f0u;
        }
        return;
    }
    UNROLL
    for (int block = 0; block < 2; block++) {
        const uint32_t at = row + block * 8 + lane % 8;
        load_matrices(r, w + (MUTANT(8) ? at * 64 + ((lane / 8) ^ (at & 3)) * 16 : chunk64(at, lane / 8)));
        UNROLL
        for (int i = 0; i < 4; i++) b[block][i / 2][i % 2] = r[i];
    }
}

/* THREADS = 32 * WARPS_T * WARPS_R; a warp computes TOKENS / WARPS_T tokens times ROWS / WARPS_R rows. */
template <int BITS, bool GROUPED, int TOKENS, int ROWS, int WARPS_T, int WARPS_R>
KERNEL(32 * WARPS_T *WARPS_R) gemm(const product_args a)
{
    constexpr int THREADS = 32 * WARPS_T * WARPS_R, T_BLOCKS = TOKENS / WARPS_T / 16, R_BLOCKS = ROWS / WARPS_R / 8;
    SHARED(int8_t, x, GEMM_STAGES * TOKENS * 64);
    SHARED(uint8_t, w, GEMM_STAGES * ROWS * 8 * BITS);
    const uint32_t lane = thread_x() % 32, warp = thread_x() / 32;
    const uint32_t token = block_y() * TOKENS, row = block_x() * ROWS;
    const uint32_t warp_token = warp / WARPS_R * (TOKENS / WARPS_T), warp_row = warp % WARPS_R * (ROWS / WARPS_R);
    const uint32_t n_stages = (a.cols + GEMM_COLS - 1) / GEMM_COLS;

    int32_t acc[T_BLOCKS][R_BLOCKS][4];
    float f[GROUPED ? T_BLOCKS : 1][GROUPED ? R_BLOCKS : 1][4];
    UNROLL
    for (int i = 0; i < T_BLOCKS * R_BLOCKS * 4; i++) acc[i / 4 / R_BLOCKS][i / 4 % R_BLOCKS][i % 4] = 0;
    UNROLL
    for (int i = 0; GROUPED && i < T_BLOCKS * R_BLOCKS * 4; i++) f[i / 4 / R_BLOCKS][i / 4 % R_BLOCKS][i % 4] = 0;

    for (uint32_t s = 0; s < GEMM_STAGES - 1; s++) {
        if (s < n_stages)
            load_stage<BITS, TOKENS, ROWS, THREADS>(a, x + s * TOKENS * 64, w + s * ROWS * 8 * BITS, token, row, s * GEMM_COLS);
        copy_commit();
    }
    for (uint32_t s = 0; s < n_stages; s++) {
        /* all but the newest group have landed; behind the barrier everybody's have, and nobody reads stage s - 1 any more */
        if (MUTANT(7)) copy_wait<GEMM_STAGES - 1>();
        else copy_wait<GEMM_STAGES - 2>();
        if (!MUTANT(5)) sync_block();
        const uint32_t next = s + GEMM_STAGES - 1, to = next % GEMM_STAGES, at = s % GEMM_STAGES;
        if (next < n_stages)
            load_stage<BITS, TOKENS, ROWS, THREADS>(a, x + to * TOKENS * 64, w + to * ROWS * 8 * BITS, token, row, next * GEMM_COLS);
        copy_commit();

        uint32_t b[R_BLOCKS / 2][2][2][2];
        UNROLL
        for (int r = 0; r < R_BLOCKS / 2; r++) load_weights<BITS>(b[r], w + at * ROWS * 8 * BITS, warp_row + r * 16);
        UNROLL
        for (int step = 0; step < 2; step++) {
            UNROLL
            for (int t = 0; t < T_BLOCKS; t++) {
                uint32_t left[4];
                const uint32_t r = warp_token + t * 16 + lane % 16, c = step * 2 + lane / 16;
                load_matrices(left, x + at * TOKENS * 64 + (MUTANT(10) ? r * 64 + (c ^ (r & 3)) * 16 : chunk64(r, c)));
                UNROLL
                for (int n = 0; n < R_BLOCKS; n++) multiply_add(acc[t][n], left, b[n / 2][n % 2][step]);
            }
            const uint32_t end = s * GEMM_COLS + step * 32 + 32;
            if (!GROUPED || end % a.step || end > a.cols) continue;
            const float *scale = a.w_scale + (size_t)(end / a.step - 1) * a.n_rows;
            UNROLL
            for (int n = 0; n < R_BLOCKS; n++) {
                UNROLL
                for (int i = 0; i < 2; i++) {
                    const uint32_t column = row + warp_row + n * 8 + lane % 4 * 2 + i;
                    const float group_scale = column < a.n_rows ? scale[column] : 0.0f;
                    UNROLL
                    for (int t = 0; t < T_BLOCKS; t++) {
                        f[t][n][i] = fma_rn(from_int(acc[t][n][i]), group_scale, f[t][n][i]);
                        f[t][n][2 + i] = fma_rn(from_int(acc[t][n][2 + i]), group_scale, f[t][n][2 + i]);
                        acc[t][n][i] = acc[t][n][2 + i] = 0;
                    }
                }
            }
        }
    }
    copy_wait<0>();

    UNROLL
    for (int t = 0; t < T_BLOCKS; t++) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32_t at = token + warp_token + t * 16 + lane / 4 + (i >= 2 ? 8 : 0);
            if (at >= a.n_tokens) continue;
            const float token_scale = a.scale[at];
            UNROLL
            for (int n = 0; n < R_BLOCKS; n++) {
                const uint32_t column = row + warp_row + n * 8 + lane % 4 * 2 + i % 2;
                const float sum = GROUPED ? f[t][n][i] : from_int(acc[t][n][i]);
                if (column < a.n_rows + MUTANT(11)) finish_product<GROUPED>(a, at, column, sum, token_scale);
            }
        }
    }
}

#endif
