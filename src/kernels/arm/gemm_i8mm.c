/* Integer products with smmla: 2 tokens x 8 columns times 8 columns x 2 rows give 2 x 2 sums, twice the products of sdot.
 *
 * Packed weights are those of every level, so two steps of 4 columns are zipped into rows of 8: vector v of both steps becomes
 * the row pairs 2 v and 2 v + 1. Accumulators are [2 tokens][2 rows] inside the loop, and [4 rows] of one token around it.
 * Register plan: 6 tokens x 4 vectors of 4 rows = 24 accumulators, 2 of zipped weights at a time, 3 of activations. */
#include "kernels/arm/gemm_neon.h"

/* Two tokens' sums of 4 rows <-> 2 x 2 sums of the first two rows and of the other two: its own inverse. */
ZQ_INLINE void exchange(ints *a, ints *b)
{
    const ints low = vcombine_s32(vget_low_s32(*a), vget_low_s32(*b)), high = vcombine_s32(vget_high_s32(*a), vget_high_s32(*b));
    *a = low;
    *b = high;
}

ZQ_INLINE void dot_steps(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps, int bits)
{
    const size_t n_bytes = 16 * VECS * (size_t)bits / 8, paired = n_tokens - n_tokens % 2;
    int8x16_t even[VECS], odd[VECS];
    size_t s = 0;
    ZQ_UNROLL
    for (size_t t = 0; t < paired; t += 2)
        for (size_t v = 0; v < VECS; v++) exchange(&acc[t * VECS + v], &acc[(t + 1) * VECS + v]);

    for (; s + 2 <= n_steps; s += 2, w += 2 * n_bytes) {
        load_w(even, w, bits);
        load_w(odd, w + n_bytes, bits);
        if (paired < n_tokens) {
            dot_step(acc + paired * VECS, 1, q + paired, 4 * s, even);
            dot_step(acc + paired * VECS, 1, q + paired, 4 * s + 4, odd);
        }
        ZQ_UNROLL
        for (size_t v = 0; v < VECS; v++) {
            const int32x4_t first = vreinterpretq_s32_s8(even[v]), second = vreinterpretq_s32_s8(odd[v]);
            const int8x16_t low = vreinterpretq_s8_s32(vzip1q_s32(first, second)), high = vreinterpretq_s8_s32(vzip2q_s32(first, second));
            ZQ_UNROLL
            for (size_t t = 0; t < paired; t += 2) {
                const int8x16_t left = vcombine_s8(vld1_s8(q[t] + 4 * s), vld1_s8(q[t + 1] + 4 * s));
                acc[t * VECS + v] = vmmlaq_s32(acc[t * VECS + v], left, low);
                acc[(t + 1) * VECS + v] = vmmlaq_s32(acc[(t + 1) * VECS + v], left, high);
            }
        }
    }

    ZQ_UNROLL
    for (size_t t = 0; t < paired; t += 2)
        for (size_t v = 0; v < VECS; v++) exchange(&acc[t * VECS + v], &acc[(t + 1) * VECS + v]);
    if (s < n_steps) {
        load_w(even, w, bits);
        dot_step(acc, n_tokens, q, 4 * s, even);
    }
}

#include "kernels/gemm.inc"

static void gemm_w8_a8_i8mm(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 8); }
static void gemm_w4_a8_i8mm(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 4); }

void zq_gemm_i8mm(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_i8mm", ROWS, bytes_w8, pack_w8, gemm_w8_a8_i8mm};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_i8mm", ROWS, bytes_w4, pack_w4, gemm_w4_a8_i8mm};
}
