/* Training's operators on rows and single values, as kernels/training.h says; attention is in training_attend.cuh. Everything here gives the
 * processor's bits but for sums in double, which are added in another order. */
#ifndef ZQ_CUDA_TRAINING_CUH
#define ZQ_CUDA_TRAINING_CUH

#include "cuda/math.cuh"
#include "kernels/training.h"

/* A block takes so many values, each thread every 256th of them; columns of which it adds up so many, by so many threads each; rows of a norm. */
enum { TRAIN_THREADS = 256, TRAIN_VALUES = 2048, TRAIN_COLUMNS = 32, TRAIN_PARTS = TRAIN_THREADS / TRAIN_COLUMNS, TRAIN_ROWS = TRAIN_THREADS / 16,
       TRAIN_WARPS = TRAIN_THREADS / 32 };

/* ---- values --------------------------------------------------------------------------------------------------------- */

/* distill/exp.h: the same operations. */
DEVICE float training_exp(float x)
{
    x = x < -87 ? -87 : x;
    x = x > 88 ? 88 : x;
    const float shifted = add(mul(x, exp_log2e), 0x1.8p23f), n = sub(shifted, 0x1.8p23f);
    const float r = sub(sub(x, mul(n, exp_ln2_high)), mul(n, exp_ln2_low));
    float p = exp_p[4];
    UNROLL
    for (int i = 3; i >= 0; i--) p = add(exp_p[i], mul(r, p));
    return mul(add(1, add(r, mul(mul(r, r), p))), bits_float((float_bits(shifted) << 23) + 0x3f800000u));
}

struct activation_point {
    float y, slope;
};

/* distill/activation.c: x sigmoid(v(x)), v' = v_slope */
DEVICE activation_point point_times_sigmoid(float x, float v, float v_slope)
{
    const float s = divide(1, add(1, training_exp(sub(0, v)))), y = mul(x, s);
    return activation_point{y, add(s, mul(mul(y, sub(1, s)), v_slope))};
}

DEVICE activation_point point_gelu(float x)
{
    const float t = smaller(magnitude(x), gelu_limit);
    float p = gelu_p[sizeof gelu_p / sizeof *gelu_p - 1];
    UNROLL
    for (int i = (int)(sizeof gelu_p / sizeof *gelu_p) - 2; i >= 0; i--) p = add(mul(p, t), gelu_p[i]);
    const float tail = training_exp(p), density = mul(0.39894228f, training_exp(mul(mul(-0.5f, t), t)));
    return activation_point{sub(x > 0 ? x : 0, mul(t, tail)), add(x > 0 ? sub(1, tail) : tail, mul(x, density))};
}

DEVICE activation_point point_gelu_tanh(float x)
{
    const float a = 1.59576912f, b = 0.0713548163f;
    return point_times_sigmoid(x, mul(x, add(a, mul(mul(b, x), x))), add(a, mul(mul(mul(3, b), x), x)));
}

DEVICE activation_point point_tanh(float x)
{
    const float y = sub(1, divide(2, add(training_exp(mul(2, x)), 1)));
    return activation_point{y, sub(1, mul(y, y))};
}

DEVICE activation_point activation_at(enum zq_activation act, float x)
{
    switch (act) {
    case ZQ_ACT_NONE: return activation_point{x, 1};
    case ZQ_ACT_RELU: return activation_point{x > 0 ? x : 0, x > 0 ? 1.0f : 0.0f};
    case ZQ_ACT_GELU: return point_gelu(x);
    case ZQ_ACT_GELU_TANH: return point_gelu_tanh(x);
    case ZQ_ACT_SILU: return point_times_sigmoid(x, x, 1);
    case ZQ_ACT_QUICK_GELU: return point_times_sigmoid(x, mul(1.702f, x), 1.702f);
    case ZQ_ACT_TANH: return point_tanh(x);
    }
    return activation_point{x, 1};
}

