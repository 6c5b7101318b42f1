/* Normal forms by regions: most text is stable, so only runs of characters that may change, together with the one character
 * before them that a mark may combine with, go through decomposition, ordering and composition.
 *
 * utf8proc knows how single characters decompose and pairs compose. Ordering and composing are done here: its ordering takes
 * quadratic time on a long run of marks, and combining classes are those of the reference library (see unicode.h). */
#include "text/unicode_form.h"

#include "base/alloc.h"
#include "base/status.h"
#include "text/unicode.h"

#include <utf8proc.h>

enum {
    MAX_EXPANSION = 32,      /* characters from one: U+FDFA gives 18 */
    FIRST_CHANGING = 0x300,  /* Latin-1 and Latin Extended letters are composed already, and no character below is a mark */
};

/* Compatibility decompositions that came after Unicode 9, outside of the ranges of zq_is_newer_than_unicode_9. */
static bool is_newer_compat(uint32_t c)
{
    return c == 0x32ff || (c >= 0xa7f2 && c <= 0xa7f4) || c == 0xab69 || (c >= 0x10781 && c <= 0x107ba) || (c >= 0x1ccd6 && c <= 0x1ccf9) ||
           (c >= 0x1e030 && c <= 0x1e06d) || c == 0x1f16c || (c >= 0x1fbf0 && c <= 0x1fbf9);
}

static int decompose(struct zq_form form, uint32_t c, int32_t *out, size_t room)
{
    int boundary = 0;
    const utf8proc_option_t options = UTF8PROC_DECOMPOSE | (form.compat ? UTF8PROC_COMPAT : 0);
    utf8proc_ssize_t n = -1;
    if (!zq_is_newer_than_unicode_9(c) && !(form.compat && is_newer_compat(c)))
        n = utf8proc_decompose_char((utf8proc_int32_t)c, out, (utf8proc_ssize_t)room, options, &boundary);
    if (n >= 0 && (size_t)n <= room) return (int)n;
    out[0] = (int32_t)c;
    return 1;
}

/* Letters that are the second part of a composition: Hangul vowels and finals, Kirat Rai vowel signs. All others are marks. */
static bool joins_backwards(uint32_t c)
{
    return (c >= 0x1100 && c <= 0x11ff) || (c >= 0x16d60 && c <= 0x16d6f);
}

/* Whether c, and the text after it, can be normalized without looking back, and c stays as it is. */
static bool is_stable(struct zq_form form, uint32_t c)
{
    if (c < 0x80) return true;
    if (form.compose && !form.compat && c < FIRST_CHANGING) return true;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    if (p->combining_class || p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC || joins_backwards(c)) return false;
    int32_t parts[MAX_EXPANSION];
    return decompose(form, c, parts, MAX_EXPANSION) == 1 && parts[0] == (int32_t)c;
}

/* Marks of one run into canonical order: stable, by combining class (< 256), so counting them is enough for long runs. */
static bool order_marks(int32_t *marks, size_t n)
{
    enum { SHORT = 16 };
    if (n <= SHORT) {
        for (size_t i = 1; i < n; i++) {
            const int32_t c = marks[i];
            const int class = zq_combining_class((uint32_t)c);
            size_t k = i;
            for (; k > 0 && zq_combining_class((uint32_t)marks[k - 1]) > class; k--) marks[k] = marks[k - 1];
            marks[k] = c;
        }
        return true;
    }
    size_t start[257] = {0};
    int32_t *sorted = zq_alloc_array(n, sizeof *sorted);
    if (!sorted) return false;
    for (size_t i = 0; i < n; i++) start[zq_combining_class((uint32_t)marks[i]) + 1]++;
    for (size_t i = 1; i < 257; i++) start[i] += start[i - 1];
    for (size_t i = 0; i < n; i++) sorted[start[zq_combining_class((uint32_t)marks[i])]++] = marks[i];
    memcpy(marks, sorted, n * sizeof *sorted);
    zq_free(sorted);
    return true;
}

static bool order(int32_t *chars, size_t n)
{
    for (size_t i = 0; i < n;) {
        if (!zq_combining_class((uint32_t)chars[i])) {
            i++;
            continue;
        }
        const size_t first = i;
        while (i < n && zq_combining_class((uint32_t)chars[i])) i++;
        if (!order_marks(chars + first, i - first)) return false;
    }
    return true;
}

/* The character that a and b compose to, 0 if none. */
static int32_t compose_pair(int32_t a, int32_t b)
{
    int32_t pair[2] = {a, b};
    if (zq_is_newer_than_unicode_9((uint32_t)b)) return 0;
    return utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) == 1 ? pair[0] : 0;
}

/* Canonical composition in place; returns how many characters are left. A mark joins the last starter unless one of its own or a
 * higher class stands between them. */
static size_t compose(int32_t *chars, size_t n)
{
    size_t kept = 0, starter = SIZE_MAX;
    int last_class = 0; /* of the last character kept behind the starter */
    for (size_t i = 0; i < n; i++) {
        const int class = zq_combining_class((uint32_t)chars[i]);
        const bool adjacent = starter != SIZE_MAX && kept == starter + 1;
        int32_t composed = 0;
        if (adjacent || (starter != SIZE_MAX && last_class < class)) composed = compose_pair(chars[starter], chars[i]);
        if (composed) {
            chars[starter] = composed;
            continue;
        }
        if (!class) starter = kept;
        last_class = class;
        chars[kept++] = chars[i];
    }
    return kept;
}

/* Normalizes a region that begins with a starter or with the text. */
static bool put_region(struct zq_bytes *out, struct zq_form form, const char *s, size_t n, int32_t **chars, size_t *capacity)
{
    size_t n_chars = 0, length;
    for (size_t at = 0; at < n; at += length) {
        const uint32_t c = zq_utf8_decode(s + at, &length);
        if (*capacity - n_chars < MAX_EXPANSION) {
            const size_t more = *capacity * 2 + 8 * MAX_EXPANSION;
            int32_t *p = zq_realloc(*chars, n_chars * sizeof *p, more * sizeof *p);
            if (!p) return false;
            *chars = p;
            *capacity = more;
        }
        n_chars += (size_t)decompose(form, c, *chars + n_chars, MAX_EXPANSION);
    }
    if (!order(*chars, n_chars)) return false;
    if (form.compose) n_chars = compose(*chars, n_chars);
    for (size_t i = 0; i < n_chars; i++)
        if (!zq_bytes_put_char(out, (uint32_t)(*chars)[i])) return false;
    return true;
}

size_t zq_form_prefix(struct zq_form form, const char *s, size_t n)
{
    size_t at = 0, previous = 0, length;
    while (at < n) {
        if (!is_stable(form, zq_utf8_decode(s + at, &length))) return previous;
        previous = at;
        at += length;
    }
    return n;
}

bool zq_form_put(struct zq_bytes *out, struct zq_form form, const char *s, size_t n, int32_t **chars, size_t *capacity)
{
    while (n) {
        const size_t prefix = zq_form_prefix(form, s, n);
        if (!zq_bytes_put(out, s, prefix)) return false;
        s += prefix;
        n -= prefix;
        /* the region: the starter before the change, then all that is not stable */
        size_t end = 0, length;
        if (n) end = zq_utf8_length(*s);
        while (end < n && !is_stable(form, zq_utf8_decode(s + end, &length))) end += length;
        if (end && !put_region(out, form, s, end, chars, capacity)) return false;
        s += end;
        n -= end;
    }
    return true;
}
