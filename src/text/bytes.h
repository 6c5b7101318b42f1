/* A growing run of bytes, the string type of src/text. Zero-initialise; the functions return false when out of memory and then
 * leave the contents alone. */
#ifndef ZQ_TEXT_BYTES_H
#define ZQ_TEXT_BYTES_H

#include "text/utf8.h"

#include <stdbool.h>
#include <string.h>

struct zq_bytes {
    char *data; /* [n], not terminated */
    size_t n, capacity;
};

/* A borrowed string. */
struct zq_span {
    const char *at;
    size_t n;
};

bool zq_bytes_grow(struct zq_bytes *b, size_t more);
void zq_bytes_free(struct zq_bytes *b);

/* Makes room for `more` bytes behind the contents. */
static inline bool zq_bytes_reserve(struct zq_bytes *b, size_t more)
{
    return b->capacity - b->n >= more || zq_bytes_grow(b, more);
}

static inline bool zq_bytes_put(struct zq_bytes *b, const char *s, size_t n)
{
    if (!zq_bytes_reserve(b, n)) return false;
    if (n) memcpy(b->data + b->n, s, n);
    b->n += n;
    return true;
}

static inline bool zq_bytes_put_char(struct zq_bytes *b, uint32_t c)
{
    if (!zq_bytes_reserve(b, 4)) return false;
    b->n += zq_utf8_encode(c, b->data + b->n);
    return true;
}

/* How many bytes from the start are valid UTF-8 (no surrogates, no overlong forms, nothing above U+10FFFF). */
size_t zq_utf8_valid(const char *s, size_t n);

/* Appends s with U+FFFD in place of every maximal invalid part (Unicode chapter 3, "U+FFFD Substitution of Maximal Subparts"). */
bool zq_utf8_repair(struct zq_bytes *out, const char *s, size_t n);

#endif
