/* Sums over tokens and the factor of their matrix. This processor's products are zq_matmul_run, whose cut follows from shapes alone, so that
 * results are the same bits for any number of threads. */
#include "distill/quadratic.h"

#include "base/clones.h"
#include "base/threads.h"
#include "distill/matmul.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 512, TILE = 64 };

void zq_gram_add(const struct zq_gram *g, const struct zq_trainer *trainer, const float *x, size_t n_tokens)
{
    trainer->ops->add_columns(trainer->self, x, n_tokens, g->n, g->mean);
    for (size_t i = 0; i < g->n; i += BLOCK)
        trainer->ops->product(trainer->self, &(struct zq_matmul){
            .m = g->n - i < BLOCK ? g->n - i : BLOCK, .n = g->n - i, .k = n_tokens, .alpha = 1, .a = x + i, .lda = g->n, .turn_a = true,
            .b = x + i, .ldb = g->n, .c = g->h + i * g->n + i, .ldc = g->n, .add = true,
        });
}

struct mirror_work {
    struct zq_gram *g;
    double n_mean; /* products of the mean to take out */
};

/* Rows of the upper triangle without so much of the mean. */
ZQ_CLONES static void centre_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct mirror_work *w = work;
    const struct zq_gram *g = w->g;
    for (size_t i = begin; i < end; i++)
        for (size_t j = i; j < g->n; j++) g->h[i * g->n + j] -= (float)(w->n_mean * g->mean[i] * g->mean[j]);
}

/* Lower triangle from the upper one, tile by tile. */
static void mirror_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct mirror_work *w = work;
    const struct zq_gram *g = w->g;
    for (size_t j0 = 0; j0 < end; j0 += TILE)
        for (size_t i = begin; i < end; i++)
            for (size_t j = j0; j < j0 + TILE && j < i; j++) g->h[i * g->n + j] = g->h[j * g->n + i];
}

float zq_gram_finish(struct zq_gram *g, size_t n_tokens, double centre, double damp)
{
    struct mirror_work work = {g, centre * (double)n_tokens};
    for (size_t i = 0; i < g->n; i++) g->mean[i] /= (double)n_tokens;
    if (centre > 0) zq_parallel(g->n_threads, g->n, 8, centre_range, &work);
    double trace = 0;
    for (size_t i = 0; i < g->n; i++) trace += g->h[i * g->n + i];
    const float added = trace > 0 ? (float)(damp * trace / (double)g->n) : 1;
    for (size_t i = 0; i < g->n; i++) g->diag[i] = g->h[i * g->n + i] += added;
    zq_parallel(g->n_threads, g->n, TILE, mirror_range, &work);
    return added;
}

void zq_gram_multiply(const struct zq_gram *g, const float *w, size_t n_rows, float *out)
{
    zq_matmul_run(g->n_threads, &(struct zq_matmul){
        .m = n_rows, .n = g->n, .k = g->n, .alpha = 1, .a = w, .lda = g->n, .b = g->h, .ldb = g->n, .c = out, .ldc = g->n,
    });
}

/* ---- the factor --------------------------------------------------------------------------------------------------- */

/* a [n, n], both triangles -> lower triangle L; what is above keeps its values. */
static bool factor_block(float a[ZQ_PANEL][ZQ_PANEL], size_t n)
{
    for (size_t j = 0; j < n; j++) {
        double d = a[j][j];
        for (size_t i = 0; i < j; i++) d -= (double)a[j][i] * a[j][i];
        if (!(d > 0)) return false;
        a[j][j] = (float)sqrt(d);
        for (size_t r = j + 1; r < n; r++) {
            double v = a[r][j];
            for (size_t i = 0; i < j; i++) v -= (double)a[r][i] * a[j][i];
            a[r][j] = (float)(v / a[j][j]);
        }
    }
    return true;
}

struct below_work {
    struct zq_gram *g;
    size_t first, n;
    float (*turned)[ZQ_PANEL]; /* L of the block on the diagonal, transposed */
};

/* Rows below the block: x L^T = p, solved for x in place of p. */
ZQ_CLONES static void below_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct below_work *w = work;
    for (size_t r = begin; r < end; r++) {
        float *p = w->g->h + (w->first + w->n + r) * w->g->n + w->first;
        for (size_t i = 0; i < w->n; i++) {
            const float x = p[i] / w->turned[i][i];
            p[i] = x;
            for (size_t j = i + 1; j < w->n; j++) p[j] -= x * w->turned[i][j];
        }
    }
}

/* Columns [first, first + n) of the factor; those before are done. */
static bool factor_columns(struct zq_gram *g, size_t first, size_t n)
{
    float block[ZQ_PANEL][ZQ_PANEL], turned[ZQ_PANEL][ZQ_PANEL];
    const size_t after = first + n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) block[i][j] = i == j ? g->diag[first + i] : g->h[(first + (i < j ? i : j)) * g->n + first + (i < j ? j : i)];
    zq_matmul_serial(&(struct zq_matmul){
        .m = n, .n = n, .k = first, .alpha = -1, .a = g->h + first * g->n, .lda = g->n, .b = g->h + first * g->n, .ldb = g->n, .turn_b = true,
        .c = block[0], .ldc = ZQ_PANEL, .add = true,
    });
    if (!factor_block(block, n)) return false;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) g->h[(first + i) * g->n + first + j] = turned[j][i] = block[i][j];
    if (first)
        zq_matmul_run(g->n_threads, &(struct zq_matmul){
            .m = g->n - after, .n = n, .k = first, .alpha = -1, .a = g->h + after * g->n, .lda = g->n, .b = g->h + first * g->n, .ldb = g->n,
            .turn_b = true, .c = g->h + after * g->n + first, .ldc = g->n, .add = true,
        });
    struct below_work below = {g, first, n, turned};
    zq_parallel(g->n_threads, g->n - after, 32, below_range, &below);
    return true;
}

bool zq_gram_factor(struct zq_gram *g)
{
    for (size_t i = 0; i < g->n; i += ZQ_PANEL)
        if (!factor_columns(g, i, g->n - i < ZQ_PANEL ? g->n - i : ZQ_PANEL)) return false;
    return true;
}
