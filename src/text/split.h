/* Pre-tokenizers: cutting normalized text into words. Words are handed on one by one, so no list of them is ever held. */
#ifndef ZQ_TEXT_SPLIT_H
#define ZQ_TEXT_SPLIT_H

#include "base/json.h"
#include "text/regex.h"

struct zq_splitter; /* one step */

struct zq_splitters {
    struct zq_splitter *steps; /* [n], a Sequence is flattened */
    size_t n, capacity;
};

/* Receives each word (never empty), valid during the call. */
typedef zq_status zq_word_fn(void *user, struct zq_span word);

/* What one thread needs. Zero-initialise. */
struct zq_split_scratch {
    struct zq_bytes *text; /* [n]: what step i has rewritten */
    size_t n;
};

/* Reads the "pre_tokenizer" value of a tokenizer.json (NULL and null: none). ZQ_EUNSUPPORTED names an unknown type. */
zq_status zq_splitters_read(struct zq_splitters *list, const json_t *json, const char *name, zq_error *err);
void zq_splitters_free(struct zq_splitters *list);

/* Whether the words of this list are the bytes behind the byte alphabet: then the last step of the list is a ByteLevel, whose
 * mapping is left to the receiver, since most words are found in a cache without it. */
bool zq_splitters_raw(const struct zq_splitters *list);

/* Cuts text. at_start: it is the beginning of what the user gave. Forwards the first failure of fn. */
zq_status zq_split(const struct zq_splitters *list, struct zq_split_scratch *s, struct zq_regex_scratch *rs, struct zq_span text, bool at_start,
                   zq_word_fn *fn, void *user, zq_error *err);
void zq_split_scratch_free(struct zq_split_scratch *s);

#endif
