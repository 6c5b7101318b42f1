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

/* Parts of the longer side: eight, but none so thin that packing the other operand anew for each part shows in the time. */
enum { PARTS = 8, SMALLEST_PART = 128 };

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

/* ---- by a kernel -------------------------------------------------------------------------------------------------- */

/* Parts of c: blocks of rows times blocks of columns. A part packs its share of a once and of b once. */
struct grid {
    zq_matmul_fn *kernel;
    const struct zq_matmul *p;
    size_t n_rows, n_cols; /* of a part */
    size_t n_across;       /* parts side by side */
};

enum { GRID_ROWS = 240, GRID_COLS = 384, GRID_STEP = 64 };

/* The length of parts of n that are about equal and at most `most` long. */
static size_t even_length(size_t n, size_t most)
{
    const size_t n_parts = (n + most - 1) / most;
    return (n + n_parts - 1) / n_parts;
}

static void multiply_parts(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct grid *g = work;
    for (size_t i = begin; i < end; i++) {
        struct zq_matmul part = *g->p;
        const size_t row = i / g->n_across * g->n_rows, col = i % g->n_across * g->n_cols;
        part.m = part.m - row < g->n_rows ? part.m - row : g->n_rows;
        part.n = part.n - col < g->n_cols ? part.n - col : g->n_cols;
        part.a += part.turn_a ? row : row * part.lda;
        part.b += part.turn_b ? col * part.ldb : col;
        part.c += row * part.ldc + col;
        g->kernel(&part);
    }
}

void zq_matmul_run_by(zq_matmul_fn *kernel, int n_threads, const struct zq_matmul *p)
{
    if (!p->m || !p->n) return;
    struct grid g = {kernel, p, even_length(p->m, GRID_ROWS), even_length(p->n, GRID_COLS), 0};
    g.n_cols = (g.n_cols + GRID_STEP - 1) / GRID_STEP * GRID_STEP;
    g.n_across = (p->n + g.n_cols - 1) / g.n_cols;
    zq_parallel(n_threads, (p->m + g.n_rows - 1) / g.n_rows * g.n_across, 1, multiply_parts, &g);
}
