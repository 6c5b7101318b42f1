/* What became of a model: the original A and B, made from it, run over the same sequences, side by side. All spreads are paired: the
 * difference is taken sequence by sequence and its deviation measured, because the deviation of perplexity itself (some texts are
 * harder than others) hides differences ten times as large as those that quantization makes. */
#include "base/alloc.h"
#include "base/status.h"
#include "base/threads.h"
#include "eval/score.h"
#include "eval/sequences.h"
#include "model/model.h"

#include <math.h>

/* Running sums of one quantity over sequences. */
struct tally {
    double sum, squares, min, max; /* squares: of deviations from the mean so far (Welford) */
    size_t n;
};

static void tally_add(struct tally *t, double x)
{
    const double before = t->n ? x - t->sum / (double)t->n : 0;
    t->min = !t->n || x < t->min ? x : t->min;
    t->max = !t->n || x > t->max ? x : t->max;
    t->sum += x;
    t->n++;
    t->squares += before * (x - t->sum / (double)t->n);
}

static zq_spread tally_spread(const struct tally *t)
{
    if (!t->n) return (zq_spread){NAN, NAN, NAN, NAN};
    const double n = (double)t->n;
    return (zq_spread){t->sum / n, t->min, t->max, t->n > 1 ? sqrt(t->squares / (n - 1) / n) : NAN};
}

enum { NLL_A, NLL_B, NLL_DIFFERENCE, KL, TOP1, COSINE, N_TALLIES };

/* Sums of one layer over tokens. */
struct distance {
    double error, norm, cosine; /* ||b - a||^2, ||a||^2, cosine */
};

struct comparing {
    const zq_model *models[2];
    zq_session *sessions[2];
    zq_model_info info; /* of A */
    const zq_compare_options *options;
    int n_threads;
    size_t n_tokens;
    struct tally tallies[N_TALLIES];
    struct distance *layers; /* [n_layers + 1] */
    struct zq_score *scores; /* [limit] */
    float *embeddings[2];    /* [width] */
};

/* ---- hidden states */

static double cosine(double dot, double norm_a, double norm_b)
{
    if (norm_a == 0 || norm_b == 0) return norm_a == norm_b;
    return dot / (sqrt(norm_a) * sqrt(norm_b));
}

static struct distance vector_distance(const float *a, const float *b, size_t n)
{
    double error = 0, dot = 0, norm_a = 0, norm_b = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = a[i], y = b[i];
        error += (y - x) * (y - x);
        dot += x * y;
        norm_a += x * x;
        norm_b += y * y;
    }
    return (struct distance){error, norm_a, cosine(dot, norm_a, norm_b)};
}

/* Adds the hidden states of the latest step of both sessions. */
static void add_layers(struct comparing *c)
{
    const size_t width = c->info.width;
    for (size_t l = 0; l <= c->info.n_layers; l++) {
        size_t n;
        const float *a = zq_session_hidden(c->sessions[0], l, &n), *b = zq_session_hidden(c->sessions[1], l, NULL);
        for (size_t t = 0; t < n; t++) {
            const struct distance d = vector_distance(a + t * width, b + t * width, width);
            c->layers[l].error += d.error;
            c->layers[l].norm += d.norm;
            c->layers[l].cosine += d.cosine;
        }
    }
}

/* ---- sequences */

/* A window of a decoder: predicts all ids but the first. */
static zq_status compare_window(struct comparing *c, const zq_input *window, zq_error *err)
{
    const size_t n = window->n - 1;
    const zq_input input = {.ids = window->ids, .n = n, .all_logits = true};
    for (int i = 0; i < 2; i++) {
        zq_status st = zq_session_rewind(c->sessions[i], 0, 0, err);
        if (!st) st = zq_session_step(c->sessions[i], &input, 1, err);
        if (st) return st;
    }
    struct zq_scoring scoring = {.logits = zq_session_logits(c->sessions[1], NULL), .reference = zq_session_logits(c->sessions[0], NULL),
                                 .next = window->ids + 1, .n_values = c->info.vocab, .out = c->scores};
    zq_score_rows(&scoring, n, c->n_threads);
    double sums[N_TALLIES] = {0};
    for (size_t t = 0; t < n; t++) {
        sums[NLL_A] += c->scores[t].nll_reference;
        sums[NLL_B] += c->scores[t].nll;
        sums[KL] += c->scores[t].kl;
        sums[TOP1] += c->scores[t].same_top;
    }
    sums[NLL_DIFFERENCE] = sums[NLL_B] - sums[NLL_A];
    for (int i = 0; i < COSINE; i++) tally_add(&c->tallies[i], sums[i] / (double)n);
    add_layers(c);
    c->n_tokens += n;
    return ZQ_OK;
}

/* A line of an encoder. */
static zq_status compare_line(struct comparing *c, const zq_input *line, zq_error *err)
{
    for (int i = 0; i < 2; i++) {
        const zq_status st = zq_session_embed(c->sessions[i], line->ids, line->types, line->n, ZQ_POOL_AUTO, false, c->embeddings[i], err);
        if (st) return st;
    }
    tally_add(&c->tallies[COSINE], vector_distance(c->embeddings[0], c->embeddings[1], c->info.width).cosine);
    if (c->info.kind == ZQ_ENCODER_CLASSIFY && c->info.n_outputs > 1) {
        struct zq_scoring scoring = {zq_session_logits(c->sessions[1], NULL), zq_session_logits(c->sessions[0], NULL), NULL, c->info.n_outputs,
                                     c->scores};
        zq_score_rows(&scoring, 1, 1);
        tally_add(&c->tallies[KL], c->scores[0].kl);
        tally_add(&c->tallies[TOP1], c->scores[0].same_top);
    }
    add_layers(c);
    c->n_tokens += line->n;
    return ZQ_OK;
}

