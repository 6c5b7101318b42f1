/* Scales: before codes exist, the search that weighs each column by the size of its input; afterwards, least squares under the
 * whole loss. A group is a run of columns of a row, a row, or a group of rows; scales of the last lie once per row. */
#include "distill/quadratic.h"

#include "base/clones.h"
#include "base/threads.h"
#include "quant/codes.h"

#include <math.h>

/* The rows that share scales with row r. */
struct span {
    size_t first, n;
};

static size_t n_spans(const struct zq_quadratic *q)
{
    return q->layout->row_groups ? q->layout->row_groups : q->n_rows;
}

static struct span span_of(const struct zq_quadratic *q, size_t i)
{
    if (!q->layout->row_groups) return (struct span){i, 1};
    const size_t first = zq_row_group_begin(i, q->n_rows, q->layout->row_groups);
    return (struct span){first, zq_row_group_begin(i + 1, q->n_rows, q->layout->row_groups) - first};
}

/* ---- before there are codes ---------------------------------------------------------------------------------------- */

/* Sums of diag * w * code and diag * code^2 over n columns. */
ZQ_CLONES static void add_products(const float *w, const float *diag, size_t n, float scale, const struct zq_code_format *f, double *cross,
                                   double *square)
{
    enum { LANES = 16 };
    const float inverse = 1 / scale, min = (float)f->min, max = (float)f->max;
    float c[LANES] = {0}, s[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        const size_t count = n - i < LANES ? n - i : LANES;
        for (size_t l = 0; l < count; l++) {
            float code = w[i + l] * inverse;
            code = zq_nearest_code(code, min, max);
            c[l] += diag[i + l] * w[i + l] * code;
            s[l] += diag[i + l] * code * code;
        }
    }
    for (size_t l = 0; l < LANES; l++) {
        *cross += c[l];
        *square += s[l];
    }
}

/* For the columns [first, first + n) of the rows of a span. */
static float search(const struct zq_quadratic *q, const float *weights, struct span rows, size_t first, size_t n)
{
    enum { CANDIDATES = 36 };
    const int bits = q->layout->spec.w_bits;
    const struct zq_code_format *f = zq_code_format(bits);
    const float *w = weights + rows.first * q->n_cols + first, *diag = q->gram->diag + first, step = bits == 8 ? 0.005f : 0.02f;
    struct zq_range range;
    zq_range_of(&range, w, n);
    for (size_t r = 1; r < rows.n; r++) {
        struct zq_range more;
        zq_range_of(&more, w + r * q->n_cols, n);
        range = zq_range_join(range, more);
    }
    const float widest = zq_scale_nearest(bits, range, q->layout->scale_dtype);
    float best = widest;
    double best_gain = -1;
    for (int i = 0; i < CANDIDATES; i++) {
        const float scale = widest * (1.06f - (float)i * step);
        double cross = 0, square = 0;
        for (size_t r = 0; r < rows.n; r++) add_products(w + r * q->n_cols, diag, n, scale, f, &cross, &square);
        if (!(square > 0) || cross * cross / square <= best_gain) continue; /* the error is constant less cross^2 / square */
        best_gain = cross * cross / square;
        best = (float)(cross / square);
    }
    best = zq_scale_stored(best, q->layout->scale_dtype);
    return best > 0 ? best : widest;
}

struct search_work {
    const struct zq_quadratic *q;
    const float *weights;
};

static void search_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct search_work *s = work;
    const struct zq_quadratic *q = s->q;
    const size_t n_groups = zq_spec_n_groups(q->layout->spec, q->n_cols), length = q->n_cols / n_groups;
    for (size_t i = begin; i < end; i++) {
        const struct span rows = span_of(q, i);
        for (size_t g = 0; g < n_groups; g++) {
            const float scale = search(q, s->weights, rows, g * length, length);
            for (size_t r = rows.first; r < rows.first + rows.n; r++) q->scales[r * n_groups + g] = scale;
        }
    }
}

void zq_scales_search(const struct zq_quadratic *q, const float *weights)
{
    struct search_work work = {q, weights};
    zq_parallel(q->gram->n_threads, n_spans(q), 1, search_range, &work);
}

static void round_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct search_work *s = work;
    const struct zq_quadratic *q = s->q;
    const size_t n_groups = zq_spec_n_groups(q->layout->spec, q->n_cols), length = q->n_cols / n_groups;
    for (size_t k = begin * q->n_cols; k < end * q->n_cols; k++) {
        const float scale = q->scales[k / length];
        int8_t code;
        zq_codes(&code, s->weights + k, 1, scale, q->layout->spec.w_bits);
        q->w[k] = (float)code * scale;
    }
}

