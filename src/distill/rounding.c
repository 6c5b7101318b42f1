/* Rows are dealt to threads; no value depends on another row but for the factors of scales that rows share, which one thread adds up. */
#include "distill/rounding.h"

#include "base/clones.h"
#include "base/threads.h"
#include "quant/codes.h"

#include <math.h>
#include <string.h>

/* The codes may lie further than half a code from the weights, which are drawn to them so far that a step may still take them across. */
static void begin_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_rounding *a = work;
    const size_t n = a->n_cols, length = n / a->n_groups;
    for (size_t k = begin * n; k < end * n; k++) {
        const float code = a->codes[k], away = a->w[k] / a->first[k / length] - code;
        a->centres[k] = code + (away > a->reach ? a->reach : away < -a->reach ? -a->reach : away);
        a->w[k] = 0;
    }
}

void zq_rounding_begin(const struct zq_rounding *a, int n_threads)
{
    struct zq_rounding work = *a;
    const size_t n_bytes = a->n_rows * a->n_groups * sizeof *a->first;
    memcpy(a->first, a->scales, n_bytes);
    memcpy(a->present, a->scales, n_bytes);
    zq_parallel(n_threads, a->n_rows, 8, begin_range, &work);
}

ZQ_CLONES static void round_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_rounding *a = work;
    const struct zq_code_format *f = zq_code_format(a->bits);
    const float min = (float)f->min, max = (float)f->max;
    const size_t length = a->n_cols / a->n_groups;
    for (size_t g = begin * a->n_groups; g < end * a->n_groups; g++) {
        const float scale = zq_scale_stored(a->first[g] * (1 + a->stretch[g]), a->scale_dtype);
        a->present[g] = scale > 0 ? scale : a->first[g];
        for (size_t k = g * length; k < (g + 1) * length; k++)
            a->fake[k] = zq_nearest_code(a->centres[k] + a->w[k], min, max) * a->present[g];
    }
}

void zq_rounding_round(const struct zq_rounding *a, int n_threads)
{
    struct zq_rounding work = *a;
    zq_parallel(n_threads, a->n_rows, 8, round_range, &work);
}

/* Where a weight lies beyond the last code, its offset has no gradient. */
ZQ_CLONES static void slope_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_rounding *a = work;
    const struct zq_code_format *f = zq_code_format(a->bits);
    const float min = (float)f->min - 0.5f, max = (float)f->max + 0.5f;
    const size_t length = a->n_cols / a->n_groups;
    for (size_t g = begin * a->n_groups; g < end * a->n_groups; g++) {
        double slope = 0;
        for (size_t k = g * length; k < (g + 1) * length; k++) {
            const float x = a->centres[k] + a->w[k];
            slope += (double)a->dw[k] * a->fake[k];
            if (x < min || x > max) a->dw[k] = 0;
        }
        a->slope[g] = (float)slope;
    }
}

void zq_rounding_slopes(const struct zq_rounding *a, int n_threads)
{
    struct zq_rounding work = *a;
    zq_parallel(n_threads, a->n_rows, 8, slope_range, &work);
    for (size_t g = 0; g < a->row_groups; g++) {
        const size_t first = zq_row_group_begin(g, a->n_rows, a->row_groups), last = zq_row_group_begin(g + 1, a->n_rows, a->row_groups);
        double slope = 0;
        for (size_t r = first; r < last; r++) slope += a->slope[r];
        for (size_t r = first; r < last; r++) a->slope[r] = (float)slope;
    }
}

static void keep_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_rounding *a = work;
    const size_t n = a->n_cols, length = n / a->n_groups;
    for (size_t k = begin * n; k < end * n; k++) a->codes[k] = (int8_t)rintf(a->fake[k] / a->present[k / length]);
    memcpy(a->scales + begin * a->n_groups, a->present + begin * a->n_groups, (end - begin) * a->n_groups * sizeof *a->scales);
}

void zq_rounding_keep(const struct zq_rounding *a, int n_threads)
{
    struct zq_rounding work = *a;
    zq_parallel(n_threads, a->n_rows, 8, keep_range, &work);
}

static void decode_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_rounding *a = work;
    const size_t n = a->n_cols, length = n / a->n_groups;
    for (size_t k = begin * n; k < end * n; k++) a->fake[k] = (float)a->codes[k] * a->scales[k / length];
}

void zq_rounding_decode(const struct zq_rounding *a, int n_threads)
{
    struct zq_rounding work = *a;
    zq_parallel(n_threads, a->n_rows, 8, decode_range, &work);
}
