/* Maps are solved in the order in which a forward pass comes to them, so that each sees the inputs that the solved ones before it
 * give. Passes over the samples collect what a stage needs, as sums over tokens, where passes run: on a device these are all that comes back.
 * Then the samples are not looked at again until the next stage. Everything from the sums to codes is this processor's work. */
#include "distill/closed.h"

#include "base/alloc.h"
#include "base/carve.h"
#include "distill/matmul.h"
#include "distill/quadratic.h"

#include <math.h>
#include <string.h>

/* Sums over tokens. What the teacher gives, W x, is summed as outputs, or, where maps have more rows than columns, as inputs that are mapped at the
 * end. n: of the inputs. */
struct moments {
    float *h;        /* [n, n] */
    double *mean;    /* [n] */
    float *cross;    /* [n, n] products of the teacher's inputs with the student's; or NULL */
    double *mean_x;  /* [n] with cross: of the teacher's inputs */
    double *mean_y[ZQ_N_LINEARS];
    float *t[ZQ_N_LINEARS]; /* [n_rows, n] last in memory: a device has none with cross, which makes it */
};

/* The maps of a stage that read the same form of its input, and either all have a bias or none. */
struct stage {
    struct zq_student *s, *there; /* there: the student that runs passes */
    const struct zq_passes *passes;
    const struct zq_solve_samples *samples;
    const struct zq_closed_options *options;
    enum zq_student_stage at;
    unsigned maps;
    bool biased, away;   /* away: passes run on a device */
    float **biases;      /* [ZQ_N_LINEARS] of the solved maps */
    struct zq_gram gram;
    bool factored;       /* else descent starts from nearest codes */
    struct moments m, sums; /* here; and where passes run, the same unless away */
    size_t n_sums;          /* bytes of the latter */
    void *memory, *memory_there;

    /* where passes run */
    float *solved[ZQ_N_LINEARS]; /* biases */
    float *y[ZQ_N_LINEARS]; /* [max_tokens, n_rows] the teacher's outputs of a batch; or */
    float *x;               /* [max_tokens, n] its inputs */
    float *residual;        /* [max_tokens, width] */

    float *panel;
    double *scratch;
    size_t n_tokens;
};

static const unsigned maps_at[ZQ_N_STAGES] = {
    [ZQ_AT_QKV] = 1 << ZQ_QKV | 1 << ZQ_Q | 1 << ZQ_K | 1 << ZQ_V, [ZQ_AT_O] = 1 << ZQ_O, [ZQ_AT_FFN] = 1 << ZQ_GATE | 1 << ZQ_UP,
    [ZQ_AT_DOWN] = 1 << ZQ_DOWN,
};

/* What the output of the stage is added to. */
static const float *residual_at(const struct zq_student *s, enum zq_student_stage at)
{
    if (at == ZQ_AT_O) return s->x;
    return s->config.norm == ZQ_NORM_POST ? s->normed1 : s->mid;
}

static void swap_biases(struct stage *g)
{
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!g->biases[r]) continue;
        float *other = g->solved[r];
        g->solved[r] = g->there->linear[r].bias;
        g->there->linear[r].bias = other;
    }
}

static bool has(const struct stage *g, int r)
{
    return (g->maps & 1u << r) != 0;
}

/* Maps that add to the residual stream make up for a share of its error, which is no product with W. */
static bool adds(enum zq_student_stage at) { return at == ZQ_AT_O || at == ZQ_AT_DOWN; }
static bool carries(const struct stage *g) { return adds(g->at) && g->options->carry > 0; }

/* Two products for each row and column of the maps cost more than one for each two columns. */
static bool crossing_pays(size_t n_rows, size_t n_cols) { return 2 * n_rows > n_cols; }

