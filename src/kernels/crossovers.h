/* Up to how many tokens the driver that streams weights once is quicker than the one that brings weights or tokens into another form first.
 * Data, measured by the program `crossovers` (cmake --build --preset release --target crossovers, then build/crossovers). On an EPYC
 * with AVX2 it printed, in GOP/s of one thread, few / many, for 4 to 9 tokens:
 *   w8 channel  4: 137 / 80   5: 132 / 99   6: 142 / 119  7: 136 / 138  8: 138 / 157  9: 135 / 107 (16 tokens side by side)
 *   w4 channel  4: 204 / 173  5: 181 / 179  6: 221 / 191  7: 200 / 193  8: 210 / 208  9: 195 / 208
 *   w4 k:64     4: 177 / 169  5: 156 / 172  6: 191 / 175  7: 172 / 174  8: 179 / 202  9: 167 / 202
 * Levels with VNNI have one driver for all numbers of tokens: nothing is changed in form. AMX tiles are 16 tokens
 * high, and fewer (MIN_TILE_TOKENS) go to the kernel of AVX-512 VNNI; that bound follows from their form, and no machine with AMX has
 * measured it. Codes are unpacked to BF16 for more than FEW_TOKENS_BF16 tokens: on a Zen 4, for 1 to 8,
 *   w8 channel  1: 53 / 30  2: 54 / 59  3: 55 / 74  4: 55 / 93  5: 56 / 101  6: 114 / 113  7: 99 / 115  8: 90 / 128
 *   w4 channel  1: 32 / 22  2: 33 / 42  3: 33 / 56  4: 33 / 71  5: 33 / 79   6: 94 / 89    7: 74 / 94   8: 64 / 105
 *   w4 k:64     1: 32 / 22  2: 33 / 41  3: 33 / 55  4: 33 / 67  5: 33 / 76   6: 92 / 84    7: 73 / 91   8: 64 / 98
 * and of a W8 head of 50257 x 1024, which comes from memory, in ms of two threads (zq bench --ops), 2: 2.4 / 3.2  4: 4.2 / 3.7.
 * Attention has BF16 products for more than FEW_QUERIES_BF16 queries of a key head. Over 512 keys of two heads of 64, which the second-level
 * cache holds, the same machine has
 *   F32   1: 42 / 28  2: 44 / 46  3: 45 / 58  4: 82 / 80  5: 83 / 88  6: 92 / 93  7: 62 / 92  8: 84 / 107
 *   F16   1: 47 / 29  2: 49 / 45  3: 50 / 58  4: 81 / 80  5: 81 / 89  6: 89 / 98  7: 65 / 93  8: 82 / 109
 * and of 16 heads of F16, which it does not, in microseconds, 4: 91 / 102  5: 112 / 115  6: 132 / 127  7: 213 / 156: no bound from 2 to 6 is
 * the quicker one everywhere. */
#ifndef ZQ_KERNELS_CROSSOVERS_H
#define ZQ_KERNELS_CROSSOVERS_H

enum { FEW_TOKENS_W8_AVX2 = 6, FEW_TOKENS_W4_AVX2 = 6, MIN_TILE_TOKENS = 16, FEW_TOKENS_BF16 = 2, FEW_QUERIES_BF16 = 6 };

#endif
