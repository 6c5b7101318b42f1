/* One pass over parameters, gradients and moments; values are independent of each other. Factors are computed in double. */
#include "distill/optimizer.h"

#include "base/threads.h"

#include <math.h>

enum { GRAIN = 4096 };

struct zq_adamw_pass zq_adamw_pass_at(double rate, size_t step, float *params, const float *grads, float *moments, size_t n)
{
    static const double beta1 = 0.9, beta2 = 0.999, decay = 0.01;
    return (struct zq_adamw_pass){
        .params = params, .first = moments, .second = moments + n, .grads = grads, .n = n, .b1 = (float)beta1, .b2 = (float)beta2, .eps = 1e-8f,
        .keep = (float)(1 - rate * decay), .rate = (float)(rate / (1 - pow(beta1, (double)step))),
        .correction = (float)(1 / sqrt(1 - pow(beta2, (double)step))),
    };
}

static void adamw_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_adamw_pass *a = work;
    for (size_t i = begin; i < end; i++) {
        const float g = a->grads[i], m = a->b1 * a->first[i] + (1 - a->b1) * g, v = a->b2 * a->second[i] + (1 - a->b2) * g * g;
        a->first[i] = m;
        a->second[i] = v;
        a->params[i] = a->params[i] * a->keep - a->rate * (m / (sqrtf(v) * a->correction + a->eps));
    }
}

void zq_adamw_run(const struct zq_adamw_pass *a, int n_threads)
{
    struct zq_adamw_pass work = *a;
    zq_parallel(n_threads, a->n, GRAIN, adamw_range, &work);
}

static void signsgd_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_sign_pass *a = work;
    for (size_t i = begin; i < end; i++) {
        const float g = a->mean[i] + a->share * (a->grads[i] - a->mean[i]), step = g > 0 ? a->rate : g < 0 ? -a->rate : 0;
        const float wish = a->params[i] - step, p = wish > a->limit ? a->limit : wish < -a->limit ? -a->limit : wish;
        a->mean[i] = g;
        a->params[i] = p;
        a->settled[i] = a->settled[i] + a->share * (p - a->settled[i]);
    }
}

void zq_signsgd_run(const struct zq_sign_pass *a, int n_threads)
{
    struct zq_sign_pass work = *a;
    zq_parallel(n_threads, a->n, GRAIN, signsgd_range, &work);
}
