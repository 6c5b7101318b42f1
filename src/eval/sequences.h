/* What a model is measured on: a text, as the sequences of ids that its kind calls for. */
#ifndef ZQ_EVAL_SEQUENCES_H
#define ZQ_EVAL_SEQUENCES_H

#include "base/status.h"

struct zq_sequences {
    const zq_tokenizer *tokenizer;
    const char *text;     /* [n_bytes] */
    size_t n_bytes, limit;
    bool lines;           /* encoders: a line, special tokens added; decoders: consecutive windows without */
    bool ends_special;    /* the tokenizer ends a line with a special token, which stays when the line is cut */
    size_t max_tokens;    /* of a sequence */
    size_t done, total;   /* windows, or bytes of lines */
    size_t n_tokens;      /* in lines so far */
    zq_ids ids;           /* the whole text, or the latest line */
};

struct zq_sequences_options {
    size_t window;     /* decoders: ids per window; 0: 256 or max_length, if smaller */
    size_t limit;      /* first `limit` ids of the text only (encoders: whole lines, until that many are reached); 0: all */
    size_t max_length; /* limit of the model */
};

/* ZQ_EUNSUPPORTED without a tokenizer; ZQ_EINVAL for a text shorter than a window; ZQ_ELIMIT for a window above max_length. */
zq_status zq_sequences_begin(struct zq_sequences *s, const zq_model *model, const char *text, size_t n_bytes,
                             const struct zq_sequences_options *options, zq_error *err);
/* The next sequence, valid until the next call; in->n is 0 when there is none. Empty lines are left out, an unfinished last window too. */
zq_status zq_sequences_next(struct zq_sequences *s, zq_input *in, zq_error *err);
void zq_sequences_end(struct zq_sequences *s); /* accepts zero */

#endif
