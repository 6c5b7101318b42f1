/* All characters of the alphabet are below U+0144 (323), so both directions are a scan-free computation. */
#include "text/bytelevel.h"

/* Bytes without a printable character of their own, by first byte and count, in rising order. */
static const struct {
    uint8_t first, count;
} hidden[] = {{0, 33}, {127, 34}, {173, 1}};

static uint32_t char_of(uint8_t byte)
{
    uint32_t c = 0x100;
    for (int i = 0; i < 3; i++) {
        if (byte < hidden[i].first) return byte;
        if (byte < hidden[i].first + hidden[i].count) return c + byte - hidden[i].first;
        c += hidden[i].count;
    }
    return byte;
}

bool zq_bytelevel_put(struct zq_bytes *out, const char *s, size_t n)
{
    if (!zq_bytes_reserve(out, 2 * n)) return false;
    for (size_t i = 0; i < n; i++) out->n += zq_utf8_encode(char_of((uint8_t)s[i]), out->data + out->n);
    return true;
}

int zq_bytelevel_byte(uint32_t c)
{
    if (c < 0x100) return char_of((uint8_t)c) == c ? (int)c : -1;
    c -= 0x100;
    for (int i = 0; i < 3; i++) {
        if (c < hidden[i].count) return hidden[i].first + (int)c;
        c -= hidden[i].count;
    }
    return -1;
}
