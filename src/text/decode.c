/* The decoders of tokenizer.json, one function each, and the table that names them. A step maps the list of pieces to another
 * list; the pieces of the last one are the text. */
#include "text/decode.h"

#include "base/alloc.h"
#include "text/bytelevel.h"
#include "text/component.h"
#include "text/finder.h"

struct zq_decoder {
    const struct kind *kind;
    struct zq_finder pattern;  /* Replace */
    struct zq_span content;     /* Replace; WordPiece: prefix. Owned */
    bool cleanup;               /* WordPiece */
    uint32_t strip;             /* Strip: the character */
    size_t start, stop;         /* Strip: at most that many */
    uint32_t replacement;       /* Metaspace */
    bool prepended;             /* Metaspace: the first mark is no space of the text */
};

struct kind {
    const char *type;
    zq_status (*read)(struct zq_decoder *z, const json_t *json, const char *name, zq_error *err);
    /* Appends to out, which is empty. */
    zq_status (*apply)(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err);
};

bool zq_pieces_put(struct zq_pieces *p, const char *s, size_t n)
{
    if (!zq_grow((void **)&p->ends, p->n, &p->capacity, sizeof *p->ends) || !zq_bytes_put(&p->text, s, n)) return false;
    p->ends[p->n++] = p->text.n;
    return true;
}

/* Ends a piece whose bytes have been put into p->text. */
static bool end_piece(struct zq_pieces *p)
{
    return zq_pieces_put(p, "", 0);
}

void zq_pieces_free(struct zq_pieces *p)
{
    zq_bytes_free(&p->text);
    zq_free(p->ends);
    *p = (struct zq_pieces){0};
}

static struct zq_span piece_at(const struct zq_pieces *p, size_t i)
{
    const size_t begin = i ? p->ends[i - 1] : 0;
    return p->text.data ? (struct zq_span){p->text.data + begin, p->ends[i] - begin} : (struct zq_span){"", 0};
}

static zq_status no_memory(zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "no memory for decoding");
}

/* ---- bytes -------------------------------------------------------------------------------------------------------- */

/* A token is bytes if all its characters are in the alphabet; else it is text (an added token with a character outside). */
static bool put_alphabet(struct zq_bytes *out, struct zq_span token)
{
    const size_t before = out->n;
    size_t length;
    for (size_t i = 0; i < token.n; i += length) {
        const int byte = zq_bytelevel_byte(zq_utf8_decode(token.at + i, &length));
        const char c = (char)byte;
        if (byte < 0) {
            out->n = before;
            return zq_bytes_put(out, token.at, token.n);
        }
        if (!zq_bytes_put(out, &c, 1)) return false;
    }
    return true;
}

