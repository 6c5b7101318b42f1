/* The public functions on tokenizers, except encoding (encode.c): finding the files, decoding, looking things up. */
#include "text/tokenizer.h"

#include "base/alloc.h"
#include "base/file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 256 << 20 }; /* the largest tokenizer.json in use have 35 MB */

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static zq_status open_json(zq_tokenizer **out, const char *path, zq_error *err)
{
    json_t *root;
    zq_status st = zq_json_read(&root, path, MAX_FILE_BYTES, err);
    if (st) return st;
    st = zq_tokenizer_build(out, root, false, path, err);
    json_decref(root);
    return st;
}

static zq_status build_legacy(zq_tokenizer **out, json_t *root, const char *path, zq_error *err)
{
    const zq_status st = zq_tokenizer_build(out, root, true, path, err);
    json_decref(root);
    return st;
}

static zq_status open_bpe(zq_tokenizer **out, const char *dir, const char *vocab, const char *merges, zq_error *err)
{
    json_t *root;
    const zq_status st = zq_legacy_bpe(&root, dir, vocab, merges, err);
    return st ? st : build_legacy(out, root, dir, err);
}

static zq_status open_wordpiece(zq_tokenizer **out, const char *dir, const char *path, zq_error *err)
{
    json_t *root;
    const zq_status st = zq_legacy_wordpiece(&root, dir, path, err);
    return st ? st : build_legacy(out, root, path, err);
}

/* Whether dir has a file of this name; *path then is its path (zq_free), NULL if out of memory. */
static bool has(const char *dir, const char *name, char **path)
{
    *path = zq_path_join(dir, name);
    if (!*path || zq_file_exists(*path)) return true;
    zq_free(*path);
    *path = NULL;
    return false;
}

static int ends_with_tokenizer_json(const struct dirent *entry)
{
    static const char suffix[] = "tokenizer.json";
    const size_t n = strlen(entry->d_name);
    return n >= sizeof suffix - 1 && !strcmp(entry->d_name + n - (sizeof suffix - 1), suffix);
}

/* The first file by name that ends in tokenizer.json. */
static zq_status open_any_json(zq_tokenizer **out, const char *dir, zq_error *err)
{
    struct dirent **entries;
    const int n = scandir(dir, &entries, ends_with_tokenizer_json, alphasort);
    if (n < 0) return zq_fail_errno(err, "cannot read the directory %s", dir);
    char *path = n ? zq_path_join(dir, entries[0]->d_name) : NULL;
    for (int i = 0; i < n; i++) free(entries[i]);
    free(entries);
    zq_status st;
    if (path)
        st = open_json(out, path, err);
    else
        st = n ? zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir)
               : zq_fail(err, ZQ_EIO, "%s: there is no tokenizer.json, vocab.json with merges.txt, encoder.json with vocab.bpe, or vocab.txt", dir);
    zq_free(path);
    return st;
}

