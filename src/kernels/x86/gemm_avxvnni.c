/* Integer products with vpdpbusd on 256 bits, for processors without AVX-512: weights are the unsigned side, as in
 * gemm_avx512vnni.c.
 *
 * Register plan: 6 tokens x 2 vectors of 8 rows = 12 accumulators, 2 registers of weights, 1 of activations. */
#include "kernels/level.h"
#include "kernels/x86/code_sum.h"

#include <immintrin.h>
#include <string.h>

enum { LANES = 8, VECS = 2, T_WIDE = 6, T_MID = 4, OFFSET_W8 = 128 };

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

ZQ_INLINE void load_w(ints w[VECS], const uint8_t *p, int bits)
{
    w[0] = _mm256_loadu_si256((const ints *)p);
    if (bits == 8) {
        w[1] = _mm256_loadu_si256((const ints *)p + 1);
    } else {
        w[1] = _mm256_and_si256(_mm256_srli_epi16(w[0], 4), _mm256_set1_epi8(15));
        w[0] = _mm256_and_si256(w[0], _mm256_set1_epi8(15));
    }
}

enum { AHEAD_BYTES = 2048 };

ZQ_INLINE void dot_steps(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps, int bits)
{
    const size_t n_bytes = 32 * VECS * (size_t)bits / 8;
    for (size_t s = 0; s < n_steps; s++, w += n_bytes) {
        ints right[VECS];
        if (n_tokens < T_WIDE) _mm_prefetch((const char *)w + AHEAD_BYTES, _MM_HINT_T0);
        load_w(right, w, bits);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) {
            const ints left = load_q(q[t] + 4 * s);
            ZQ_UNROLL
            for (size_t v = 0; v < VECS; v++) acc[t * VECS + v] = _mm256_dpbusd_epi32(acc[t * VECS + v], right[v], left);
        }
    }
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * VECS; i++) ZQ_SETTLE(acc[i]);
}

#include "kernels/gemm.inc"

static void gemm_w8_a8_avxvnni(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 8); }
static void gemm_w4_a8_avxvnni(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 4); }

void zq_gemm_avxvnni(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_avxvnni", ROWS, bytes_w8, pack_w8, gemm_w8_a8_avxvnni};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_avxvnni", ROWS, bytes_w4, pack_w4, gemm_w4_a8_avxvnni};
}
