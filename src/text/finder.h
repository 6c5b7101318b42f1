/* The "pattern" of Split and Replace: {"String": ..} is found literally, {"Regex": ..} as a regular expression. */
#ifndef ZQ_TEXT_FINDER_H
#define ZQ_TEXT_FINDER_H

#include "base/json.h"
#include "text/regex.h"

struct zq_finder {
    struct zq_span literal; /* owned; unused if there is a regex */
    struct zq_regex *regex;
};

zq_status zq_finder_read(struct zq_finder *p, const json_t *json, const char *name, zq_error *err);
void zq_finder_free(struct zq_finder *p);

/* The matches of a pattern in a text, from left to right without overlap. Zero-initialise. */
struct zq_matches {
    size_t at, last_end;
    bool any;
};
/* The next match. *found is false at the end. As zq_regex_search otherwise. */
zq_status zq_finder_next(const struct zq_finder *p, struct zq_regex_scratch *rs, struct zq_span text, struct zq_matches *m, bool *found,
                          size_t *begin, size_t *end, zq_error *err);

#endif