void zq_scales_round(const struct zq_quadratic *q, const float *weights)
{
    struct search_work work = {q, weights};
    zq_parallel(q->gram->n_threads, q->n_rows, 8, round_range, &work);
}

/* ---- with codes ---------------------------------------------------------------------------------------------------- */

struct panel_work {
    struct zq_quadratic *q;
    size_t first, n;
};

/* Adds to each row's sums of w T and w H w over the panel. */
ZQ_CLONES static void sums_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct panel_work *p = work;
    const struct zq_quadratic *q = p->q;
    for (size_t r = begin; r < end; r++) {
        const float *w = q->w + r * q->n_cols + p->first, *t = q->t + r * q->n_cols + p->first, *h = q->panel + r * ZQ_PANEL;
        for (size_t j = 0; j < p->n; j++) {
            q->sums[2 * r] += (double)w[j] * t[j];
            q->sums[2 * r + 1] += (double)w[j] * h[j];
        }
    }
}

static void sum_rows(struct zq_quadratic *q)
{
    for (size_t i = 0; i < 2 * q->n_rows; i++) q->sums[i] = 0;
    for (size_t at = 0; at < q->n_cols; at += ZQ_PANEL) {
        struct panel_work work = {q, at, q->n_cols - at < ZQ_PANEL ? q->n_cols - at : ZQ_PANEL};
        zq_quadratic_panel(q, at, work.n);
        zq_parallel(q->gram->n_threads, q->n_rows, 8, sums_range, &work);
    }
}

double zq_quadratic_loss(struct zq_quadratic *q)
{
    double total = 0;
    sum_rows(q);
    for (size_t r = 0; r < q->n_rows; r++) total += q->sums[2 * r + 1] - 2 * q->sums[2 * r];
    return total;
}

float zq_scale_refit(float scale, double cross, double square, enum zq_dtype dtype)
{
    if (!(square > 0) || !(cross > 0)) return scale;
    const float to = zq_scale_stored((float)((double)scale * (cross / square)), dtype);
    const double f = (double)to / scale;
    return to > 0 && f * f * square - 2 * f * cross < square - 2 * cross ? to : scale;
}

static void rescale(struct zq_quadratic *q, size_t r, size_t first, size_t n, float *scale, float to)
{
    float *w = q->w + r * q->n_cols + first;
    if (to == *scale) return;
    for (size_t j = 0; j < n; j++) w[j] = rintf(w[j] / *scale) * to;
    *scale = to;
}

static void refit_spans(struct zq_quadratic *q)
{
    sum_rows(q);
    for (size_t i = 0; i < n_spans(q); i++) {
        const struct span rows = span_of(q, i);
        double cross = 0, square = 0;
        for (size_t r = rows.first; r < rows.first + rows.n; r++) {
            cross += q->sums[2 * r];
            square += q->sums[2 * r + 1];
        }
        const float to = zq_scale_refit(q->scales[rows.first], cross, square, q->layout->scale_dtype);
        for (size_t r = rows.first; r < rows.first + rows.n; r++) rescale(q, r, 0, q->n_cols, &q->scales[r], to);
    }
}

/* The groups that lie in a panel: g = w H is kept up to date from one to the next. */
static void refit_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct panel_work *p = work;
    struct zq_quadratic *q = p->q;
    const size_t n_groups = zq_spec_n_groups(q->layout->spec, q->n_cols), length = q->n_cols / n_groups, size = q->n_cols;
    for (size_t r = begin; r < end; r++) {
        float *g = q->panel + r * ZQ_PANEL;
        const size_t group = p->first / length;
        const float *w = q->w + r * size + p->first, *t = q->t + r * size + p->first;
        double slope = 0, square = 0; /* of the loss along the group's own weights */
        for (size_t i = 0; i < p->n; i++) {
            double hw = (double)q->gram->diag[p->first + i] * w[i];
            for (size_t j = i + 1; j < p->n; j++) hw += 2.0 * q->gram->h[(p->first + i) * size + p->first + j] * w[j];
            square += hw * w[i];
            slope += ((double)g[i] - t[i]) * w[i];
        }
        float *scale = &q->scales[r * n_groups + group];
        rescale(q, r, p->first, p->n, scale, zq_scale_refit(*scale, square - slope, square, q->layout->scale_dtype));
    }
}

void zq_scales_refit(struct zq_quadratic *q)
{
    const size_t length = q->layout->spec.k_group;
    if (!length) refit_spans(q);
    for (size_t at = 0; length && length <= ZQ_PANEL && at < q->n_cols; at += length) {
        struct panel_work work = {q, at, length};
        zq_quadratic_panel(q, at, length);
        zq_parallel(q->gram->n_threads, q->n_rows, 8, refit_range, &work);
    }
}
