/* The JSON parser. It builds jansson's tree, but does not use jansson's own reader: when memory runs out that one loses bytes of
 * a string without a word and may then run over its end, and reports the failure as a syntax error, if at all. This one is as
 * strict (RFC 8259, no duplicate keys, valid UTF-8, integers that fit, bounded depth), and tells ZQ_ENOMEM from ZQ_EFORMAT. */
#include "base/json.h"

#include "base/alloc.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 2048 }; /* jansson's; its destructor recurses as deep */

struct parser {
    const char *begin, *at, *end;
    char *text; /* the string or number in work, NUL-terminated */
    size_t n_text, capacity;
    int depth;
    const char *name;
    zq_error *err;
    zq_status status;
};

static json_t *parse_value(struct parser *p);

/* Both return false (NULL) for the caller to pass on. */
static bool wrong(struct parser *p, const char *what)
{
    size_t line = 1, column = 1;
    for (const char *s = p->begin; s < p->at; s++) {
        column++;
        if (*s != '\n') continue;
        line++;
        column = 1;
    }
    p->status = zq_fail(p->err, ZQ_EFORMAT, "%s: line %zu, column %zu: %s", p->name, line, column, what);
    return false;
}

static bool no_memory(struct parser *p)
{
    p->status = zq_fail(p->err, ZQ_ENOMEM, "%s: no memory for its JSON", p->name);
    return false;
}

static json_t *checked(struct parser *p, json_t *value)
{
    if (!value) no_memory(p);
    return value;
}

static bool reserve(struct parser *p, size_t n)
{
    if (n < p->capacity) return true;
    char *text = zq_realloc(p->text, p->n_text, 2 * n + 64);
    if (!text) return no_memory(p);
    p->text = text;
    p->capacity = 2 * n + 64;
    return true;
}

static void skip_space(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')) p->at++;
}

/* The byte at the cursor after white space; 0 at the end (a zero byte is never legal either). */
static char peek(struct parser *p)
{
    skip_space(p);
    return p->at < p->end ? *p->at : '\0';
}

/* Bytes of the UTF-8 sequence at s, 0 if it is not valid: Table 3-7 of the Unicode standard. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80) return 1;
    const size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < length) return 0;
    const unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80, high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xbf) return 0;
    return length;
}

static void put_utf8(struct parser *p, uint32_t c)
{
    char *t = p->text + p->n_text;
    if (c < 0x80) {
        *t++ = (char)c;
    } else if (c < 0x800) {
        *t++ = (char)(0xc0 | c >> 6);
        *t++ = (char)(0x80 | (c & 0x3f));
    } else {
        if (c < 0x10000) {
            *t++ = (char)(0xe0 | c >> 12);
        } else {
            *t++ = (char)(0xf0 | c >> 18);
            *t++ = (char)(0x80 | (c >> 12 & 0x3f));
        }
        *t++ = (char)(0x80 | (c >> 6 & 0x3f));
        *t++ = (char)(0x80 | (c & 0x3f));
    }
    p->n_text = (size_t)(t - p->text);
}

/* Four hexadecimal digits at the cursor, which moves on; UINT32_MAX if they are not there. */
static uint32_t take_hex(struct parser *p)
{
    if (p->end - p->at < 4) return UINT32_MAX;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        const char c = *p->at;
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return UINT32_MAX;
        v = v << 4 | (uint32_t)digit;
    }
    return v;
}

/* The cursor stands behind a backslash. */
static bool take_escape(struct parser *p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char c = p->at < p->end ? *p->at : '\0';
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        p->text[p->n_text++] = to[known - from];
        p->at++;
        return true;
    }
    if (c != 'u') return wrong(p, "unknown escape");
    p->at++;
    uint32_t code = take_hex(p);
    if (code >= 0xd800 && code < 0xdc00 && p->end - p->at >= 2 && p->at[0] == '\\' && p->at[1] == 'u') {
        p->at += 2;
        const uint32_t second = take_hex(p);
        code = second >= 0xdc00 && second < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00) : UINT32_MAX;
    }
    if (code == UINT32_MAX || (code >= 0xd800 && code < 0xe000)) return wrong(p, "malformed \\u escape");
    put_utf8(p, code);
    return true;
}

/* The cursor stands on the opening quote; the decoded string is left in text. */
static bool take_string(struct parser *p)
{
    const char *close = p->at + 1;
    while (close < p->end && *close != '"') close += *close == '\\' && close + 1 < p->end ? 2 : 1;
    if (close >= p->end) return wrong(p, "a string that does not end");
    p->n_text = 0;
    if (!reserve(p, (size_t)(close - p->at))) return false; /* decoded it is never longer than in the source */
    p->at++;
    while (*p->at != '"') {
        if (*p->at == '\\') {
            p->at++;
            if (!take_escape(p)) return false;
            continue;
        }
        const size_t n = utf8_length((const unsigned char *)p->at, (size_t)(p->end - p->at));
        if (!n) return wrong(p, "a string that is not UTF-8");
        if ((unsigned char)*p->at < 0x20) return wrong(p, "a control character in a string");
        memcpy(p->text + p->n_text, p->at, n);
        p->n_text += n;
        p->at += n;
    }
    p->at++;
    p->text[p->n_text] = '\0';
    return true;
}

static json_t *parse_string(struct parser *p)
{
    return take_string(p) ? checked(p, json_stringn_nocheck(p->text, p->n_text)) : NULL;
}

