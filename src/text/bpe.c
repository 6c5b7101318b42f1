/* Byte-pair encoding: a word starts as one symbol per character; the pair of neighbours whose merge has the lowest rank is
 * joined, the leftmost among equals, until no pair has a merge.
 *
 * Short words look for that pair by scanning. Long ones keep all pairs in a heap, where entries go stale when a neighbour
 * changes; an entry counts only if the pair that stands there now has its rank. That is n log n for any input. */
#include "base/alloc.h"
#include "text/component.h"
#include "text/word.h"

#include <stdio.h>

enum { SHORT_WORD = 48 }; /* symbols; above, the heap is faster than scanning */

#define NO_MERGE UINT64_MAX
#define NO_SYMBOL UINT32_MAX

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The two halves of a merge, which is either "left right" or ["left", "right"]. */
static bool halves(const json_t *merge, struct zq_span *left, struct zq_span *right)
{
    if (json_is_array(merge)) {
        const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
        if (json_array_size(merge) != 2 || !json_is_string(a) || !json_is_string(b)) return false;
        *left = (struct zq_span){json_string_value(a), json_string_length(a)};
        *right = (struct zq_span){json_string_value(b), json_string_length(b)};
        return true;
    }
    const char *s = json_string_value(merge), *space = s ? memchr(s, ' ', json_string_length(merge)) : NULL;
    if (!space) return false;
    *left = (struct zq_span){s, (size_t)(space - s)};
    *right = (struct zq_span){space + 1, json_string_length(merge) - left->n - 1};
    return !memchr(right->at, ' ', right->n);
}

static bool is_version_line(const json_t *merge)
{
    const char *s = json_string_value(merge);
    return s && !strncmp(s, "#version", 8);
}

/* Notes between which characters the halves touch. */
static bool note_joint(struct zq_bpe *b, struct zq_span left, struct zq_span right)
{
    if (!b->joints.entries || !left.n || !right.n) return true;
    size_t length;
    const uint32_t last = zq_utf8_decode(left.at + zq_utf8_before(left.at, left.n), &length), first = zq_utf8_decode(right.at, &length);
    return zq_table_put(&b->joints, (uint64_t)last << 32 | first, 1);
}

static zq_status read_merge(struct zq_word_model *m, const json_t *merge, size_t rank, struct zq_bytes *joined, const char *name, zq_error *err)
{
    struct zq_bpe *b = &m->bpe;
    struct zq_span left, right;
    if (!halves(merge, &left, &right)) return zq_fail(err, ZQ_EFORMAT, "%s: merge %zu is not a pair of tokens", name, rank);
    const int32_t l = zq_vocab_find(&m->vocab, left.at, left.n), r = zq_vocab_find(&m->vocab, right.at, right.n);
    joined->n = 0;
    const size_t skip = right.n < b->prefix.n ? right.n : b->prefix.n;
    if (!zq_bytes_put(joined, left.at, left.n) || !zq_bytes_put(joined, right.at + skip, right.n - skip)) goto no_memory;
    const int32_t id = zq_vocab_find(&m->vocab, joined->data, joined->n);
    if (l < 0 || r < 0 || id < 0) {
        const struct zq_span missing = l < 0 ? left : r < 0 ? right : (struct zq_span){joined->data, joined->n};
        return zq_fail(err, ZQ_EFORMAT, "%s: merge %zu needs the token \"%.*s\", which is not in the vocabulary", name, rank,
                       (int)(missing.n < 60 ? missing.n : 60), missing.at);
    }
    if (!zq_table_put(&b->merges, pair_of(l, r), (uint64_t)rank << 32 | (uint32_t)id) || !note_joint(b, left, right)) goto no_memory;
    return ZQ_OK;
no_memory:
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its merges", name);
}

static zq_status read_merges(struct zq_word_model *m, const json_t *json, const char *name, zq_error *err)
{
    const json_t *merges = json_object_get(json, "merges");
    if (!json_is_array(merges)) return zq_fail(err, ZQ_EFORMAT, "%s: the model's \"merges\" is not a list", name);
    struct zq_bpe *b = &m->bpe;
    /* words are not cut where symbols are spelled differently from the text they stand for */
    const bool can_cut = !b->prefix.n && !b->suffix.n && !b->ignore_merges && !m->vocab.shared_ids;
    if (!zq_table_init(&b->merges, json_array_size(merges)) || (can_cut && !zq_table_init(&b->joints, 1024)))
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its merges", name);
    struct zq_bytes joined = {0};
    zq_status st = ZQ_OK;
    size_t rank = 0;
    for (size_t i = 0; i < json_array_size(merges) && !st; i++)
        if (!is_version_line(json_array_get(merges, i))) st = read_merge(m, json_array_get(merges, i), rank++, &joined, name, err);
    zq_bytes_free(&joined);
    return st;
}

