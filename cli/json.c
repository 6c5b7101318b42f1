/* What jansson leaves open: text from users need not be UTF-8, numbers need not be finite. */
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the valid UTF-8 sequence at s[0..n), or 0. */
static size_t sequence_length(const unsigned char *s, size_t n)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0x80) return 1;
    const size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc0 || s[0] >= 0xf8 || length > n) return 0;
    uint32_t c = s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : length;
}

json_t *json_text(const char *text, size_t n_bytes)
{
    json_t *string = json_stringn(text, n_bytes);
    if (string) return string;
    char *clean = malloc(3 * n_bytes + 1); /* U+FFFD takes three bytes */
    if (!clean) return NULL;
    size_t used = 0;
    for (size_t i = 0; i < n_bytes;) {
        const size_t length = sequence_length((const unsigned char *)text + i, n_bytes - i);
        memcpy(clean + used, length ? text + i : "\xef\xbf\xbd", length ? length : 3);
        used += length ? length : 3;
        i += length ? length : 1;
    }
    string = json_stringn(clean, used);
    free(clean);
    return string;
}

json_t *json_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* Appends item, which may be NULL, to *array; on failure *array becomes NULL. */
static void append(json_t **array, json_t *item)
{
    if (!*array || !json_array_append_new(*array, item)) return;
    json_decref(*array);
    *array = NULL;
}

json_t *json_floats(const float *x, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < n; i++) append(&array, json_number((double)x[i]));
    return array;
}

json_t *json_ids(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < n; i++) append(&array, json_integer(ids[i]));
    return array;
}

zq_status json_print(json_t *value, int indent, zq_error *err)
{
    if (!value) return fail(err, ZQ_ENOMEM, "out of memory for the output");
    const int rc = json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) | JSON_INDENT((size_t)indent));
    json_decref(value);
    if (rc && !ferror(stdout)) return fail(err, ZQ_ENOMEM, "out of memory for the output");
    putchar('\n');
    return flush_output(err);
}
