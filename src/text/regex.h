/* Regular expressions of tokenizer files. They are written for Oniguruma with Ruby syntax; PCRE2 runs them after the few
 * constructs that mean something else there have been rewritten. */
#ifndef ZQ_TEXT_REGEX_H
#define ZQ_TEXT_REGEX_H

#include "base/status.h"
#include "text/bytes.h"

struct zq_regex; /* immutable, shared by threads */

/* What one thread needs for matching; any regex may use it. Zero-initialise. */
struct zq_regex_scratch {
    void *match, *context; /* PCRE2 objects */
    size_t limit;          /* steps, as set in context */
};

/* Compiles a pattern. ZQ_EUNSUPPORTED if it uses what PCRE2 cannot do, with the pattern in the sentence; ZQ_ENOMEM. */
zq_status zq_regex_compile(struct zq_regex **out, const char *pattern, size_t n, const char *name, zq_error *err);
void zq_regex_free(struct zq_regex *re);

void zq_regex_scratch_free(struct zq_regex_scratch *s);

/* The leftmost match in text[from..n), which is valid UTF-8 (look-behind sees text from 0). *found tells whether there is one.
 * ZQ_ELIMIT if the search takes too many steps, ZQ_ENOMEM. */
zq_status zq_regex_search(const struct zq_regex *re, struct zq_regex_scratch *s, const char *text, size_t n, size_t from, bool *found,
                          size_t *begin, size_t *end, zq_error *err);

#endif