/* for (each i of this thread's values below n) */
#define EACH_VALUE(i, n)                                                                                               \
    for (size_t i = (size_t)block_x() * TRAIN_VALUES + thread_x(), end_##i = i - thread_x() + TRAIN_VALUES;            \
         i < end_##i && i < (n); i += TRAIN_THREADS)
/* The same for the columns of row block_x() */
#define EACH_COLUMN(i, n)                                                                                              \
    for (size_t i = (size_t)block_y() * TRAIN_VALUES + thread_x(), end_##i = i - thread_x() + TRAIN_VALUES;            \
         i < end_##i && i < (n); i += TRAIN_THREADS)

struct activate_args {
    struct zq_activation_pass a;
    float *out;
    const float *dy;
    float *du, *dtimes;
};

KERNEL(TRAIN_THREADS) train_activate(const activate_args args)
{
    EACH_VALUE(i, args.a.n) {
        const float y = activation_at(args.a.act, args.a.u[i]).y;
        args.out[i] = args.a.times ? mul(y, args.a.times[i]) : y;
    }
}

KERNEL(TRAIN_THREADS) train_activate_back(const activate_args args)
{
    EACH_VALUE(i, args.a.n) {
        const activation_point at = activation_at(args.a.act, args.a.u[i]);
        const float d = args.dy[i];
        if (args.a.times) {
            const float gate = args.a.times[i];
            args.dtimes[i] = mul(d, at.y);
            args.du[i] = mul(mul(d, gate), at.slope);
        } else {
            args.du[i] = mul(d, at.slope);
        }
    }
}

KERNEL(TRAIN_THREADS) train_start(const struct zq_rows_start a)
{
    const size_t row = block_x();
    EACH_COLUMN(i, a.n) a.out[row * a.ld + i] = a.residual ? add(a.residual[row * a.n + i], a.bias[i]) : a.bias[i];
}

/* to [n_rows, ld_to] = from [n_rows, ld] as BF16; a NaN stays one, so that what diverges is seen. */
struct halve_args {
    const float *from;
    size_t ld;
    uint16_t *to;
    size_t ld_to, n;
};
KERNEL(TRAIN_THREADS) train_halve(const halve_args a)
{
    const float *from = a.from + (size_t)block_x() * a.ld;
    uint16_t *to = a.to + (size_t)block_x() * a.ld_to;
    EACH_COLUMN(i, a.n - MUTANT(37)) to[i] = from[i] != from[i] ? 0x7fc0 : half_form(ZQ_BF16, from[i]);
}

struct values_args {
    float *x;
    const float *y, *less;
    float by;
    size_t n;
};
KERNEL(TRAIN_THREADS) train_add(const values_args a) { EACH_VALUE(i, a.n) a.x[i] = add(a.x[i], a.y[i]); }
KERNEL(TRAIN_THREADS) train_add_difference(const values_args a) { EACH_VALUE(i, a.n) a.x[i] = add(a.x[i], mul(a.by, sub(a.y[i], a.less[i]))); }
KERNEL(TRAIN_THREADS) train_scale(const values_args a) { EACH_VALUE(i, a.n) a.x[i] = mul(a.x[i], a.by); }

KERNEL(TRAIN_THREADS) train_adamw(const struct zq_adamw_pass a)
{
    EACH_VALUE(i, a.n) {
        const float g = a.grads[i], m = add(mul(a.b1, a.first[i]), mul(sub(1, a.b1), g));
        const float v = add(mul(a.b2, a.second[i]), mul(mul(sub(1, a.b2), g), g));
        a.first[i] = m;
        a.second[i] = v;
        a.params[i] = sub(mul(a.params[i], a.keep), mul(a.rate, divide(m, add(mul(root(v), a.correction), a.eps))));
    }
}

KERNEL(TRAIN_THREADS) train_signs(const struct zq_sign_pass a)
{
    EACH_VALUE(i, a.n) {
        const float g = add(a.mean[i], mul(a.share, sub(a.grads[i], a.mean[i]))), step = g > 0 ? a.rate : g < 0 ? -a.rate : 0;
        const float wish = sub(a.params[i], step), p = wish > a.limit ? a.limit : wish < -a.limit ? -a.limit : wish;
        a.mean[i] = g;
        a.params[i] = p;
        a.settled[i] = add(a.settled[i], mul(a.share, sub(p, a.settled[i])));
    }
}

/* ---- sums ----------------------------------------------------------------------------------------------------------- */

struct columns_args {
    const float *x;
    size_t ld, n_rows, n;
    float *out;
    double *onto; /* in the place of out: added to */
};

/* Neighbouring threads take neighbouring columns, and those of a column every 8th row. */
KERNEL(TRAIN_THREADS) train_column_sums(const columns_args a)
{
    SHARED(double, sums, TRAIN_THREADS);
    const size_t column = (size_t)block_x() * TRAIN_COLUMNS + thread_x() % TRAIN_COLUMNS;
    double total = 0;
    if (column < a.n)
        for (size_t r = thread_x() / TRAIN_COLUMNS; r < a.n_rows; r += TRAIN_PARTS) total += (double)a.x[r * a.ld + column];
    sums[thread_x()] = total;
    if (!MUTANT(29)) sync_block();
    if (thread_x() >= TRAIN_COLUMNS || column >= a.n) return;
    for (unsigned p = 1; p < TRAIN_PARTS; p++) total += sums[p * TRAIN_COLUMNS + thread_x()];
    if (a.onto) a.onto[column] += total;
    else a.out[column] = (float)total;
}

KERNEL(TRAIN_THREADS) train_norm_weights(const struct zq_norm_back a)
{
    SHARED(double, gammas, TRAIN_THREADS);
    SHARED(double, betas, TRAIN_THREADS);
    const struct zq_norm_pass *p = &a.pass;
    const size_t column = (size_t)block_x() * TRAIN_COLUMNS + thread_x() % TRAIN_COLUMNS;
    double gamma = 0, beta = 0;
    if (column < p->n)
        for (size_t t = thread_x() / TRAIN_COLUMNS; t < p->n_tokens; t += TRAIN_PARTS) {
            const float dy = a.dy[t * p->n + column];
            gamma += (double)mul(dy, mul(sub(p->x[t * p->n + column], p->stats[2 * t]), p->stats[2 * t + 1]));
            beta += (double)dy;
        }
    gammas[thread_x()] = gamma;
    betas[thread_x()] = beta;
    sync_block();
    if (thread_x() >= TRAIN_COLUMNS || column >= p->n) return;
    for (unsigned i = 1; i < TRAIN_PARTS; i++) {
        gamma += gammas[i * TRAIN_COLUMNS + thread_x()];
        beta += betas[i * TRAIN_COLUMNS + thread_x()];
    }
    a.dgamma[column] = (float)gamma;
    if (a.dbeta) a.dbeta[column] = (float)beta;
}

struct train_norm_args {
    struct zq_norm_pass a;
    float *out;
};

/* Half a warp takes a row, in the order of lanes(). */
KERNEL(TRAIN_THREADS) train_norm(const train_norm_args args)
{
    const struct zq_norm_pass *a = &args.a;
    const unsigned lane = thread_x() % 16;
    const size_t row = (size_t)block_x() * TRAIN_ROWS + thread_x() / 16, end = row < a->n_tokens ? a->n : 0; /* shuffles want whole warps */
    const float *x = a->x + (end ? row * a->n : 0), n = from_int((int32_t)a->n);
    float total = 0, squares = 0;
    for (size_t i = lane; i < end && !a->rms; i += 16) total = add(total, x[i]);
    const float mean = a->rms ? 0 : divide(half_warp_sum(total), n);
    for (size_t i = lane; i < end; i += 16) squares = add(squares, mul(sub(x[i], mean), sub(x[i], mean)));
    const float rate = divide(1, root(add(divide(half_warp_sum(squares), n), a->eps)));
    for (size_t i = lane; i < end; i += 16)
        args.out[row * a->n + i] = add(mul(mul(sub(x[i], mean), rate), a->gamma[i]), a->beta ? a->beta[i] : 0);
    if (lane || !end) return;
    a->stats[2 * row] = mean;
    a->stats[2 * row + 1] = rate;
}

KERNEL(TRAIN_THREADS) train_norm_inputs(const struct zq_norm_back a)
{
    const struct zq_norm_pass *p = &a.pass;
    const unsigned lane = thread_x() % 16;
    const size_t row = (size_t)block_x() * TRAIN_ROWS + thread_x() / 16, end = row < p->n_tokens ? p->n : 0, begin = end ? row * p->n : 0;
    const float *x = p->x + begin, *dy = a.dy + begin, *more = a.add ? a.add + begin : NULL, n = from_int((int32_t)p->n);
    const float mean = end ? p->stats[2 * row] : 0, rate = end ? p->stats[2 * row + 1] : 0;
    float g_sum = 0, gh_sum = 0;
    for (size_t i = lane; i < end; i += 16) {
        const float g = mul(dy[i], p->gamma[i]);
        g_sum = add(g_sum, g);
        gh_sum = add(gh_sum, mul(g, mul(sub(x[i], mean), rate)));
    }
    g_sum = half_warp_sum(g_sum);
    const float g_mean = p->rms ? 0 : divide(g_sum, n), gh_mean = divide(half_warp_sum(gh_sum), n);
    for (size_t i = lane; i < end; i += 16) {
        const float d = sub(sub(mul(dy[i], p->gamma[i]), g_mean), mul(mul(sub(x[i], mean), rate), gh_mean));
        a.dx[begin + i] = add(mul(rate, d), more ? more[i] : 0);
    }
}

DEVICE double warp_sum(double a)
{
    for (unsigned mask = 16; mask; mask /= 2) a += shuffle_xor(a, mask);
    return a;
}

/* The sum of all threads' values, for all; with `top` the largest. `parts`: [TRAIN_WARPS]. */
DEVICE double block_total(double *parts, double mine, bool top)
{
    for (unsigned mask = 16; mask; mask /= 2) {
        const double other = shuffle_xor(mine, mask);
        mine = !top ? mine + other : other > mine ? other : mine;
    }
    sync_block(); /* what was there has been read */
    if (thread_x() % 32 == 0) parts[thread_x() / 32] = mine;
    if (!MUTANT(30)) sync_block();
    mine = parts[0];
    for (unsigned w = 1; w < TRAIN_WARPS; w++) mine = !top ? mine + parts[w] : parts[w] > mine ? parts[w] : mine;
    return mine;
}

struct loss_args {
    struct zq_loss_pass a;
    float scale; /* of the gradient */
};

KERNEL(TRAIN_THREADS) train_squares(const loss_args args)
{
    SHARED(double, sums, TRAIN_WARPS);
    const struct zq_loss_pass *a = &args.a;
    const size_t row = block_x();
    double total = 0;
    for (size_t i = row * a->width + thread_x(); i < (row + 1) * a->width; i += TRAIN_THREADS) {
        const float d = sub(a->y[i], a->target[i]);
        total += (double)d * d;
        if (a->dy) a->dy[i] = mul(args.scale, d);
    }
    total = block_total(sums, total, false);
    if (thread_x() == 0) a->row_sums[row] = total;
}

/* The logarithm of the sum of exponentials of x [n], for all threads. */
DEVICE double log_sum(double *parts, const float *x, size_t n)
{
    double top = x[0], total = 0;
    for (size_t i = thread_x(); i < n; i += TRAIN_THREADS) top = x[i] > top ? x[i] : top;
    top = block_total(parts, top, true);
    for (size_t i = thread_x(); i < n; i += TRAIN_THREADS) total += exp_double(x[i] - top);
    return top + log_double(block_total(parts, total, false));
}

KERNEL(TRAIN_THREADS) train_divergence(const loss_args args)
{
    SHARED(double, parts, TRAIN_WARPS);
    const struct zq_loss_pass *a = &args.a;
    const size_t row = block_x(), begin = row * a->width;
    const double y_sum = log_sum(parts, a->y + begin, a->width), target_sum = log_sum(parts, a->target + begin, a->width);
    double total = 0;
    for (size_t i = begin + thread_x(); i < begin + a->width; i += TRAIN_THREADS) {
        const double log_q = a->y[i] - y_sum, log_p = a->target[i] - target_sum, p = exp_double(log_p);
        total += p * (log_p - log_q);
        if (a->dy) a->dy[i] = mul(args.scale, (float)(exp_double(log_q) - p));
    }
    total = block_total(parts, total, false);
    if (thread_x() == 0) a->row_sums[row] = total;
}

#endif
