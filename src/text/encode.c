/* From text to ids: added tokens are cut out, the rest is normalized, cut into words, and the words are encoded.
 *
 * The tokenizer itself never changes. What a call writes to is a workspace; calls borrow one that an earlier call left behind,
 * with its cache of words, so that threads share nothing while they work and short texts do not start cold. */
#include "base/alloc.h"
#include "text/bytelevel.h"
#include "text/cache.h"
#include "text/forget.h"
#include "text/tokenizer.h"

#include <stdatomic.h>

enum {
    KEPT_WORKSPACES = 16,       /* for as many threads at the same time; more work without a warm cache */
    KEPT_TEXT_BYTES = 1 << 20,  /* after longer texts the workspace, whose buffers grew with them, is not kept */
    MAX_TEXT_BYTES = 1 << 30,   /* positions within a word are 32 bits wide, and normalization makes text longer */
};

struct workspace {
    struct zq_bytes repaired, mapped;
    struct zq_normalize_scratch normalize;
    struct zq_regex_scratch regex;
    struct zq_split_scratch split;
    struct zq_word_scratch word;
    struct zq_cache cache;
    struct zq_id_list a, b;
};

struct zq_workspaces {
    _Atomic(struct workspace *) kept[KEPT_WORKSPACES];
};

static void free_workspace(struct workspace *w)
{
    if (!w) return;
    zq_bytes_free(&w->repaired);
    zq_bytes_free(&w->mapped);
    zq_normalize_scratch_free(&w->normalize);
    zq_regex_scratch_free(&w->regex);
    zq_split_scratch_free(&w->split);
    zq_word_scratch_free(&w->word);
    zq_cache_free(&w->cache);
    zq_free(w->a.ids);
    zq_free(w->b.ids);
    zq_free(w);
}

zq_status zq_workspaces_create(struct zq_workspaces **out, zq_error *err)
{
    *out = zq_alloc(sizeof **out);
    if (!*out) return zq_fail(err, ZQ_ENOMEM, "no memory for a tokenizer");
    for (size_t i = 0; i < KEPT_WORKSPACES; i++) atomic_init(&(*out)->kept[i], NULL);
    return ZQ_OK;
}

static void clear(struct zq_workspaces *w)
{
    for (size_t i = 0; i < KEPT_WORKSPACES; i++) free_workspace(atomic_exchange(&w->kept[i], NULL));
}

void zq_workspaces_free(struct zq_workspaces *w)
{
    if (!w) return;
    clear(w);
    zq_free(w);
}

void zq_tokenizer_forget(const zq_tokenizer *t) { clear(t->workspaces); }

static struct workspace *borrow(struct zq_workspaces *all)
{
    for (size_t i = 0; i < KEPT_WORKSPACES; i++) {
        struct workspace *w = atomic_exchange(&all->kept[i], NULL);
        if (w) return w;
    }
    return zq_alloc_zero(sizeof(struct workspace));
}