static zq_status apply_bytelevel(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    (void)z;
    struct zq_bytes bytes = {0};
    bool ok = true;
    for (size_t i = 0; i < in->n && ok; i++) ok = put_alphabet(&bytes, piece_at(in, i));
    ok = ok && zq_utf8_repair(&out->text, bytes.data, bytes.n) && end_piece(out);
    zq_bytes_free(&bytes);
    return ok ? ZQ_OK : no_memory(err);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of <0xHH>, -1 for other tokens. Rust's number parser also takes a plus sign for the first digit. */
static int fallback_byte(struct zq_span t)
{
    if (t.n != 6 || memcmp(t.at, "<0x", 3) || t.at[5] != '>') return -1;
    const int high = t.at[3] == '+' ? 0 : hex_digit(t.at[3]), low = hex_digit(t.at[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens is one piece if it is valid UTF-8 as a whole, else one U+FFFD for every byte. */
static bool put_byte_run(struct zq_pieces *out, struct zq_bytes *run)
{
    bool ok = true;
    if (run->n && zq_utf8_valid(run->data, run->n) == run->n)
        ok = zq_pieces_put(out, run->data, run->n);
    else
        for (size_t i = 0; i < run->n && ok; i++) ok = zq_pieces_put(out, "\xef\xbf\xbd", 3);
    run->n = 0;
    return ok;
}

static zq_status apply_byte_fallback(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    (void)z;
    struct zq_bytes run = {0};
    bool ok = true;
    for (size_t i = 0; i < in->n && ok; i++) {
        const struct zq_span token = piece_at(in, i);
        const int byte = fallback_byte(token);
        const char c = (char)byte;
        ok = byte >= 0 ? zq_bytes_put(&run, &c, 1) : put_byte_run(out, &run) && zq_pieces_put(out, token.at, token.n);
    }
    ok = ok && put_byte_run(out, &run);
    zq_bytes_free(&run);
    return ok ? ZQ_OK : no_memory(err);
}

/* ---- WordPiece ---------------------------------------------------------------------------------------------------- */

static zq_status read_wordpiece(struct zq_decoder *z, const json_t *json, const char *name, zq_error *err)
{
    const char *prefix;
    zq_status st = zq_json_bool(json, "cleanup", true, &z->cleanup, name, err);
    if (!st) st = zq_json_string(json, "prefix", "##", &prefix, name, err);
    if (st) return st;
    return zq_span_copy(&z->content, prefix, strlen(prefix)) ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its decoder", name);
}

/* Replaces `from` by the not longer `to` in b->data[begin..], from left to right. */
static void shrink(struct zq_bytes *b, size_t begin, const char *from, const char *to)
{
    const size_t n_from = strlen(from), n_to = strlen(to);
    size_t out = begin;
    for (size_t i = begin; i < b->n;) {
        const bool hit = b->n - i >= n_from && !memcmp(b->data + i, from, n_from);
        if (hit)
            memcpy(b->data + out, to, n_to);
        else
            b->data[out] = b->data[i];
        out += hit ? n_to : 1;
        i += hit ? n_from : 1;
    }
    b->n = out;
}

/* The artefacts of tokenization that the decoder takes back within one token, in the reference library's order. */
static void clean_up(struct zq_bytes *b, size_t begin)
{
    static const char *const rules[][2] = {{" .", "."},     {" ?", "?"},   {" !", "!"},           {" ,", ","},   {" ' ", "'"},  {" n't", "n't"},
                                           {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < ZQ_LEN(rules); i++) shrink(b, begin, rules[i][0], rules[i][1]);
}

static zq_status apply_wordpiece(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        struct zq_span token = piece_at(in, i);
        const size_t begin = out->text.n;
        const bool inside = token.n >= z->content.n && !memcmp(token.at, z->content.at, z->content.n);
        bool ok = true;
        if (i && inside)
            token = (struct zq_span){token.at + z->content.n, token.n - z->content.n};
        else if (i)
            ok = zq_bytes_put(&out->text, " ", 1);
        if (!ok || !zq_bytes_put(&out->text, token.at, token.n)) return no_memory(err);
        if (z->cleanup) clean_up(&out->text, begin);
        if (!end_piece(out)) return no_memory(err);
    }
    return ZQ_OK;
}

/* ---- Fuse, Strip, Replace, Metaspace ------------------------------------------------------------------------------ */

static zq_status apply_fuse(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    (void)z;
    return zq_pieces_put(out, in->text.data, in->text.n) ? ZQ_OK : no_memory(err);
}

/* A string member that must be one character. */
static zq_status read_char(uint32_t *c, const json_t *json, const char *key, const char *fallback, const char *name, zq_error *err)
{
    const char *s;
    const zq_status st = zq_json_string(json, key, fallback, &s, name, err);
    if (st) return st;
    size_t length = 0;
    if (*s) *c = zq_utf8_decode(s, &length);
    return length && !s[length] ? ZQ_OK : zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" of a decoder is not one character", name, key);
}

static zq_status read_strip(struct zq_decoder *z, const json_t *json, const char *name, zq_error *err)
{
    int64_t start = 0, stop = 0;
    zq_status st = read_char(&z->strip, json, "content", " ", name, err);
    if (!st) st = zq_json_int(json, "start", 0, INT32_MAX, 0, &start, name, err);
    if (!st) st = zq_json_int(json, "stop", 0, INT32_MAX, 0, &stop, name, err);
    z->start = (size_t)start;
    z->stop = (size_t)stop;
    return st;
}

static zq_status apply_strip(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct zq_span token = piece_at(in, i);
        size_t begin = 0, end = token.n, length;
        for (size_t k = 0; k < z->start && begin < end && zq_utf8_decode(token.at + begin, &length) == z->strip; k++) begin += length;
        for (size_t k = 0; k < z->stop && end > begin; k++) {
            const size_t before = zq_utf8_before(token.at, end);
            if (zq_utf8_decode(token.at + before, &length) != z->strip) break;
            end = before;
        }
        if (!zq_pieces_put(out, token.at + begin, end - begin)) return no_memory(err);
    }
    return ZQ_OK;
}

static zq_status read_replace(struct zq_decoder *z, const json_t *json, const char *name, zq_error *err)
{
    const zq_status st = zq_finder_read(&z->pattern, json, name, err);
    return st ? st : zq_component_string(&z->content, json, "content", name, err);
}

static zq_status replace_in(const struct zq_decoder *z, struct zq_regex_scratch *rs, struct zq_span token, struct zq_pieces *out, zq_error *err)
{
    struct zq_matches m = {0};
    size_t done = 0;
    for (;;) {
        bool found;
        size_t begin, end;
        const zq_status st = zq_finder_next(&z->pattern, rs, token, &m, &found, &begin, &end, err);
        if (st) return st;
        if (!found) break;
        if (!zq_bytes_put(&out->text, token.at + done, begin - done) || !zq_bytes_put(&out->text, z->content.at, z->content.n)) return no_memory(err);
        done = end;
    }
    return zq_pieces_put(out, token.at + done, token.n - done) ? ZQ_OK : no_memory(err);
}

static zq_status apply_replace(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    struct zq_regex_scratch rs = {0};
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < in->n && !st; i++) st = replace_in(z, &rs, piece_at(in, i), out, err);
    zq_regex_scratch_free(&rs);
    return st;
}

static zq_status read_metaspace(struct zq_decoder *z, const json_t *json, const char *name, zq_error *err)
{
    const char *scheme;
    bool legacy; /* older files say add_prefix_space */
    zq_status st = zq_json_bool(json, "add_prefix_space", true, &legacy, name, err);
    if (!st) st = zq_json_string(json, "prepend_scheme", legacy ? "always" : "never", &scheme, name, err);
    if (st) return st;
    z->prepended = strcmp(scheme, "never") != 0;
    return read_char(&z->replacement, json, "replacement", "\xe2\x96\x81", name, err);
}

static zq_status apply_metaspace(const struct zq_decoder *z, const struct zq_pieces *in, struct zq_pieces *out, zq_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct zq_span token = piece_at(in, i);
        size_t length;
        for (size_t k = 0; k < token.n; k += length) {
            const uint32_t c = zq_utf8_decode(token.at + k, &length);
            if (c == z->replacement && i == 0 && z->prepended) continue;
            if (!zq_bytes_put_char(&out->text, c == z->replacement ? ' ' : c)) return no_memory(err);
        }
        if (!end_piece(out)) return no_memory(err);
    }
    return ZQ_OK;
}

