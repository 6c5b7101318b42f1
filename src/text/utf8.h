/* UTF-8 of text that is already known to be valid (see zq_utf8_repair), one character at a time. */
#ifndef ZQ_TEXT_UTF8_H
#define ZQ_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that begins with `lead`. */
static inline size_t zq_utf8_length(char lead)
{
    const uint8_t b = (uint8_t)lead;
    return b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

/* The character at s and its length in bytes. */
static inline uint32_t zq_utf8_decode(const char *s, size_t *length)
{
    const uint8_t *b = (const uint8_t *)s;
    if (b[0] < 0x80) {
        *length = 1;
        return b[0];
    }
    if (b[0] < 0xe0) {
        *length = 2;
        return (b[0] & 0x1fu) << 6 | (b[1] & 0x3fu);
    }
    if (b[0] < 0xf0) {
        *length = 3;
        return (b[0] & 0xfu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu);
    }
    *length = 4;
    return (b[0] & 7u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 | (b[3] & 0x3fu);
}

/* Where the character that ends before s[at] begins; at > 0. */
static inline size_t zq_utf8_before(const char *s, size_t at)
{
    do at--;
    while (at > 0 && ((uint8_t)s[at] & 0xc0) == 0x80);
    return at;
}

/* Writes c, at most U+10FFFF, and returns its length in bytes. */
static inline size_t zq_utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

#endif
