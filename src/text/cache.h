/* The words that one thread met before, with their ids. Bounded, and never part of a result: a word that is not here is encoded
 * again. Zero-initialise. */
#ifndef ZQ_TEXT_CACHE_H
#define ZQ_TEXT_CACHE_H

#include "text/word.h"

enum { ZQ_CACHE_MAX_WORD = 64 }; /* bytes; longer words are not worth keeping */

struct zq_cache {
    struct zq_cache_slot {
        uint32_t hash, at; /* in bytes; the ids, then the word */
        uint16_t word_bytes, n_ids; /* word_bytes 0: free */
    } *slots; /* [mask + 1] */
    size_t mask, n;
    char *bytes;
    size_t n_bytes, capacity;
};

/* The ids of a word, NULL if it is not here. Valid until the next zq_cache_put. */
const int32_t *zq_cache_find(const struct zq_cache *c, struct zq_span word, uint64_t hash, size_t *n_ids);
/* Keeps a word that is not here, unless it is too long. false: out of memory. */
bool zq_cache_put(struct zq_cache *c, struct zq_span word, uint64_t hash, const int32_t *ids, size_t n_ids);
void zq_cache_free(struct zq_cache *c);

#endif
