/* Scoring of logits. log p is kept as logit - log(total), never as log(p): a token of probability 1e-30 still has its log. */
#include "eval/score.h"

#include "base/threads.h"

#include <math.h>

/* log sum exp of a row, and its most likely id. */
static double log_total(const float *logits, size_t n, size_t *top)
{
    *top = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[*top]) *top = i;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - logits[*top]);
    return logits[*top] + log(sum);
}

static void score_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_scoring *w = work;
    for (size_t t = begin; t < end; t++) {
        const float *row = w->logits + t * w->n_values;
        size_t top, top_reference;
        const double total = log_total(row, w->n_values, &top);
        struct zq_score s = {0};
        if (w->next) s.nll = total - row[w->next[t]];
        if (w->reference) {
            const float *ref = w->reference + t * w->n_values;
            const double total_reference = log_total(ref, w->n_values, &top_reference);
            if (w->next) s.nll_reference = total_reference - ref[w->next[t]];
            for (size_t i = 0; i < w->n_values; i++) {
                const double lp = ref[i] - total_reference;
                s.kl += exp(lp) * (lp - (row[i] - total));
            }
            s.same_top = top == top_reference;
        }
        w->out[t] = s;
    }
}

void zq_score_rows(struct zq_scoring *s, size_t n, int n_threads)
{
    zq_parallel(n_threads, n, 1, score_range, s);
}