static void give_back(struct zq_workspaces *all, struct workspace *w)
{
    for (size_t i = 0; i < KEPT_WORKSPACES; i++) {
        struct workspace *none = NULL;
        if (atomic_compare_exchange_strong(&all->kept[i], &none, w)) return;
    }
    free_workspace(w);
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

struct job {
    const zq_tokenizer *t;
    struct workspace *w;
    struct zq_id_list *out;
    bool raw; /* words come as bytes, see zq_splitters_raw */
    zq_error *err;
};

static zq_status no_memory(struct job *j)
{
    return zq_fail(j->err, ZQ_ENOMEM, "no memory for the ids of a text");
}

static zq_status encode_word(struct job *j, struct zq_span word)
{
    return j->t->model.kind->encode(&j->t->model, &j->w->word, word, j->out, j->err);
}

/* The spelling of a raw word in the byte alphabet. */
static bool map(struct job *j, struct zq_span *word)
{
    struct zq_bytes *mapped = &j->w->mapped;
    mapped->n = 0;
    if (!zq_bytelevel_put(mapped, word->at, word->n)) return false;
    *word = (struct zq_span){mapped->data, mapped->n};
    return true;
}

static zq_status put_short_word(struct job *j, struct zq_span word)
{
    const uint64_t hash = zq_hash_bytes(word.at, word.n);
    struct zq_id_list *out = j->out;
    size_t n_ids;
    const int32_t *ids = zq_cache_find(&j->w->cache, word, hash, &n_ids);
    if (ids) {
        if (out->capacity - out->n < n_ids && !zq_id_list_grow(out, n_ids)) return no_memory(j);
        for (size_t i = 0; i < n_ids; i++) out->ids[out->n + i] = ids[i];
        out->n += n_ids;
        return ZQ_OK;
    }
    const size_t before = out->n;
    struct zq_span spelled = word;
    if (j->raw && !map(j, &spelled)) return no_memory(j);
    const zq_status st = encode_word(j, spelled);
    if (st) return st;
    const int32_t *new_ids = out->n > before ? out->ids + before : NULL; /* a word may have none */
    return zq_cache_put(&j->w->cache, word, hash, new_ids, out->n - before) ? ZQ_OK : no_memory(j);
}

/* Long words are divided where the model allows it: a text without pre-tokenizer is one word of a million bytes. */
static zq_status put_word(void *user, struct zq_span word)
{
    struct job *j = user;
    const struct zq_word_model *m = &j->t->model;
    if (word.n <= ZQ_CACHE_MAX_WORD) return put_short_word(j, word);
    if (j->raw && !map(j, &word)) return no_memory(j);
    while (word.n) {
        const struct zq_span part = {word.at, m->kind->cut ? m->kind->cut(m, word) : word.n};
        /* the cache knows words of one spelling only */
        const zq_status st = part.n <= ZQ_CACHE_MAX_WORD && !j->raw ? put_short_word(j, part) : encode_word(j, part);
        if (st) return st;
        word = (struct zq_span){word.at + part.n, word.n - part.n};
    }
    return ZQ_OK;
}

/* ---- texts -------------------------------------------------------------------------------------------------------- */

/* Text between added tokens of the first kind. */
static zq_status put_gap(struct job *j, struct zq_span gap, bool at_start)
{
    const zq_tokenizer *t = j->t;
    struct workspace *w = j->w;
    struct zq_span text;
    zq_status st = zq_normalize(&t->normalizers, &w->normalize, &w->regex, gap, &text, j->err);
    if (!st && text.n > UINT32_MAX / 2) st = zq_fail(j->err, ZQ_ELIMIT, "a text of %zu bytes is %zu bytes long when normalized", gap.n, text.n);
    struct zq_added_scan scan = {0};
    const struct zq_added_token *token;
    size_t begin, end;
    while (!st && zq_added_next(&t->added, &t->added.normalized, text, &scan, &begin, &end, &token)) {
        if (!token)
            st = zq_split(&t->splitters, &w->split, &w->regex, (struct zq_span){text.at + begin, end - begin}, at_start && begin == 0, put_word, j,
                          j->err);
        else if (!zq_id_list_put(j->out, token->id))
            st = no_memory(j);
    }
    return st;
}

static zq_status put_text(struct job *j, const char *bytes, size_t n_bytes)
{
    struct zq_span text = {bytes, n_bytes};
    if (n_bytes > MAX_TEXT_BYTES) return zq_fail(j->err, ZQ_ELIMIT, "the text has %zu bytes, the limit is %d", n_bytes, MAX_TEXT_BYTES);
    if (zq_utf8_valid(bytes, n_bytes) < n_bytes) {
        j->w->repaired.n = 0;
        if (!zq_utf8_repair(&j->w->repaired, bytes, n_bytes)) return no_memory(j);
        text = (struct zq_span){j->w->repaired.data, j->w->repaired.n};
    }
    struct zq_added_scan scan = {0};
    const struct zq_added_token *token;
    size_t begin, end;
    zq_status st = ZQ_OK;
    j->out->n = 0;
    while (!st && zq_added_next(&j->t->added, &j->t->added.raw, text, &scan, &begin, &end, &token)) {
        if (!token)
            st = put_gap(j, (struct zq_span){text.at + begin, end - begin}, begin == 0);
        else if (!zq_id_list_put(j->out, token->id))
            st = no_memory(j);
    }
    return st;
}

zq_status zq_tokenizer_encode(const zq_tokenizer *tokenizer, const char *text, size_t n_bytes, const char *pair, size_t pair_bytes, bool add_special,
                              zq_ids *out, zq_error *err)
{
    struct workspace *w = borrow(tokenizer->workspaces);
    if (!w) return zq_fail(err, ZQ_ENOMEM, "no memory for encoding");
    struct job job = {tokenizer, w, &w->a, zq_splitters_raw(&tokenizer->splitters), err};
    zq_status st = put_text(&job, text, n_bytes);
    if (!st && pair) {
        job.out = &w->b;
        st = put_text(&job, pair, pair_bytes);
    }
    if (!st && !zq_post_apply(&tokenizer->post, &w->a, pair ? &w->b : NULL, add_special, out)) st = no_memory(&job);
    if (n_bytes > KEPT_TEXT_BYTES || pair_bytes > KEPT_TEXT_BYTES)
        free_workspace(w);
    else
        give_back(tokenizer->workspaces, w);
    return st;
}
