/* `full`: what `fast` gives, then training. Of each weight an offset is learned that is added to it before it is rounded, so that it may go
 * to a neighbour of the code it began with and no further; of each group a factor of its scale; and biases. Offsets move by the signs
 * of their gradients, which needs neither second moments nor a search for a rate: with a rate that falls to 0 each has a
 * bounded way to go (SignRound, arXiv 2309.05516). It is half of SignRound's half a code: `fast` has placed most codes well, and larger
 * steps throw many over at once that are good together only as they were. For the same reason signs are those of running means of the gradients, and
 * what is judged and kept are running means of the offsets: while the rate is not yet small, many weights cross to and fro between two codes at
 * any moment, which costs more than all that is learned wins (after half the steps 1.4 times the error of the start on the first block of
 * stories260k, where the means leave 0.77 in the end, and offsets as they are 0.91).
 *
 * Inputs are the student's and the target is the teacher's output, so that a block also makes up for what those before it have lost.
 * What is best on the samples held out is kept, the start among it. */
#include "distill/solve.h"

#include "base/alloc.h"
#include "base/carve.h"
#include "distill/optimizer.h"
#include "distill/order.h"
#include "distill/twin.h"

#include <math.h>
#include <string.h>

/* How far from its code a weight may begin, and how far it may go by default, in codes; and rates of Adam at the start of training: of
 * factors of scales, and of biases relative to their own size. */
static const float REACH = 0.4f;
static const double TRAVEL = 0.25, SCALE_RATE = 1e-3, BIAS_RATE = 1e-3;

/* A quantized map in training: its student's w holds the offsets. */
struct map {
    int role;
    struct zq_rounding r;
    size_t n_scales;
    float *moments;        /* [2, n_scales] */
    float *mean, *settled; /* [n_rows, n_cols] running means of the offsets' gradients, and of the offsets */
};

/* A bias. */
struct bias {
    int role;
    float *values, *grads; /* [n] the student's */
    float *best;           /* [n] */
    float *moments;        /* [2, n] */
    size_t n;
    double unit;           /* root mean square of the values as training began */
};

/* Arrays lie with the student that is trained. */
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

static void carve_map(struct training *t, struct zq_carver *c, int role)
{
    struct zq_student_linear *l = &t->s->linear[role];
    struct map *m = &t->maps[t->n_maps++];
    const size_t n_groups = zq_spec_n_groups(l->layout.spec, l->n_cols);
    *m = (struct map){.role = role, .n_scales = l->n_rows * n_groups};
    m->r = (struct zq_rounding){
        .n_rows = l->n_rows, .n_cols = l->n_cols, .n_groups = n_groups, .bits = l->layout.spec.w_bits, .scale_dtype = l->layout.scale_dtype,
        .row_groups = l->layout.row_groups, .w = l->w, .fake = l->fake, .dw = l->dw, .reach = REACH,
    };
    if (t->s->ops->on_device) { /* else those of the solution */
        m->r.codes = zq_carve(c, l->n_rows * l->n_cols, 1);
        m->r.scales = zq_carve_floats(c, m->n_scales, 1);
    }
    m->r.centres = zq_carve_floats(c, l->n_rows, l->n_cols);
    m->r.first = zq_carve_floats(c, m->n_scales, 1);
    m->r.stretch = zq_carve_floats(c, m->n_scales, 1);
    m->r.slope = zq_carve_floats(c, m->n_scales, 1);
    m->r.present = zq_carve_floats(c, m->n_scales, 1);
    m->moments = zq_carve_floats(c, 2, m->n_scales);
    m->mean = zq_carve_floats(c, l->n_rows, l->n_cols);
    m->settled = zq_carve_floats(c, l->n_rows, l->n_cols);
}

static void carve_bias(struct training *t, struct zq_carver *c, int role)
{
    const struct zq_student_linear *l = &t->s->linear[role];
    struct bias *b = &t->biases[t->n_biases++];
    *b = (struct bias){.role = role, .values = l->bias, .grads = l->dbias, .n = l->n_rows};
    b->best = zq_carve_floats(c, b->n, 1);
    b->moments = zq_carve_floats(c, 2, b->n);
}

