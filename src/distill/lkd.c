/* The loop over one block. */
#include "distill/lkd.h"

#include "distill/optimizer.h"
#include "distill/order.h"

#include <math.h>

static size_t values_of(const struct zq_lkd *run) /* of one sample */
{
    return run->samples.length * run->s->config.width;
}

static void drop(const struct zq_lkd *run, size_t first, size_t n)
{
    zq_keeper_drop(&run->samples.keeper, run->samples.x + first, n);
    zq_keeper_drop(&run->samples.keeper, run->samples.target + first, n);
}

/* What the loss is taken of: batch_out against a target. */
static struct zq_loss_pass loss_of(const struct zq_lkd *run, const float *target, float *dy)
{
    const struct zq_student *s = run->s;
    return (struct zq_loss_pass){run->options.loss == ZQ_LOSS_KL, s->batch_out, target, s->n_tokens, s->config.width, dy, s->row_sums};
}

void zq_lkd_teach(struct zq_student *s, const struct zq_lkd_samples *samples, size_t batch, float *target)
{
    const size_t n_values = samples->length * s->config.width;
    for (size_t i = 0; i < samples->n; i += batch) {
        const size_t n = samples->n - i < batch ? samples->n - i : batch;
        zq_student_forward_samples(s, samples->x + i * n_values, n, samples->length, false, target + i * n_values);
    }
}

static zq_status check(const struct zq_student *s, const struct zq_lkd_samples *samples, const struct zq_lkd_options *o, zq_error *err)
{
    const bool fits = o->batch && o->batch <= s->max_sequences && samples->length && samples->length <= s->max_length &&
                      o->batch <= s->max_tokens / samples->length;
    if (!fits || !s->adam)
        return zq_fail(err, ZQ_EINVAL, "batches of %zu samples of %zu tokens do not fit a block made for %zu samples, %zu tokens each, %zu in all",
                       o->batch, samples->length, s->adam ? s->max_sequences : 0, s->max_length, s->max_tokens);
    if (!(o->holdout >= 0 && o->holdout < 1)) return zq_fail(err, ZQ_EINVAL, "a share of %g to hold out, expected 0 <= share < 1", o->holdout);
    return ZQ_OK;
}

zq_status zq_lkd_begin(struct zq_lkd *run, struct zq_student *s, const struct zq_lkd_samples *samples, const struct zq_lkd_options *options,
                       zq_error *err)
{
    *run = (struct zq_lkd){.s = s, .samples = *samples, .options = *options};
    zq_status st = check(s, samples, options, err);
    if (st) return st;
    run->n_held = (size_t)rint(options->holdout * (double)samples->n);
    if (!run->n_held && options->holdout > 0) run->n_held = 1;
    if (run->n_held >= samples->n)
        return zq_fail(err, ZQ_EINVAL, "of %zu samples %zu are held out, and none is left to train on", samples->n, run->n_held);
    s->ops->copy(s->self, s->start, s->params, s->n_params * sizeof *s->start);
    s->ops->clear(s->self, s->moments, 2 * s->n_params * sizeof *s->moments);
    run->diverged = !zq_student_quantize(s);
    run->before = zq_lkd_judge(run);
    return ZQ_OK;
}

void zq_lkd_step(struct zq_lkd *run)
{
    struct zq_student *s = run->s;
    const size_t batch = run->options.batch, n_values = values_of(run);
    if (run->iteration >= run->options.n_iterations || run->diverged) return;
    for (size_t i = 0; i < batch; i++) {
        const size_t at = zq_order_at(run->samples.n - run->n_held, run->options.seed, (uint64_t)run->iteration * batch + i) * n_values;
        s->ops->copy(s->self, s->batch_x + i * n_values, run->samples.x + at, n_values * sizeof(float));
        s->ops->copy(s->self, s->batch_target + i * n_values, run->samples.target + at, n_values * sizeof(float));
        drop(run, at, n_values);
    }
    zq_student_forward_samples(s, s->batch_x, batch, run->samples.length, true, s->batch_out);
    const struct zq_loss_pass loss = loss_of(run, s->batch_target, s->batch_out);
    s->ops->loss(s->self, &loss);
    zq_student_backward(s, s->batch_out, NULL);
    run->iteration++;
    const struct zq_adamw_pass adamw = zq_adamw_pass_at(run->options.rate, run->iteration, s->params, s->grads, s->moments, s->n_params);
    s->ops->adamw(s->self, &adamw);
    run->diverged = !zq_student_quantize(s);
}

double zq_lkd_judge(const struct zq_lkd *run)
{
    struct zq_student *s = run->s;
    const size_t first = run->n_held ? run->samples.n - run->n_held : 0, n_values = values_of(run);
    double total = 0;
    if (run->diverged) return INFINITY;
    const enum zq_factors factors = zq_student_judges(s);
    for (size_t i = first; i < run->samples.n; i += run->options.batch) {
        const size_t n = run->samples.n - i < run->options.batch ? run->samples.n - i : run->options.batch;
        zq_student_forward_samples(s, run->samples.x + i * n_values, n, run->samples.length, true, s->batch_out);
        const struct zq_loss_pass loss = loss_of(run, run->samples.target + i * n_values, NULL);
        total += zq_student_loss(s, &loss) * (double)n;
        drop(run, i * n_values, n * n_values);
    }
    s->factors = factors;
    return total / (double)(run->samples.n - first);
}

static void restore(struct zq_lkd *run)
{
    struct zq_student *s = run->s;
    s->ops->copy(s->self, s->params, s->start, s->n_params * sizeof *s->params);
    zq_student_quantize(s);
}

double zq_lkd_end(struct zq_lkd *run)
{
    const double after = zq_lkd_judge(run);
    if (after < run->before) return after;
    restore(run);
    return run->before;
}

zq_status zq_lkd_rate(double *rate, struct zq_student *s, const struct zq_lkd_samples *samples, const struct zq_lkd_options *options,
                      zq_error *err)
{
    enum { RATES = 5, STEPS = 20 };
    double best = INFINITY;
    *rate = 0;
    for (int i = 0; i < RATES; i++) {
        struct zq_lkd trial;
        struct zq_lkd_options o = *options;
        o.n_iterations = STEPS;
        o.rate = 5e-6 * pow(4, i);
        zq_status st = zq_lkd_begin(&trial, s, samples, &o, err);
        if (st) return st;
        for (size_t k = 0; k < STEPS; k++) zq_lkd_step(&trial);
        const double loss = zq_lkd_judge(&trial);
        if (i == 0 || loss < best) {
            best = loss;
            *rate = o.rate;
        }
        restore(&trial);
    }
    if (options->n_iterations > STEPS) *rate *= (double)STEPS / (double)options->n_iterations;
    return ZQ_OK;
}
