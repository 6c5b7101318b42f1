/* Products of BF16 pairs with vdpbf16ps.
 *
 * Register plan: 6 tokens x 4 vectors of 16 rows are 24 sums; 4 of weights, 1 of a token's pair in all lanes. */
#include "kernels/x86/vec_avx512.h"

enum { TOKENS_STEP = 1 };

#include "kernels/x86/bf16matmul.h"

ZQ_INLINE void add_tokens(float (*sums)[ROWS], const pair *x, size_t ld, size_t n_tokens, const pair *w, size_t n_pairs)
{
    vec s[T_MANY * V_TILE];
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * V_TILE; i++) s[i] = v_load(sums[i / V_TILE] + i % V_TILE * 16);
    const pair *row[T_MANY];
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) row[t] = x + t * ld;
    multiply_pairs(s, n_tokens, V_TILE, row, n_pairs, w, ROWS);
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * V_TILE; i++) v_store(sums[i / V_TILE] + i % V_TILE * 16, s[i]);
}

static void add_products(float (*sums)[ROWS], const pair *x, size_t ld, size_t n_tokens, const pair *w, size_t n_pairs)
{
    size_t t = 0;
    for (; t + T_MANY <= n_tokens; t += T_MANY) add_tokens(sums + t, x + t * ld, ld, T_MANY, w, n_pairs);
    for (; t + 2 <= n_tokens; t += 2) add_tokens(sums + t, x + t * ld, ld, 2, w, n_pairs);
    if (t < n_tokens) add_tokens(sums + t, x + t * ld, ld, 1, w, n_pairs);
}

static void begin_products(void) {}
static void end_products(void) {}

void zq_bf16mul_avx512bf16(struct zq_kernels *k)
{
    fill_slots(k, "gemm_f32_bf16_avx512bf16", "gemm_w8_bf16_avx512bf16", "gemm_w4_bf16_avx512bf16");
    k->matmul = matmul_bf16;
}
