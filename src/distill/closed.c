/* Maps are solved in the order in which a forward pass comes to them, so that each sees the inputs that the solved ones before it
 * give. A pass over the samples collects what a stage needs; then the samples are not looked at again until the next stage. */
#include "distill/closed.h"

#include "base/alloc.h"
#include "distill/matmul.h"
#include "distill/quadratic.h"

#include <math.h>
#include <string.h>

/* The maps of a stage that read the same form of its input, and either all have a bias or none. */
struct stage {
    struct zq_student *s;
    const struct zq_solve_samples *samples;
    const struct zq_closed_options *options;
    enum zq_student_stage at;
    unsigned maps;
    bool biased;
    float **biases;      /* [ZQ_N_LINEARS] of the solved maps */
    struct zq_gram gram;
    bool factored;       /* else descent starts from nearest codes */
    float *t[ZQ_N_LINEARS];
    /* What the teacher gives, W x, is summed as outputs, or, where maps have more rows than columns, as inputs that are mapped at the end. */
    float *y[ZQ_N_LINEARS]; /* [max_tokens, n_rows] outputs of a batch */
    float *x, *cross;       /* [max_tokens, n] inputs of a batch, and [n, n] the sum of their products with the student's; or NULL */
    double *mean_x;         /* [n] */
    double *mean_y[ZQ_N_LINEARS];
    float *residual, *panel;
    double *sums;
    size_t n_tokens;
};

static const unsigned maps_at[ZQ_N_STAGES] = {
    [ZQ_AT_QKV] = 1 << ZQ_QKV | 1 << ZQ_Q | 1 << ZQ_K | 1 << ZQ_V, [ZQ_AT_O] = 1 << ZQ_O, [ZQ_AT_FFN] = 1 << ZQ_GATE | 1 << ZQ_UP,
    [ZQ_AT_DOWN] = 1 << ZQ_DOWN,
};

static const struct zq_student_input *input_at(const struct zq_student *s, enum zq_student_stage at)
{
    return at == ZQ_AT_QKV ? &s->attention_in : at == ZQ_AT_O ? &s->o_in : at == ZQ_AT_FFN ? &s->ffn_in : &s->down_in;
}

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
        float *other = g->biases[r];
        g->biases[r] = g->s->linear[r].bias;
        g->s->linear[r].bias = other;
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
    return !carries(g) && !g->options->published && crossing_pays(n_rows, input_at(g->s, g->at)->n);
}

static void add_to_mean(double *mean, const float *x, size_t n_tokens, size_t n)
{
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < n; i++) mean[i] += x[t * n + i];
}

/* The teacher's inputs, or y = W x for them and the residual stream. */
static void teach(struct stage *g, const float *x, size_t n)
{
    struct zq_student *s = g->s;
    const struct zq_student_batch batch = zq_student_samples(s, x, n, g->samples->length);
    zq_student_reach(s, &batch, false, g->at);
    const struct zq_student_input *in = input_at(s, g->at);
    if (g->cross) memcpy(g->x, in->f, s->n_tokens * in->n * sizeof *g->x);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r) && !g->cross)
            zq_matmul_run(s->n_threads, &(struct zq_matmul){
                .m = s->n_tokens, .n = s->linear[r].n_rows, .k = in->n, .alpha = 1, .a = in->f, .lda = in->n, .b = s->linear[r].w, .ldb = in->n,
                .turn_b = true, .c = g->y[r], .ldc = s->linear[r].n_rows,
            });
    if (g->residual) memcpy(g->residual, residual_at(s, g->at), s->n_tokens * s->config.width * sizeof(float));
}