/* The tokens that are one character, so that text needs no hashing of strings. */
static bool index_chars(struct zq_word_model *m)
{
    const struct zq_vocab *v = &m->vocab;
    for (size_t i = 0; v->slots && i <= v->mask; i++) {
        const struct zq_vocab_slot *s = &v->slots[i];
        const char *content = v->text.data + s->offset;
        if (s->id < 0 || !s->length || zq_utf8_length(*content) != s->length) continue;
        size_t length;
        if (!zq_table_put(&m->bpe.chars, zq_utf8_decode(content, &length), (uint64_t)s->id)) return false;
    }
    return true;
}

static void find_byte_tokens(struct zq_word_model *m)
{
    for (int b = 0; b < 256; b++) {
        char token[8];
        const int n = snprintf(token, sizeof token, "<0x%02X>", (unsigned)b);
        m->bpe.bytes[b] = zq_vocab_find(&m->vocab, token, (size_t)n);
    }
}

static zq_status read(struct zq_word_model *m, const json_t *json, const char *name, zq_error *err)
{
    struct zq_bpe *b = &m->bpe;
    const char *unknown, *prefix, *suffix;
    double dropout;
    zq_status st = zq_json_string(json, "unk_token", NULL, &unknown, name, err);
    if (!st) st = zq_json_string(json, "continuing_subword_prefix", "", &prefix, name, err);
    if (!st) st = zq_json_string(json, "end_of_word_suffix", "", &suffix, name, err);
    if (!st) st = zq_json_bool(json, "fuse_unk", false, &b->fuse_unknown, name, err);
    if (!st) st = zq_json_bool(json, "byte_fallback", false, &b->byte_fallback, name, err);
    if (!st) st = zq_json_bool(json, "ignore_merges", false, &b->ignore_merges, name, err);
    if (!st) st = zq_json_real(json, "dropout", 0, &dropout, name, err);
    if (st) return st;
    if (dropout != 0) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: a BPE model with dropout, which encodes by chance, is not supported", name);
    b->has_unknown_token = unknown != NULL;
    b->unknown = unknown ? zq_vocab_find(&m->vocab, unknown, strlen(unknown)) : -1;
    if (b->byte_fallback) find_byte_tokens(m);
    if (!zq_span_copy(&b->prefix, prefix, strlen(prefix)) || !zq_span_copy(&b->suffix, suffix, strlen(suffix)) || !index_chars(m))
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its model", name);
    return read_merges(m, json, name, err);
}

static void free_own(struct zq_word_model *m)
{
    zq_table_free(&m->bpe.merges);
    zq_table_free(&m->bpe.chars);
    zq_table_free(&m->bpe.joints);
    zq_free((char *)m->bpe.prefix.at);
    zq_free((char *)m->bpe.suffix.at);
}

/* ---- from characters to symbols ----------------------------------------------------------------------------------- */

static bool add_symbol(struct zq_word_scratch *s, int32_t id)
{
    if (!zq_grow((void **)&s->symbols, s->n_symbols, &s->symbols_capacity, sizeof *s->symbols)) return false;
    s->symbols[s->n_symbols++].id = id;
    return true;
}

/* The id of a character as the vocabulary spells it at its place in the word; that spelling is left in *spelled. */
static bool spell(const struct zq_word_model *m, struct zq_word_scratch *s, struct zq_span c, bool first, bool last, struct zq_span *spelled,
                  int32_t *id)
{
    const struct zq_bpe *b = &m->bpe;
    *spelled = c;
    if ((first || !b->prefix.n) && (!last || !b->suffix.n)) {
        size_t length;
        uint64_t found;
        *id = zq_table_get(&b->chars, zq_utf8_decode(c.at, &length), &found) ? (int32_t)found : -1;
        return true;
    }
    s->text.n = 0;
    if (!first && !zq_bytes_put(&s->text, b->prefix.at, b->prefix.n)) return false;
    if (!zq_bytes_put(&s->text, c.at, c.n)) return false;
    if (last && !zq_bytes_put(&s->text, b->suffix.at, b->suffix.n)) return false;
    *spelled = (struct zq_span){s->text.data, s->text.n};
    *id = zq_vocab_find(&m->vocab, spelled->at, spelled->n);
    return true;
}

