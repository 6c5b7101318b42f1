/* FP32 products for training. The cut into parts depends on the shape alone and every part is one single-threaded call of BLAS
 * (or of plain C), so that results are the same bits for any number of threads. */
#ifndef ZQ_DISTILL_MATMUL_H
#define ZQ_DISTILL_MATMUL_H

#include "kernels/training.h"

void zq_matmul_serial(const struct zq_matmul *p);
void zq_matmul_run(int n_threads, const struct zq_matmul *p);

/* The same product by a kernel, whose results do not depend on the cut. */
void zq_matmul_run_by(zq_matmul_fn *kernel, int n_threads, const struct zq_matmul *p);

#endif