static bool crosses(const struct stage *g)
{
    size_t n_rows = 0;
    for (int r = 0; r < ZQ_N_LINEARS; r++) n_rows += has(g, r) ? g->s->linear[r].n_rows : 0;
    return !carries(g) && !g->options->published && crossing_pays(n_rows, zq_student_input_at(g->s, g->at)->n);
}

/* The teacher's inputs, or y = W x for them and the residual stream. */
static void teach(struct stage *g, const float *x, size_t n)
{
    struct zq_student *s = g->there;
    const struct zq_training_ops *ops = s->ops;
    const struct zq_student_batch batch = zq_student_samples(s, x, n, g->samples->length);
    zq_student_reach(s, &batch, false, g->at);
    const struct zq_student_input *in = zq_student_input_at(s, g->at);
    if (g->x) ops->copy(s->self, g->x, in->f, s->n_tokens * in->n * sizeof *g->x);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r) && !g->x)
            ops->product(s->self, &(struct zq_matmul){
                .m = s->n_tokens, .n = s->linear[r].n_rows, .k = in->n, .alpha = 1, .a = in->f, .lda = in->n, .b = s->linear[r].w, .ldb = in->n,
                .turn_b = true, .c = g->y[r], .ldc = s->linear[r].n_rows,
            });
    if (g->residual) ops->copy(s->self, g->residual, residual_at(s, g->at), s->n_tokens * s->config.width * sizeof(float));
}

/* Adds the outputs of a map that the teacher gives for a batch, and what the stream has lost, times what the student reads. */
static void add_outputs(struct stage *g, int r, const float *read)
{
    struct zq_student *s = g->there;
    const struct zq_training_ops *ops = s->ops;
    const struct zq_student_linear *l = &s->linear[r];
    if (g->residual)
        ops->add_difference(s->self, g->y[r], g->residual, residual_at(s, g->at), (float)g->options->carry, s->n_tokens * l->n_rows);
    ops->add_columns(s->self, g->y[r], s->n_tokens, l->n_rows, g->sums.mean_y[r]);
    ops->product(s->self, &(struct zq_matmul){
        .m = l->n_rows, .n = l->n_cols, .k = s->n_tokens, .alpha = 1, .a = g->y[r], .lda = l->n_rows, .turn_a = true, .b = read, .ldb = l->n_cols,
        .c = g->sums.t[r], .ldc = l->n_cols, .add = true,
    });
}

static void collect(struct stage *g, const float *x, size_t n)
{
    struct zq_student *s = g->there;
    const struct zq_training_ops *ops = s->ops;
    const struct zq_student_batch batch = zq_student_samples(s, x, n, g->samples->length);
    swap_biases(g);
    zq_student_reach(s, &batch, !g->options->published, g->at);
    swap_biases(g);
    const struct zq_student_input *in = zq_student_input_at(s, g->at);
    const float *read = NULL;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!has(g, r)) continue;
        read = zq_student_read(s, &s->linear[r], in);
        if (!g->x && !g->options->published) add_outputs(g, r, read); /* published: T follows from H */
    }
    if (g->x) {
        ops->add_columns(s->self, g->x, s->n_tokens, in->n, g->sums.mean_x);
        ops->product(s->self, &(struct zq_matmul){
            .m = in->n, .n = in->n, .k = s->n_tokens, .alpha = 1, .a = g->x, .lda = in->n, .turn_a = true, .b = read, .ldb = in->n,
            .c = g->sums.cross, .ldc = in->n, .add = true,
        });
    }
    const struct zq_gram gram = {.n = in->n, .h = g->sums.h, .mean = g->sums.mean};
    zq_gram_add(&gram, &(struct zq_trainer){ops, s->self}, read, s->n_tokens);
    g->n_tokens += s->n_tokens;
}

/* Row i of W times the inputs' mean. */
static double of_mean(const struct stage *g, const struct zq_student_linear *l, size_t i)
{
    double y = 0;
    for (size_t j = 0; j < l->n_cols; j++) y += (double)l->w[i * l->n_cols + j] * g->gram.mean[j];
    return y;
}

