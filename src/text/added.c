/* Two tries: tokens that are looked for in the text as given, and tokens ("normalized": true) whose normalized content is looked
 * for in the normalized text. A search takes time proportional to the text times the longest token at worst; in practice nearly
 * every position ends at the table of first bytes. */
#include "text/added.h"

#include "base/alloc.h"
#include "text/component.h"
#include "text/unicode.h"

/* ---- the trie ----------------------------------------------------------------------------------------------------- */

static bool trie_add(struct zq_trie *t, struct zq_span s, size_t token)
{
    uint64_t node = 0, known;
    if (!t->n_nodes) t->n_nodes = 1;
    for (size_t i = 0; i < s.n; i++) {
        const uint64_t edge = node << 8 | (uint8_t)s.at[i];
        if (!zq_table_get(&t->edges, edge, &node)) {
            node = t->n_nodes++;
            if (!zq_table_put(&t->edges, edge, node)) return false;
        }
    }
    t->first[(uint8_t)s.at[0]] = true;
    return zq_table_get(&t->tokens, node, &known) || zq_table_put(&t->tokens, node, token); /* the first of equal contents counts */
}

/* The longest string at the start of s; false if there is none. */
static bool trie_longest(const struct zq_trie *t, const char *s, size_t n, size_t *length, size_t *token)
{
    uint64_t node = 0, found;
    *length = 0;
    for (size_t i = 0; i < n && zq_table_get(&t->edges, node << 8 | (uint8_t)s[i], &node); i++) {
        if (!zq_table_get(&t->tokens, node, &found)) continue;
        *length = i + 1;
        *token = (size_t)found;
    }
    return *length > 0;
}

static bool trie_find(const struct zq_trie *t, struct zq_span text, size_t from, size_t *begin, size_t *length, size_t *token)
{
    if (!t->n_nodes) return false;
    for (size_t i = from; i < text.n; i++) {
        if (!t->first[(uint8_t)text.at[i]] || !trie_longest(t, text.at + i, text.n - i, length, token)) continue;
        *begin = i;
        return true;
    }
    return false;
}

static void trie_free(struct zq_trie *t)
{
    zq_table_free(&t->edges);
    zq_table_free(&t->tokens);
}

const struct zq_added_token *zq_added_by_id(const struct zq_added *a, int32_t id)
{
    uint64_t i;
    return id >= 0 && zq_table_get(&a->by_id, (uint64_t)id, &i) ? &a->tokens[i] : NULL;
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

/* Behind the vocabulary, or behind the largest added id where that is behind it already. */
static int32_t next_id(const struct zq_added *a, const struct zq_vocab *vocab)
{
    const size_t added = a->vocab.n_ids;
    return (int32_t)(added > vocab->n_tokens ? added : vocab->n_tokens);
}

static zq_status read_token(struct zq_added_token *t, const json_t *json, const char *name, zq_error *err)
{
    zq_status st = zq_json_bool(json, "special", false, &t->special, name, err);
    if (!st) st = zq_json_bool(json, "single_word", false, &t->single_word, name, err);
    if (!st) st = zq_json_bool(json, "lstrip", false, &t->lstrip, name, err);
    if (!st) st = zq_json_bool(json, "rstrip", false, &t->rstrip, name, err);
    if (!st) st = zq_json_bool(json, "normalized", !t->special, &t->normalized, name, err);
    return st ? st : zq_component_string(&t->content, json, "content", name, err);
}

static zq_status add(struct zq_added *a, const json_t *json, const struct zq_vocab *vocab, bool trust_id, const char *name, zq_error *err)
{
    if (!json_is_object(json)) return zq_fail(err, ZQ_EFORMAT, "%s: an added token that is not an object", name);
    if (!zq_grow((void **)&a->tokens, a->n, &a->capacity, sizeof *a->tokens)) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for added tokens", name);
    struct zq_added_token *t = &a->tokens[a->n];
    *t = (struct zq_added_token){.id = -1};
    int64_t listed_id = -1;
    zq_status st = read_token(t, json, name, err);
    if (!st && trust_id) st = zq_json_int(json, "id", 0, ZQ_VOCAB_MAX_IDS - 1, -1, &listed_id, name, err);
    if (!st && t->content.n) {
        t->id = zq_vocab_find(&a->vocab, t->content.at, t->content.n);
        if (t->id >= 0) t->special |= zq_added_by_id(a, t->id)->special; /* once special, always special */
        if (t->id < 0) t->id = zq_vocab_find(vocab, t->content.at, t->content.n);
        if (t->id < 0) t->id = listed_id >= 0 ? (int32_t)listed_id : next_id(a, vocab);
        st = zq_vocab_add(&a->vocab, t->content.at, t->content.n, t->id, name, err);
        if (!st && !zq_table_put(&a->by_id, (uint64_t)t->id, a->n)) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for added tokens", name);
    }
    if (!st && t->content.n)
        a->n++;
    else
        zq_free((char *)t->content.at); /* an empty content is ignored */
    return st;
}

/* What a search finds is told by id, so that of two entries with one content the flags of the later one count. */
static zq_status build_tries(struct zq_added *a, const struct zq_normalizers *normalizers, const char *name, zq_error *err)
{
    struct zq_normalize_scratch ns = {0};
    struct zq_regex_scratch rs = {0};
    zq_status st = ZQ_OK;
    for (int special = 1; special >= 0; special--) { /* of equal patterns the special token's comes first */
        for (size_t i = 0; i < a->n && !st; i++) {
            const struct zq_added_token *t = &a->tokens[i];
            struct zq_span pattern = t->content;
            if (t->special != special) continue;
            if (t->normalized) st = zq_normalize(normalizers, &ns, &rs, t->content, &pattern, err);
            if (!st && pattern.n && !trie_add(t->normalized ? &a->normalized : &a->raw, pattern, i))
                st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for added tokens", name);
        }
    }
    zq_normalize_scratch_free(&ns);
    zq_regex_scratch_free(&rs);
    return st;
}

zq_status zq_added_read(struct zq_added *a, const json_t *json, const struct zq_vocab *vocab, const struct zq_normalizers *normalizers,
                        bool trust_ids, const char *name, zq_error *err)
{
    if (!json || json_is_null(json)) return ZQ_OK;
    if (!json_is_array(json)) return zq_fail(err, ZQ_EFORMAT, "%s: \"added_tokens\" is not a list", name);
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < json_array_size(json) && !st; i++) st = add(a, json_array_get(json, i), vocab, trust_ids, name, err);
    return st ? st : build_tries(a, normalizers, name, err);
}

