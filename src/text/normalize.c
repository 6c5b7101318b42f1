/* The normalizers of tokenizer.json, one function each, and the table that names them. A step sees the whole text between two
 * added tokens; the steps of a Sequence follow each other through two buffers. Text that no step changes is not copied. */
#include "text/normalize.h"

#include "base/alloc.h"
#include "text/bytelevel.h"
#include "text/component.h"
#include "text/finder.h"
#include "text/unicode.h"
#include "text/unicode_form.h"

struct zq_normalizer {
    const struct kind *kind;
    union {
        struct {
            bool clean_text, chinese, strip_accents, lowercase;
        } bert;
        struct zq_form form;
        struct {
            bool left, right;
        } strip;
    };
    struct zq_finder pattern; /* Replace */
    struct zq_span content;    /* Replace, Prepend; owned */
};

struct tools {
    struct zq_normalize_scratch *s;
    struct zq_regex_scratch *rs;
    zq_error *err;
};

struct kind {
    const char *type;
    /* Options from JSON; NULL: there are none. */
    zq_status (*read)(struct zq_normalizer *z, const json_t *json, const char *name, zq_error *err);
    /* Whether the text would stay as it is; NULL: not known beforehand. */
    bool (*idle)(const struct zq_normalizer *z, struct zq_span text);
    /* Appends the normalized text to out, which is empty. */
    zq_status (*apply)(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out);
};

static zq_status no_memory(struct tools *t)
{
    return zq_fail(t->err, ZQ_ENOMEM, "no memory for normalizing text");
}

/* ---- BertNormalizer ----------------------------------------------------------------------------------------------- */

static zq_status read_bert(struct zq_normalizer *z, const json_t *json, const char *name, zq_error *err)
{
    zq_status st = zq_json_bool(json, "clean_text", true, &z->bert.clean_text, name, err);
    if (!st) st = zq_json_bool(json, "handle_chinese_chars", true, &z->bert.chinese, name, err);
    if (!st) st = zq_json_bool(json, "lowercase", true, &z->bert.lowercase, name, err);
    if (!st) st = zq_json_bool(json, "strip_accents", z->bert.lowercase, &z->bert.strip_accents, name, err);
    return st;
}

/* Cleaning and spaces around Chinese characters, into out. */
static bool clean(const struct zq_normalizer *z, struct zq_span text, struct zq_bytes *out)
{
    size_t length;
    for (size_t i = 0; i < text.n; i += length) {
        const uint32_t c = zq_utf8_decode(text.at + i, &length);
        if (!zq_bytes_reserve(out, 6)) return false;
        if (z->bert.clean_text && (!c || c == 0xfffd || zq_is_bert_control(c))) continue;
        if (z->bert.clean_text && zq_is_space(c)) {
            out->data[out->n++] = ' ';
        } else if (z->bert.chinese && zq_is_cjk(c)) {
            out->data[out->n++] = ' ';
            out->n += zq_utf8_encode(c, out->data + out->n);
            out->data[out->n++] = ' ';
        } else {
            memcpy(out->data + out->n, text.at + i, length);
            out->n += length;
        }
    }
    return true;
}

static bool put_lower(struct zq_bytes *out, uint32_t c)
{
    uint32_t lower[2];
    const int n = zq_lower(c, lower);
    return zq_bytes_put_char(out, lower[0]) && (n < 2 || zq_bytes_put_char(out, lower[1]));
}

/* The same in one pass for the ASCII text[from..]; returns where it stopped, at the end or before a wider character. */
static size_t clean_ascii(const struct zq_normalizer *z, struct zq_span text, size_t from, struct zq_bytes *out)
{
    char *to = out->data + out->n;
    size_t i = from;
    for (; i < text.n && !(text.at[i] & 0x80); i++) {
        char c = text.at[i];
        if (z->bert.clean_text && (uint8_t)c <= ' ') {
            if (zq_is_bert_control((uint8_t)c) || !c) continue;
            c = ' ';
        } else if (z->bert.clean_text && c == 0x7f) {
            continue;
        }
        if (z->bert.lowercase && c >= 'A' && c <= 'Z') c += 32;
        *to++ = c;
    }
    out->n = (size_t)(to - out->data);
    return i;
}

/* Wide text: all steps one after the other. One pass per step keeps their order visible: decomposition may produce characters
 * that a later step changes. */
