/* Packing by bytes: on disk the words are little-endian, so that the stream of bits is a stream of bytes, whatever the byte order
 * of the machine. */
#include "quant/pack.h"

#include <string.h>

size_t zq_packed_words(size_t n, int bits)
{
    const size_t b = (size_t)bits;
    return n / 32 * b + (n % 32 * b + 31) / 32;
}

/* Codes join the bits held from above, whole bytes leave them from below. */
static void pack_stream(uint8_t *bytes, const int8_t *codes, int bits, size_t n)
{
    uint32_t held = 0;
    int n_held = 0;
    for (size_t i = 0; i < n; i++) {
        held |= (uint32_t)(codes[i] + (1 << (bits - 1))) << n_held;
        for (n_held += bits; n_held >= 8; n_held -= 8) {
            *bytes++ = (uint8_t)held;
            held >>= 8;
        }
    }
    if (n_held) *bytes = (uint8_t)held;
}

static void unpack_stream(int8_t *codes, const uint8_t *bytes, int bits, size_t n)
{
    uint32_t held = 0;
    int n_held = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_held < bits) {
            held |= (uint32_t)*bytes++ << n_held;
            n_held += 8;
        }
        codes[i] = (int8_t)((int)(held & ((1u << bits) - 1)) - (1 << (bits - 1)));
        held >>= bits;
        n_held -= bits;
    }
}

void zq_pack_codes(uint8_t *words, const int8_t *codes, int bits, size_t n)
{
    const size_t b = (size_t)bits, n_bytes = 4 * zq_packed_words(n, bits), used = n / 8 * b + (n % 8 * b + 7) / 8;
    if (bits == 4) { /* element 2j is the low nibble of byte j */
        for (size_t j = 0; j < n / 2; j++) words[j] = (uint8_t)((codes[2 * j] + 8) | (codes[2 * j + 1] + 8) << 4);
        if (n % 2) words[n / 2] = (uint8_t)(codes[n - 1] + 8);
    } else if (bits == 8) {
        for (size_t j = 0; j < n; j++) words[j] = (uint8_t)(codes[j] + 128);
    } else {
        pack_stream(words, codes, bits, n);
    }
    memset(words + used, 0, n_bytes - used);
}

void zq_unpack_codes(int8_t *codes, const uint8_t *words, int bits, size_t n)
{
    if (bits == 4) {
        for (size_t j = 0; j < n / 2; j++) {
            codes[2 * j] = (int8_t)((words[j] & 15) - 8);
            codes[2 * j + 1] = (int8_t)((words[j] >> 4) - 8);
        }
        if (n % 2) codes[n - 1] = (int8_t)((words[n / 2] & 15) - 8);
    } else if (bits == 8) {
        for (size_t j = 0; j < n; j++) codes[j] = (int8_t)(words[j] - 128);
    } else {
        unpack_stream(codes, words, bits, n);
    }
}