/* What a folder is searched for, in this order. */
static const struct {
    const char *vocab, *merges; /* merges NULL: a single file */
} files[] = {{"tokenizer.json", NULL}, {"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}, {"vocab.txt", NULL}};

static zq_status open_folder(zq_tokenizer **out, const char *dir, zq_error *err)
{
    for (size_t i = 0; i < ZQ_LEN(files); i++) {
        char *path = NULL, *merges = NULL;
        if (!has(dir, files[i].vocab, &path)) continue;
        if (path && files[i].merges && !has(dir, files[i].merges, &merges)) {
            zq_free(path);
            continue;
        }
        zq_status st;
        if (!path || (files[i].merges && !merges))
            st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
        else if (files[i].merges)
            st = open_bpe(out, dir, files[i].vocab, files[i].merges, err);
        else
            st = i ? open_wordpiece(out, dir, path, err) : open_json(out, path, err);
        zq_free(path);
        zq_free(merges);
        return st;
    }
    return open_any_json(out, dir, err);
}

/* One of two files that belong together stands for both; the other lies beside it. */
static zq_status open_file(zq_tokenizer **out, const char *path, const char *dir, const char *name, zq_error *err)
{
    for (size_t i = 0; i < ZQ_LEN(files); i++) {
        if (files[i].merges && (!strcmp(name, files[i].vocab) || !strcmp(name, files[i].merges)))
            return open_bpe(out, dir, files[i].vocab, files[i].merges, err);
    }
    const size_t n = strlen(name);
    return n > 4 && !strcmp(name + n - 4, ".txt") ? open_wordpiece(out, dir, path, err) : open_json(out, path, err);
}

zq_status zq_tokenizer_open(zq_tokenizer **out, const char *path, zq_error *err)
{
    *out = NULL;
    if (zq_is_directory(path)) return open_folder(out, path, err);
    const char *slash = strrchr(path, '/');
    char *dir = slash == path ? zq_strdup("/") : slash ? zq_strndup(path, (size_t)(slash - path)) : zq_strdup(".");
    if (!dir) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", path);
    const zq_status st = open_file(out, path, dir, slash ? slash + 1 : path, err);
    zq_free(dir);
    return st;
}

void zq_tokenizer_close(zq_tokenizer *t)
{
    if (!t) return;
    zq_added_free(&t->added);
    zq_normalizers_free(&t->normalizers);
    zq_splitters_free(&t->splitters);
    zq_word_model_free(&t->model);
    zq_post_free(&t->post);
    zq_decoders_free(&t->decoders);
    zq_workspaces_free(t->workspaces);
    zq_free(t);
}

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

/* The contents of the tokens. Ids between others that no token has are passed over. */
static zq_status collect(const zq_tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special, struct zq_pieces *pieces, zq_error *err)
{
    for (size_t i = 0; i < n_ids; i++) {
        struct zq_span content;
        if (ids[i] < 0 || (size_t)ids[i] >= t->n_vocab)
            return zq_fail(err, ZQ_EINVAL, "id %d at position %zu is outside the vocabulary of %zu", (int)ids[i], i, t->n_vocab);
        const struct zq_added_token *added = zq_added_by_id(&t->added, ids[i]);
        if (added)
            content = added->content;
        else if (!zq_vocab_content(&t->model.vocab, ids[i], &content))
            continue;
        if (added && added->special && skip_special) continue;
        if (!t->decoders.set && pieces->n && !zq_bytes_put(&pieces->text, " ", 1)) return zq_fail(err, ZQ_ENOMEM, "no memory for decoding");
        if (!zq_pieces_put(pieces, content.at, content.n)) return zq_fail(err, ZQ_ENOMEM, "no memory for decoding");
    }
    return ZQ_OK;
}

zq_status zq_tokenizer_decode(const zq_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special, char **text, size_t *n_bytes,
                              zq_error *err)
{
    struct zq_pieces pieces = {0};
    *text = NULL;
    if (n_bytes) *n_bytes = 0;
    zq_status st = collect(tokenizer, ids, n_ids, skip_special, &pieces, err);
    if (!st) st = zq_decode(&tokenizer->decoders, &pieces, err);
    if (!st && !zq_bytes_put(&pieces.text, "", 1)) st = zq_fail(err, ZQ_ENOMEM, "no memory for decoding");
    if (!st) {
        *text = pieces.text.data;
        if (n_bytes) *n_bytes = pieces.text.n - 1;
        pieces.text = (struct zq_bytes){0};
    }
    zq_pieces_free(&pieces);
    return st;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

size_t zq_tokenizer_n_vocab(const zq_tokenizer *tokenizer) { return tokenizer->n_vocab; }

int32_t zq_tokenizer_find(const zq_tokenizer *tokenizer, const char *content)
{
    const size_t n = strlen(content);
    const int32_t id = zq_vocab_find(&tokenizer->added.vocab, content, n);
    return id >= 0 ? id : zq_vocab_find(&tokenizer->model.vocab, content, n);
}

static bool begins_with(struct zq_span s, const char *what)
{
    const size_t n = strlen(what);
    return s.n >= n && !memcmp(s.at, what, n);
}

bool zq_tokenizer_is_text(const zq_tokenizer *t, int32_t id)
{
    const struct zq_added_token *added = zq_added_by_id(&t->added, id);
    struct zq_span content;
    if (added) return !added->special;
    if (!zq_vocab_content(&t->model.vocab, id, &content) || begins_with(content, "[unused")) return false;
    const bool bytes = t->model.kind == &zq_word_bpe && t->model.bpe.byte_fallback;
    for (size_t b = 0; bytes && b < ZQ_LEN(t->model.bpe.bytes); b++)
        if (t->model.bpe.bytes[b] == id) return false;
    return true;
}

size_t zq_tokenizer_max_length(const zq_tokenizer *tokenizer) { return tokenizer->max_length; }

void zq_ids_free(zq_ids *ids)
{
    if (!ids) return;
    zq_free(ids->ids);
    zq_free(ids->types);
    *ids = (zq_ids){0};
}