static void carve_all(struct training *t, struct zq_carver *c)
{
    struct zq_student *s = t->s;
    const size_t width = s->config.width;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        if (l->n_rows && l->layout.spec.w_bits < 16) carve_map(t, c, r);
        if (l->n_rows && l->has_bias) carve_bias(t, c, r);
    }
    t->x = zq_carve_floats(c, s->max_tokens, width);
    t->target = zq_carve_floats(c, s->max_tokens, width);
    t->out = zq_carve_floats(c, s->max_tokens, width);
    t->sums = zq_carve(c, s->max_tokens, sizeof *t->sums);
}

size_t zq_full_bytes(const struct zq_student *s, bool away)
{
    struct zq_student shape = *s;
    struct training t = {.s = &shape};
    struct zq_carver c = {0};
    for (int r = 0; r < ZQ_N_LINEARS; r++) shape.linear[r].has_bias = true; /* not known before the file is read */
    const size_t fast = zq_fast_bytes(s, away), judged = zq_solution_bytes(s) + s->max_tokens * (s->config.width * sizeof(float) + sizeof(double));
    if (!away) carve_all(&t, &c); /* else it is trained there, and judged here */
    else c.used = judged;
    return c.used > fast ? c.used : fast;
}

static bool take(struct training *t)
{
    struct zq_carver measure = {0}, c = {0};
    struct training shape = *t;
    carve_all(&shape, &measure);
    t->memory = c.base = t->s->ops->alloc(t->s->self, measure.used);
    if (t->memory) carve_all(t, &c);
    return t->memory;
}

/* ---- training ----------------------------------------------------------------------------------------------------- */

/* original: the student on this processor, whose weights those of t->s are. */
static void begin(struct training *t, const struct zq_student *original, const struct zq_solution *solution)
{
    struct zq_student *s = t->s;
    for (size_t i = 0; i < t->n_maps; i++) {
        struct map *m = &t->maps[i];
        if (s->ops->on_device) {
            s->ops->upload(s->self, m->r.codes, solution->codes[m->role], m->r.n_rows * m->r.n_cols);
            s->ops->upload(s->self, m->r.scales, solution->scales[m->role], m->n_scales * sizeof(float));
            s->ops->decode(s->self, &m->r);
        } else {
            m->r.codes = solution->codes[m->role];
            m->r.scales = solution->scales[m->role];
        }
        s->ops->begin_rounding(s->self, &m->r);
    }
    for (size_t i = 0; i < t->n_biases; i++) {
        struct bias *b = &t->biases[i];
        const float *values = original->linear[b->role].bias;
        double square = 0;
        s->ops->copy(s->self, b->best, b->values, b->n * sizeof *b->best);
        for (size_t k = 0; k < b->n; k++) square += (double)values[k] * values[k];
        b->unit = sqrt(square / (double)b->n);
    }
    t->best = s->ops->on_device ? zq_solve_judge_held(s, t->samples, t->out, t->sums) : solution->after;
}

/* Gradients of one batch. The loss is divided by the one that training began with, so that no block is too small for an optimizer. */
static void learn(struct training *t, size_t step, double scale)
{
    struct zq_student *s = t->s;
    const struct zq_solve_samples *d = t->samples;
    const size_t n_values = d->length * s->config.width;
    for (size_t i = 0; i < t->options->batch; i++) {
        const size_t at = zq_order_at(d->n - d->n_held, t->options->seed, (uint64_t)step * t->options->batch + i) * n_values;
        s->ops->copy(s->self, t->x + i * n_values, d->student_x + at, n_values * sizeof *t->x);
        s->ops->copy(s->self, t->target + i * n_values, d->target + at, n_values * sizeof *t->target);
        zq_keeper_drop(&d->keeper, d->student_x + at, n_values);
        zq_keeper_drop(&d->keeper, d->target + at, n_values);
    }
    zq_student_forward_samples(s, t->x, t->options->batch, d->length, true, t->out);
    s->ops->loss(s->self, &(struct zq_loss_pass){false, t->out, t->target, s->n_tokens, s->config.width, t->out, t->sums});
    s->ops->scale(s->self, t->out, (float)scale, t->options->batch * n_values);
    zq_student_backward(s, t->out, NULL);
}

