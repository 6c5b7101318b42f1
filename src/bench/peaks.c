/* Twelve independent chains in registers hide the latency of any product: 4 to 6 cycles, two a cycle. The compiler may neither fold them
 * nor keep them in memory, hence the empty asm after each step. INT8 on AVX2 is vpmaddubsw, vpmaddwd and vpaddd, and INT4 vpmaddubsw and
 * vpaddw: sums of INT4 products fit 16 bits for some steps (kernels/x86/gemm_avx2.c). */
#include "bench/peaks.h"

enum { ROUNDS = 1 << 20, N_CHAINS = 12 };

#define CHAINS(name, isa, type, zero, step)                                                                      \
    __attribute__((target(isa))) static void name(void *work, size_t begin, size_t end, int thread)             \
    {                                                                                                            \
        (void)work, (void)thread;                                                                                \
        type a[N_CHAINS];                                                                                        \
        _Pragma("GCC unroll 12") for (int i = 0; i < N_CHAINS; i++) a[i] = zero;                                 \
        for (size_t r = 0; r < (end - begin) * ROUNDS; r++) {                                                    \
            _Pragma("GCC unroll 12") for (int i = 0; i < N_CHAINS; i++) { a[i] = step; SETTLE(a[i]); }           \
        }                                                                                                        \
    }
/* Operations of an item whose steps have that many each. */
#define ITEM(ops) ((double)ROUNDS * N_CHAINS * (ops))

#if defined(__x86_64__)
#include <immintrin.h>

#define SETTLE(a) __asm__ volatile("" : "+v"(a))

CHAINS(int8_avx2, "avx2", __m256i, _mm256_set1_epi8(1), _mm256_add_epi32(a[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a[i], a[i]), a[i])))
CHAINS(int4_avx2, "avx2", __m256i, _mm256_set1_epi8(1), _mm256_add_epi16(a[i], _mm256_maddubs_epi16(a[i], a[i])))
CHAINS(f32_avx2, "avx2,fma", __m256, _mm256_set1_ps(1), _mm256_fmadd_ps(a[i], a[i], a[i]))
CHAINS(int8_avxvnni, "avx2,avxvnni", __m256i, _mm256_set1_epi32(1), _mm256_dpbusd_epi32(a[i], a[i], a[i]))
CHAINS(int8_avx512vnni, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32(1), _mm512_dpbusd_epi32(a[i], a[i], a[i]))
CHAINS(f32_avx512vnni, "avx512f", __m512, _mm512_set1_ps(0), _mm512_fmadd_ps(a[i], a[i], a[i]))
CHAINS(bf16_avx512bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps(0), _mm512_dpbf16_ps(a[i], (__m512bh)a[i], (__m512bh)a[i]))

/* Four products of 16 rows by 64 bytes into four tiles, as the kernel's micro-kernel does. Layout of the configuration: Intel SDM vol. 1, 18. */
#define TILES(name, product)                                                                                                       \
    __attribute__((target("amx-tile,amx-int8,amx-bf16"))) static void name(void *work, size_t begin, size_t end, int thread)      \
    {                                                                                                                              \
        (void)work, (void)thread;                                                                                                  \
        struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};            \
        for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;                                                     \
        _tile_loadconfig(&config);                                                                                                 \
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);    \
        for (size_t r = 0; r < (end - begin) * (ROUNDS / 16); r++) {                                                               \
            product(0, 4, 6); product(1, 5, 6); product(2, 4, 7); product(3, 5, 7);                                                \
        }                                                                                                                          \
        _tile_release();                                                                                                           \
    }
#define TILE_ITEM(ops) ((double)(ROUNDS / 16) * 4 * (ops))
TILES(int8_amx, _tile_dpbusd)
TILES(bf16_amx, _tile_dpbf16ps)

static const struct zq_peak peaks[] = {
    {ZQ_LEVEL_AVX2, ZQ_WORK_INT8, ITEM(64), int8_avx2},
    {ZQ_LEVEL_AVX2, ZQ_WORK_INT4, ITEM(64), int4_avx2},
    {ZQ_LEVEL_AVX2, ZQ_WORK_F32, ITEM(16), f32_avx2},
    {ZQ_LEVEL_AVXVNNI, ZQ_WORK_INT8, ITEM(64), int8_avxvnni},
    {ZQ_LEVEL_AVXVNNI, ZQ_WORK_INT4, ITEM(64), int8_avxvnni},
    {ZQ_LEVEL_AVX512VNNI, ZQ_WORK_INT8, ITEM(128), int8_avx512vnni},
    {ZQ_LEVEL_AVX512VNNI, ZQ_WORK_INT4, ITEM(128), int8_avx512vnni},
    {ZQ_LEVEL_AVX512VNNI, ZQ_WORK_F32, ITEM(32), f32_avx512vnni},
    {ZQ_LEVEL_AVX512BF16, ZQ_WORK_BF16, ITEM(64), bf16_avx512bf16},
    {ZQ_LEVEL_AMX, ZQ_WORK_INT8, TILE_ITEM(2.0 * 16 * 16 * 64), int8_amx},
    {ZQ_LEVEL_AMX, ZQ_WORK_INT4, TILE_ITEM(2.0 * 16 * 16 * 64), int8_amx},
    {ZQ_LEVEL_AMX, ZQ_WORK_BF16, TILE_ITEM(2.0 * 16 * 16 * 32), bf16_amx},
};
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#include <arm_neon.h>

#define SETTLE(a) __asm__ volatile("" : "+w"(a))

CHAINS(int8_dotprod, "arch=armv8.2-a+dotprod", int32x4_t, vdupq_n_s32(1), vdotq_s32(a[i], vreinterpretq_s8_s32(a[i]), vreinterpretq_s8_s32(a[i])))
CHAINS(int8_i8mm, "arch=armv8.2-a+i8mm", int32x4_t, vdupq_n_s32(1), vmmlaq_s32(a[i], vreinterpretq_s8_s32(a[i]), vreinterpretq_s8_s32(a[i])))
CHAINS(f32_dotprod, "arch=armv8.2-a", float32x4_t, vdupq_n_f32(1), vfmaq_f32(a[i], a[i], a[i]))

static const struct zq_peak peaks[] = {
    {ZQ_LEVEL_DOTPROD, ZQ_WORK_INT8, ITEM(32), int8_dotprod},
    {ZQ_LEVEL_DOTPROD, ZQ_WORK_INT4, ITEM(32), int8_dotprod},
    {ZQ_LEVEL_DOTPROD, ZQ_WORK_F32, ITEM(8), f32_dotprod},
    {ZQ_LEVEL_I8MM, ZQ_WORK_INT8, ITEM(64), int8_i8mm},
    {ZQ_LEVEL_I8MM, ZQ_WORK_INT4, ITEM(64), int8_i8mm},
};
#else
static const struct zq_peak peaks[1]; /* none is known */
#endif

const struct zq_peak *zq_peaks(size_t *n)
{
    *n = peaks[0].run ? ZQ_LEN(peaks) : 0;
    return peaks;
}

const char *zq_work_name(enum zq_work work)
{
    static const char *const names[ZQ_N_WORKS] = {"int8", "int4", "bf16", "f32"};
    return names[work];
}
