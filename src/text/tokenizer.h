/* A tokenizer inside the library: the stages of tokenizer.json in the order in which text passes them. */
#ifndef ZQ_TEXT_TOKENIZER_H
#define ZQ_TEXT_TOKENIZER_H

#include "text/added.h"
#include "text/decode.h"
#include "text/kinds.h"
#include "text/normalize.h"
#include "text/post.h"
#include "text/split.h"
#include "text/word.h"

struct zq_workspaces; /* encode.c: what encoding threads use and leave for the next call */

struct zq_tokenizer {
    struct zq_added added;
    struct zq_normalizers normalizers;
    struct zq_splitters splitters;
    struct zq_word_model model;
    struct zq_post post;
    struct zq_decoders decoders;
    size_t n_vocab, max_length; /* as the public functions of these names */
    struct zq_workspaces *workspaces;
};

/* Builds a tokenizer from the tree of a tokenizer.json. trust_ids: see zq_added_read. *out is NULL unless ZQ_OK is returned. */
zq_status zq_tokenizer_build(zq_tokenizer **out, const json_t *root, bool trust_ids, const char *name, zq_error *err);

/* The same from the text of a tokenizer.json. */
zq_status zq_tokenizer_parse(zq_tokenizer **out, const char *text, size_t n_bytes, const char *name, zq_error *err);

/* The older files, read into the tree that a tokenizer.json of the same tokenizer would have; release it with json_decref.
 * *root is NULL unless ZQ_OK is returned. Both look for tokenizer_config.json and special_tokens_map.json in dir. */
zq_status zq_legacy_bpe(json_t **root, const char *dir, const char *vocab_name, const char *merges_name, zq_error *err);
zq_status zq_legacy_wordpiece(json_t **root, const char *dir, const char *vocab_path, zq_error *err);

zq_status zq_workspaces_create(struct zq_workspaces **out, zq_error *err);
void zq_workspaces_free(struct zq_workspaces *w); /* accepts NULL */

#endif