/* t = (1 - mix) W H + mix (sum of y x^T, about the means) + mix * added * W. Along what H holds of the mean, W is wanted, too: the bias makes up
 * for the rest. */
static void finish_target(struct stage *g, int r, float added)
{
    const struct zq_student_linear *l = &g->s->linear[r];
    const float mix = (float)g->options->mix;
    for (size_t i = 0; i < l->n_rows; i++) {
        g->m.mean_y[r][i] /= (double)g->n_tokens;
        const double held = g->biased && g->options->hold > 0 ? g->options->hold * of_mean(g, l, i) : 0;
        const double shift = g->biased ? (double)g->n_tokens * (g->m.mean_y[r][i] - held) : 0;
        float *t = g->m.t[r] + i * l->n_cols;
        for (size_t j = 0; j < l->n_cols; j++) t[j] = mix * (t[j] - (float)(shift * g->gram.mean[j]) + added * l->w[i * l->n_cols + j]);
    }
    zq_matmul_run(g->s->n_threads, &(struct zq_matmul){
        .m = l->n_rows, .n = l->n_cols, .k = l->n_cols, .alpha = 1 - mix, .a = l->w, .lda = l->n_cols, .b = g->gram.h, .ldb = l->n_cols,
        .c = g->m.t[r], .ldc = l->n_cols, .add = true,
    });
}

/* The same from the inputs: t = W ((1 - mix) H + mix (cross, about the means, + added)). */
static void finish_cross(struct stage *g, float added)
{
    const size_t n = g->gram.n;
    const float mix = (float)g->options->mix;
    for (size_t i = 0; i < n; i++) {
        g->m.mean_x[i] /= (double)g->n_tokens;
        const double shift = g->biased ? (double)g->n_tokens * (g->m.mean_x[i] - g->options->hold * g->gram.mean[i]) : 0;
        float *row = g->m.cross + i * n;
        for (size_t j = 0; j < n; j++)
            row[j] = mix * (row[j] - (float)(shift * g->gram.mean[j]) + (i == j ? added : 0)) + (1 - mix) * g->gram.h[i * n + j];
    }
}

static void map_cross(struct stage *g, int r)
{
    const struct zq_student_linear *l = &g->s->linear[r];
    zq_matmul_run(g->s->n_threads, &(struct zq_matmul){
        .m = l->n_rows, .n = l->n_cols, .k = l->n_cols, .alpha = 1, .a = l->w, .lda = l->n_cols, .b = g->m.cross, .ldb = l->n_cols, .c = g->m.t[r],
        .ldc = l->n_cols,
    });
    for (size_t i = 0; i < l->n_rows; i++) {
        g->m.mean_y[r][i] = 0;
        for (size_t j = 0; j < l->n_cols; j++) g->m.mean_y[r][i] += l->w[i * l->n_cols + j] * g->m.mean_x[j];
    }
}

static void write_codes(const struct zq_student_linear *l, const float *scales, int8_t *codes)
{
    const size_t length = l->n_cols / zq_spec_n_groups(l->layout.spec, l->n_cols);
    for (size_t i = 0; i < l->n_rows * l->n_cols; i++) codes[i] = (int8_t)rintf(l->fake[i] / scales[i / length]);
}

