/* One pass over parameters, gradients and moments; values are independent of each other. Factors are computed in double. */
#include "distill/optimizer.h"

#include "base/threads.h"

#include <math.h>

static const double beta1 = 0.9, beta2 = 0.999, decay = 0.01;
static const float eps = 1e-8f;
enum { GRAIN = 4096 };

struct step_work {
    float *params, *first, *second;
    const float *grads;
    float keep, rate, correction, limit; /* keep: 1 - rate * decay; correction: 1 / sqrt(1 - beta2^step) */
};

static void adamw_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct step_work *w = work;
    const float b1 = (float)beta1, b2 = (float)beta2;
    for (size_t i = begin; i < end; i++) {
        const float g = w->grads[i], m = b1 * w->first[i] + (1 - b1) * g, v = b2 * w->second[i] + (1 - b2) * g * g;
        w->first[i] = m;
        w->second[i] = v;
        w->params[i] = w->params[i] * w->keep - w->rate * (m / (sqrtf(v) * w->correction + eps));
    }
}

void zq_adamw_step(double rate, size_t step, float *params, const float *grads, float *moments, size_t n, int n_threads)
{
    struct step_work work = {
        .params = params, .first = moments, .second = moments + n, .grads = grads, .keep = (float)(1 - rate * decay),
        .rate = (float)(rate / (1 - pow(beta1, (double)step))), .correction = (float)(1 / sqrt(1 - pow(beta2, (double)step))),
    };
    zq_parallel(n_threads, n, GRAIN, adamw_range, &work);
}

static void signsgd_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct step_work *w = work;
    for (size_t i = begin; i < end; i++) {
        const float g = w->grads[i], step = g > 0 ? w->rate : g < 0 ? -w->rate : 0, p = w->params[i] - step;
        w->params[i] = p > w->limit ? w->limit : p < -w->limit ? -w->limit : p;
    }
}

void zq_signsgd_step(float rate, float limit, float *params, const float *grads, size_t n, int n_threads)
{
    struct step_work work = {.params = params, .grads = grads, .rate = rate, .limit = limit};
    zq_parallel(n_threads, n, GRAIN, signsgd_range, &work);
}
