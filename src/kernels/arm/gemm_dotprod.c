/* Integer products with sdot: 4 signed products per 32-bit lane, added without saturation.
 *
 * Register plan: 6 tokens x 4 vectors of 4 rows = 24 accumulators, 4 registers of weights, 1 of activations. */
#include "kernels/arm/gemm_neon.h"

ZQ_INLINE void dot_steps(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps, int bits)
{
    const size_t n_bytes = 16 * VECS * (size_t)bits / 8;
    for (size_t s = 0; s < n_steps; s++, w += n_bytes) {
        int8x16_t right[VECS];
        load_w(right, w, bits);
        dot_step(acc, n_tokens, q, 4 * s, right);
    }
}

#include "kernels/gemm.inc"

static void gemm_w8_a8_dotprod(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 8); }
static void gemm_w4_a8_dotprod(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 4); }

void zq_gemm_dotprod(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_dotprod", ROWS, bytes_w8, pack_w8, gemm_w8_a8_dotprod};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_dotprod", ROWS, bytes_w4, pack_w4, gemm_w4_a8_dotprod};
}
