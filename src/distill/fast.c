/* `fast`: no training. Outliers of activations are smoothed where that lowers the error of the block as rounded to nearest; then
 * the maps are solved in closed form, each for the inputs that the solved ones before it give. Passes may run on a device; what is solved is judged
 * by this processor's arithmetic, and so is what it has to be better than. */
#include "distill/closed.h"
#include "distill/smooth.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

struct work {
    struct zq_student *s;
    struct zq_passes passes;
    const struct zq_solve_samples *samples;
    float *out;      /* [max_tokens, width] */
    double *sums;    /* [max_tokens] */
    size_t at_once;  /* samples of a pass */
    float *largest, *weights; /* [widest] */
    signed char *exponents[ZQ_N_SMOOTH], *trial; /* [widest] */
    float *biases[ZQ_N_LINEARS];
};

static size_t widest(const struct zq_student *s)
{
    const size_t a = s->config.n_heads * s->config.head_dim, b = s->config.ffn_width, c = s->config.width;
    return a > b ? a > c ? a : c : b > c ? b : c;
}

size_t zq_fast_bytes(const struct zq_student *s, bool away)
{
    static const struct zq_closed_options carries = {.carry = 1};
    size_t biases = 0;
    for (int r = 0; r < ZQ_N_LINEARS; r++) biases += s->linear[r].n_rows;
    return zq_closed_bytes(s, &carries, away) + s->max_tokens * (s->config.width * sizeof(float) + sizeof(double)) + biases * sizeof(float) +
           widest(s) * (2 * sizeof(float) + ZQ_N_SMOOTH + 1);
}

static bool take(struct work *w)
{
    struct zq_student *s = w->s;
    w->out = zq_alloc_array(s->max_tokens * s->config.width, sizeof(float));
    w->sums = zq_alloc_array(s->max_tokens, sizeof(double));
    w->largest = zq_alloc_array(widest(s), sizeof(float));
    w->weights = zq_alloc_array(widest(s), sizeof(float));
    w->trial = zq_alloc_zero(widest(s));
    bool ok = w->out && w->sums && w->largest && w->weights && w->trial;
    for (int p = 0; p < ZQ_N_SMOOTH; p++) ok = (w->exponents[p] = zq_alloc_zero(widest(s))) && ok;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        if (l->n_rows && l->has_bias) ok = (w->biases[r] = zq_alloc_array(l->n_rows, sizeof(float))) && ok;
    }
    if (!ok) return false;
    w->at_once = s->max_tokens / w->samples->length;
    if (w->at_once > s->max_sequences) w->at_once = s->max_sequences;
    return true;
}

static void give(struct work *w)
{
    zq_free(w->out);
    zq_free(w->sums);
    zq_free(w->largest);
    zq_free(w->weights);
    zq_free(w->trial);
    for (int p = 0; p < ZQ_N_SMOOTH; p++) zq_free(w->exponents[p]);
    for (int r = 0; r < ZQ_N_LINEARS; r++) zq_free(w->biases[r]);
}

/* The error of the nearest codes of the present weights on the first n samples, at most a batch; INFINITY if they have none. */
static double judge_first(const struct work *w, size_t n)
{
    const struct zq_passes *p = &w->passes;
    const size_t n_values = n * w->samples->length * w->s->config.width;
    struct zq_solve_samples samples = *w->samples;
    zq_passes_follow(p);
    if (!zq_student_quantize(p->s)) return INFINITY;
    if (p->s == w->s) return zq_solve_judge(w->s, w->samples, 0, n, w->out, w->sums);
    samples.student_x = zq_passes_take(p, samples.student_x, n_values);
    p->s->ops->upload(p->s->self, p->target, samples.target, n_values * sizeof *p->target);
    samples.target = p->target;
    samples.keeper = (struct zq_keeper){0};
    return zq_solve_judge(p->s, &samples, 0, n, p->out, p->row_sums);
}

static double judge_held(struct work *w)
{
    return zq_solve_judge_held(w->s, w->samples, w->out, w->sums);
}

