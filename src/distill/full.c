/* `full`: what `fast` gives, then training. Of each weight an offset is learned that is added to it before it is rounded, so that it may go
 * to a neighbour of the code it began with and no further; of each group a factor of its scale; and biases. Offsets move by the signs
 * of their gradients, which needs neither moments nor a search for a rate: with a rate that falls to 0 each has a
 * bounded way to go (SignRound, arXiv 2309.05516). It is half of SignRound's half a code: `fast` has placed most codes well, and larger
 * steps throw many over at once that are good together only as they were.
 *
 * Inputs are the student's and the target is the teacher's output, so that a block also makes up for what those before it have lost.
 * What is best on the samples held out is kept, the start among it. */
#include "distill/solve.h"

#include "base/alloc.h"
#include "base/carve.h"
#include "base/clones.h"
#include "base/threads.h"
#include "distill/loss.h"
#include "distill/optimizer.h"
#include "distill/order.h"
#include "quant/codes.h"

#include <math.h>
#include <string.h>

/* How far from its code a weight may begin, and how far it may go by default, in codes; and rates of Adam at the start of training: of
 * factors of scales, and of biases relative to their own size. */
static const float REACH = 0.4f;
static const double TRAVEL = 0.25, SCALE_RATE = 1e-3, BIAS_RATE = 1e-3;

/* A quantized map in training. Its student's w holds the offsets, [n_rows, n_cols] in units of the scale. */
struct map {
    struct zq_student_linear *l;
    int8_t *codes;    /* [n_rows, n_cols] the solution's: the best so far */
    float *scales;    /* [n_scales] of these */
    size_t n_groups, n_scales;
    float *centres;   /* [n_rows, n_cols] weights in units of the scale, within half a code of the first code */
    float *first;     /* [n_scales] the scales that training began with */
    float *stretch;   /* [n_scales] the present ones are first * (1 + stretch), as their dtype has it */
    float *slope;     /* [n_scales] gradients of stretch, but for a positive factor */
    float *present;   /* [n_scales] */
    float *moments;   /* [2, n_scales] */
};

/* A bias. */
struct bias {
    float *values, *grads; /* [n] the student's */
    float *best;           /* [n] */
    float *moments;        /* [2, n] */
    size_t n;
    double unit;           /* root mean square of the values as training began */
};

struct training {
    struct zq_student *s;
    const struct zq_solve_samples *samples;
    const struct zq_solve_options *options;
    struct map maps[ZQ_N_LINEARS];
    struct bias biases[ZQ_N_LINEARS];
    size_t n_maps, n_biases;
    float *x, *target, *out; /* [max_tokens, width] */
    double *sums;            /* [max_tokens] */
    void *memory;
    double best;             /* loss on the samples that judge */
};

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static void carve_map(struct training *t, struct zq_carver *c, struct zq_student_linear *l)
{
    struct map *m = &t->maps[t->n_maps++];
    m->l = l;
    m->n_groups = zq_spec_n_groups(l->layout.spec, l->n_cols);
    m->n_scales = l->n_rows * m->n_groups;
    m->centres = zq_carve_floats(c, l->n_rows, l->n_cols);
    m->first = zq_carve_floats(c, m->n_scales, 1);
    m->stretch = zq_carve_floats(c, m->n_scales, 1);
    m->slope = zq_carve_floats(c, m->n_scales, 1);
    m->present = zq_carve_floats(c, m->n_scales, 1);
    m->moments = zq_carve_floats(c, 2, m->n_scales);
}

static void carve_bias(struct training *t, struct zq_carver *c, float *values, float *grads, size_t n)
{
    if (!n) return;
    struct bias *b = &t->biases[t->n_biases++];
    *b = (struct bias){.values = values, .grads = grads, .n = n};
    b->best = zq_carve_floats(c, n, 1);
    b->moments = zq_carve_floats(c, 2, n);
}

static void carve_all(struct training *t, struct zq_carver *c)
{
    struct zq_student *s = t->s;
    const size_t width = s->config.width;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        struct zq_student_linear *l = &s->linear[r];
        if (l->n_rows && l->layout.spec.w_bits < 16) carve_map(t, c, l);
        carve_bias(t, c, l->bias, l->dbias, l->has_bias ? l->n_rows : 0);
    }
    t->x = zq_carve_floats(c, s->max_tokens, width);
    t->target = zq_carve_floats(c, s->max_tokens, width);
    t->out = zq_carve_floats(c, s->max_tokens, width);
    t->sums = zq_carve(c, s->max_tokens, sizeof *t->sums);
}

size_t zq_full_bytes(const struct zq_student *s)
{
    struct zq_student shape = *s;
    struct training t = {.s = &shape};
    struct zq_carver c = {0};
    for (int r = 0; r < ZQ_N_LINEARS; r++) shape.linear[r].has_bias = true; /* not known before the file is read */
    carve_all(&t, &c);
    const size_t fast = zq_fast_bytes(s);
    return c.used > fast ? c.used : fast;
}

