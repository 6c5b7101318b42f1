/* Integer products with vpmaddubsw (unsigned times signed, pairs added in 16 bits), exact on every input:
 *   w8  few tokens: |w| times sign(q, w), where 2 * 128 * 127 = 32,512 fits 16 bits on any input, in the order of memory;
 *       more: pairs of steps that 16 bits are enough for (gemm_pairs.h)
 *   w4  nibbles 0 .. 15 times q. Few tokens: a pair is at most 2 * 15 * 127 = 3,810, so 8 steps are summed in 16 bits (30,480) first;
 *       more: unpacked once for all of them, 16 steps in 16 bits (gemm_strips.h)
 *
 * Register plan: 4 tokens x 2 vectors of 8 rows = 8 accumulators, 2 of weights, 1 of activations, 2 of products, 2 constants. */
#include "kernels/crossovers.h"
#include "kernels/level.h"
#include "kernels/x86/code_sum.h"

#include <immintrin.h>
#include <string.h>

enum { LANES = 8, VECS = 2, T_WIDE = 6, T_MID = 4, OFFSET_W8 = 0 };

typedef __m256i ints;
typedef __m256 floats;

ZQ_INLINE __m256i lanes_below(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

ZQ_INLINE ints i_set(int32_t a) { return _mm256_set1_epi32(a); }
ZQ_INLINE ints i_load(const int32_t *p) { return _mm256_loadu_si256((const ints *)p); }
ZQ_INLINE ints i_add(ints a, ints b) { return _mm256_add_epi32(a, b); }
ZQ_INLINE floats i_to_float(ints a) { return _mm256_cvtepi32_ps(a); }
ZQ_INLINE floats f_set(float a) { return _mm256_set1_ps(a); }
ZQ_INLINE floats f_load(const float *p) { return _mm256_loadu_ps(p); }
ZQ_INLINE floats f_load_n(const float *p, size_t n) { return n == LANES ? f_load(p) : _mm256_maskload_ps(p, lanes_below(n)); }

/* Masked stores are microcode on some processors. */
ZQ_INLINE void f_store_n(float *p, floats a, size_t n)
{
    if (n == LANES) _mm256_storeu_ps(p, a);
    else _mm256_maskstore_ps(p, lanes_below(n), a);
}

ZQ_INLINE floats f_add(floats a, floats b) { return _mm256_add_ps(a, b); }
ZQ_INLINE floats f_mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
ZQ_INLINE floats f_fma(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }

ZQ_INLINE ints load_q(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

enum { AHEAD_BYTES = 2048, STEPS_IN_16_BITS = 8 };

ZQ_INLINE void settle(ints *a, size_t n)
{
    ZQ_UNROLL
    for (size_t i = 0; i < n; i++) ZQ_SETTLE(a[i]);
}

ZQ_INLINE void dot_steps_w8(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps)
{
    const ints ones = _mm256_set1_epi16(1);
    for (size_t s = 0; s < n_steps; s++, w += 64) {
        const ints w0 = _mm256_loadu_si256((const ints *)w), w1 = _mm256_loadu_si256((const ints *)w + 1);
        const ints abs0 = _mm256_abs_epi8(w0), abs1 = _mm256_abs_epi8(w1);
        _mm_prefetch((const char *)w + AHEAD_BYTES, _MM_HINT_T0);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) {
            const ints left = load_q(q[t] + 4 * s);
            const ints p0 = _mm256_maddubs_epi16(abs0, _mm256_sign_epi8(left, w0)), p1 = _mm256_maddubs_epi16(abs1, _mm256_sign_epi8(left, w1));
            acc[2 * t] = _mm256_add_epi32(acc[2 * t], _mm256_madd_epi16(p0, ones));
            acc[2 * t + 1] = _mm256_add_epi32(acc[2 * t + 1], _mm256_madd_epi16(p1, ones));
        }
    }
    settle(acc, n_tokens * VECS);
}

/* The 32-bit accumulators wait in memory while 16-bit ones are in registers. */
ZQ_INLINE void dot_steps_w4(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps)
{
    const ints ones = _mm256_set1_epi16(1), mask = _mm256_set1_epi8(15);
    ints in_memory[T_WIDE * VECS];
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * VECS; i++) in_memory[i] = acc[i];
    for (size_t s = 0; s < n_steps;) {
        const size_t stop = zq_smaller(s + STEPS_IN_16_BITS, n_steps);
        ints sum[T_WIDE * VECS];
        ZQ_UNROLL
        for (size_t i = 0; i < n_tokens * VECS; i++) sum[i] = _mm256_setzero_si256();
        for (; s < stop; s++, w += 32) {
            const ints both = _mm256_loadu_si256((const ints *)w);
            const ints w0 = _mm256_and_si256(both, mask), w1 = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
            _mm_prefetch((const char *)w + AHEAD_BYTES, _MM_HINT_T0);
            ZQ_UNROLL
            for (size_t t = 0; t < n_tokens; t++) {
                const ints left = load_q(q[t] + 4 * s);
                sum[2 * t] = _mm256_add_epi16(sum[2 * t], _mm256_maddubs_epi16(w0, left));
                sum[2 * t + 1] = _mm256_add_epi16(sum[2 * t + 1], _mm256_maddubs_epi16(w1, left));
            }
        }
        settle(sum, n_tokens * VECS);
        ZQ_UNROLL
        for (size_t i = 0; i < n_tokens * VECS; i++) {
            in_memory[i] = _mm256_add_epi32(in_memory[i], _mm256_madd_epi16(sum[i], ones));
            __asm__("" : "+m"(in_memory[i]));
        }
    }
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * VECS; i++) acc[i] = in_memory[i];
}

ZQ_INLINE void dot_steps(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps, int bits)
{
    if (bits == 4) dot_steps_w4(acc, n_tokens, q, w, n_steps);
    else dot_steps_w8(acc, n_tokens, q, w, n_steps);
}

#include "kernels/gemm.inc"
#include "kernels/x86/gemm_pairs.h"
#include "kernels/x86/gemm_strips.h"

/* Groups that end within a step, which no common model has, are not ordered. */
static bool is_ordered(const struct zq_matrix *w) { return !w->k_group || w->k_group % 4 == 0; }

static size_t ordered_bytes(const struct zq_matrix *w)
{
    if (!is_ordered(w) || !bytes_w8(w)) return bytes_w8(w);
    return zq_tiles_bytes(w->n_rows, ROWS, tile_bytes(w, 8) + orders_bytes(w));
}

static void pack_ordered(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack_w8(w, row, n, values, scales);
    for (size_t r = row; r < row + n && is_ordered(w); r += ROWS) order_tile(w, r);
}

static void gemm_w8_a8_avx2(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    if (p->n_tokens > FEW_TOKENS_W8_AVX2 && is_ordered(p->w) && has_panel(p->w)) run_paired(p, row_begin, row_end, FEW_TOKENS_W8_AVX2);
    else run(p, row_begin, row_end, 8);
}

static void gemm_w4_a8_avx2(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    if (p->n_tokens > FEW_TOKENS_W4_AVX2 && has_strips(p->w)) run_strips(p, row_begin, row_end);
    else run(p, row_begin, row_end, 4);
}

void zq_gemm_avx2(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_avx2", ROWS, ordered_bytes, pack_ordered, gemm_w8_a8_avx2};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_avx2", ROWS, bytes_w4, pack_w4, gemm_w4_a8_avx2};
}
