/* Commands that answer standard input line by line with an encoder: embed and classify. */
#ifndef ZQ_CLI_LINES_H
#define ZQ_CLI_LINES_H

#include "console.h"

/* One tokenized line, cut to what the model takes. The session has room for it in slot 0. */
struct line {
    const int32_t *ids;   /* [n] */
    const uint8_t *types; /* [n] */
    size_t n;
};
typedef zq_status line_fn(void *user, zq_session *session, struct line line, zq_error *err);

/* Calls answer for every line of standard input, and flushes the output after each, so that a program at the other end of a
 * pipe gets its answers in time. With pairs, a TAB separates two sequences. Lines are cut to the shorter of the limits of
 * tokenizer and model, with one note; special tokens at the end of a sequence stay. */
zq_status lines_answer(const zq_model *model, const char *name, bool pairs, line_fn *answer, void *user, zq_error *err);

#endif
