/* Products over OpenBLAS, or plain loops without it. OpenBLAS would start threads of its own when called from outside a
 * parallel region, and cut the sums' owners by their number: its view of OpenMP is narrowed to one thread for each call. */
#include "distill/matmul.h"

#include "base/threads.h"

#ifdef ZQ_WITH_BLAS
#include <cblas.h>
#include <omp.h>

void zq_matmul_serial(const struct zq_matmul *p)
{
    if (!p->m || !p->n) return;
    const int threads = omp_get_max_threads(); /* of the calling thread alone */
    omp_set_num_threads(1);
    cblas_sgemm(CblasRowMajor, p->turn_a ? CblasTrans : CblasNoTrans, p->turn_b ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n, (int)p->k,
                p->alpha, p->a, (int)p->lda, p->b, (int)p->ldb, p->add ? 1 : 0, p->c, (int)p->ldc);
    omp_set_num_threads(threads);
}

#else

/* Sum of products in eight lanes, so that it can be a vector. */
static float dot(const float *x, const float *y, size_t n)
{
    float lane[8] = {0}, tail = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t l = 0; l < 8; l++) lane[l] += x[i + l] * y[i + l];
    for (; i < n; i++) tail += x[i] * y[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])) + tail;
}

void zq_matmul_serial(const struct zq_matmul *p)
{
    for (size_t i = 0; i < p->m; i++) {
        float *c = p->c + i * p->ldc;
        for (size_t j = 0; j < p->n && !p->add; j++) c[j] = 0;
        for (size_t j = 0; j < p->n && p->turn_b; j++) c[j] += p->alpha * dot(p->a + i * p->lda, p->b + j * p->ldb, p->k);
        for (size_t k = 0; k < p->k && !p->turn_b; k++) {
            const float a = p->alpha * (p->turn_a ? p->a[k * p->lda + i] : p->a[i * p->lda + k]), *b = p->b + k * p->ldb;
            for (size_t j = 0; j < p->n; j++) c[j] += a * b[j];
        }
    }
}

#endif

/* Parts of the longer side: sixteen, but none so thin that packing the other operand anew for each part shows in the time. */
enum { PARTS = 16, SMALLEST_PART = 128 };

static size_t part_length(size_t n)
{
    const size_t length = (n + PARTS - 1) / PARTS;
    return length < SMALLEST_PART ? SMALLEST_PART : (length + 15) / 16 * 16;
}

static void multiply_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_matmul *p = work;
    const bool by_rows = p->m >= p->n;
    const size_t length = part_length(by_rows ? p->m : p->n);
    for (size_t i = begin; i < end; i += length) {
        const size_t count = end - i < length ? end - i : length;
        struct zq_matmul part = *p;
        if (by_rows) {
            part.m = count;
            part.a += p->turn_a ? i : i * p->lda;
            part.c += i * p->ldc;
        } else {
            part.n = count;
            part.b += p->turn_b ? i * p->ldb : i;
            part.c += i;
        }
        zq_matmul_serial(&part);
    }
}

void zq_matmul_run(int n_threads, const struct zq_matmul *p)
{
    struct zq_matmul work = *p;
    const size_t n = p->m >= p->n ? p->m : p->n;
    zq_parallel(n_threads, n, part_length(n), multiply_range, &work);
}
