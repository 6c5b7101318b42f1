/* Instead of kernels/crossovers.h: the driver for few tokens or queries takes all. */
#define ZQ_KERNELS_CROSSOVERS_H
enum { ALL = 1 << 20, FEW_TOKENS_W8_AVX2 = ALL, FEW_TOKENS_W4_AVX2 = ALL, MIN_TILE_TOKENS = ALL, FEW_TOKENS_BF16 = ALL, FEW_QUERIES_BF16 = ALL };