/* ---- the list ----------------------------------------------------------------------------------------------------- */

static const struct kind kinds[] = {
    {"ByteLevel", NULL, apply_bytelevel},
    {"WordPiece", read_wordpiece, apply_wordpiece},
    {"ByteFallback", NULL, apply_byte_fallback},
    {"Fuse", NULL, apply_fuse},
    {"Strip", read_strip, apply_strip},
    {"Replace", read_replace, apply_replace},
    {"Metaspace", read_metaspace, apply_metaspace},
};

static zq_status add(void *p, const json_t *json, const char *type, const char *name, zq_error *err)
{
    struct zq_decoders *list = p;
    for (size_t i = 0; i < ZQ_LEN(kinds); i++) {
        if (strcmp(kinds[i].type, type)) continue;
        if (!zq_grow((void **)&list->steps, list->n, &list->capacity, sizeof *list->steps))
            return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its decoder", name);
        struct zq_decoder *z = &list->steps[list->n++];
        *z = (struct zq_decoder){.kind = &kinds[i]};
        return z->kind->read ? z->kind->read(z, json, name, err) : ZQ_OK;
    }
    return zq_component_unknown("decoder", type, name, err);
}

zq_status zq_decoders_read(struct zq_decoders *list, const json_t *json, const char *name, zq_error *err)
{
    list->set = json && !json_is_null(json);
    return zq_component_walk(json, "decoder", "decoders", add, list, name, err);
}

void zq_decoders_free(struct zq_decoders *list)
{
    for (size_t i = 0; i < list->n; i++) {
        zq_finder_free(&list->steps[i].pattern);
        zq_free((char *)list->steps[i].content.at);
    }
    zq_free(list->steps);
    *list = (struct zq_decoders){0};
}

zq_status zq_decode(const struct zq_decoders *list, struct zq_pieces *pieces, zq_error *err)
{
    struct zq_pieces next = {0};
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < list->n && !st; i++) {
        next.n = next.text.n = 0;
        st = list->steps[i].kind->apply(&list->steps[i], pieces, &next, err);
        const struct zq_pieces swap = *pieces;
        *pieces = next;
        next = swap;
    }
    zq_pieces_free(&next);
    return st;
}
