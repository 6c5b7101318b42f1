/* Rounding to INT8 and back. Never in place: where norms come last, what a map reads is the residual stream itself. */
#include "model/simulate.h"

#include <math.h>

struct simulate_work {
    const float *x;
    float *out;
    size_t n, ld;
    float scale; /* 0: of each token */
};

static float token_scale(const float *x, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    return largest > 0 ? largest / 127 : 1;
}

static void simulate_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct simulate_work *w = work;
    for (size_t t = begin; t < end; t++) {
        const float *x = w->x + t * w->ld;
        float *out = w->out + t * w->n;
        const float scale = w->scale > 0 ? w->scale : token_scale(x, w->n);
        for (size_t i = 0; i < w->n; i++) {
            const float code = nearbyintf(x[i] / scale);
            out[i] = (code > 127 ? 127 : code < -127 ? -127 : code) * scale; /* static scales saturate what calibration did not see */
        }
    }
}

struct zq_rows zq_simulate_input(struct zq_session *s, size_t layer, enum zq_linear_role role, struct zq_rows in)
{
    const float scale = s->model->simulation->scales[layer * ZQ_N_LINEARS + (size_t)role];
    const size_t n = s->model->blocks[layer].linear[role].w.n_cols;
    if (isnan(scale)) return in;
    struct simulate_work work = {in.f, s->simulated, n, in.ld, scale};
    zq_team_run(s->ops.team, s->n_tokens, 8, simulate_range, &work);
    return (struct zq_rows){.f = s->simulated, .ld = n};
}