static void solve_map(struct stage *g, int r, const struct zq_solution *solution)
{
    struct zq_student_linear *l = &g->s->linear[r];
    struct zq_quadratic q = {&g->gram, &l->layout, l->n_rows, l->n_cols, g->m.t[r], l->fake, solution->scales[r], g->panel, g->scratch};
    if (!g->options->published) zq_scales_search(&q, l->w);
    if (g->factored) zq_gptq(&q);
    else zq_scales_round(&q, l->w);
    for (int i = 0; i < g->options->n_sweeps; i++) {
        if (zq_descent_fit(&q) * 2000 < l->n_rows * l->n_cols) break;
    }
    write_codes(l, q.scales, solution->codes[r]);
    if (!g->biased) return;
    for (size_t i = 0; i < l->n_rows; i++) {
        double shift = g->m.mean_y[r][i];
        for (size_t j = 0; j < l->n_cols; j++) shift -= (double)l->fake[i * l->n_cols + j] * g->gram.mean[j];
        g->biases[r][i] = (float)(l->bias[i] + shift);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

/* here: where maps are solved. */
static void carve_moments(const struct stage *g, struct moments *m, struct zq_carver *c, bool here)
{
    const size_t n = zq_student_input_at(g->s, g->at)->n;
    m->h = zq_carve_floats(c, n, n);
    m->mean = zq_carve(c, n, sizeof *m->mean);
    if (crosses(g)) {
        m->cross = zq_carve_floats(c, n, n);
        m->mean_x = zq_carve(c, n, sizeof *m->mean_x);
    }
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r)) m->mean_y[r] = zq_carve(c, g->s->linear[r].n_rows, sizeof *m->mean_y[r]);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r) && (here || !crosses(g))) m->t[r] = zq_carve_floats(c, g->s->linear[r].n_rows, n);
}

static void carve_batch(struct stage *g, struct zq_carver *c)
{
    const struct zq_student *s = g->s;
    if (crosses(g)) g->x = zq_carve_floats(c, s->max_tokens, zq_student_input_at(s, g->at)->n);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r) && !crosses(g) && !g->options->published) g->y[r] = zq_carve_floats(c, s->max_tokens, s->linear[r].n_rows);
    if (carries(g)) g->residual = zq_carve_floats(c, s->max_tokens, s->config.width);
}

static void carve_biases(struct stage *g, struct zq_carver *c)
{
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (g->biases[r]) g->solved[r] = zq_carve_floats(c, g->s->linear[r].n_rows, 1);
}

/* there: on a device, if passes run there. */
static void carve(struct stage *g, struct zq_carver *here, struct zq_carver *there)
{
    size_t n_rows = 0;
    const size_t n = zq_student_input_at(g->s, g->at)->n;
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r) && g->s->linear[r].n_rows > n_rows) n_rows = g->s->linear[r].n_rows;
    carve_moments(g, &g->m, here, true);
    g->sums = g->m;
    if (g->away) {
        g->sums = (struct moments){0};
        carve_moments(g, &g->sums, there, false);
        g->n_sums = there->used;
        carve_biases(g, there);
    }
    carve_batch(g, g->away ? there : here);
    g->gram = (struct zq_gram){.n = n, .h = g->m.h, .diag = zq_carve_floats(here, n, 1), .mean = g->m.mean, .n_threads = g->s->n_threads};
    g->panel = zq_carve_floats(here, n_rows, ZQ_PANEL);
    g->scratch = zq_carve(here, 2 * n_rows, sizeof *g->scratch);
}

static bool take(struct stage *g)
{
    const struct zq_training_ops *ops = g->there->ops;
    struct zq_carver here = {0}, there = {0};
    carve(g, &here, &there);
    if (here.overflow || there.overflow) return false;
    g->memory = here.base = zq_alloc_zero(here.used);
    if (g->away) g->memory_there = there.base = ops->alloc(g->there->self, there.used);
    if (!here.base || (g->away && !there.base)) return false;
    here.used = there.used = 0;
    carve(g, &here, &there);
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!g->biases[r]) continue;
        if (g->away) ops->upload(g->there->self, g->solved[r], g->biases[r], g->s->linear[r].n_rows * sizeof(float));
        else g->solved[r] = g->biases[r];
    }
    return true;
}

static void give(struct stage *g)
{
    zq_free(g->memory);
    if (g->away) g->there->ops->free(g->there->self, g->memory_there);
}

/* ---- a stage ------------------------------------------------------------------------------------------------------ */