static void collect(struct stage *g, const float *x, size_t n)
{
    struct zq_student *s = g->s;
    const struct zq_student_batch batch = zq_student_samples(s, x, n, g->samples->length);
    swap_biases(g);
    zq_student_reach(s, &batch, !g->options->published, g->at);
    swap_biases(g);
    const struct zq_student_input *in = input_at(s, g->at);
    const float *read = NULL;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!has(g, r)) continue;
        const struct zq_student_linear *l = &s->linear[r];
        read = zq_student_read(s, l, in);
        if (g->cross || g->options->published) continue; /* published: T follows from H */
        if (g->residual) {
            const float *now = residual_at(s, g->at);
            for (size_t i = 0; i < s->n_tokens * l->n_rows; i++) g->y[r][i] += (float)g->options->carry * (g->residual[i] - now[i]);
        }
        add_to_mean(g->mean_y[r], g->y[r], s->n_tokens, l->n_rows);
        zq_matmul_run(s->n_threads, &(struct zq_matmul){
            .m = l->n_rows, .n = l->n_cols, .k = s->n_tokens, .alpha = 1, .a = g->y[r], .lda = l->n_rows, .turn_a = true, .b = read,
            .ldb = l->n_cols, .c = g->t[r], .ldc = l->n_cols, .add = true,
        });
    }
    if (g->cross) {
        add_to_mean(g->mean_x, g->x, s->n_tokens, in->n);
        zq_matmul_run(s->n_threads, &(struct zq_matmul){
            .m = in->n, .n = in->n, .k = s->n_tokens, .alpha = 1, .a = g->x, .lda = in->n, .turn_a = true, .b = read, .ldb = in->n,
            .c = g->cross, .ldc = in->n, .add = true,
        });
    }
    zq_gram_add(&g->gram, read, s->n_tokens);
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
        g->mean_y[r][i] /= (double)g->n_tokens;
        const double held = g->biased && g->options->hold > 0 ? g->options->hold * of_mean(g, l, i) : 0;
        const double shift = g->biased ? (double)g->n_tokens * (g->mean_y[r][i] - held) : 0;
        float *t = g->t[r] + i * l->n_cols;
        for (size_t j = 0; j < l->n_cols; j++) t[j] = mix * (t[j] - (float)(shift * g->gram.mean[j]) + added * l->w[i * l->n_cols + j]);
    }
    zq_matmul_run(g->s->n_threads, &(struct zq_matmul){
        .m = l->n_rows, .n = l->n_cols, .k = l->n_cols, .alpha = 1 - mix, .a = l->w, .lda = l->n_cols, .b = g->gram.h, .ldb = l->n_cols,
        .c = g->t[r], .ldc = l->n_cols, .add = true,
    });
}

/* The same from the inputs: t = W ((1 - mix) H + mix (cross, about the means, + added)). */
static void finish_cross(struct stage *g, float added)
{
    const size_t n = g->gram.n;
    const float mix = (float)g->options->mix;
    for (size_t i = 0; i < n; i++) {
        g->mean_x[i] /= (double)g->n_tokens;
        const double shift = g->biased ? (double)g->n_tokens * (g->mean_x[i] - g->options->hold * g->gram.mean[i]) : 0;
        float *row = g->cross + i * n;
        for (size_t j = 0; j < n; j++)
            row[j] = mix * (row[j] - (float)(shift * g->gram.mean[j]) + (i == j ? added : 0)) + (1 - mix) * g->gram.h[i * n + j];
    }
}

static void map_cross(struct stage *g, int r)
{
    const struct zq_student_linear *l = &g->s->linear[r];
    zq_matmul_run(g->s->n_threads, &(struct zq_matmul){
        .m = l->n_rows, .n = l->n_cols, .k = l->n_cols, .alpha = 1, .a = l->w, .lda = l->n_cols, .b = g->cross, .ldb = l->n_cols, .c = g->t[r],
        .ldc = l->n_cols,
    });
    for (size_t i = 0; i < l->n_rows; i++) {
        g->mean_y[r][i] = 0;
        for (size_t j = 0; j < l->n_cols; j++) g->mean_y[r][i] += l->w[i * l->n_cols + j] * g->mean_x[j];
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
    struct zq_quadratic q = {&g->gram, &l->layout, l->n_rows, l->n_cols, g->t[r], l->fake, solution->scales[r], g->panel, g->sums};
    if (!g->options->published) zq_scales_search(&q, l->w);
    if (g->factored) zq_gptq(&q);
    else zq_scales_round(&q, l->w);
    for (int i = 0; i < g->options->n_sweeps; i++) {
        if (zq_descent_fit(&q) * 2000 < l->n_rows * l->n_cols) break;
    }
    write_codes(l, q.scales, solution->codes[r]);
    if (!g->biased) return;
    for (size_t i = 0; i < l->n_rows; i++) {
        double shift = g->mean_y[r][i];
        for (size_t j = 0; j < l->n_cols; j++) shift -= (double)l->fake[i * l->n_cols + j] * g->gram.mean[j];
        g->biases[r][i] = (float)(l->bias[i] + shift);
    }
}

static bool take(struct stage *g)
{
    struct zq_student *s = g->s;
    size_t n_rows = 0;
    const size_t n = input_at(s, g->at)->n;
    g->gram = (struct zq_gram){.n = n, .h = zq_alloc_zero(n * n * sizeof(float)), .diag = zq_alloc_array(n, sizeof(float)),
                               .mean = zq_alloc_array(n, sizeof(double)), .n_threads = s->n_threads};
    bool ok = g->gram.h && g->gram.diag && g->gram.mean;
    if (crosses(g)) {
        g->x = zq_alloc_array(s->max_tokens * n, sizeof(float));
        g->cross = zq_alloc_zero(n * n * sizeof(float));
        g->mean_x = zq_alloc_array(n, sizeof(double));
        ok = ok && g->x && g->cross && g->mean_x;
    }
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!has(g, r)) continue;
        const struct zq_student_linear *l = &s->linear[r];
        g->t[r] = zq_alloc_zero(l->n_rows * l->n_cols * sizeof(float));
        if (!g->cross && !g->options->published) g->y[r] = zq_alloc_array(s->max_tokens * l->n_rows, sizeof(float));
        g->mean_y[r] = zq_alloc_array(l->n_rows, sizeof(double));
        if (l->n_rows > n_rows) n_rows = l->n_rows;
        ok = ok && g->t[r] && (g->cross || g->options->published || g->y[r]) && g->mean_y[r];
    }
    if (carries(g)) ok = (g->residual = zq_alloc_array(s->max_tokens * s->config.width, sizeof(float))) && ok;
    g->panel = zq_alloc_array(n_rows * ZQ_PANEL, sizeof(float));
    g->sums = zq_alloc_array(2 * n_rows, sizeof(double));
    return ok && g->panel && g->sums;
}

