/* What the simulator has in place of cuBLASLt, as plain loops: INT32 sums of codes, and the products of training with sums in rising order. They
 * stand for the vendor's library, so they tell nothing of that; everything around them is the code that runs on a GPU. */
#ifndef ZQ_CUDA_SIM_PRODUCT_H
#define ZQ_CUDA_SIM_PRODUCT_H

#include "kernels/training.h"

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

static inline void sim_product(const struct zq_matmul *p)
{
    for (size_t i = 0; i < p->m; i++) {
        float *c = p->c + i * p->ldc;
        for (size_t j = 0; j < p->n && !p->add; j++) c[j] = 0;
        for (size_t j = 0; j < p->n && p->turn_b; j++) {
            const float *b = p->b + j * p->ldb;
            float total = 0;
            for (size_t k = 0; k < p->k; k++) total += (p->turn_a ? p->a[k * p->lda + i] : p->a[i * p->lda + k]) * b[k];
            c[j] += p->alpha * total;
        }
        for (size_t k = 0; k < p->k && !p->turn_b; k++) {
            const float a = p->alpha * (p->turn_a ? p->a[k * p->lda + i] : p->a[i * p->lda + k]), *b = p->b + k * p->ldb;
            for (size_t j = 0; j < p->n; j++) c[j] += a * b[j];
        }
    }
}

#endif
