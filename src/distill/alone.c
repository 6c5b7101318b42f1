/* GPTQ and AWQ as their papers have them, each alone, to compare with. Neither knows INT8 tokens, a teacher, or a share of samples that judges: both
 * look at the original block with float activations, and what they give is kept.
 *
 * GPTQ (Frantar et al., 2023): the scales of round-to-nearest, codes by the second moments of what each map reads when the block gets
 * what the quantized blocks before it give, 1 % of the mean diagonal added. Columns are taken from the last to the first; the
 * published code goes the other way and in neither is the order chosen by the data.
 *
 * AWQ (Lin et al., 2024): before round-to-nearest, columns are multiplied by s = (mean |x|)^a, scaled so that the largest and the
 * smallest s multiply to 1, and what makes the channel is divided by s; a is the one of 20 with the smallest error of the block's
 * output for the original's inputs. Scaling alone: without its search of clipped ranges, and only where the division is exact
 * (smooth.h), which leaves out maps behind GELU. */
#include "distill/closed.h"
#include "distill/smooth.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

struct work {
    struct zq_student *s;
    struct zq_solve_samples samples;
    float *out;      /* [max_tokens, width] */
    double *sums;    /* [max_tokens] */
    /* AWQ */
    float *params;   /* [n_params] before a place is scaled */
    double *means;   /* [widest] of |x| */
    float *factors, *best; /* [widest] */
};

static size_t widest(const struct zq_student *s)
{
    size_t n = s->config.ffn_width;
    for (int r = 0; r < ZQ_N_LINEARS; r++) n = s->linear[r].n_cols > n ? s->linear[r].n_cols : n;
    return n;
}

static size_t judge_bytes(const struct zq_student *s) { return s->max_tokens * (s->config.width * sizeof(float) + sizeof(double)); }

static const struct zq_closed_options published = {.damp = 0.01, .published = true};

size_t zq_gptq_bytes(const struct zq_student *s, bool away)
{
    (void)away;
    return zq_closed_bytes(s, &published, false) + judge_bytes(s);
}

size_t zq_awq_bytes(const struct zq_student *s, bool away)
{
    (void)away;
    return judge_bytes(s) + s->n_params * sizeof(float) + widest(s) * (sizeof(double) + 2 * sizeof(float));
}

static bool take(struct work *w, bool scales)
{
    struct zq_student *s = w->s;
    w->out = zq_alloc_array(s->max_tokens * s->config.width, sizeof(float));
    w->sums = zq_alloc_array(s->max_tokens, sizeof(double));
    if (!w->out || !w->sums || !scales) return w->out && w->sums;
    w->params = zq_alloc_array(s->n_params, sizeof(float));
    w->means = zq_alloc_array(widest(s), sizeof(double));
    w->factors = zq_alloc_array(widest(s), sizeof(float));
    w->best = zq_alloc_array(widest(s), sizeof(float));
    return w->params && w->means && w->factors && w->best;
}

static void give(struct work *w)
{
    zq_free(w->out);
    zq_free(w->sums);
    zq_free(w->params);
    zq_free(w->means);
    zq_free(w->factors);
    zq_free(w->best);
}

static zq_status begin(struct work *w, bool scales, struct zq_solution *solution, zq_error *err)
{
    zq_status st = zq_solve_check(w->s, &w->samples, err);
    if (!st && !take(w, scales)) st = zq_fail(err, ZQ_ENOMEM, "no memory to solve a block");
    if (!st) st = zq_solution_round(solution, w->s, err);
    if (st) return st;
    solution->before = zq_solve_judge_held(w->s, &w->samples, w->out, w->sums);
    solution->fell_back = false;
    return ZQ_OK;
}

static zq_status end(struct work *w, const struct zq_solve_options *o, struct zq_solution *solution, zq_status st, zq_error *err)
{
    if (!st) solution->after = zq_solve_judge_held(w->s, &w->samples, w->out, w->sums);
    give(w);
    return !st && o->tick ? o->tick(o->user, err) : st;
}

