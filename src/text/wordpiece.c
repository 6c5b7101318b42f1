/* WordPiece: from the start of the word, always the longest piece that the vocabulary has; pieces inside a word carry a prefix
 * (##). One failure makes the whole word unknown, and so does a word of more than max_input_chars_per_word characters, which
 * also bounds the time for any word. */
#include "base/alloc.h"
#include "text/component.h"
#include "text/word.h"

static zq_status read(struct zq_word_model *m, const json_t *json, const char *name, zq_error *err)
{
    struct zq_wordpiece *w = &m->wordpiece;
    const char *prefix, *unknown;
    int64_t max_chars = 0;
    zq_status st = zq_json_string(json, "continuing_subword_prefix", "##", &prefix, name, err);
    if (!st) st = zq_json_string(json, "unk_token", "[UNK]", &unknown, name, err);
    if (!st) st = zq_json_int(json, "max_input_chars_per_word", 0, 1 << 16, 100, &max_chars, name, err);
    if (st) return st;
    w->max_chars = (size_t)max_chars;
    w->unknown = zq_vocab_find(&m->vocab, unknown, strlen(unknown));
    return zq_span_copy(&w->prefix, prefix, strlen(prefix)) ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its model", name);
}

static zq_status put_unknown(const struct zq_word_model *m, struct zq_span word, struct zq_id_list *out, zq_error *err)
{
    if (m->wordpiece.unknown < 0)
        return zq_fail(err, ZQ_EINVAL, "the word \"%.*s\" is not in the vocabulary, which has no unknown token", (int)(word.n < 60 ? word.n : 60),
                       word.at);
    return zq_id_list_put(out, m->wordpiece.unknown) ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for ids");
}

/* The longest piece at the start of text[0..n); *length is without the `extra` bytes of the prefix at its front. */
static int32_t longest_piece(const struct zq_vocab *v, const char *text, size_t n, size_t extra, size_t *length)
{
    if (n > v->longest) {
        n = v->longest;
        while (n > extra && ((uint8_t)text[n] & 0xc0) == 0x80) n--;
    }
    while (n > extra) {
        const int32_t id = zq_vocab_find(v, text, n);
        if (id >= 0) {
            *length = n - extra;
            return id;
        }
        n = zq_utf8_before(text, n);
    }
    return -1;
}

static size_t count_chars(struct zq_span word)
{
    size_t n = 0;
    for (size_t i = 0; i < word.n; i += zq_utf8_length(word.at[i])) n++;
    return n;
}

static zq_status encode(const struct zq_word_model *m, struct zq_word_scratch *s, struct zq_span word, struct zq_id_list *out, zq_error *err)
{
    const struct zq_wordpiece *w = &m->wordpiece;
    const size_t before = out->n, extra = w->prefix.n;
    if (count_chars(word) > w->max_chars) return put_unknown(m, word, out, err);
    /* the prefix goes where the pieces already found have been, so that every piece lies in memory as the vocabulary spells it */
    s->text.n = 0;
    if (!zq_bytes_put(&s->text, w->prefix.at, extra) || !zq_bytes_put(&s->text, word.at, word.n))
        return zq_fail(err, ZQ_ENOMEM, "no memory for a word");
    char *text = s->text.data;
    for (size_t at = 0, length; at < word.n; at += length) {
        const size_t front = at ? extra : 0;
        if (at) memcpy(text + at, w->prefix.at, extra);
        const int32_t id = longest_piece(&m->vocab, text + extra + at - front, word.n - at + front, front, &length);
        if (id < 0) {
            out->n = before;
            return put_unknown(m, word, out, err);
        }
        if (!zq_id_list_put(out, id)) return zq_fail(err, ZQ_ENOMEM, "no memory for ids");
    }
    return ZQ_OK;
}

static void free_own(struct zq_word_model *m)
{
    zq_free((char *)m->wordpiece.prefix.at);
}

const struct zq_word_kind zq_word_wordpiece = {"WordPiece", read, encode, NULL, free_own};