/* Makes the maps what the offsets come to, or their means. */
static void place(struct training *t, bool settled)
{
    for (size_t i = 0; i < t->n_maps; i++) {
        struct zq_rounding r = t->maps[i].r;
        if (settled) r.w = t->maps[i].settled;
        t->s->ops->round(t->s->self, &r);
        zq_student_pack(t->s, (enum zq_linear_role)t->maps[i].role, r.present);
    }
}

/* Biases learn from texts alone: means of random ids are not those of texts. */
static void move(struct training *t, size_t step, double rate)
{
    struct zq_student *s = t->s;
    const size_t window = t->options->n_iterations / 10; /* steps that a running mean looks back on: fewer, and noise is left; more, and it lags */
    const float share = 1 / (float)(window ? window : 1);
    const double relative = rate / t->options->rate;
    struct zq_adamw_pass adamw;
    for (size_t i = 0; i < t->n_maps; i++) {
        const struct map *m = &t->maps[i];
        s->ops->slopes(s->self, &m->r);
        s->ops->signsgd(s->self, &(struct zq_sign_pass){
            .params = m->r.w, .mean = m->mean, .settled = m->settled, .grads = m->r.dw, .n = m->r.n_rows * m->r.n_cols, .share = share,
            .rate = (float)rate, .limit = 0.5f,
        });
        adamw = zq_adamw_pass_at(relative * SCALE_RATE, step + 1, m->r.stretch, m->r.slope, m->moments, m->n_scales);
        s->ops->adamw(s->self, &adamw);
    }
    for (size_t i = 0; i < t->n_biases; i++) {
        const struct bias *b = &t->biases[i];
        adamw = zq_adamw_pass_at(relative * (1 - t->options->chance) * BIAS_RATE * b->unit, step + 1, b->values, b->grads, b->moments, b->n);
        s->ops->adamw(s->self, &adamw);
    }
}

/* Judges what is settled, and leaves it in place. */
static void keep_better(struct training *t)
{
    struct zq_student *s = t->s;
    place(t, true);
    const double loss = zq_solve_judge_held(s, t->samples, t->out, t->sums);
    if (!(loss < t->best)) return;
    t->best = loss;
    for (size_t i = 0; i < t->n_maps; i++) s->ops->keep_rounding(s->self, &t->maps[i].r);
    for (size_t i = 0; i < t->n_biases; i++) s->ops->copy(s->self, t->biases[i].best, t->biases[i].values, t->biases[i].n * sizeof(float));
}

/* Back to the best. */
static void end(struct training *t)
{
    struct zq_student *s = t->s;
    for (size_t i = 0; i < t->n_maps; i++) s->ops->decode(s->self, &t->maps[i].r);
    for (size_t i = 0; i < t->n_biases; i++) s->ops->copy(s->self, t->biases[i].values, t->biases[i].best, t->biases[i].n * sizeof(float));
}

static zq_status train(struct training *t, double start, zq_error *err)
{
    enum { JUDGED = 20 };
    const size_t n = t->options->n_iterations, every = n / JUDGED ? n / JUDGED : 1;
    const double scale = start > 0 ? 1 / start : 1;
    zq_status st = ZQ_OK;
    for (size_t step = 0; step < n && !st; step++) {
        place(t, false);
        learn(t, step, scale);
        move(t, step, t->options->rate * (1 - (double)step / (double)n));
        if ((step + 1) % every == 0 || step + 1 == n) keep_better(t);
        st = zq_student_check(t->s, err);
        if (!st && t->options->tick) st = t->options->tick(t->options->user, err);
    }
    end(t);
    return st;
}

/* ---- coming back from a device ------------------------------------------------------------------------------------ */

/* Exchanges the student's biases with `others`, and makes its maps what a solution says. */
static void enter(struct zq_student *s, const struct zq_solution *solution, float **others)
{
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        for (size_t i = 0; others[r] && i < l->n_rows; i++) {
            const float other = others[r][i];
            others[r][i] = l->bias[i];
            l->bias[i] = other;
        }
        if (!solution->codes[r]) continue;
        const struct zq_rounding all = {.n_rows = l->n_rows, .n_cols = l->n_cols, .n_groups = zq_spec_n_groups(l->layout.spec, l->n_cols),
                                        .fake = l->fake, .codes = solution->codes[r], .scales = solution->scales[r]};
        s->ops->decode(s->self, &all);
    }
}

