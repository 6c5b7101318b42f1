/* Integer products with vpdpbusd: 4 products per 32-bit lane, unsigned times signed, added without saturation. Weights are the
 * unsigned side (code + 128, nibbles code + 8), so activations are broadcast from where they lie.
 *
 * Register plan: 12 tokens x 2 vectors of 16 rows = 24 accumulators, 2 registers of weights, 1 of activations. A step of 4
 * columns loads 128 bytes of weights and 48 of activations for 24 vpdpbusd. */
#include "kernels/level.h"

#include <immintrin.h>
#include <string.h>

enum { LANES = 16, VECS = 2, T_WIDE = 12, T_HALF = 8, OFFSET_W8 = 128 };

typedef __m512i ints;
typedef __m512 floats;

ZQ_INLINE ints i_set(int32_t a) { return _mm512_set1_epi32(a); }
ZQ_INLINE floats i_to_float(ints a) { return _mm512_cvtepi32_ps(a); }
ZQ_INLINE floats f_set(float a) { return _mm512_set1_ps(a); }
ZQ_INLINE floats f_load(const float *p) { return _mm512_loadu_ps(p); }
ZQ_INLINE floats f_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
ZQ_INLINE void f_store_n(float *p, floats a, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
ZQ_INLINE floats f_add(floats a, floats b) { return _mm512_add_ps(a, b); }
ZQ_INLINE floats f_mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
ZQ_INLINE floats f_fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }

ZQ_INLINE ints load_q(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

ZQ_INLINE void load_w(ints w[2], const uint8_t *p, int bits)
{
    w[0] = _mm512_loadu_si512(p);
    if (bits == 8) {
        w[1] = _mm512_loadu_si512(p + 64);
    } else {
        const ints mask = _mm512_set1_epi8(15);
        w[1] = _mm512_and_si512(_mm512_srli_epi16(w[0], 4), mask);
        w[0] = _mm512_and_si512(w[0], mask);
    }
}

/* Far enough ahead to cover memory latency, and past the page boundaries at which the processor's own prefetcher stops. */
enum { AHEAD_BYTES = 2048 };

ZQ_INLINE void dot_steps(ints *acc, size_t n_tokens, const int8_t *const *q, const uint8_t *w, size_t n_steps, int bits)
{
    const size_t n_bytes = bits == 8 ? 128 : 64;
    ints right[VECS];
    for (size_t s = 0; s < n_steps; s++) {
        if (n_tokens <= 4) {
            _mm_prefetch((const char *)w + AHEAD_BYTES, _MM_HINT_T0);
            if (bits == 8) _mm_prefetch((const char *)w + AHEAD_BYTES + 64, _MM_HINT_T0);
        }
        load_w(right, w, bits);
        w += n_bytes;
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) {
            const ints left = load_q(q[t] + 4 * s);
            acc[2 * t] = _mm512_dpbusd_epi32(acc[2 * t], right[0], left);
            acc[2 * t + 1] = _mm512_dpbusd_epi32(acc[2 * t + 1], right[1], left);
            __asm__("" : "+v"(acc[2 * t]), "+v"(acc[2 * t + 1]));
        }
    }
}

#include "kernels/gemm.inc"

static void gemm_w8_a8_avx512vnni(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 8); }
static void gemm_w4_a8_avx512vnni(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 4); }

void zq_gemm_avx512vnni(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_avx512vnni", ROWS, bytes_w8, pack_w8, gemm_w8_a8_avx512vnni};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_avx512vnni", ROWS, bytes_w4, pack_w4, gemm_w4_a8_avx512vnni};
}
