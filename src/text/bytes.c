/* Growing byte strings and the repair of invalid UTF-8. A maximal invalid part is what a decoder had accepted when it met the
 * first byte that cannot continue: E2 80 followed by 'x' is one part, C0 80 are two. */
#include "text/bytes.h"

#include "base/alloc.h"
#include "zeroquant.h"

bool zq_bytes_grow(struct zq_bytes *b, size_t more)
{
    size_t needed, doubled;
    if (!zq_add(b->n, more, &needed) || !zq_mul(needed, 2, &doubled)) return false;
    char *data = zq_realloc(b->data, b->n, doubled);
    if (!data) return false;
    b->data = data;
    b->capacity = doubled;
    return true;
}

void zq_bytes_free(struct zq_bytes *b)
{
    zq_free(b->data);
    *b = (struct zq_bytes){0};
}

/* Length of the character at s, or 0 if it is invalid; *bad then is the length of the maximal invalid part. */
static size_t check_char(const uint8_t *s, size_t n, size_t *bad)
{
    const uint8_t lead = s[0];
    size_t length;
    uint8_t low = 0x80, high = 0xbf; /* of the second byte: Unicode table 3-7 */
    *bad = 1;
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) {
        length = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        length = 3;
        if (lead == 0xe0) low = 0xa0;
        if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        length = 4;
        if (lead == 0xf0) low = 0x90;
        if (lead == 0xf4) high = 0x8f;
    } else {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if (i == n || s[i] < low || s[i] > high) return 0;
        *bad = i + 1;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

size_t zq_utf8_valid(const char *s, size_t n)
{
    size_t at = 0, bad;
    while (at < n) {
        uint64_t eight;
        if (n - at >= 8 && (memcpy(&eight, s + at, 8), !(eight & 0x8080808080808080u))) {
            at += 8;
            continue;
        }
        const size_t length = check_char((const uint8_t *)s + at, n - at, &bad);
        if (!length) break;
        at += length;
    }
    return at;
}

bool zq_utf8_repair(struct zq_bytes *out, const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        const size_t valid = zq_utf8_valid(s + at, n - at);
        size_t bad = 0;
        if (!zq_bytes_put(out, s + at, valid)) return false;
        at += valid;
        if (at == n) break;
        check_char((const uint8_t *)s + at, n - at, &bad);
        if (!zq_bytes_put_char(out, 0xfffd)) return false;
        at += bad;
    }
    return true;
}
