/* Integer products with vpdpbusd: 4 products per 32-bit lane, unsigned times signed, added without saturation. Weights are the
 * unsigned side (code + 128, nibbles code + 8), so activations are broadcast from where they lie.
 *
 * Register plan: 6 tokens x 4 vectors of 16 rows = 24 accumulators, 4 registers of weights, 1 of activations. A step of 4
 * columns loads 256 bytes of weights and 24 of activations for 24 vpdpbusd. More tokens and fewer rows would load less, but rows
 * of activations 4096 bytes apart share one set of the first-level cache, which has 8 ways. */
#include "kernels/x86/gemm_vnni512.h"

#include "kernels/gemm.inc"

static void gemm_w8_a8_avx512vnni(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 8); }
static void gemm_w4_a8_avx512vnni(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 4); }

void zq_gemm_avx512vnni(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_avx512vnni", ROWS, bytes_w8, pack_w8, gemm_w8_a8_avx512vnni};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_avx512vnni", ROWS, bytes_w4, pack_w4, gemm_w4_a8_avx512vnni};
}
