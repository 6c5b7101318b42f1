/* FP32 products for training. The cut into parts depends on the shape alone and every part is one single-threaded call of BLAS
 * (or of plain C), so that results are the same bits for any number of threads. */
#ifndef ZQ_DISTILL_MATMUL_H
#define ZQ_DISTILL_MATMUL_H

#include <stdbool.h>
#include <stddef.h>

/* c [m, n] = alpha * a [m, k] b [k, n] (+ c). Row-major with leading dimensions; a turned operand is stored transposed.
 * Not both may be turned. m, n, k and leading dimensions < 2^31. */
struct zq_matmul {
    size_t m, n, k;
    float alpha;
    const float *a, *b;
    size_t lda, ldb;
    bool turn_a, turn_b;
    float *c;
    size_t ldc;
    bool add;
};

void zq_matmul_serial(const struct zq_matmul *p);
void zq_matmul_run(int n_threads, const struct zq_matmul *p);

#endif
