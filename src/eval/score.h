/* Rows of logits against the tokens that came, and against the rows of another model. */
#ifndef ZQ_EVAL_SCORE_H
#define ZQ_EVAL_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zq_score {
    double nll, nll_reference; /* of the token that came, nats; 0 without `next` (without `reference`) */
    double kl;                 /* KL(reference || row), nats */
    bool same_top;             /* both rows have the same most likely token */
};

struct zq_scoring {
    const float *logits, *reference; /* [n, n_values]; reference may be NULL */
    const int32_t *next;             /* [n] the token that came; may be NULL */
    size_t n_values;
    struct zq_score *out;            /* [n] */
};
/* Scores n rows, each in double and by one thread: results do not depend on n_threads. */
void zq_score_rows(struct zq_scoring *s, size_t n, int n_threads);

#endif
