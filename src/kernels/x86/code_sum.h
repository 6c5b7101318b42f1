/* The sum of n codes for gemm.inc, on 256 bits: pairs in 16 bits, fours in 32. */
#ifndef ZQ_KERNELS_X86_CODE_SUM_H
#define ZQ_KERNELS_X86_CODE_SUM_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

static int32_t code_sum(const int8_t *q, size_t n)
{
    const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
    __m256i sums = _mm256_setzero_si256();
    size_t k = 0;
    for (; k + 32 <= n; k += 32) {
        const __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(q + k));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, codes), ones16));
    }
    int32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, sums);
    for (size_t i = 0; i < 8; i++) sum += lanes[i];
    for (; k < n; k++) sum += q[k];
    return sum;
}

#endif
