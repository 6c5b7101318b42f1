/* Coordinate descent over codes. The gradient of a panel of columns is computed afresh, as a product, when its turn comes, and kept
 * up to date within the panel: no gradient of the whole map is stored, and no rounding error piles up. */
#include "distill/quadratic.h"

#include "base/clones.h"
#include "base/threads.h"
#include "distill/matmul.h"
#include "quant/codes.h"

#include <math.h>
#include <stdatomic.h>

/* Above the diagonal H lies as it is; what is below lies there transposed. */
void zq_quadratic_panel(const struct zq_quadratic *q, size_t first, size_t n)
{
    const struct zq_gram *g = q->gram;
    const size_t size = g->n, after = first + n;
    float block[ZQ_PANEL][ZQ_PANEL];
    for (size_t i = 0; i < n; i++) {
        block[i][i] = g->diag[first + i];
        for (size_t j = i + 1; j < n; j++) block[i][j] = block[j][i] = g->h[(first + i) * size + first + j];
    }
    zq_matmul_run(g->n_threads, &(struct zq_matmul){
        .m = q->n_rows, .n = n, .k = n, .alpha = 1, .a = q->w + first, .lda = size, .b = block[0], .ldb = ZQ_PANEL, .c = q->panel, .ldc = ZQ_PANEL,
    });
    if (first)
        zq_matmul_run(g->n_threads, &(struct zq_matmul){
            .m = q->n_rows, .n = n, .k = first, .alpha = 1, .a = q->w, .lda = size, .b = g->h + first, .ldb = size, .c = q->panel,
            .ldc = ZQ_PANEL, .add = true,
        });
    if (after < size)
        zq_matmul_run(g->n_threads, &(struct zq_matmul){
            .m = q->n_rows, .n = n, .k = size - after, .alpha = 1, .a = q->w + after, .lda = size, .b = g->h + first * size + after, .ldb = size,
            .turn_b = true, .c = q->panel, .ldc = ZQ_PANEL, .add = true,
        });
}

struct sweep_work {
    struct zq_quadratic *q;
    size_t first, n;
    bool fits;                /* scales of the groups of columns, all of them within the panel, are fitted first */
    float (*block)[ZQ_PANEL]; /* H of the panel's columns */
    atomic_size_t changed;
};

/* Fits the scales of a row's groups; g = w H - T of the panel stays up to date. scales: of its groups. */
ZQ_CLONES static void fit_groups(const struct sweep_work *s, float *w, float *g, float *scales)
{
    const struct zq_layout *layout = s->q->layout;
    const size_t length = layout->spec.k_group;
    for (size_t at = 0; at < s->n; at += length, scales++) {
        float hw[ZQ_PANEL] = {0};
        double slope = 0, square = 0; /* of the loss along the group's own weights */
        for (size_t j = at; j < at + length; j++)
            for (size_t i = at; i < at + length; i++) hw[i] += w[j] * s->block[j][i];
        for (size_t i = at; i < at + length; i++) {
            square += (double)hw[i] * w[i];
            slope += (double)g[i] * w[i];
        }
        const float to = zq_scale_refit(*scales, square - slope, square, layout->scale_dtype);
        if (to == *scales) continue;
        for (size_t j = at; j < at + length; j++) {
            const float value = rintf(w[j] / *scales) * to, step = value - w[j];
            w[j] = value;
            for (size_t i = 0; i < s->n; i++) g[i] += step * s->block[j][i];
        }
        *scales = to;
    }
}

ZQ_CLONES static void sweep_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    struct sweep_work *s = work;
    const struct zq_quadratic *q = s->q;
    const struct zq_code_format *f = zq_code_format(q->layout->spec.w_bits);
    const float min = (float)f->min, max = (float)f->max;
    const size_t n_groups = zq_spec_n_groups(q->layout->spec, q->n_cols), length = q->n_cols / n_groups;
    size_t changed = 0;
    for (size_t r = begin; r < end; r++) {
        float *w = q->w + r * q->n_cols + s->first, *g = q->panel + r * ZQ_PANEL;
        const float *t = q->t + r * q->n_cols + s->first, *scales = q->scales + r * n_groups;
        for (size_t j = 0; j < s->n; j++) g[j] -= t[j];
        if (s->fits) fit_groups(s, w, g, q->scales + r * n_groups + s->first / length);
        for (size_t j = 0; j < s->n; j++) {
            const float scale = scales[(s->first + j) / length], best = w[j] - g[j] / s->block[j][j];
            const float value = zq_nearest_code(best / scale, min, max) * scale, step = value - w[j];
            if (step == 0) continue;
            changed++;
            w[j] = value;
            for (size_t i = 0; i < s->n; i++) g[i] += step * s->block[j][i];
        }
    }
    atomic_fetch_add(&s->changed, changed);
}

static size_t sweep(struct zq_quadratic *q, bool fits)
{
    const struct zq_gram *g = q->gram;
    const size_t length = q->layout->spec.k_group, width = fits ? ZQ_PANEL / length * length : ZQ_PANEL;
    float block[ZQ_PANEL][ZQ_PANEL];
    size_t changed = 0;
    for (size_t at = 0; at < g->n; at += width) {
        struct sweep_work work = {.q = q, .first = at, .n = g->n - at < width ? g->n - at : width, .fits = fits, .block = block};
        atomic_init(&work.changed, 0);
        for (size_t i = 0; i < work.n; i++) {
            block[i][i] = g->diag[at + i];
            for (size_t j = i + 1; j < work.n; j++) block[i][j] = block[j][i] = g->h[(at + i) * g->n + at + j];
        }
        zq_quadratic_panel(q, at, work.n);
        zq_parallel(g->n_threads, q->n_rows, 8, sweep_range, &work);
        changed += atomic_load(&work.changed);
    }
    return changed;
}

size_t zq_descent_sweep(struct zq_quadratic *q)
{
    return sweep(q, false);
}

size_t zq_descent_fit(struct zq_quadratic *q)
{
    const size_t length = q->layout->spec.k_group;
    if (length && length <= ZQ_PANEL) return sweep(q, true);
    zq_scales_refit(q);
    return sweep(q, false);
}
