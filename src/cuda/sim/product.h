/* What the simulator has in place of cuBLASLt, as plain loops: INT32 sums of codes, and the products of training with sums in rising order. They
 * stand for the vendor's library, so they tell nothing of that; everything around them is the code that runs on a GPU. */
#ifndef ZQ_CUDA_SIM_PRODUCT_H
#define ZQ_CUDA_SIM_PRODUCT_H

#include "kernels/training.h"

#include <string.h>

/* sums [n_tokens, ld] of codes w [n_rows, ld_w] and q [n_tokens, ld_q]. */
static inline void sim_sums(const int8_t *w, size_t ld_w, const int8_t *q, size_t ld_q, size_t n_rows, size_t n_cols, size_t n_tokens, int32_t *sums,
                            size_t ld)
{
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t r = 0; r < n_rows; r++) {
            int32_t sum = 0;
            for (size_t k = 0; k < n_cols; k++) sum += w[r * ld_w + k] * q[t * ld_q + k];
            sums[t * ld + r] = sum;
        }
    }
}

static inline float sim_value(float x) { return x; }
static inline float sim_value(uint16_t bf16)
{
    const uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Factors a and b lie as p->a and p->b would; TF32 is F32 here. */
template <class T> static inline void sim_product(const struct zq_matmul *p, const T *pa, const T *pb)
{
    for (size_t i = 0; i < p->m; i++) {
        float *c = p->c + i * p->ldc;
        for (size_t j = 0; j < p->n && !p->add; j++) c[j] = 0;
        for (size_t j = 0; j < p->n && p->turn_b; j++) {
            const T *b = pb + j * p->ldb;
            float total = 0;
            for (size_t k = 0; k < p->k; k++) total += sim_value(p->turn_a ? pa[k * p->lda + i] : pa[i * p->lda + k]) * sim_value(b[k]);
            c[j] += p->alpha * total;
        }
        for (size_t k = 0; k < p->k && !p->turn_b; k++) {
            const float a = p->alpha * sim_value(p->turn_a ? pa[k * p->lda + i] : pa[i * p->lda + k]);
            const T *b = pb + k * p->ldb;
            for (size_t j = 0; j < p->n; j++) c[j] += a * sim_value(b[j]);
        }
    }
}

#endif
