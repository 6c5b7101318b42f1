/* Products of BF16 pairs with tdpbf16ps: tiles of 16 tokens x 32 columns times 32 columns (16 rows of pairs) x 16 rows into 16 x 16 sums.
 * Few tokens are padded to 16: reading weights is then what a product costs.
 *
 * Tile plan, 2 x 2: sums 0 1 / 2 3 (32 tokens x 32 rows), left 4 5, right 6 7: four loads for four products. */
#include "kernels/x86/tiles.h"
#include "kernels/x86/vec_avx512.h"

enum { TILE_TOKENS = 16, TOKENS_STEP = TILE_TOKENS };

#include "kernels/x86/bf16mul.h"

enum { HALF = ROWS / 2, TILE_PAIRS = STEP_COLS / 2 };

/* 32 or 16 (not `both`) tokens, HALF rows. */
static void multiply_tiles(float *sums, const pair *x, size_t ld, const pair *w, size_t n_pairs, bool both)
{
    const size_t from_row = ROWS * sizeof *sums, from_token = ld * sizeof *x, from_pair = ROWS * sizeof *w;
    settle_memory();
    _tile_loadd(0, sums, from_row);
    _tile_loadd(1, sums + 16, from_row);
    if (both) {
        _tile_loadd(2, sums + TILE_TOKENS * ROWS, from_row);
        _tile_loadd(3, sums + TILE_TOKENS * ROWS + 16, from_row);
    }
    for (size_t k = 0; k < n_pairs; k += TILE_PAIRS, w += TILE_PAIRS * ROWS) {
        _tile_loadd(4, x + k, from_token);
        _tile_loadd(6, w, from_pair);
        _tile_loadd(7, w + 16, from_pair);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (!both) continue;
        _tile_loadd(5, x + TILE_TOKENS * ld + k, from_token);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, from_row);
    _tile_stored(1, sums + 16, from_row);
    if (both) {
        _tile_stored(2, sums + TILE_TOKENS * ROWS, from_row);
        _tile_stored(3, sums + TILE_TOKENS * ROWS + 16, from_row);
    }
    settle_memory();
}

static void add_products(float (*sums)[ROWS], const pair *x, size_t ld, size_t n_tokens, const pair *w, size_t n_pairs)
{
    for (size_t half = 0; half < ROWS; half += HALF)
        for (size_t t = 0; t < n_tokens; t += 2 * TILE_TOKENS)
            multiply_tiles(sums[t] + half, x + t * ld, ld, w + half, n_pairs, n_tokens - t >= 2 * TILE_TOKENS);
}

static void run_tiles(const struct zq_product *p, size_t row_begin, size_t row_end, enum format format)
{
    configure();
    run_bf16(p, row_begin, row_end, format);
    _tile_release();
}

static void gemm_f32_bf16_amx(const struct zq_product *p, size_t row_begin, size_t row_end) { run_tiles(p, row_begin, row_end, FORMAT_BF16); }

static void gemm_w8_bf16_amx(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    if (stays_exact(p)) run(p, row_begin, row_end, FORMAT_I8, load_i8);
    else run_tiles(p, row_begin, row_end, FORMAT_I8);
}

static void gemm_w4_bf16_amx(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    if (stays_exact(p)) run(p, row_begin, row_end, FORMAT_I4, load_i4);
    else run_tiles(p, row_begin, row_end, FORMAT_I4);
}

void zq_bf16mul_amx(struct zq_kernels *k)
{
    k->f32_a16 = (struct zq_gemm){"gemm_f32_bf16_amx", ROWS, bytes_pairs, pack_pairs, gemm_f32_bf16_amx};
    k->w8_a16 = (struct zq_gemm){"gemm_w8_bf16_amx", ROWS, bytes_w8, pack_w8, gemm_w8_bf16_amx};
    k->w4_a16 = (struct zq_gemm){"gemm_w4_bf16_amx", ROWS, bytes_w4, pack_w4, gemm_w4_bf16_amx};
}
