/* The two directions of a vocabulary: content -> id and id -> content. Filled when a tokenizer is opened, then only read. */
#ifndef ZQ_TEXT_VOCAB_H
#define ZQ_TEXT_VOCAB_H

#include "base/status.h"
#include "text/bytes.h"

/* Largest id + 1 that is accepted; real vocabularies have less than 2^19. Bounds the memory that one number in a file can ask for. */
enum { ZQ_VOCAB_MAX_IDS = 1 << 22 };

struct zq_vocab {
    struct zq_bytes text; /* all contents, back to back */
    struct zq_vocab_slot {
        uint32_t hash, offset, length; /* of the content in text */
        int32_t id;                    /* -1: free */
    } *slots;                          /* [mask + 1], open addressing */
    size_t mask, n_tokens;             /* distinct contents */
    struct zq_vocab_entry {
        uint32_t offset, length; /* length UINT32_MAX: no token has this id */
    } *by_id;                    /* [n_ids] */
    size_t n_ids, by_id_capacity; /* n_ids = 1 + largest id */
    size_t longest;              /* bytes of the longest content */
    bool shared_ids;             /* some id has more than one content */
};

/* Adds a token; content that is there already gets the new id, and of several contents with one id the last is what the id
 * means. ZQ_EFORMAT for ids outside [0, ZQ_VOCAB_MAX_IDS), ZQ_ENOMEM. `name` is for the error sentence. */
zq_status zq_vocab_add(struct zq_vocab *v, const char *content, size_t n, int64_t id, const char *name, zq_error *err);
void zq_vocab_free(struct zq_vocab *v);

/* -1: not there. */
int32_t zq_vocab_find(const struct zq_vocab *v, const char *content, size_t n);

/* false: no token has this id. */
bool zq_vocab_content(const struct zq_vocab *v, int32_t id, struct zq_span *content);

#endif
