/* Up to how many tokens the driver that streams weights once is quicker than the one that brings weights or tokens into another form first.
 * Data, measured by the program `crossovers` (cmake --build --preset release --target crossovers, then build/crossovers). On an EPYC
 * with AVX2 it printed, in GOP/s of one thread, few / many, for 4 to 9 tokens:
 *   w8 channel  4: 137 / 80   5: 132 / 99   6: 142 / 119  7: 136 / 138  8: 138 / 157  9: 135 / 107 (16 tokens side by side)
 *   w4 channel  4: 204 / 173  5: 181 / 179  6: 221 / 191  7: 200 / 193  8: 210 / 208  9: 195 / 208
 *   w4 k:64     4: 177 / 169  5: 156 / 172  6: 191 / 175  7: 172 / 174  8: 179 / 202  9: 167 / 202
 * Levels with VNNI have one driver for all numbers of tokens: nothing is changed in form. AMX tiles are 16 tokens
 * high, and fewer (MIN_TILE_TOKENS) go to the kernel of AVX-512 VNNI; that bound follows from their form and has not been measured. Nor has
 * the one from which codes are unpacked to BF16 for all tokens (FEW_TOKENS_BF16): up to it reading them is what a product costs.
 * Attention of one key head (FEW_QUERIES_BF16), on an EPYC with AVX-512 BF16 at 512 keys of F16, 16 heads of 64, in microseconds of one
 * thread, exact / BF16, for 4 to 8 queries and 16:
 *   4: 91 / 102   5: 112 / 115   6: 132 / 127   7: 213 / 156   8: 181 / 156   16: 352 / 253 (of F32, 6: 132 / 140   7: 184 / 168) */
#ifndef ZQ_KERNELS_CROSSOVERS_H
#define ZQ_KERNELS_CROSSOVERS_H

enum { FEW_TOKENS_W8_AVX2 = 6, FEW_TOKENS_W4_AVX2 = 6, MIN_TILE_TOKENS = 16, FEW_TOKENS_BF16 = 4, FEW_QUERIES_BF16 = 6 };

#endif