static bool take(struct training *t)
{
    struct zq_carver measure = {0}, c = {0};
    struct training shape = *t;
    carve_all(&shape, &measure);
    t->memory = c.base = zq_alloc_zero(measure.used);
    if (t->memory) carve_all(t, &c);
    return t->memory;
}

/* ---- rounding ----------------------------------------------------------------------------------------------------- */

static float stored(float scale, enum zq_dtype dtype)
{
    uint8_t bytes[4];
    zq_from_float(bytes, dtype, &scale, 1);
    zq_to_float(&scale, bytes, dtype, 1);
    return scale;
}

/* Weights as `fast` left them to offsets of 0: its codes may lie further than half a code from the weights, which are drawn to them so
 * far that a step may still take them across. */
static void begin_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct map *m = work;
    const size_t n = m->l->n_cols, length = n / m->n_groups;
    for (size_t k = begin * n; k < end * n; k++) {
        const float code = m->codes[k], away = m->l->w[k] / m->first[k / length] - code;
        m->centres[k] = code + (away > REACH ? REACH : away < -REACH ? -REACH : away);
        m->l->w[k] = 0;
    }
}

static void begin_map(struct training *t, struct map *m)
{
    memcpy(m->first, m->scales, m->n_scales * sizeof *m->first);
    memcpy(m->present, m->scales, m->n_scales * sizeof *m->present);
    zq_parallel(t->s->n_threads, m->l->n_rows, 8, begin_range, m);
}

/* fake = what offsets and factors come to. */
ZQ_CLONES static void place_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct map *m = work;
    const struct zq_code_format *f = zq_code_format(m->l->layout.spec.w_bits);
    const float min = (float)f->min, max = (float)f->max;
    const size_t length = m->l->n_cols / m->n_groups;
    for (size_t g = begin * m->n_groups; g < end * m->n_groups; g++) {
        const float scale = stored(m->first[g] * (1 + m->stretch[g]), m->l->layout.scale_dtype);
        m->present[g] = scale > 0 ? scale : m->first[g];
        for (size_t k = g * length; k < (g + 1) * length; k++)
            m->l->fake[k] = zq_nearest_code(m->centres[k] + m->l->w[k], min, max) * m->present[g];
    }
}

/* Gradients of factors; where a weight lies beyond the last code, its offset has none. */
ZQ_CLONES static void slope_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct map *m = work;
    const struct zq_code_format *f = zq_code_format(m->l->layout.spec.w_bits);
    const float min = (float)f->min - 0.5f, max = (float)f->max + 0.5f;
    const size_t length = m->l->n_cols / m->n_groups;
    for (size_t g = begin * m->n_groups; g < end * m->n_groups; g++) {
        double slope = 0;
        for (size_t k = g * length; k < (g + 1) * length; k++) {
            const float x = m->centres[k] + m->l->w[k];
            slope += (double)m->l->dw[k] * m->l->fake[k];
            if (x < min || x > max) m->l->dw[k] = 0;
        }
        m->slope[g] = (float)slope;
    }
}

/* Rows that share a scale share its factor. */
static void share_slopes(struct map *m)
{
    const size_t n_groups = m->l->layout.row_groups, n_rows = m->l->n_rows;
    for (size_t g = 0; g < n_groups; g++) {
        const size_t first = zq_row_group_begin(g, n_rows, n_groups), last = zq_row_group_begin(g + 1, n_rows, n_groups);
        double slope = 0;
        for (size_t r = first; r < last; r++) slope += m->slope[r];
        for (size_t r = first; r < last; r++) m->slope[r] = (float)slope;
    }
}

static void keep_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct map *m = work;
    const size_t n = m->l->n_cols, length = n / m->n_groups;
    for (size_t k = begin * n; k < end * n; k++) m->codes[k] = (int8_t)rintf(m->l->fake[k] / m->present[k / length]);
    memcpy(m->scales + begin * m->n_groups, m->present + begin * m->n_groups, (end - begin) * m->n_groups * sizeof *m->scales);
}

static void return_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct map *m = work;
    const size_t n = m->l->n_cols, length = n / m->n_groups;
    for (size_t k = begin * n; k < end * n; k++) m->l->fake[k] = (float)m->codes[k] * m->scales[k / length];
}

/* ---- training ----------------------------------------------------------------------------------------------------- */

static void begin(struct training *t, const struct zq_solution *solution)
{
    size_t i = 0;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!solution->codes[r]) continue;
        t->maps[i].codes = solution->codes[r];
        t->maps[i].scales = solution->scales[r];
        begin_map(t, &t->maps[i++]);
    }
    for (i = 0; i < t->n_biases; i++) {
        struct bias *b = &t->biases[i];
        double square = 0;
        memcpy(b->best, b->values, b->n * sizeof *b->best);
        for (size_t k = 0; k < b->n; k++) square += (double)b->values[k] * b->values[k];
        b->unit = sqrt(square / (double)b->n);
    }
    t->best = solution->after;
}

