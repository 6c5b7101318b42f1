/* Fills the kernel table, and finds out which levels may be used. A new level is one line in the table of names, one block in
 * zq_kernels_init() and its files. */
#include "kernels/kernels.h"

#include "kernels/level.h"

#include <stdlib.h>
#include <string.h>

/* Lowest first. The levels of the other family of processors are never detected, so "that level and below" needs no more. */
static const struct {
    const char *name;
    unsigned level;
} names[] = {
    {"c", ZQ_LEVEL_C},
    {"avx2", ZQ_LEVEL_AVX2},
    {"avxvnni", ZQ_LEVEL_AVXVNNI},
    {"avx512vnni", ZQ_LEVEL_AVX512VNNI},
    {"avx512bf16", ZQ_LEVEL_AVX512BF16},
    {"amx", ZQ_LEVEL_AMX},
    {"dotprod", ZQ_LEVEL_DOTPROD},
    {"i8mm", ZQ_LEVEL_I8MM},
};

#if defined(__x86_64__)
static unsigned levels_here(void) { return zq_levels_x86(); }

static void fill(struct zq_kernels *k, unsigned levels)
{
    if (levels & ZQ_LEVEL_AVX2) {
        zq_rows_avx2(k);
        zq_attend_avx2(k);
        zq_floatmul_avx2(k);
        zq_gemm_avx2(k);
    }
    if (levels & ZQ_LEVEL_AVXVNNI) zq_gemm_avxvnni(k);
    if (levels & ZQ_LEVEL_AVX512VNNI) {
        zq_rows_avx512vnni(k);
        zq_attend_avx512vnni(k);
        zq_floatmul_avx512vnni(k);
        zq_gemm_avx512vnni(k);
    }
    if (levels & ZQ_LEVEL_AMX) zq_gemm_amx(k);
}

/* Tiles have no words that round to BF16: those are AVX-512's. */
static void fill_bf16(struct zq_kernels *k, unsigned levels)
{
    if (!(levels & ZQ_LEVEL_AVX512BF16)) return;
    if (levels & ZQ_LEVEL_AMX) zq_bf16mul_amx(k);
    else zq_bf16mul_avx512bf16(k);
    k->bf16 = true;
}

static void fill_bf16_attention(struct zq_kernels *k, unsigned levels)
{
    if (!(levels & ZQ_LEVEL_AVX512BF16)) return;
    zq_attend_avx512bf16(k);
    k->bf16_attention = true;
}
#elif defined(__aarch64__) && defined(__AARCH64EL__)
static unsigned levels_here(void) { return zq_levels_arm(); }

static void fill(struct zq_kernels *k, unsigned levels)
{
    if (levels & ZQ_LEVEL_DOTPROD) {
        zq_rows_dotprod(k);
        zq_attend_dotprod(k);
        zq_floatmul_dotprod(k);
        zq_gemm_dotprod(k);
    }
    if (levels & ZQ_LEVEL_I8MM) zq_gemm_i8mm(k);
}

static void fill_bf16(struct zq_kernels *k, unsigned levels) { (void)k, (void)levels; }
static void fill_bf16_attention(struct zq_kernels *k, unsigned levels) { (void)k, (void)levels; }
#else
static unsigned levels_here(void) { return ZQ_LEVEL_C; }
static void fill(struct zq_kernels *k, unsigned levels) { (void)k, (void)levels; }
static void fill_bf16(struct zq_kernels *k, unsigned levels) { (void)k, (void)levels; }
static void fill_bf16_attention(struct zq_kernels *k, unsigned levels) { (void)k, (void)levels; }
#endif

void zq_kernels_init(struct zq_kernels *k, unsigned levels)
{
    memset(k, 0, sizeof *k);
    k->levels = levels;
    zq_rows_c(k);
    zq_attend_c(k);
    zq_floatmul_c(k);
    zq_gemm_c(k);
    fill(k, levels);
}

void zq_kernels_fast(struct zq_kernels *k)
{
    fill_bf16(k, k->levels);
}

void zq_kernels_fast_attention(struct zq_kernels *k)
{
    fill_bf16_attention(k, k->levels);
}

zq_status zq_levels_detect(unsigned *levels, zq_error *err)
{
    *levels = 0;
    const char *wish = getenv("ZQ_ISA");
    unsigned allowed = ~0u;
    if (wish && *wish) {
        size_t i = 0;
        while (i < ZQ_LEN(names) && strcmp(names[i].name, wish)) i++;
        if (i == ZQ_LEN(names))
            return zq_fail(err, ZQ_EINVAL, "ZQ_ISA=%s: unknown level; valid are c, avx2, avxvnni, avx512vnni, avx512bf16, amx, dotprod, i8mm",
                           wish);
        allowed = 0;
        for (size_t below = 0; below <= i; below++) allowed |= names[below].level;
    }
    *levels = levels_here() & allowed;
    return ZQ_OK;
}

const char *zq_levels_name(unsigned levels)
{
    size_t i = ZQ_LEN(names) - 1;
    while (i > 0 && !(levels & names[i].level)) i--;
    return names[i].name;
}
