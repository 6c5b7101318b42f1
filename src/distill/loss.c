/* Sums of a token belong to one thread, the sum over tokens to the caller: the same bits for any number of threads. */
#include "distill/loss.h"

#include "base/threads.h"

#include <math.h>

struct loss_work {
    const float *y, *target;
    size_t width;
    float *dy;
    float scale; /* of the gradient */
    double *row_sums;
};

static void mse_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct loss_work *w = work;
    for (size_t t = begin; t < end; t++) {
        const float *y = w->y + t * w->width, *target = w->target + t * w->width;
        double total = 0;
        for (size_t i = 0; i < w->width; i++) {
            const float d = y[i] - target[i];
            total += (double)d * d;
            if (w->dy) w->dy[t * w->width + i] = w->scale * d;
        }
        w->row_sums[t] = total;
    }
}

/* The logarithm of the sum of exponentials of x. */
static double log_sum(const float *x, size_t n)
{
    double top = x[0], total = 0;
    for (size_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t i = 0; i < n; i++) total += exp(x[i] - top);
    return top + log(total);
}

static void kl_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct loss_work *w = work;
    for (size_t t = begin; t < end; t++) {
        const float *y = w->y + t * w->width, *target = w->target + t * w->width;
        const double y_sum = log_sum(y, w->width), target_sum = log_sum(target, w->width);
        double total = 0;
        for (size_t i = 0; i < w->width; i++) {
            const double log_q = y[i] - y_sum, log_p = target[i] - target_sum, p = exp(log_p);
            total += p * (log_p - log_q);
            if (w->dy) w->dy[t * w->width + i] = w->scale * (float)(exp(log_q) - p);
        }
        w->row_sums[t] = total;
    }
}

void zq_loss_run(const struct zq_loss_pass *a, int n_threads)
{
    const double n = a->kl ? (double)a->n_tokens : (double)a->n_tokens * (double)a->width;
    struct loss_work work = {a->y, a->target, a->width, a->dy, (float)((a->kl ? 1 : 2) / n), a->row_sums};
    zq_parallel(n_threads, a->n_tokens, 8, a->kl ? kl_range : mse_range, &work);
}

double zq_loss_total(const struct zq_loss_pass *a, const double *row_sums)
{
    double total = 0;
    for (size_t t = 0; t < a->n_tokens; t++) total += row_sums[t];
    return total / (a->kl ? (double)a->n_tokens : (double)a->n_tokens * (double)a->width);
}

static double run(const struct zq_loss_pass *a, int n_threads)
{
    zq_loss_run(a, n_threads);
    return zq_loss_total(a, a->row_sums);
}

double zq_loss_mse(const float *y, const float *target, size_t n_tokens, size_t width, float *dy, double *row_sums, int n_threads)
{
    return run(&(struct zq_loss_pass){false, y, target, n_tokens, width, dy, row_sums}, n_threads);
}

double zq_loss_kl(const float *y, const float *target, size_t n_tokens, size_t width, float *dy, double *row_sums, int n_threads)
{
    return run(&(struct zq_loss_pass){true, y, target, n_tokens, width, dy, row_sums}, n_threads);
}
