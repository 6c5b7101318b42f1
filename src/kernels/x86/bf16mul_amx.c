/* Products of BF16 pairs with tdpbf16ps: tiles of 16 tokens x 32 columns times 32 columns (16 rows of pairs) x 16 rows into 16 x 16 sums.
 * Few tokens are padded to 16: reading weights is then what a product costs. tiles.h has the plan of tiles. */
#include "kernels/x86/tiles.h"
#include "kernels/x86/vec_avx512.h"

enum { TILE_TOKENS = 16, TOKENS_STEP = TILE_TOKENS };

#include "kernels/x86/bf16matmul.h"

enum { HALF = ROWS / 2, TILE_PAIRS = STEP_COLS / 2 };

static void add_products(float (*sums)[ROWS], const pair *x, size_t ld, size_t n_tokens, const pair *w, size_t n_pairs)
{
    for (size_t half = 0; half < ROWS; half += HALF)
        for (size_t t = 0; t < n_tokens; t += 2 * TILE_TOKENS)
            multiply_tiles(TILES_BF16, sums[t] + half, sizeof *sums, (struct tile_rows){x + t * ld, ld * sizeof *x},
                           (struct tile_rows){w + half, ROWS * sizeof *w}, n_pairs / TILE_PAIRS, n_tokens - t >= 2 * TILE_TOKENS);
}

static void begin_products(void) { configure(); }
static void end_products(void) { _tile_release(); }

void zq_bf16mul_amx(struct zq_kernels *k)
{
    fill_slots(k, "gemm_f32_bf16_amx", "gemm_w8_bf16_amx", "gemm_w4_bf16_amx");
    k->matmul = matmul_bf16;
}