/* What the device has learned is held against where it began once more, by this processor's arithmetic: a block is never worse than its start by the
 * products that run later, whatever a device's are. */
static zq_status judge_learned(struct zq_student *s, const struct zq_solve_samples *samples, struct zq_solution *learned, float **biases,
                               struct zq_solution *solution, zq_error *err)
{
    float *out = zq_alloc_array(s->max_tokens * s->config.width, sizeof *out);
    double *sums = zq_alloc_array(s->max_tokens, sizeof *sums);
    zq_status st = out && sums ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory to judge a block");
    if (!st) {
        enter(s, learned, biases);
        const double after = zq_solve_judge_held(s, samples, out, sums);
        solution->fell_back = !(after < solution->after);
        if (solution->fell_back) {
            enter(s, solution, biases);
        } else {
            learned->before = solution->before;
            learned->after = after;
            const struct zq_solution start = *solution;
            *solution = *learned;
            *learned = start;
        }
    }
    zq_free(out);
    zq_free(sums);
    return st;
}

/* Fetches the best, and judges it here. */
static zq_status return_learned(const struct training *t, struct zq_student *original, const struct zq_solve_samples *samples,
                                struct zq_solution *solution, zq_error *err)
{
    struct zq_student *s = t->s;
    struct zq_solution learned;
    float *biases[ZQ_N_LINEARS] = {0};
    zq_status st = zq_solution_create(&learned, original, err);
    for (size_t i = 0; i < t->n_maps && !st; i++) {
        const struct map *m = &t->maps[i];
        s->ops->download(s->self, learned.codes[m->role], m->r.codes, m->r.n_rows * m->r.n_cols);
        s->ops->download(s->self, learned.scales[m->role], m->r.scales, m->n_scales * sizeof(float));
    }
    for (size_t i = 0; i < t->n_biases && !st; i++) {
        const struct bias *b = &t->biases[i];
        biases[b->role] = zq_alloc_array(b->n, sizeof(float));
        if (biases[b->role]) s->ops->download(s->self, biases[b->role], b->best, b->n * sizeof(float));
        else st = zq_fail(err, ZQ_ENOMEM, "no memory for the biases of a block");
    }
    if (!st) st = zq_student_check(s, err);
    if (!st) st = judge_learned(original, samples, &learned, biases, solution, err);
    for (int r = 0; r < ZQ_N_LINEARS; r++) zq_free(biases[r]);
    zq_solution_free(&learned);
    return st;
}

static zq_status learn_block(struct training *t, struct zq_student *original, const struct zq_solve_samples *samples, struct zq_solution *solution,
                             zq_error *err)
{
    if (!take(t)) return zq_fail(err, ZQ_ENOMEM, "no memory to train a block: %zu bytes", zq_full_bytes(t->s, t->s != original));
    begin(t, original, solution);
    zq_status st = train(t, solution->after, err);
    if (st) return st;
    if (t->s != original) return return_learned(t, original, samples, solution, err);
    solution->fell_back = !(t->best < solution->after);
    solution->after = t->best;
    return ZQ_OK;
}

zq_status zq_solve_full(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *options,
                        struct zq_solution *solution, zq_error *err)
{
    struct zq_solve_options o = *options;
    struct zq_twin twin;
    if (!(o.rate > 0)) o.rate = o.n_iterations ? 2 * TRAVEL / (double)o.n_iterations : 1;
    if (!o.batch || o.batch > s->max_sequences || o.batch * samples->length > s->max_tokens)
        return zq_fail(err, ZQ_EINVAL, "a batch of %zu samples of %zu tokens does not fit the block's memory", o.batch, samples->length);
    zq_status st = zq_solve_fast(s, samples, options, solution, err);
    if (st) return st;
    st = zq_twin_open(&twin, s, samples, false, false, &o, err);
    struct training t = {.s = twin.s, .samples = &twin.samples, .options = &o};
    if (!st) st = learn_block(&t, s, samples, solution, err);
    if (t.memory) t.s->ops->free(t.s->self, t.memory);
    zq_twin_close(&twin);
    return st;
}