/* Passes over all samples that are learned from; the sums lie here afterwards. */
static zq_status sum_up(struct stage *g, zq_error *err)
{
    struct zq_student *s = g->s;
    const struct zq_solve_samples *d = g->samples;
    const size_t n_values = d->length * s->config.width, n = d->n - d->n_held; /* n_held < n */
    size_t at_once = s->max_tokens / d->length;
    if (at_once > s->max_sequences) at_once = s->max_sequences;
    for (size_t i = 0; i < n; i += at_once) {
        const size_t count = n - i < at_once ? n - i : at_once;
        if (!g->options->published) teach(g, zq_passes_take(g->passes, d->teacher_x + i * n_values, count * n_values), count);
        collect(g, zq_passes_take(g->passes, d->student_x + i * n_values, count * n_values), count);
        zq_keeper_drop(&d->keeper, d->teacher_x + i * n_values, count * n_values);
        zq_keeper_drop(&d->keeper, d->student_x + i * n_values, count * n_values);
    }
    if (g->away) g->there->ops->download(g->there->self, g->m.h, g->sums.h, g->n_sums);
    return zq_student_check(g->there, err);
}

static void solve_maps(struct stage *g, const struct zq_solution *solution)
{
    const float added = zq_gram_finish(&g->gram, g->n_tokens, g->biased ? 1 - g->options->hold : 0, g->options->damp);
    if (g->m.cross) finish_cross(g, added);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r)) (g->m.cross ? map_cross(g, r) : finish_target(g, r, added));
    g->factored = zq_gram_factor(&g->gram);
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!has(g, r)) continue;
        solve_map(g, r, solution);
        zq_passes_follow_codes(g->passes, (enum zq_linear_role)r);
    }
}

static zq_status solve_stage(struct stage *g, const struct zq_solution *solution, zq_error *err)
{
    zq_status st = ZQ_OK;
    if (!take(g))
        st = zq_fail(err, ZQ_ENOMEM, "no memory for the moments of %zu inputs of a map", zq_student_input_at(g->s, g->at)->n);
    if (!st) st = sum_up(g, err);
    if (!st) solve_maps(g, solution);
    give(g);
    return st;
}

zq_status zq_closed_run(const struct zq_passes *passes, const struct zq_solve_samples *samples, const struct zq_closed_options *options,
                        float **biases, struct zq_solution *solution, zq_error *err)
{
    struct zq_student *s = passes->original;
    zq_status st = ZQ_OK;
    for (int at = 0; at < ZQ_N_STAGES; at++) {
        for (int form = 0; form < 4; form++) {
            struct stage g = {.s = s, .there = passes->s, .passes = passes, .samples = samples, .options = options,
                              .at = (enum zq_student_stage)at, .biased = form & 1, .away = passes->s != s, .biases = biases};
            for (int r = 0; r < ZQ_N_LINEARS; r++) {
                const struct zq_student_linear *l = &s->linear[r];
                if (l->n_rows && maps_at[at] & 1u << r && l->layout.spec.w_bits != 16 && (!options->published && l->has_bias) == g.biased &&
                    (l->layout.spec.a_bits == 8) == (form >= 2)) g.maps |= 1u << r;
            }
            if (g.maps && !st) st = solve_stage(&g, solution, err);
        }
    }
    return st;
}

size_t zq_closed_bytes(const struct zq_student *s, const struct zq_closed_options *options, bool away)
{
    struct zq_student shape = *s;
    float *no_biases[ZQ_N_LINEARS] = {0};
    size_t most = 0;
    for (int at = 0; at < ZQ_N_STAGES; at++) {
        struct stage g = {.s = &shape, .options = options, .at = (enum zq_student_stage)at, .maps = maps_at[at], .away = away, .biases = no_biases};
        struct zq_carver here = {0}, there = {0};
        carve(&g, &here, &there);
        if (here.used > most) most = here.used;
    }
    return most;
}