/* Gradients of one batch. The loss is divided by the one that training began with, so that no block is too small for an optimizer. */
static void learn(struct training *t, size_t step, double scale)
{
    struct zq_student *s = t->s;
    const struct zq_solve_samples *d = t->samples;
    const size_t n_values = d->length * s->config.width;
    for (size_t i = 0; i < t->options->batch; i++) {
        const size_t at = zq_order_at(d->n - d->n_held, t->options->seed, (uint64_t)step * t->options->batch + i) * n_values;
        memcpy(t->x + i * n_values, d->student_x + at, n_values * sizeof *t->x);
        memcpy(t->target + i * n_values, d->target + at, n_values * sizeof *t->target);
        zq_keeper_drop(&d->keeper, d->student_x + at, n_values);
        zq_keeper_drop(&d->keeper, d->target + at, n_values);
    }
    zq_student_forward_even(s, t->x, t->options->batch, d->length, true, t->out);
    zq_loss_mse(t->out, t->target, s->n_tokens, s->config.width, t->out, t->sums, s->n_threads);
    for (size_t i = 0; i < t->options->batch * n_values; i++) t->out[i] *= (float)scale;
    zq_student_backward(s, t->out, NULL);
}

static void move(struct training *t, size_t step, double rate)
{
    const int n_threads = t->s->n_threads;
    const double relative = rate / t->options->rate;
    for (size_t i = 0; i < t->n_maps; i++) {
        struct map *m = &t->maps[i];
        zq_parallel(n_threads, m->l->n_rows, 8, slope_range, m);
        share_slopes(m);
        zq_signsgd_step((float)rate, 0.5f, m->l->w, m->l->dw, m->l->n_rows * m->l->n_cols, n_threads);
        zq_adamw_step(relative * SCALE_RATE, step + 1, m->stretch, m->slope, m->moments, m->n_scales, n_threads);
        zq_parallel(n_threads, m->l->n_rows, 8, place_range, m);
    }
    for (size_t i = 0; i < t->n_biases; i++) {
        struct bias *b = &t->biases[i];
        zq_adamw_step(relative * BIAS_RATE * b->unit, step + 1, b->values, b->grads, b->moments, b->n, n_threads);
    }
}

static void keep_better(struct training *t)
{
    const double loss = zq_solve_judge_held(t->s, t->samples, t->out, t->sums);
    if (!(loss < t->best)) return;
    t->best = loss;
    for (size_t i = 0; i < t->n_maps; i++) zq_parallel(t->s->n_threads, t->maps[i].l->n_rows, 8, keep_range, &t->maps[i]);
    for (size_t i = 0; i < t->n_biases; i++) memcpy(t->biases[i].best, t->biases[i].values, t->biases[i].n * sizeof(float));
}

static void end(struct training *t)
{
    for (size_t i = 0; i < t->n_maps; i++) zq_parallel(t->s->n_threads, t->maps[i].l->n_rows, 8, return_range, &t->maps[i]);
    for (size_t i = 0; i < t->n_biases; i++) memcpy(t->biases[i].values, t->biases[i].best, t->biases[i].n * sizeof(float));
}

static zq_status train(struct training *t, struct zq_solution *solution, zq_error *err)
{
    enum { JUDGED = 20 };
    const size_t n = t->options->n_iterations, every = n / JUDGED ? n / JUDGED : 1;
    const double scale = solution->after > 0 ? 1 / solution->after : 1;
    zq_status st = ZQ_OK;
    begin(t, solution);
    for (size_t step = 0; step < n && !st; step++) {
        learn(t, step, scale);
        move(t, step, t->options->rate * (1 - (double)step / (double)n));
        if ((step + 1) % every == 0 || step + 1 == n) keep_better(t);
        if (t->options->tick) st = t->options->tick(t->options->user, err);
    }
    end(t);
    solution->fell_back = !(t->best < solution->after);
    solution->after = t->best;
    return st;
}

zq_status zq_solve_full(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *options,
                        struct zq_solution *solution, zq_error *err)
{
    struct zq_solve_options o = *options;
    struct training t = {.s = s, .samples = samples, .options = &o};
    if (!(o.rate > 0)) o.rate = o.n_iterations ? 2 * TRAVEL / (double)o.n_iterations : 1;
    if (!o.batch || o.batch > s->max_sequences || o.batch * samples->length > s->max_tokens)
        return zq_fail(err, ZQ_EINVAL, "a batch of %zu samples of %zu tokens does not fit the block's memory", o.batch, samples->length);
    zq_status st = zq_solve_fast(s, samples, options, solution, err);
    if (st) return st;
    st = take(&t) ? train(&t, solution, err) : zq_fail(err, ZQ_ENOMEM, "no memory to train a block: %zu bytes", zq_full_bytes(s));
    zq_free(t.memory);
    return st;
}