/* ---- preparing */

static zq_status check_models(const struct comparing *c, zq_error *err)
{
    zq_model_info b;
    const zq_model_info *a = &c->info;
    zq_model_info_get(c->models[1], &b);
    if (a->vocab != b.vocab)
        return zq_fail(err, ZQ_EINVAL, "the models have different vocabularies: %zu and %zu tokens", a->vocab, b.vocab);
    if (a->kind != b.kind || a->n_outputs != b.n_outputs || a->n_layers != b.n_layers || a->width != b.width)
        return zq_fail(err, ZQ_EINVAL, "the second model was not made from the first: %s of %zu layers, width %zu, and %s of %zu layers, width %zu",
                       a->arch, a->n_layers, a->width, b.arch, b.n_layers, b.width);
    return ZQ_OK;
}

/* Sessions and scratch for sequences of up to `limit` tokens. */
static zq_status make_room(struct comparing *c, size_t limit, zq_error *err)
{
    const size_t width = c->info.width;
    const bool decoder = c->info.kind == ZQ_DECODER;
    const zq_session_options o = {.n_threads = c->options->n_threads, .max_length = limit, .max_batch_tokens = limit,
                                  .max_logit_rows = decoder ? limit : 1, .keep_hidden = true};
    c->layers = zq_alloc_array(c->info.n_layers + 1, sizeof *c->layers);
    c->scores = zq_alloc_array(limit, sizeof *c->scores);
    bool ok = c->layers && c->scores;
    for (int i = 0; i < 2; i++) ok &= (c->embeddings[i] = zq_alloc_array(width, sizeof(float))) != NULL;
    if (!ok) return zq_fail(err, ZQ_ENOMEM, "no memory to compare sequences of %zu tokens", limit);
    zq_status st = ZQ_OK;
    for (int i = 0; i < 2 && !st; i++) st = zq_session_create(&c->sessions[i], c->models[i], &o, err);
    return st;
}

static zq_status compare_all(struct comparing *c, struct zq_sequences *sequences, zq_error *err)
{
    const zq_compare_options *o = c->options;
    zq_input in = {0};
    zq_status st = make_room(c, sequences->max_tokens, err);
    if (!st) st = zq_sequences_next(sequences, &in, err);
    while (!st && in.n) {
        st = (sequences->lines ? compare_line : compare_window)(c, &in, err);
        if (!st && o->progress && !o->progress(o->user, sequences->done, sequences->total))
            st = zq_fail(err, ZQ_ECANCELLED, "cancelled after %zu tokens", c->n_tokens);
        if (!st) st = zq_sequences_next(sequences, &in, err);
    }
    if (!st && !c->n_tokens) st = zq_fail(err, ZQ_EINVAL, "the text has no line to compare");
    return st;
}

static zq_status report(const struct comparing *c, zq_comparison *out, zq_error *err)
{
    const size_t n_layers = c->info.n_layers;
    zq_layer_error *layers = zq_alloc_array(n_layers + 1, sizeof *layers);
    if (!layers) return zq_fail(err, ZQ_ENOMEM, "no memory for the errors of %zu layers", n_layers);
    for (size_t l = 0; l <= n_layers; l++)
        layers[l] = (zq_layer_error){.relative = c->layers[l].norm > 0 ? sqrt(c->layers[l].error / c->layers[l].norm) : 0,
                                     .cosine = c->layers[l].cosine / (double)c->n_tokens};
    *out = (zq_comparison){
        .kind = c->info.kind, .n_sequences = c->tallies[c->info.kind == ZQ_DECODER ? NLL_A : COSINE].n, .n_tokens = c->n_tokens,
        .n_layers = n_layers, .layers = layers,
        .nll = {tally_spread(&c->tallies[NLL_A]), tally_spread(&c->tallies[NLL_B])}, .nll_difference = tally_spread(&c->tallies[NLL_DIFFERENCE]),
        .kl = tally_spread(&c->tallies[KL]), .top1 = tally_spread(&c->tallies[TOP1]), .cosine = tally_spread(&c->tallies[COSINE]),
    };
    return ZQ_OK;
}

zq_status zq_compare(const zq_model *a, const zq_model *b, const char *text, size_t n_bytes, const zq_compare_options *options, zq_comparison *out,
                     zq_error *err)
{
    static const zq_compare_options defaults = {0};
    struct comparing c = {.models = {a, b}, .options = options ? options : &defaults};
    *out = (zq_comparison){0};
    zq_model_info_get(a, &c.info);
    c.n_threads = zq_thread_count(c.options->n_threads);
    const size_t limit_b = b->config.max_length, max_length = limit_b < c.info.max_length ? limit_b : c.info.max_length;
    const struct zq_sequences_options so = {.window = c.options->window, .limit = c.options->limit, .max_length = max_length};
    struct zq_sequences sequences = {0};
    zq_status st = check_models(&c, err);
    if (!st) st = zq_sequences_begin(&sequences, a, text, n_bytes, &so, err);
    if (!st) st = compare_all(&c, &sequences, err);
    if (!st) st = report(&c, out, err);
    zq_sequences_end(&sequences);
    for (int i = 0; i < 2; i++) {
        zq_session_close(c.sessions[i]);
        zq_free(c.embeddings[i]);
    }
    zq_free(c.layers);
    zq_free(c.scores);
    return st;
}

void zq_comparison_free(zq_comparison *comparison)
{
    if (!comparison) return;
    zq_free(comparison->layers);
    *comparison = (zq_comparison){0};
}