static bool all_bytes_known(const struct zq_bpe *b, struct zq_span spelled)
{
    for (size_t i = 0; i < spelled.n; i++)
        if (b->bytes[(uint8_t)spelled.at[i]] < 0) return false;
    return true;
}

/* Fills s->symbols. An unknown token is held back until the next known character, so that runs of them can be fused; byte
 * tokens do not release it, which is how the reference library orders them. Without an unknown token in the file, characters
 * that have no token vanish. */
static zq_status start_symbols(const struct zq_word_model *m, struct zq_word_scratch *s, struct zq_span word, zq_error *err)
{
    const struct zq_bpe *b = &m->bpe;
    bool unknown_held = false, ok = true;
    s->n_symbols = 0;
    for (size_t i = 0, length; i < word.n && ok; i += length) {
        length = zq_utf8_length(word.at[i]);
        struct zq_span spelled;
        int32_t id;
        ok = spell(m, s, (struct zq_span){word.at + i, length}, i == 0, i + length == word.n, &spelled, &id);
        if (!ok) break;
        if (id >= 0) {
            if (unknown_held) ok = add_symbol(s, b->unknown);
            unknown_held = false;
            ok = ok && add_symbol(s, id);
        } else if (b->byte_fallback && all_bytes_known(b, spelled)) {
            for (size_t k = 0; k < spelled.n && ok; k++) ok = add_symbol(s, b->bytes[(uint8_t)spelled.at[k]]);
        } else if (b->has_unknown_token) {
            if (b->unknown < 0)
                return zq_fail(err, ZQ_EINVAL, "\"%.*s\" has no token, and the unknown token is not in the vocabulary", (int)length, word.at + i);
            if (unknown_held && !b->fuse_unknown) ok = add_symbol(s, b->unknown);
            unknown_held = true;
        }
    }
    if (ok && unknown_held) ok = add_symbol(s, b->unknown);
    return ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for a word of %zu bytes", word.n);
}

/* ---- merging ------------------------------------------------------------------------------------------------------ */

/* rank << 32 | id of the merge, or NO_MERGE: smaller is earlier. */
static uint64_t merge_of(const struct zq_bpe *b, int32_t left, int32_t right)
{
    uint64_t merge;
    return zq_table_get(&b->merges, pair_of(left, right), &merge) ? merge : NO_MERGE;
}

static bool merge_short(const struct zq_bpe *b, const struct zq_symbol *symbols, size_t n, struct zq_id_list *out)
{
    int32_t ids[SHORT_WORD];
    uint64_t merges[SHORT_WORD]; /* [i] of ids i and i + 1 */
    for (size_t i = 0; i < n; i++) ids[i] = symbols[i].id;
    for (size_t i = 0; i + 1 < n; i++) merges[i] = merge_of(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (merges[i] < merges[best]) best = i;
        if (merges[best] == NO_MERGE) break;
        ids[best] = (int32_t)(uint32_t)merges[best];
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        memmove(merges + best, merges + best + 1, (n - best - 2) * sizeof *merges);
        n--;
        if (best > 0) merges[best - 1] = merge_of(b, ids[best - 1], ids[best]);
        if (best + 1 < n) merges[best] = merge_of(b, ids[best], ids[best + 1]);
    }
    for (size_t i = 0; i < n; i++)
        if (!zq_id_list_put(out, ids[i])) return false;
    return true;
}

/* A binary heap of rank << 32 | position, smallest first. */
static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    const uint64_t moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= moving) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