zq_status zq_solve_gptq(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *options,
                        struct zq_solution *solution, zq_error *err)
{
    const struct zq_passes here = {.s = s, .original = s};
    float *no_biases[ZQ_N_LINEARS] = {0};
    struct work w = {.s = s, .samples = *samples};
    zq_status st = begin(&w, false, solution, err);
    if (!st) st = zq_closed_run(&here, samples, &published, no_biases, solution, err);
    return end(&w, options, solution, st, err);
}

/* ---- AWQ ---------------------------------------------------------------------------------------------------------------- */

static size_t at_once(const struct work *w)
{
    const size_t fit = w->s->max_tokens / w->samples.length;
    return fit < w->s->max_sequences ? fit : w->s->max_sequences;
}

/* Sums of |x|: how large a channel is beside others is all that matters, so that nothing is divided by the number of tokens. */
static void measure(struct work *w, enum zq_smooth_place place, size_t n_channels)
{
    static const enum zq_student_stage stages[] = {ZQ_AT_QKV, ZQ_AT_FFN, ZQ_AT_O, ZQ_AT_DOWN};
    const size_t n_learn = w->samples.n - w->samples.n_held, n_values = w->samples.length * w->s->config.width;
    memset(w->means, 0, n_channels * sizeof *w->means);
    for (size_t i = 0; i < n_learn; i += at_once(w)) {
        const size_t n = n_learn - i < at_once(w) ? n_learn - i : at_once(w);
        const struct zq_student_batch batch = zq_student_samples(w->s, w->samples.teacher_x + i * n_values, n, w->samples.length);
        zq_student_reach(w->s, &batch, false, stages[place]);
        zq_smooth_sums(w->s, place, w->means);
    }
}

static void make_factors(const double *means, size_t n, double power, float *factors)
{
    double largest = 0, smallest = INFINITY, total = 0;
    for (size_t i = 0; i < n; i++) total += means[i] / (double)n;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            const double f = fmax(pow(total > 0 ? means[i] / total : 1, power), 1e-4);
            largest = fmax(largest, f);
            smallest = fmin(smallest, f);
            factors[i] = (float)(f / sqrt(largest * smallest)); /* of the second pass: both are known */
        }
    }
}

/* Scales a place by the best of the powers; 0 leaves all as it is. */
static void scale_place(struct work *w, enum zq_smooth_place place)
{
    enum { POWERS = 20, TOKENS = 2048 };
    struct zq_student *s = w->s;
    const size_t n = zq_smooth_channels(s, place), n_learn = w->samples.n - w->samples.n_held;
    const size_t enough = (TOKENS + w->samples.length - 1) / w->samples.length, n_judges = n_learn < enough ? n_learn : enough;
    struct zq_solve_samples original = w->samples;
    original.student_x = original.teacher_x;
    double least = INFINITY;
    if (!n) return;
    measure(w, place, n);
    memcpy(w->params, s->params, s->n_params * sizeof *s->params);
    for (int i = 0; i < POWERS; i++) {
        make_factors(w->means, n, (double)i / POWERS, w->factors);
        zq_smooth_scale(s, place, w->factors);
        const double error = zq_student_quantize(s) ? zq_solve_judge(s, &original, 0, n_judges, w->out, w->sums) : INFINITY;
        memcpy(s->params, w->params, s->n_params * sizeof *s->params);
        if (!(error < least)) continue;
        least = error;
        memcpy(w->best, w->factors, n * sizeof *w->best);
    }
    if (least < INFINITY) zq_smooth_scale(s, place, w->best);
}

zq_status zq_solve_awq(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *options,
                       struct zq_solution *solution, zq_error *err)
{
    struct work w = {.s = s, .samples = *samples};
    zq_status st = begin(&w, true, solution, err);
    for (int p = 0; !st && p < ZQ_N_SMOOTH; p++) scale_place(&w, (enum zq_smooth_place)p);
    if (!st && !zq_solution_nearest(solution, s))
        st = zq_fail(err, ZQ_EFORMAT, "a scaled weight of the block is NaN or infinite, which has no integer code");
    return end(&w, options, solution, st, err);
}
