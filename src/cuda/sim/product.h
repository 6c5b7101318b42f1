/* What the simulator has in place of cuBLASLt: the products of training as plain loops, sums in rising order. It stands for the vendor's library, so
 * it tells nothing of that; everything around it is the code that runs on a GPU. */
#ifndef ZQ_CUDA_SIM_PRODUCT_H
#define ZQ_CUDA_SIM_PRODUCT_H

#include "kernels/training.h"

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