static size_t skip_digits(struct parser *p)
{
    const char *from = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return (size_t)(p->at - from);
}

static json_t *make_real(struct parser *p, const char *from)
{
    p->n_text = 0;
    const size_t n = (size_t)(p->at - from);
    if (!reserve(p, n)) return NULL;
    memcpy(p->text, from, n);
    p->text[n] = '\0';
    char *point = strchr(p->text, '.');
    if (point) *point = *localeconv()->decimal_point; /* what strtod expects in the locale of the program */
    const double v = strtod(p->text, NULL);
    if (isfinite(v)) return checked(p, json_real(v));
    wrong(p, "a number beyond double precision");
    return NULL;
}

/* Beyond 64 bits it becomes a real: transformers writes 10^30 where a tokenizer has no limit. */
static json_t *make_integer(struct parser *p, const char *from)
{
    const bool negative = *from == '-';
    json_int_t v = 0;
    for (const char *s = from + negative; s < p->at; s++) {
        const int digit = negative ? '0' - *s : *s - '0';
        if (__builtin_mul_overflow(v, (json_int_t)10, &v) || __builtin_add_overflow(v, (json_int_t)digit, &v)) return make_real(p, from);
    }
    return checked(p, json_integer(v));
}

static json_t *parse_number(struct parser *p)
{
    const char *from = p->at;
    if (*p->at == '-') p->at++;
    const char *first = p->at;
    size_t digits = skip_digits(p);
    bool ok = digits && (digits == 1 || *first != '0'), real = false;
    if (ok && p->at < p->end && *p->at == '.') {
        p->at++;
        real = true;
        ok = skip_digits(p) > 0;
    }
    if (ok && p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        p->at++;
        real = true;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
        ok = skip_digits(p) > 0;
    }
    if (ok) return real ? make_real(p, from) : make_integer(p, from);
    wrong(p, "not a number");
    return NULL;
}

static json_t *parse_array(struct parser *p)
{
    json_t *array = checked(p, json_array());
    bool ok = array != NULL;
    p->at++;
    if (ok && peek(p) == ']') {
        p->at++;
        return array;
    }
    for (bool more = true; ok && more;) {
        json_t *value = parse_value(p);
        ok = value && (!json_array_append_new(array, value) || no_memory(p));
        if (!ok) break;
        const char c = peek(p);
        more = c == ',';
        ok = more || c == ']' || wrong(p, "expected ',' or ']'");
        if (ok) p->at++;
    }
    if (ok) return array;
    json_decref(array);
    return NULL;
}

/* One "key": value. */
static bool parse_member(struct parser *p, json_t *object)
{
    if (peek(p) != '"') return wrong(p, "expected a key");
    const char *from = p->at;
    if (!take_string(p)) return false;
    const bool has_zero = strlen(p->text) != p->n_text, again = !has_zero && json_object_get(object, p->text);
    if (has_zero || again) {
        p->at = from;
        return wrong(p, again ? "a key that was there before" : "a key with a zero character");
    }
    char *key = zq_strndup(p->text, p->n_text);
    if (!key) return no_memory(p);
    bool ok = peek(p) == ':' || wrong(p, "expected ':'");
    if (ok) p->at++;
    json_t *value = ok ? parse_value(p) : NULL;
    ok = value && (!json_object_set_new_nocheck(object, key, value) || no_memory(p));
    zq_free(key);
    return ok;
}

static json_t *parse_object(struct parser *p)
{
    json_t *object = checked(p, json_object());
    bool ok = object != NULL;
    p->at++;
    if (ok && peek(p) == '}') {
        p->at++;
        return object;
    }
    for (bool more = true; ok && more;) {
        ok = parse_member(p, object);
        if (!ok) break;
        const char c = peek(p);
        more = c == ',';
        ok = more || c == '}' || wrong(p, "expected ',' or '}'");
        if (ok) p->at++;
    }
    if (ok) return object;
    json_decref(object);
    return NULL;
}

static bool take_word(struct parser *p, const char *word)
{
    const size_t n = strlen(word);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n)) return false;
    p->at += n;
    return true;
}

static json_t *parse_value(struct parser *p)
{
    json_t *value = NULL;
    const char c = peek(p);
    if (p->depth == MAX_DEPTH) {
        wrong(p, "nested too deeply");
        return NULL;
    }
    p->depth++;
    if (c == '{') value = parse_object(p);
    else if (c == '[') value = parse_array(p);
    else if (c == '"') value = parse_string(p);
    else if (c == '-' || (c >= '0' && c <= '9')) value = parse_number(p);
    else if (take_word(p, "true")) value = json_true();
    else if (take_word(p, "false")) value = json_false();
    else if (take_word(p, "null")) value = json_null();
    else wrong(p, "expected a value");
    p->depth--;
    return value;
}

zq_status zq_json_parse(json_t **out, const char *text, size_t n_bytes, const char *name, zq_error *err)
{
    *out = NULL;
    struct parser p = {.begin = text, .at = text, .end = text + n_bytes, .name = name, .err = err};
    json_t *value = parse_value(&p);
    if (value) {
        skip_space(&p);
        if (p.at < p.end) wrong(&p, "expected the end of the text");
    }
    zq_free(p.text);
    if (p.status) {
        json_decref(value);
        return p.status;
    }
    *out = value;
    return ZQ_OK;
}