void zq_added_free(struct zq_added *a)
{
    for (size_t i = 0; i < a->n; i++) zq_free((char *)a->tokens[i].content.at);
    zq_free(a->tokens);
    zq_vocab_free(&a->vocab);
    zq_table_free(&a->by_id);
    trie_free(&a->raw);
    trie_free(&a->normalized);
    *a = (struct zq_added){0};
}

/* ---- searching ---------------------------------------------------------------------------------------------------- */

static bool word_before(struct zq_span text, size_t at)
{
    size_t length;
    return at > 0 && zq_is_word(zq_utf8_decode(text.at + zq_utf8_before(text.at, at), &length));
}

static bool word_after(struct zq_span text, size_t at)
{
    size_t length;
    return at < text.n && zq_is_word(zq_utf8_decode(text.at + at, &length));
}

/* Where the spaces that end at `at` begin, not before `least`. */
static size_t skip_spaces_back(struct zq_span text, size_t at, size_t least)
{
    size_t length;
    while (at > least) {
        const size_t before = zq_utf8_before(text.at, at);
        if (before < least || !zq_is_space(zq_utf8_decode(text.at + before, &length))) break;
        at = before;
    }
    return at;
}

/* Where the spaces that begin at `at` end. A run is remembered: tokens made of spaces may ask inside one run again and again. */
static size_t skip_spaces(struct zq_span text, struct zq_added_scan *scan, size_t at)
{
    if (at >= scan->spaces_begin && at < scan->spaces_end) return scan->spaces_end;
    size_t length, end = at;
    while (end < text.n && zq_is_space(zq_utf8_decode(text.at + end, &length))) end += length;
    scan->spaces_begin = at;
    scan->spaces_end = end;
    return end;
}

/* The next token that counts: its place with the spaces it takes along. A single_word token inside a word is passed over with
 * all its text. Spaces that one token has taken stay in the search, as in the reference library: there a token is found once
 * more, unless it takes spaces on its left, for then nothing is left of it. */
static const struct zq_added_token *search(const struct zq_added *a, const struct zq_trie *trie, struct zq_span text, struct zq_added_scan *scan,
                                           size_t *begin, size_t *end)
{
    size_t at, length, index = 0;
    while (trie_find(trie, text, scan->searched, &at, &length, &index)) {
        const struct zq_added_token *t = zq_added_by_id(a, a->tokens[index].id);
        scan->searched = at + length;
        if (t->single_word && (word_before(text, at) || word_after(text, at + length))) continue;
        *begin = !t->lstrip ? at : at > scan->done ? skip_spaces_back(text, at, scan->done) : scan->done;
        *end = t->rstrip ? skip_spaces(text, scan, at + length) : at + length;
        if (*end > *begin) return t;
        scan->done = *end;
    }
    return NULL;
}

bool zq_added_next(const struct zq_added *a, const struct zq_trie *trie, struct zq_span text, struct zq_added_scan *scan, size_t *begin, size_t *end,
                   const struct zq_added_token **token)
{
    *token = scan->waiting;
    *begin = scan->done;
    if (scan->waiting) {
        *end = scan->done = scan->waiting_end;
        scan->waiting = NULL;
        return true;
    }
    size_t from = text.n;
    const struct zq_added_token *t = search(a, trie, text, scan, &from, end);
    *begin = scan->done;
    if (t && from <= scan->done) {
        *begin = from;
        *token = t;
        scan->done = *end;
        return true;
    }
    if (t) {
        scan->waiting = t;
        scan->waiting_end = *end;
    }
    if (scan->done >= text.n) return false;
    *end = scan->done = t ? from : text.n;
    return true;
}