/* The better of a few exponents at a place, none among them, by the error of the first samples. */
static void smooth_place(struct work *w, enum zq_smooth_place place, size_t n_judges, double *error)
{
    static const double shares[] = {0.5, 0.75, 1};
    static const enum zq_student_stage stages[] = {ZQ_AT_QKV, ZQ_AT_FFN, ZQ_AT_O, ZQ_AT_DOWN};
    struct zq_student *s = w->s;
    const size_t n = zq_smooth_channels(s, place);
    if (!n) return;
    memset(w->largest, 0, n * sizeof *w->largest);
    const float *x = zq_passes_take(&w->passes, w->samples->student_x, n_judges * w->samples->length * s->config.width);
    const struct zq_student_batch batch = zq_student_samples(w->passes.s, x, n_judges, w->samples->length);
    zq_student_reach(w->passes.s, &batch, false, stages[place]);
    zq_passes_fetch(&w->passes, stages[place]);
    zq_smooth_largest(s, place, w->largest);
    for (size_t i = 0; i < ZQ_LEN(shares); i++) {
        zq_smooth_exponents(s, place, w->largest, shares[i], w->weights, w->trial);
        zq_smooth_apply(s, place, w->trial, false);
        const double now = judge_first(w, n_judges);
        zq_smooth_apply(s, place, w->trial, true);
        if (!(now < 0.98 * *error)) continue; /* weights pay for it: not for nothing */
        *error = now;
        memcpy(w->exponents[place], w->trial, n);
    }
    zq_smooth_apply(s, place, w->exponents[place], false);
    zq_passes_follow(&w->passes);
}

static void smooth(struct work *w)
{
    enum { TOKENS = 1024 }; /* enough to tell 2 % */
    const size_t n_learn = w->samples->n - w->samples->n_held, most = n_learn < w->at_once ? n_learn : w->at_once;
    const size_t enough = (TOKENS + w->samples->length - 1) / w->samples->length, n_judges = most < enough ? most : enough;
    double error = judge_first(w, n_judges);
    for (int p = 0; p < ZQ_N_SMOOTH; p++) smooth_place(w, (enum zq_smooth_place)p, n_judges, &error);
    zq_student_quantize(w->s);
}

/* Back to the original block and its nearest codes. */
static bool fall_back(struct work *w, struct zq_solution *solution)
{
    for (int p = 0; p < ZQ_N_SMOOTH; p++) zq_smooth_apply(w->s, (enum zq_smooth_place)p, w->exponents[p], true);
    solution->fell_back = true;
    solution->after = solution->before;
    return zq_solution_nearest(solution, w->s);
}

static void exchange_biases(struct work *w)
{
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        struct zq_student_linear *l = &w->s->linear[r];
        for (size_t i = 0; w->biases[r] && i < l->n_rows; i++) {
            const float other = w->biases[r][i];
            w->biases[r][i] = l->bias[i];
            l->bias[i] = other;
        }
    }
}

/* Random ids give other moments than texts, and hold-out samples that are as random do not tell: damping bounds how far they are followed, and
 * above all a bias must not undo what codes do to a mean that texts do not have. On an encoder of sentences, W4/8A8, random ids left 324 % of
 * the error of round to nearest without these, 32 % with them; on decoders without and with biases 64 -> 58 % and 24 -> 43 %. */
static zq_status solve(struct work *w, double chance, struct zq_solution *solution, zq_error *err)
{
    /* mix and carry of one half: with all of the teacher's term the few samples are followed too closely */
    const struct zq_closed_options options = {.mix = 0.5, .carry = 0.5, .damp = 0.01 + 0.39 * chance, .hold = 0.01 * chance, .n_sweeps = 10};
    struct zq_student *s = w->s;
    zq_status st = zq_solution_round(solution, s, err);
    if (st) return st;
    solution->before = judge_held(w);
    solution->fell_back = false;
    smooth(w);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (w->biases[r]) memcpy(w->biases[r], s->linear[r].bias, s->linear[r].n_rows * sizeof(float));
    st = zq_closed_run(&w->passes, w->samples, &options, w->biases, solution, err);
    if (st) return st;
    exchange_biases(w);
    solution->after = judge_held(w);
    if (solution->after < solution->before) return ZQ_OK;
    exchange_biases(w);
    fall_back(w, solution);
    return ZQ_OK;
}

zq_status zq_solve_fast(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *options,
                        struct zq_solution *solution, zq_error *err)
{
    struct work w = {.s = s, .samples = samples};
    zq_status st = zq_solve_check(s, samples, err);
    if (st) return st;
    if (!take(&w)) st = zq_fail(err, ZQ_ENOMEM, "no memory to solve a block");
    if (!st) st = zq_passes_open(&w.passes, s, &options->trainer, err);
    if (!st) st = solve(&w, options->chance, solution, err);
    zq_passes_close(&w.passes);
    give(&w);
    if (!st && options->tick) st = options->tick(options->user, err);
    return st;
}