static void give(struct stage *g)
{
    zq_free(g->gram.h);
    zq_free(g->gram.diag);
    zq_free(g->gram.mean);
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        zq_free(g->t[r]);
        zq_free(g->y[r]);
        zq_free(g->mean_y[r]);
    }
    zq_free(g->x);
    zq_free(g->cross);
    zq_free(g->mean_x);
    zq_free(g->residual);
    zq_free(g->panel);
    zq_free(g->sums);
}

static zq_status solve_stage(struct stage *g, struct zq_solution *solution, zq_error *err)
{
    struct zq_student *s = g->s;
    const struct zq_solve_samples *d = g->samples;
    const size_t n_values = d->length * s->config.width, n = d->n - d->n_held; /* n_held < n */
    size_t at_once = s->max_tokens / d->length;
    if (at_once > s->max_sequences) at_once = s->max_sequences;
    if (!take(g)) {
        give(g);
        return zq_fail(err, ZQ_ENOMEM, "no memory for the moments of %zu inputs of a map", input_at(s, g->at)->n);
    }
    for (size_t i = 0; i < n; i += at_once) {
        const size_t count = n - i < at_once ? n - i : at_once;
        if (!g->options->published) teach(g, d->teacher_x + i * n_values, count);
        collect(g, d->student_x + i * n_values, count);
        zq_keeper_drop(&d->keeper, d->teacher_x + i * n_values, count * n_values);
        zq_keeper_drop(&d->keeper, d->student_x + i * n_values, count * n_values);
    }
    const float added = zq_gram_finish(&g->gram, g->n_tokens, g->biased ? 1 - g->options->hold : 0, g->options->damp);
    if (g->cross) finish_cross(g, added);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r)) (g->cross ? map_cross(g, r) : finish_target(g, r, added));
    g->factored = zq_gram_factor(&g->gram);
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (has(g, r)) solve_map(g, r, solution);
    give(g);
    return ZQ_OK;
}

zq_status zq_closed_run(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_closed_options *options,
                        float **biases, struct zq_solution *solution, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (int at = 0; at < ZQ_N_STAGES; at++) {
        for (int form = 0; form < 4; form++) {
            struct stage g = {.s = s, .samples = samples, .options = options, .at = (enum zq_student_stage)at, .biased = form & 1, .biases = biases};
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

size_t zq_closed_bytes(const struct zq_student *s)
{
    size_t most = 0;
    for (int at = 0; at < ZQ_N_STAGES; at++) {
        const size_t n = input_at(s, (enum zq_student_stage)at)->n, T = s->max_tokens;
        size_t sum = n * (n + 1) * sizeof(float) + n * sizeof(double), n_rows = 0, all_rows = 0;
        for (int r = 0; r < ZQ_N_LINEARS; r++) {
            const struct zq_student_linear *l = &s->linear[r];
            if (!(maps_at[at] & 1u << r)) continue;
            sum += l->n_rows * l->n_cols * sizeof(float) + l->n_rows * sizeof(double);
            all_rows += l->n_rows;
            if (l->n_rows > n_rows) n_rows = l->n_rows;
        }
        const bool to_stream = adds((enum zq_student_stage)at), crossed = !to_stream && crossing_pays(all_rows, n);
        const size_t floats = crossed ? (T + n) * n : T * (all_rows + (to_stream ? s->config.width : 0));
        sum += n_rows * (ZQ_PANEL * sizeof(float) + 2 * sizeof(double)) + floats * sizeof(float) + (crossed ? n * sizeof(double) : 0);
        if (sum > most) most = sum;
    }
    return most;
}