static bool bert_wide(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    struct zq_bytes *cleaned = &t->s->cleaned, *plain = cleaned;
    cleaned->n = 0;
    if (!clean(z, text, cleaned)) return false;
    if (z->bert.strip_accents) {
        plain = &t->s->decomposed;
        plain->n = 0;
        if (!zq_form_put(plain, (struct zq_form){false, false}, cleaned->data, cleaned->n, &t->s->chars, &t->s->capacity)) return false;
    }
    size_t length;
    for (size_t i = 0; i < plain->n; i += length) {
        const uint32_t c = zq_utf8_decode(plain->data + i, &length);
        if (z->bert.strip_accents && zq_is_nonspacing_mark(c)) continue;
        if (!(z->bert.lowercase ? put_lower(out, c) : zq_bytes_put(out, plain->data + i, length))) return false;
    }
    return true;
}

/* Whether a part of the text may end before text.at[i]: at ASCII that stays and has ASCII or nothing after it. */
static bool may_cut(struct zq_span text, size_t i)
{
    return !(text.at[i] & 0x80) && !zq_is_bert_control((uint8_t)text.at[i]) && (i + 1 == text.n || !(text.at[i + 1] & 0x80));
}

static zq_status apply_bert(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    for (size_t i = 0; i < text.n;) {
        if (!zq_bytes_reserve(out, text.n - i)) return no_memory(t);
        i = clean_ascii(z, text, i, out);
        size_t end = i;
        while (end < text.n && !may_cut(text, end)) end++; /* marks are not reordered across an ASCII character */
        if (end > i && !bert_wide(z, t, (struct zq_span){text.at + i, end - i}, out)) return no_memory(t);
        i = end;
    }
    return ZQ_OK;
}

/* ---- Unicode forms ------------------------------------------------------------------------------------------------ */

static zq_status read_form(struct zq_normalizer *z, const json_t *json, const char *name, zq_error *err)
{
    (void)json, (void)name, (void)err;
    const char *type = json_string_value(json_object_get(json, "type"));
    z->form = (struct zq_form){.compose = type[strlen(type) - 1] == 'C', .compat = type[2] == 'K'};
    return ZQ_OK;
}

static bool idle_form(const struct zq_normalizer *z, struct zq_span text)
{
    return zq_form_prefix(z->form, text.at, text.n) == text.n;
}

static zq_status apply_form(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    return zq_form_put(out, z->form, text.at, text.n, &t->s->chars, &t->s->capacity) ? ZQ_OK : no_memory(t);
}

/* ---- steps on single characters ----------------------------------------------------------------------------------- */

static zq_status apply_lowercase(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    (void)z;
    size_t length;
    for (size_t i = 0; i < text.n; i += length)
        if (!put_lower(out, zq_utf8_decode(text.at + i, &length))) return no_memory(t);
    return ZQ_OK;
}

static zq_status apply_strip_accents(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    (void)z;
    size_t length;
    for (size_t i = 0; i < text.n; i += length)
        if (!zq_is_mark(zq_utf8_decode(text.at + i, &length)) && !zq_bytes_put(out, text.at + i, length)) return no_memory(t);
    return ZQ_OK;
}

static zq_status read_strip(struct zq_normalizer *z, const json_t *json, const char *name, zq_error *err)
{
    zq_status st = zq_json_bool(json, "strip_left", true, &z->strip.left, name, err);
    if (!st) st = zq_json_bool(json, "strip_right", true, &z->strip.right, name, err);
    return st;
}

static zq_status apply_strip(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    size_t begin = 0, end = text.n, length;
    while (z->strip.left && begin < end && zq_is_space(zq_utf8_decode(text.at + begin, &length))) begin += length;
    while (z->strip.right && end > begin) {
        const size_t before = zq_utf8_before(text.at, end);
        if (!zq_is_space(zq_utf8_decode(text.at + before, &length))) break;
        end = before;
    }
    return zq_bytes_put(out, text.at + begin, end - begin) ? ZQ_OK : no_memory(t);
}

static zq_status apply_bytelevel(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    (void)z;
    return zq_bytelevel_put(out, text.at, text.n) ? ZQ_OK : no_memory(t);
}

/* ---- Replace and Prepend ------------------------------------------------------------------------------------------ */

static zq_status read_replace(struct zq_normalizer *z, const json_t *json, const char *name, zq_error *err)
{
    zq_status st = zq_finder_read(&z->pattern, json, name, err);
    return st ? st : zq_component_string(&z->content, json, "content", name, err);
}

