/* A bounds-checked little-endian reader: every binary byte from outside passes through it. After the first read past the end
 * `bad` is set, and all further reads give zero, so that a parser may check once at the end of a record. */
#ifndef ZQ_BASE_CURSOR_H
#define ZQ_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zq_cursor {
    const uint8_t *bytes;
    size_t n_bytes, at;
    bool bad;
};

/* n bytes at the cursor, which moves on; NULL (and bad) if fewer remain. */
static inline const uint8_t *zq_cursor_take(struct zq_cursor *c, size_t n)
{
    if (c->bad || n > c->n_bytes - c->at) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *p = c->bytes + c->at;
    c->at += n;
    return p;
}

static inline uint64_t zq_cursor_u64(struct zq_cursor *c)
{
    const uint8_t *p = zq_cursor_take(c, 8);
    uint64_t v = 0;
    for (int i = 0; p && i < 8; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

#endif