static void sift_up(uint64_t *heap, size_t i)
{
    const uint64_t moving = heap[i];
    for (; i > 0 && heap[(i - 1) / 2] > moving; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = moving;
}

/* Enters the pair that begins at position i, if it has a merge. The room is there: see merge_long. */
static void enter_pair(const struct zq_bpe *b, struct zq_word_scratch *s, size_t *n_heap, uint32_t i)
{
    const struct zq_symbol *left = &s->symbols[i];
    if (left->next == NO_SYMBOL) return;
    const uint64_t merge = merge_of(b, left->id, s->symbols[left->next].id);
    if (merge == NO_MERGE) return;
    s->heap[*n_heap] = (merge >> 32) << 32 | i;
    sift_up(s->heap, (*n_heap)++);
}

static void join(struct zq_word_scratch *s, uint32_t i, int32_t id)
{
    struct zq_symbol *left = &s->symbols[i], *right = &s->symbols[left->next];
    left->id = id;
    left->next = right->next;
    if (right->next != NO_SYMBOL) s->symbols[right->next].previous = i;
    right->id = -1;
}

static bool merge_long(const struct zq_bpe *b, struct zq_word_scratch *s, struct zq_id_list *out)
{
    const size_t n = s->n_symbols;
    if (s->heap_capacity < 2 * n) { /* each join takes one entry out and enters two at most, and there are fewer joins than symbols */
        zq_free(s->heap);
        s->heap_capacity = 0;
        s->heap = zq_alloc_array(2 * n, sizeof *s->heap);
        if (!s->heap) return false;
        s->heap_capacity = 2 * n;
    }
    for (size_t i = 0; i < n; i++) {
        s->symbols[i].previous = i ? (uint32_t)i - 1 : NO_SYMBOL;
        s->symbols[i].next = i + 1 < n ? (uint32_t)i + 1 : NO_SYMBOL;
    }
    size_t n_heap = 0;
    for (uint32_t i = 0; i < n; i++) enter_pair(b, s, &n_heap, i);
    while (n_heap) {
        const uint64_t top = s->heap[0];
        s->heap[0] = s->heap[--n_heap];
        if (n_heap) sift_down(s->heap, n_heap, 0);
        const uint32_t i = (uint32_t)top;
        if (s->symbols[i].id < 0 || s->symbols[i].next == NO_SYMBOL) continue;
        const uint64_t merge = merge_of(b, s->symbols[i].id, s->symbols[s->symbols[i].next].id);
        if (merge == NO_MERGE || merge >> 32 != top >> 32) continue;
        join(s, i, (int32_t)(uint32_t)merge);
        if (s->symbols[i].previous != NO_SYMBOL) enter_pair(b, s, &n_heap, s->symbols[i].previous);
        enter_pair(b, s, &n_heap, i);
    }
    for (size_t i = 0; i < n; i++)
        if (s->symbols[i].id >= 0 && !zq_id_list_put(out, s->symbols[i].id)) return false;
    return true;
}

static zq_status encode(const struct zq_word_model *m, struct zq_word_scratch *s, struct zq_span word, struct zq_id_list *out, zq_error *err)
{
    const struct zq_bpe *b = &m->bpe;
    bool ok;
    const int32_t whole = b->ignore_merges ? zq_vocab_find(&m->vocab, word.at, word.n) : -1;
    if (whole >= 0) {
        ok = zq_id_list_put(out, whole);
    } else {
        const zq_status st = start_symbols(m, s, word, err);
        if (st) return st;
        ok = s->n_symbols <= SHORT_WORD ? merge_short(b, s->symbols, s->n_symbols, out) : merge_long(b, s, out);
    }
    return ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for the ids of a word of %zu bytes", word.n);
}

/* ---- cutting ------------------------------------------------------------------------------------------------------ */

/* Two neighbouring characters end up in one symbol only through a merge whose left half ends with the first and whose right
 * half begins with the second. If there is none, the word can be cut between them. Characters without a token of their own
 * stay with their neighbours, since runs of unknown ones are fused. */
static size_t cut(const struct zq_word_model *m, struct zq_span text)
{
    const struct zq_bpe *b = &m->bpe;
    if (!b->joints.entries) return text.n;
    size_t length;
    uint64_t found;
    uint32_t left = zq_utf8_decode(text.at, &length);
    for (size_t i = length; i < text.n; i += length) {
        const uint32_t right = zq_utf8_decode(text.at + i, &length);
        if (!zq_table_get(&b->joints, (uint64_t)left << 32 | right, &found) && zq_table_get(&b->chars, left, &found) &&
            zq_table_get(&b->chars, right, &found))
            return i;
        left = right;
    }
    return text.n;
}

const struct zq_word_kind zq_word_bpe = {"BPE", read, encode, cut, free_own};
