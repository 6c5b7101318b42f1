/* The byte alphabet of GPT-2: every byte has a printable character that stands for it in vocabularies. Bytes 33-126, 161-172 and
 * 174-255 stand for themselves, the other 68 are U+0100 and up, in rising order. */
#ifndef ZQ_TEXT_BYTELEVEL_H
#define ZQ_TEXT_BYTELEVEL_H

#include "text/bytes.h"

/* Appends the characters that stand for the bytes of s. */
bool zq_bytelevel_put(struct zq_bytes *out, const char *s, size_t n);

/* The byte that c stands for, -1 if none. */
int zq_bytelevel_byte(uint32_t c);

#endif
