/* Word models: what turns one word of the pre-tokenizer into ids. */
#ifndef ZQ_TEXT_WORD_H
#define ZQ_TEXT_WORD_H

#include "base/json.h"
#include "text/table.h"
#include "text/vocab.h"

/* A growing list of ids. */
struct zq_id_list {
    int32_t *ids; /* [n] */
    size_t n, capacity;
};

bool zq_id_list_grow(struct zq_id_list *l, size_t more);

static inline bool zq_id_list_put(struct zq_id_list *l, int32_t id)
{
    if (l->n == l->capacity && !zq_id_list_grow(l, 1)) return false;
    l->ids[l->n++] = id;
    return true;
}

/* Byte-pair encoding, bpe.c. */
struct zq_bpe {
    struct zq_table merges; /* left id << 32 | right id -> rank << 32 | id of both together */
    struct zq_table chars;  /* character -> id of the token that is this character alone */
    struct zq_table joints; /* left character << 32 | right character: some merge joins words between these two */
    int32_t bytes[256];     /* ids of <0x00> .. <0xFF>; -1: not there or not to be used */
    int32_t unknown;        /* -1: none */
    struct zq_span prefix, suffix; /* of characters inside and at the end of a word; owned, usually empty */
    bool has_unknown_token;        /* the file names one, whether or not the vocabulary has it */
    bool fuse_unknown, byte_fallback, ignore_merges;
};

/* Greedy longest match, wordpiece.c. */
struct zq_wordpiece {
    struct zq_span prefix; /* of pieces inside a word; owned */
    size_t max_chars;      /* longer words are unknown */
    int32_t unknown;       /* -1: not in the vocabulary */
};

struct zq_word_model {
    const struct zq_word_kind *kind; /* NULL: half built */
    struct zq_vocab vocab;
    union {
        struct zq_bpe bpe;
        struct zq_wordpiece wordpiece;
    };
};

/* What one thread needs. Zero-initialise. */
struct zq_word_scratch {
    struct zq_bytes text;
    struct zq_symbol {
        int32_t id;
        uint32_t previous, next; /* positions; UINT32_MAX: none */
    } *symbols;                  /* [n_symbols] */
    size_t n_symbols, symbols_capacity;
    uint64_t *heap; /* [heap_capacity] */
    size_t heap_capacity;
};

struct zq_word_kind {
    const char *type;
    /* Fills the model's own part from the "model" value; the vocabulary is there already. */
    zq_status (*read)(struct zq_word_model *m, const json_t *json, const char *name, zq_error *err);
    /* Appends the ids of a word. */
    zq_status (*encode)(const struct zq_word_model *m, struct zq_word_scratch *s, struct zq_span word, struct zq_id_list *out, zq_error *err);
    /* The length of the first part of a word that can be encoded without the rest; NULL: words cannot be divided. */
    size_t (*cut)(const struct zq_word_model *m, struct zq_span word);
    void (*free)(struct zq_word_model *m);
};
extern const struct zq_word_kind zq_word_bpe, zq_word_wordpiece;

/* Reads the "model" value of a tokenizer.json. */
zq_status zq_word_model_read(struct zq_word_model *m, const json_t *json, const char *name, zq_error *err);
void zq_word_model_free(struct zq_word_model *m);
void zq_word_scratch_free(struct zq_word_scratch *s);

#endif
