/* Values and slopes of the activation functions. The slope is recomputed from the input: cheaper than keeping a second array
 * per token. Each function gets its own loop, so that it can be a vector loop. */
#include "distill/activation.h"

#include "base/clones.h"
#include "base/threads.h"
#include "distill/exp.h"

struct point {
    float y, slope;
};

/* x sigmoid(v(x)), v' = slope of v */
static inline struct point times_sigmoid(float x, float v, float v_slope)
{
    const float s = 1 / (1 + zq_exp(-v));
    return (struct point){x * s, s + x * s * (1 - s) * v_slope};
}

/* The normal distribution's upper tail at t = |x| is exp(P(t)), see polynomials.h. */
static inline struct point gelu(float x)
{
    float t = x < 0 ? -x : x;
    t = t > gelu_limit ? gelu_limit : t;
    float p = gelu_p[ZQ_LEN(gelu_p) - 1];
    for (size_t i = ZQ_LEN(gelu_p) - 1; i-- > 0;) p = p * t + gelu_p[i];
    const float tail = zq_exp(p), density = 0.39894228f * zq_exp(-0.5f * t * t); /* 1 / sqrt(2 pi) */
    return (struct point){(x > 0 ? x : 0) - t * tail, (x > 0 ? 1 - tail : tail) + x * density};
}

/* x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline struct point gelu_tanh(float x)
{
    const float a = 1.59576912f, b = 0.0713548163f; /* 2 sqrt(2 / pi), and that times 0.044715 */
    return times_sigmoid(x, x * (a + b * x * x), a + 3 * b * x * x);
}

static inline struct point hyperbolic(float x)
{
    const float y = 1 - 2 / (zq_exp(2 * x) + 1);
    return (struct point){y, 1 - y * y};
}

static inline struct point evaluate(enum zq_activation act, float x)
{
    switch (act) {
    case ZQ_ACT_NONE: return (struct point){x, 1};
    case ZQ_ACT_RELU: return (struct point){x > 0 ? x : 0, x > 0 ? 1 : 0};
    case ZQ_ACT_GELU: return gelu(x);
    case ZQ_ACT_GELU_TANH: return gelu_tanh(x);
    case ZQ_ACT_SILU: return times_sigmoid(x, x, 1);
    case ZQ_ACT_QUICK_GELU: return times_sigmoid(x, 1.702f * x, 1.702f);
    case ZQ_ACT_TANH: return hyperbolic(x);
    }
    return (struct point){x, 1};
}

struct activation_work {
    struct zq_activation_pass p;
    float *out;
    const float *dy;
    float *du, *dtimes;
};

static inline void forward_as(enum zq_activation act, const struct activation_work *w, size_t begin, size_t end)
{
    const float *u = w->p.u, *times = w->p.times;
    float *out = w->out;
    if (times)
        for (size_t i = begin; i < end; i++) out[i] = evaluate(act, u[i]).y * times[i];
    else
        for (size_t i = begin; i < end; i++) out[i] = evaluate(act, u[i]).y;
}

static inline void backward_as(enum zq_activation act, const struct activation_work *w, size_t begin, size_t end)
{
    const float *u = w->p.u, *times = w->p.times, *dy = w->dy;
    float *du = w->du, *dtimes = w->dtimes;
    if (times) {
        for (size_t i = begin; i < end; i++) {
            const struct point a = evaluate(act, u[i]);
            const float d = dy[i], gate = times[i];
            dtimes[i] = d * a.y;
            du[i] = d * gate * a.slope;
        }
    } else {
        for (size_t i = begin; i < end; i++) du[i] = dy[i] * evaluate(act, u[i]).slope;
    }
}

/* Calls one(ACT, w, begin, end) with a constant ACT. */
#define EACH_ACTIVATION(X) X(NONE) X(RELU) X(GELU) X(GELU_TANH) X(SILU) X(QUICK_GELU) X(TANH)
#define FORWARD_CASE(name) case ZQ_ACT_##name: forward_as(ZQ_ACT_##name, w, begin, end); break;
#define BACKWARD_CASE(name) case ZQ_ACT_##name: backward_as(ZQ_ACT_##name, w, begin, end); break;

ZQ_CLONES static void forward_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct activation_work *w = work;
    switch (w->p.act) { EACH_ACTIVATION(FORWARD_CASE) }
}

ZQ_CLONES static void backward_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct activation_work *w = work;
    switch (w->p.act) { EACH_ACTIVATION(BACKWARD_CASE) }
}

enum { GRAIN = 4096 };

void zq_activation_forward(const struct zq_activation_pass *p, float *out, int n_threads)
{
    struct activation_work work = {.p = *p, .out = out};
    zq_parallel(n_threads, p->n, GRAIN, forward_range, &work);
}

void zq_activation_backward(const struct zq_activation_pass *p, const float *dy, float *du, float *dtimes, int n_threads)
{
    struct activation_work work = {.p = *p, .dy = dy, .du = du, .dtimes = dtimes};
    zq_parallel(n_threads, p->n, GRAIN, backward_range, &work);
}
