/* What the files of one ISA level share: the functions that put their kernels into the table, and sizes of packed tiles.
 * Only files below src/kernels include this. */
#ifndef ZQ_KERNELS_LEVEL_H
#define ZQ_KERNELS_LEVEL_H

#include "kernels/kernels.h"

#include "base/alloc.h"

/* Kernel bodies are written once with constant arguments (tile shapes, formats) and rely on being folded into each use.
 * Under sanitizers the compiler chooses what to fold, which is little: the same code checked, at a hundredth of the compile time. */
#if defined(__SANITIZE_ADDRESS__)
#define ZQ_INLINE static inline __attribute__((unused))
#define ZQ_UNROLL
#else
#define ZQ_INLINE static inline __attribute__((always_inline))
#define ZQ_UNROLL _Pragma("GCC unroll 32")
#endif

/* After a loop over accumulators in x86 registers: gcc 12 else keeps a second copy of each in memory, written in every step. */
#ifndef ZQ_SETTLE
#define ZQ_SETTLE(a) __asm__("" : "+v"(a))
#endif

/* Each file of a level has one of these: it overwrites the slots that the file implements. */
void zq_rows_c(struct zq_kernels *k);
void zq_attend_c(struct zq_kernels *k);
void zq_floatmul_c(struct zq_kernels *k);
void zq_gemm_c(struct zq_kernels *k);
void zq_rows_avx2(struct zq_kernels *k);
void zq_attend_avx2(struct zq_kernels *k);
void zq_floatmul_avx2(struct zq_kernels *k);
void zq_gemm_avx2(struct zq_kernels *k);
void zq_gemm_avxvnni(struct zq_kernels *k);
void zq_rows_avx512vnni(struct zq_kernels *k);
void zq_attend_avx512vnni(struct zq_kernels *k);
void zq_floatmul_avx512vnni(struct zq_kernels *k);
void zq_gemm_avx512vnni(struct zq_kernels *k);
void zq_gemm_amx(struct zq_kernels *k);
void zq_bf16mul_avx512bf16(struct zq_kernels *k);
void zq_attend_avx512bf16(struct zq_kernels *k);
void zq_bf16mul_amx(struct zq_kernels *k);
void zq_rows_dotprod(struct zq_kernels *k);
void zq_attend_dotprod(struct zq_kernels *k);
void zq_floatmul_dotprod(struct zq_kernels *k);
void zq_gemm_dotprod(struct zq_kernels *k);
void zq_gemm_i8mm(struct zq_kernels *k);

/* Levels that this processor has, its operating system saves the registers of, and this library has kernels for. */
unsigned zq_levels_x86(void);
unsigned zq_levels_arm(void);

ZQ_INLINE size_t zq_smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Scales in one row. */
ZQ_INLINE size_t zq_n_groups(const struct zq_matrix *w) { return w->k_group ? w->n_cols / w->k_group : 1; }
/* Columns that share a scale. */
ZQ_INLINE size_t zq_group_cols(const struct zq_matrix *w) { return w->k_group ? w->k_group : w->n_cols; }

/* n_tiles * tile_bytes with n_tiles = n_rows / row_tile rounded up; 0 if it does not fit, 64 where nothing is stored. */
static inline size_t zq_tiles_bytes(size_t n_rows, size_t row_tile, size_t tile_bytes)
{
    size_t bytes;
    if (!zq_mul(n_rows / row_tile + (n_rows % row_tile != 0), tile_bytes, &bytes)) return 0;
    return bytes ? bytes : 64;
}

#endif
