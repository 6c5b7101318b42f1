/* GPTQ by the factor of H itself, without its inverse: with L L^T = H and z = T L^-T the loss is |w L - z|^2 + const, and L is
 * triangular, so that column j of w L holds no column of w before j. Going from the last column to the first, column j is what
 * remains of z_j over L_jj, rounded. z lies in the place of w until its columns are rounded. */
#include "distill/quadratic.h"

#include "base/clones.h"
#include "base/threads.h"
#include "distill/matmul.h"
#include "quant/codes.h"

#include <string.h>

struct block_work {
    struct zq_quadratic *q;
    size_t first, n;
    float (*turned)[ZQ_PANEL]; /* L of the block on the diagonal, transposed */
};

/* z of the block, from T less the part of earlier columns */
ZQ_CLONES static void solve_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct block_work *b = work;
    for (size_t r = begin; r < end; r++) {
        float *z = b->q->w + r * b->q->n_cols + b->first;
        for (size_t i = 0; i < b->n; i++) {
            z[i] /= b->turned[i][i];
            for (size_t j = i + 1; j < b->n; j++) z[j] -= z[i] * b->turned[i][j];
        }
    }
}

ZQ_CLONES static void round_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct block_work *b = work;
    const struct zq_quadratic *q = b->q;
    const struct zq_code_format *f = zq_code_format(q->layout->spec.w_bits);
    const float min = (float)f->min, max = (float)f->max;
    const size_t n_groups = zq_spec_n_groups(q->layout->spec, q->n_cols), length = q->n_cols / n_groups, stride = q->n_cols;
    for (size_t r = begin; r < end; r++) {
        float *z = q->w + r * stride + b->first;
        const float *scales = q->scales + r * n_groups;
        for (size_t j = b->n; j-- > 0;) {
            const float *row = q->gram->h + (b->first + j) * stride + b->first, scale = scales[(b->first + j) / length];
            z[j] = zq_nearest_code(z[j] / row[j] / scale, min, max) * scale;
            for (size_t i = 0; i < j; i++) z[i] -= z[j] * row[i];
        }
    }
}

void zq_gptq(struct zq_quadratic *q)
{
    const size_t n = q->n_cols, last = (n - 1) / ZQ_PANEL * ZQ_PANEL;
    const float *l = q->gram->h;
    float turned[ZQ_PANEL][ZQ_PANEL];
    memcpy(q->w, q->t, q->n_rows * n * sizeof *q->w);
    for (size_t at = 0; at < n; at += ZQ_PANEL) {
        struct block_work block = {q, at, n - at < ZQ_PANEL ? n - at : ZQ_PANEL, turned};
        if (at)
            zq_matmul_run(q->gram->n_threads, &(struct zq_matmul){
                .m = q->n_rows, .n = block.n, .k = at, .alpha = -1, .a = q->w, .lda = n, .b = l + at * n, .ldb = n, .turn_b = true,
                .c = q->w + at, .ldc = n, .add = true,
            });
        for (size_t i = 0; i < block.n; i++)
            for (size_t j = 0; j <= i; j++) turned[j][i] = l[(at + i) * n + at + j];
        zq_parallel(q->gram->n_threads, q->n_rows, 8, solve_range, &block);
    }
    for (size_t at = last + ZQ_PANEL; at;) {
        at -= ZQ_PANEL;
        struct block_work block = {q, at, n - at < ZQ_PANEL ? n - at : ZQ_PANEL, NULL};
        const size_t after = at + block.n;
        if (after < n)
            zq_matmul_run(q->gram->n_threads, &(struct zq_matmul){
                .m = q->n_rows, .n = block.n, .k = n - after, .alpha = -1, .a = q->w + after, .lda = n, .b = l + after * n + at, .ldb = n,
                .c = q->w + at, .ldc = n, .add = true,
            });
        zq_parallel(q->gram->n_threads, q->n_rows, 8, round_range, &block);
    }
}
