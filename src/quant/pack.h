/* Integer codes as pack-quantized tensors hold them: offset binary (code + 2^(bits - 1)), element i of a row in bits
 * [i * bits, (i + 1) * bits) of a little-endian stream, rows padded with zero bits to whole 32-bit words. */
#ifndef ZQ_QUANT_PACK_H
#define ZQ_QUANT_PACK_H

#include <stddef.h>
#include <stdint.h>

/* 32-bit words of a row of n codes; bits is 2, 3, 4 or 8. */
size_t zq_packed_words(size_t n, int bits);
/* words [4 * zq_packed_words(n, bits)] bytes, any alignment; codes [n] within the range of `bits`. */
void zq_pack_codes(uint8_t *words, const int8_t *codes, int bits, size_t n);
void zq_unpack_codes(int8_t *codes, const uint8_t *words, int bits, size_t n);

#endif
