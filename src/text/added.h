/* Added tokens: contents that are found in the text before anything else happens to it ([MASK], <|endoftext|>). */
#ifndef ZQ_TEXT_ADDED_H
#define ZQ_TEXT_ADDED_H

#include "text/normalize.h"
#include "text/table.h"
#include "text/vocab.h"

struct zq_added_token {
    struct zq_span content; /* owned */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};

/* Finds the leftmost-longest of many strings. Nodes are numbered from 0, the root. */
struct zq_trie {
    struct zq_table edges;  /* node << 8 | byte -> node */
    struct zq_table tokens; /* node -> token */
    uint32_t n_nodes;
    bool first[256];        /* bytes that some string begins with */
};

struct zq_added {
    struct zq_added_token *tokens; /* [n] */
    size_t n, capacity;
    struct zq_vocab vocab;       /* their contents and ids */
    struct zq_table by_id;       /* id -> token */
    struct zq_trie raw, normalized;
};

/* Reads the "added_tokens" list of a tokenizer.json; vocab is the model's. A content that the model has keeps the model's id. Any
 * other gets the next free one, and the id in the list is no more than a remark, as in the reference library; with trust_ids
 * (older files) it gets the id in the list. */
zq_status zq_added_read(struct zq_added *a, const json_t *json, const struct zq_vocab *vocab, const struct zq_normalizers *normalizers,
                        bool trust_ids, const char *name, zq_error *err);
void zq_added_free(struct zq_added *a);

/* The token with an id, or NULL. */
const struct zq_added_token *zq_added_by_id(const struct zq_added *a, int32_t id);

/* A text as gaps and tokens, from left to right. Zero-initialise. */
struct zq_added_scan {
    size_t done;     /* what has been handed out */
    size_t searched; /* where the next search begins */
    size_t spaces_begin, spaces_end; /* a run of spaces that is known already */
    const struct zq_added_token *waiting; /* found behind the gap that was handed out last */
    size_t waiting_end;
};
/* The next part: text.at[*begin .. *end) and its token, NULL for a gap. false: the text is used up. */
bool zq_added_next(const struct zq_added *a, const struct zq_trie *trie, struct zq_span text, struct zq_added_scan *scan, size_t *begin, size_t *end,
                   const struct zq_added_token **token);

#endif