static zq_status apply_replace(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    struct zq_matches m = {0};
    size_t done = 0;
    for (;;) {
        bool found;
        size_t begin, end;
        const zq_status st = zq_finder_next(&z->pattern, t->rs, text, &m, &found, &begin, &end, t->err);
        if (st) return st;
        if (!found) break;
        if (!zq_bytes_put(out, text.at + done, begin - done) || !zq_bytes_put(out, z->content.at, z->content.n)) return no_memory(t);
        done = end;
    }
    return zq_bytes_put(out, text.at + done, text.n - done) ? ZQ_OK : no_memory(t);
}

static zq_status read_prepend(struct zq_normalizer *z, const json_t *json, const char *name, zq_error *err)
{
    return zq_component_string(&z->content, json, "prepend", name, err);
}

static bool idle_prepend(const struct zq_normalizer *z, struct zq_span text)
{
    (void)z;
    return !text.n;
}

static zq_status apply_prepend(const struct zq_normalizer *z, struct tools *t, struct zq_span text, struct zq_bytes *out)
{
    return zq_bytes_put(out, z->content.at, z->content.n) && zq_bytes_put(out, text.at, text.n) ? ZQ_OK : no_memory(t);
}

/* ---- the list ----------------------------------------------------------------------------------------------------- */

static const struct kind kinds[] = {
    {"BertNormalizer", read_bert, NULL, apply_bert},
    {"NFC", read_form, idle_form, apply_form},
    {"NFD", read_form, idle_form, apply_form},
    {"NFKC", read_form, idle_form, apply_form},
    {"NFKD", read_form, idle_form, apply_form},
    {"Lowercase", NULL, NULL, apply_lowercase},
    {"StripAccents", NULL, NULL, apply_strip_accents},
    {"Strip", read_strip, NULL, apply_strip},
    {"ByteLevel", NULL, NULL, apply_bytelevel},
    {"Replace", read_replace, NULL, apply_replace},
    {"Prepend", read_prepend, idle_prepend, apply_prepend},
};

static zq_status add(void *p, const json_t *json, const char *type, const char *name, zq_error *err)
{
    struct zq_normalizers *list = p;
    for (size_t i = 0; i < ZQ_LEN(kinds); i++) {
        if (strcmp(kinds[i].type, type)) continue;
        if (!zq_grow((void **)&list->steps, list->n, &list->capacity, sizeof *list->steps))
            return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its normalizer", name);
        struct zq_normalizer *z = &list->steps[list->n++];
        *z = (struct zq_normalizer){.kind = &kinds[i]};
        return z->kind->read ? z->kind->read(z, json, name, err) : ZQ_OK;
    }
    return zq_component_unknown("normalizer", type, name, err);
}

zq_status zq_normalizers_read(struct zq_normalizers *list, const json_t *json, const char *name, zq_error *err)
{
    return zq_component_walk(json, "normalizer", "normalizers", add, list, name, err);
}

void zq_normalizers_free(struct zq_normalizers *list)
{
    for (size_t i = 0; i < list->n; i++) {
        zq_finder_free(&list->steps[i].pattern);
        zq_free((char *)list->steps[i].content.at);
    }
    zq_free(list->steps);
    *list = (struct zq_normalizers){0};
}

zq_status zq_normalize(const struct zq_normalizers *list, struct zq_normalize_scratch *s, struct zq_regex_scratch *rs, struct zq_span text,
                       struct zq_span *out, zq_error *err)
{
    struct tools t = {s, rs, err};
    *out = text;
    for (size_t i = 0; i < list->n; i++) {
        const struct zq_normalizer *z = &list->steps[i];
        if (z->kind->idle && z->kind->idle(z, *out)) continue;
        struct zq_bytes *to = &s->text[out->at == s->text[0].data && s->text[0].data];
        to->n = 0;
        const zq_status st = z->kind->apply(z, &t, *out, to);
        if (st) return st;
        *out = (struct zq_span){to->n ? to->data : "", to->n};
    }
    return ZQ_OK;
}

void zq_normalize_scratch_free(struct zq_normalize_scratch *s)
{
    zq_bytes_free(&s->text[0]);
    zq_bytes_free(&s->text[1]);
    zq_bytes_free(&s->cleaned);
    zq_bytes_free(&s->decomposed);
    zq_free(s->chars);
    *s = (struct zq_normalize_scratch){0};
}
