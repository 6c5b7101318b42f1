/* Instead of kernels/crossovers.h: the driver for many tokens or queries takes all that it can. */
#define ZQ_KERNELS_CROSSOVERS_H
enum { FEW_TOKENS_W8_AVX2 = 0, FEW_TOKENS_W4_AVX2 = 0, MIN_TILE_TOKENS = 1, FEW_TOKENS_BF16 = 0, FEW_QUERIES_BF16 = 0 };
