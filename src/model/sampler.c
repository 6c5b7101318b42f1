/* Choosing the next token: greedy, or from the softmax restricted to the top-k ids and then to the smallest set whose
 * probability reaches top-p. */
#include "base/alloc.h"
#include "base/rng.h"
#include "base/status.h"
#include "model/session.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    int32_t id;
    float logit;
    double p;
};

/* Larger logits first; the smaller id among equals, so that a seed means one text. */
static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* n if no logit is a number. */
static size_t greedy(const float *logits, size_t n)
{
    size_t best = 0;
    while (best < n && isnan(logits[best])) best++;
    for (size_t i = best + 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

zq_status zq_sample(zq_sampler *s, const float *logits, size_t n, int32_t *id, zq_error *err)
{
    *id = 0;
    if (!n) return zq_fail(err, ZQ_EINVAL, "there are no logits to sample from");
    const size_t best = greedy(logits, n);
    if (best == n || isinf(logits[best])) return zq_fail(err, ZQ_EFORMAT, "the model's logits are no finite numbers: its weights are damaged");
    if (!(s->temperature > 0)) {
        *id = (int32_t)best;
        return ZQ_OK;
    }
    struct candidate *c = zq_alloc_array(n, sizeof *c);
    if (!c) return zq_fail(err, ZQ_ENOMEM, "no memory to sample from %zu logits", n);
    for (size_t i = 0; i < n; i++) c[i] = (struct candidate){.id = (int32_t)i, .logit = isnan(logits[i]) ? -INFINITY : logits[i]};
    qsort(c, n, sizeof *c, by_logit);
    size_t kept = s->top_k > 0 && (size_t)s->top_k < n ? (size_t)s->top_k : n;
    double total = 0;
    for (size_t i = 0; i < kept; i++) total += c[i].p = exp(((double)c[i].logit - c[0].logit) / s->temperature);
    if (s->top_p > 0 && s->top_p < 1) {
        const double enough = s->top_p * total;
        double sum = 0;
        size_t i = 0;
        while (i < kept && sum < enough) sum += c[i++].p;
        kept = i;
        total = sum;
    }
    double u = (double)zq_rng_float(&s->state) * total;
    size_t i = 0;
    while (i + 1 < kept && (u -= c[i].p) >= 0) i++;
    *id = c[i].id;
    zq_free(c);
    return ZQ_OK;
}

static zq_status sample_on_device(zq_session *s, zq_sampler *samplers, size_t n, int32_t *ids, zq_error *err)
{
    const struct zq_plugin *plugin = s->ops.plugin;
    const struct zq_device_step *d = &s->there;
    const size_t vocab = s->model->config.vocab;
    for (size_t i = 0; i < n; i++) {
        zq_sampler *from = &samplers[i];
        const bool draws = from->temperature > 0;
        d->host_choices[i] = (struct zq_device_choice){.temperature = draws ? from->temperature : 0, .top_p = from->top_p, .top_k = from->top_k,
                                                       .u = draws ? zq_rng_float(&from->state) : 0};
    }
    const struct zq_device_sample args = {.logits = s->logits, .ld = vocab, .n = vocab, .n_rows = n, .choices = d->choices, .weights = d->weights,
                                          .ids = d->ids};
    plugin->upload(s->ops.queue, d->choices, d->host_choices, n * sizeof *d->choices);
    plugin->sample(s->ops.queue, &args);
    plugin->download(s->ops.queue, ids, d->ids, n * sizeof *ids);
    const char *failure = plugin->finish(s->ops.queue);
    return failure ? zq_fail(err, ZQ_EIO, "%s: %s", s->model->dir, failure) : ZQ_OK;
}

zq_status zq_session_sample(zq_session *s, zq_sampler *samplers, size_t n, int32_t *ids, zq_error *err)
{
    const struct zq_config *c = &s->model->config;
    if (c->kind != ZQ_DECODER) return zq_fail(err, ZQ_EINVAL, "%s is no decoder: there is no next token", s->model->dir);
    if (n != s->n_logit_rows) return zq_fail(err, ZQ_EINVAL, "%zu samplers for %zu rows of logits", n, s->n_logit_rows);
    if (n > s->n_sequences) return zq_fail(err, ZQ_ELIMIT, "%zu rows to sample from, the session has %zu sequences", n, s->n_sequences);
    if (s->model->device) return sample_on_device(s, samplers, n, ids, err);
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < n && !st; i++) st = zq_sample(&samplers[i], s->logits + i * c->vocab, c->vocab, &ids[i], err);
    return st;
}
