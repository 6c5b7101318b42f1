/* Perplexity on text, and the distance to the original model: KL divergence and top-1 agreement over the same positions.
 * Scores are added up in position order, so that results do not depend on threads. */
#include "base/alloc.h"
#include "base/status.h"
#include "base/threads.h"
#include "eval/score.h"

#include <math.h>
#include <time.h>

struct evaluation {
    const zq_model *models[2]; /* the model, and the original or NULL */
    zq_session *sessions[2];
    size_t window, n_windows, vocab;
    int n_threads;
    zq_ids ids;
    struct zq_score *scores; /* [window - 1] */
    double seconds;        /* spent in steps of the first model */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static zq_status choose_window(struct evaluation *e, const zq_eval_options *o, size_t max_length, zq_error *err)
{
    enum { DEFAULT_WINDOW = 256 };
    size_t n = e->ids.n;
    if (o->limit && o->limit < n) n = o->limit;
    e->window = o->window ? o->window : max_length < DEFAULT_WINDOW ? max_length : DEFAULT_WINDOW;
    if (e->window < 2) return zq_fail(err, ZQ_EINVAL, "a window of %zu ids predicts nothing, it needs 2", e->window);
    if (e->window > max_length) return zq_fail(err, ZQ_ELIMIT, "a window of %zu ids is above the model's limit of %zu", e->window, max_length);
    e->n_windows = n / e->window;
    if (!e->n_windows) return zq_fail(err, ZQ_EINVAL, "the text has %zu ids, fewer than one window of %zu", n, e->window);
    return ZQ_OK;
}

static zq_status prepare(struct evaluation *e, const char *text, size_t n_bytes, const zq_eval_options *o, zq_error *err)
{
    zq_model_info info[2];
    for (int i = 0; i < 2 && e->models[i]; i++) {
        zq_model_info_get(e->models[i], &info[i]);
        if (info[i].kind != ZQ_DECODER) return zq_fail(err, ZQ_EUNSUPPORTED, "perplexity needs a decoder, this is a %s model", info[i].arch);
    }
    if (e->models[1] && info[0].vocab != info[1].vocab)
        return zq_fail(err, ZQ_EINVAL, "the models have different vocabularies: %zu and %zu tokens", info[0].vocab, info[1].vocab);
    const zq_tokenizer *tokenizer = zq_model_tokenizer(e->models[0]);
    if (!tokenizer) return zq_fail(err, ZQ_EUNSUPPORTED, "the model's directory holds no tokenizer");
    e->vocab = info[0].vocab;
    size_t limit = info[0].max_length;
    if (e->models[1] && info[1].max_length < limit) limit = info[1].max_length;
    zq_status st = zq_tokenizer_encode(tokenizer, text, n_bytes, NULL, 0, false, &e->ids, err);
    if (!st) st = choose_window(e, o, limit, err);
    const zq_session_options so = {.n_threads = o->n_threads, .max_length = e->window, .max_batch_tokens = e->window, .max_logit_rows = e->window};
    for (int i = 0; i < 2 && e->models[i] && !st; i++) st = zq_session_create(&e->sessions[i], e->models[i], &so, err);
    if (!st && !(e->scores = zq_alloc_array(e->window, sizeof *e->scores))) st = zq_fail(err, ZQ_ENOMEM, "no memory for %zu scores", e->window);
    return st;
}

/* Runs one window through all models and scores its predicted positions. */
static zq_status run_window(struct evaluation *e, size_t w, zq_error *err)
{
    const int32_t *ids = e->ids.ids + w * e->window;
    const zq_input input = {.ids = ids, .n = e->window - 1, .all_logits = true};
    for (int i = 0; i < 2 && e->models[i]; i++) {
        const double start = now();
        zq_status st = zq_session_rewind(e->sessions[i], 0, 0, err);
        if (!st) st = zq_session_step(e->sessions[i], &input, 1, err);
        if (st) return st;
        if (i == 0) e->seconds += now() - start;
    }
    struct zq_scoring scoring = {zq_session_logits(e->sessions[0], NULL), e->models[1] ? zq_session_logits(e->sessions[1], NULL) : NULL,
                                 ids + 1, e->vocab, e->scores};
    zq_score_rows(&scoring, input.n, e->n_threads);
    return ZQ_OK;
}

static zq_status run(struct evaluation *e, const zq_eval_options *o, zq_eval_result *out, zq_error *err)
{
    double nll = 0, kl = 0;
    size_t same = 0;
    const size_t predicted = e->window - 1, n = e->n_windows * predicted;
    for (size_t w = 0; w < e->n_windows; w++) {
        zq_status st = run_window(e, w, err);
        if (st) return st;
        for (size_t t = 0; t < predicted; t++) {
            nll += e->scores[t].nll;
            kl += e->scores[t].kl;
            same += e->scores[t].same_top;
        }
        if (o->progress && !o->progress(o->user, w + 1, e->n_windows))
            return zq_fail(err, ZQ_ECANCELLED, "cancelled after %zu of %zu windows", w + 1, e->n_windows);
    }
    zq_model_info info;
    zq_model_info_get(e->models[0], &info);
    *out = (zq_eval_result){
        .n_tokens = n, .nll = nll / (double)n, .ppl = exp(nll / (double)n), .kl = NAN, .top1 = NAN,
        .tokens_per_s = e->seconds > 0 ? (double)n / e->seconds : 0, .bytes = info.file_bytes,
    };
    if (e->models[1]) {
        out->kl = kl / (double)n;
        out->top1 = (double)same / (double)n;
    }
    return ZQ_OK;
}

zq_status zq_eval_text(const zq_model *model, const char *text, size_t n_bytes, const zq_eval_options *options, zq_eval_result *out, zq_error *err)
{
    static const zq_eval_options defaults = {0};
    const zq_eval_options *o = options ? options : &defaults;
    *out = (zq_eval_result){0};
    struct evaluation e = {.models = {model, o->against}, .n_threads = zq_thread_count(o->n_threads)};
    zq_status st = prepare(&e, text, n_bytes, o, err);
    if (!st) st = run(&e, o, out, err);
    for (int i = 0; i < 2; i++) zq_session_close(e.sessions[i]);
    zq_ids_free(&e.ids);
    zq_free(e.scores);
    return st;
}
