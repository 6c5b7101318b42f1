/* Packing by bytes: on disk the words are little-endian, so 4-bit element 2j is the low nibble of byte j and element 2j + 1 its
 * high nibble, whatever the byte order of the machine. */
#include "quant/pack.h"

#include <string.h>

size_t zq_packed_words(size_t n, int bits)
{
    const size_t per_word = 32 / (size_t)bits;
    return n / per_word + (n % per_word != 0);
}

void zq_pack_codes(uint8_t *words, const int8_t *codes, int bits, size_t n)
{
    const size_t n_bytes = 4 * zq_packed_words(n, bits), used = bits == 4 ? n / 2 + n % 2 : n;
    if (bits == 4) {
        for (size_t j = 0; j < n / 2; j++) words[j] = (uint8_t)((codes[2 * j] + 8) | (codes[2 * j + 1] + 8) << 4);
        if (n % 2) words[n / 2] = (uint8_t)(codes[n - 1] + 8);
    } else {
        for (size_t j = 0; j < n; j++) words[j] = (uint8_t)(codes[j] + 128);
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
    } else {
        for (size_t j = 0; j < n; j++) codes[j] = (int8_t)(words[j] - 128);
    }
}
