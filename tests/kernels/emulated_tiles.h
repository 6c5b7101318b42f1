/* AMX tiles in plain C, put before src/kernels/x86/gemm_amx.c by the build of zqcheck (-include, after emulated_avx512.h), so that
 * the kernel itself is proved on machines without AMX. Semantics: Intel SDM vol. 2, TILELOADD, TILESTORED, TDPBSUD. Use before configuration, or of
 * tiles beyond it, ends the program. */
#ifndef ZQ_EMULATED_TILES_H
#define ZQ_EMULATED_TILES_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
    uint8_t rows[8];
    uint16_t row_bytes[8];
    uint8_t data[8][16][64];
} emulated;

static void emulated_loadconfig(const void *p)
{
    const uint8_t *bytes = p;
    if (bytes[0] != 1) abort();
    memset(&emulated, 0, sizeof emulated);
    for (int t = 0; t < 8; t++) {
        memcpy(&emulated.row_bytes[t], bytes + 16 + 2 * t, 2);
        emulated.rows[t] = bytes[48 + t];
        if (emulated.rows[t] > 16 || emulated.row_bytes[t] > 64) abort();
    }
}

static void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

static void emulated_loadd(int t, const void *p, size_t stride)
{
    if (!emulated.rows[t]) abort();
    memset(emulated.data[t], 0, sizeof emulated.data[t]);
    for (size_t r = 0; r < emulated.rows[t]; r++) memcpy(emulated.data[t][r], (const char *)p + r * stride, emulated.row_bytes[t]);
}

static void emulated_stored(int t, void *p, size_t stride)
{
    if (!emulated.rows[t]) abort();
    for (size_t r = 0; r < emulated.rows[t]; r++) memcpy((char *)p + r * stride, emulated.data[t][r], emulated.row_bytes[t]);
}

/* c += a (signed) times b (unsigned) */
static void emulated_dpbsud(int c, int a, int b)
{
    if (!emulated.rows[a] || emulated.rows[b] != emulated.row_bytes[a] / 4) abort();
    for (size_t m = 0; m < emulated.rows[c]; m++) {
        uint32_t sums[16];
        memcpy(sums, emulated.data[c][m], sizeof sums);
        for (size_t k = 0; k < emulated.row_bytes[a]; k++)
            for (size_t n = 0; n < emulated.row_bytes[c] / 4u; n++)
                sums[n] += (uint32_t)((int8_t)emulated.data[a][m][k] * emulated.data[b][k / 4][4 * n + k % 4]);
        memcpy(emulated.data[c][m], sums, sizeof sums);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbsud emulated_dpbsud

#endif
