/* Norms. Sums over a token go in sixteen lanes, sums over tokens (gamma, beta, biases) in double with columns dealt to threads:
 * neither depends on the number of threads. */
#include "distill/norm.h"

#include "base/clones.h"
#include "base/threads.h"

#include <math.h>

enum { LANES = 16, COLUMNS = 64 };

static float sum_lanes(const float *lane)
{
    float s[LANES];
    for (int l = 0; l < LANES; l++) s[l] = lane[l];
    for (int width = LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++) s[l] += s[l + width];
    return s[0];
}

static float sum(const float *x, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += x[i + l];
    for (size_t l = 0; i + l < n; l++) lane[l] += x[i + l];
    return sum_lanes(lane);
}

/* sum of (x - a) (y - b) */
static float sum_products(const float *x, float a, const float *y, float b, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += (x[i + l] - a) * (y[i + l] - b);
    for (size_t l = 0; i + l < n; l++) lane[l] += (x[i + l] - a) * (y[i + l] - b);
    return sum_lanes(lane);
}

struct norm_work {
    const struct zq_norm_pass *p;
    float *out;
};

static void forward_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct norm_work *w = work;
    const struct zq_norm_pass *p = w->p;
    for (size_t t = begin; t < end; t++) {
        const float *x = p->x + t * p->n;
        float *out = w->out + t * p->n;
        const float mean = p->rms ? 0 : sum(x, p->n) / (float)p->n;
        const float rate = 1 / sqrtf(sum_products(x, mean, x, mean, p->n) / (float)p->n + p->eps);
        for (size_t i = 0; i < p->n; i++) out[i] = (x[i] - mean) * rate * p->gamma[i] + (p->beta ? p->beta[i] : 0);
        p->stats[2 * t] = mean;
        p->stats[2 * t + 1] = rate;
    }
}

void zq_norm_forward(const struct zq_norm_pass *p, float *out, int n_threads)
{
    struct norm_work work = {.p = p, .out = out};
    zq_parallel(n_threads, p->n_tokens, 8, forward_range, &work);
}

static void weights_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_norm_back *w = work;
    const struct zq_norm_pass *p = &w->pass;
    for (size_t from = begin; from < end; from += COLUMNS) {
        const size_t n = end - from < COLUMNS ? end - from : COLUMNS;
        double gamma[COLUMNS] = {0}, beta[COLUMNS] = {0};
        for (size_t t = 0; t < p->n_tokens; t++) {
            const float *x = p->x + t * p->n + from, *dy = w->dy + t * p->n + from;
            const float mean = p->stats[2 * t], rate = p->stats[2 * t + 1];
            for (size_t i = 0; i < n; i++) {
                gamma[i] += (double)(dy[i] * ((x[i] - mean) * rate));
                beta[i] += (double)dy[i];
            }
        }
        for (size_t i = 0; i < n; i++) w->dgamma[from + i] = (float)gamma[i];
        for (size_t i = 0; i < n && w->dbeta; i++) w->dbeta[from + i] = (float)beta[i];
    }
}

/* With h = (x - mean) rate and g = dy gamma: dx = rate (g - mean(g) - h mean(g h)); RMSNorm has no mean(g). */
static void inputs_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_norm_back *w = work;
    const struct zq_norm_pass *p = &w->pass;
    for (size_t t = begin; t < end; t++) {
        const float *x = p->x + t * p->n, *dy = w->dy + t * p->n, *add = w->add ? w->add + t * p->n : NULL;
        float *dx = w->dx + t * p->n;
        const float mean = p->stats[2 * t], rate = p->stats[2 * t + 1];
        float g_lane[LANES] = {0}, gh_lane[LANES] = {0};
        for (size_t i = 0; i < p->n; i++) {
            const float g = dy[i] * p->gamma[i];
            g_lane[i % LANES] += g;
            gh_lane[i % LANES] += g * ((x[i] - mean) * rate);
        }
        const float g_mean = p->rms ? 0 : sum_lanes(g_lane) / (float)p->n, gh_mean = sum_lanes(gh_lane) / (float)p->n;
        for (size_t i = 0; i < p->n; i++)
            dx[i] = rate * (dy[i] * p->gamma[i] - g_mean - (x[i] - mean) * rate * gh_mean) + (add ? add[i] : 0);
    }
}

void zq_norm_backward(const struct zq_norm_back *a, int n_threads)
{
    struct zq_norm_back work = *a;
    zq_parallel(n_threads, a->pass.n, COLUMNS, weights_range, &work);
    zq_parallel(n_threads, a->pass.n_tokens, 8, inputs_range, &work);
}

struct column_work {
    const float *x;
    size_t ld, n_rows;
    float *out;
};

static void column_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct column_work *w = work;
    for (size_t from = begin; from < end; from += COLUMNS) {
        const size_t n = end - from < COLUMNS ? end - from : COLUMNS;
        double total[COLUMNS] = {0};
        for (size_t r = 0; r < w->n_rows; r++)
            for (size_t i = 0; i < n; i++) total[i] += (double)w->x[r * w->ld + from + i];
        for (size_t i = 0; i < n; i++) w->out[from + i] = (float)total[i];
    }
}

void zq_column_sums(const float *x, size_t ld, size_t n_rows, size_t n, float *out, int n_threads)
{
    struct column_work work = {x, ld, n_rows, out};
    zq_parallel(n_threads, n, COLUMNS, column_range, &work);
}

struct onto_work {
    const float *x;
    size_t n_rows, n;
    double *sums;
};

ZQ_CLONES static void onto_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct onto_work *w = work;
    for (size_t r = 0; r < w->n_rows; r++)
        for (size_t i = begin; i < end; i++) w->sums[i] += (double)w->x[r * w->n + i];
}

void zq_add_columns(const float *x, size_t n_rows, size_t n, double *sums, int n_threads)
{
    struct onto_work work = {x, n_rows, n, sums};
    zq_parallel(n_threads, n, COLUMNS, onto_range, &work);
}
