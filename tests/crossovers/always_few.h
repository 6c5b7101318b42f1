/* Instead of kernels/crossovers.h: the driver for few tokens takes all. */
#define ZQ_KERNELS_CROSSOVERS_H
enum { FEW_TOKENS_W8_AVX2 = 1 << 20, FEW_TOKENS_W4_AVX2 = 1 << 20 };
