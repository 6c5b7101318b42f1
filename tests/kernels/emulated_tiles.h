/* AMX tiles in plain C, put before the AMX kernels of src/kernels/x86 by the build of zqcheck (-include, after emulated_avx512.h), so that
 * the kernels themselves are proved on machines without AMX. Semantics: Intel SDM vol. 2, TILELOADD, TILESTORED, TDPBSUD, TDPBF16PS. Use before
 * configuration, or of tiles beyond it, ends the program. */
#ifndef ZQ_EMULATED_TILES_H
#define ZQ_EMULATED_TILES_H

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EMULATED_TILE static __attribute__((unused))

static _Thread_local struct {
    uint8_t rows[8];
    uint16_t row_bytes[8];
    _Alignas(32) uint8_t data[8][16][64];
} emulated;

EMULATED_TILE void emulated_loadconfig(const void *p)
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

EMULATED_TILE void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

EMULATED_TILE void emulated_loadd(int t, const void *p, size_t stride)
{
    if (!emulated.rows[t]) abort();
    memset(emulated.data[t], 0, sizeof emulated.data[t]);
    for (size_t r = 0; r < emulated.rows[t]; r++) memcpy(emulated.data[t][r], (const char *)p + r * stride, emulated.row_bytes[t]);
}

EMULATED_TILE void emulated_stored(int t, void *p, size_t stride)
{
    if (!emulated.rows[t]) abort();
    for (size_t r = 0; r < emulated.rows[t]; r++) memcpy((char *)p + r * stride, emulated.data[t][r], emulated.row_bytes[t]);
}

/* c += a (signed) times b (unsigned) */
EMULATED_TILE void emulated_dpbsud(int c, int a, int b)
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

static float emulated_flushed(float a) { return fabsf(a) < FLT_MIN ? 0 * a : a; }

static float emulated_bf16(int tile, size_t row, size_t i)
{
    uint32_t bits = 0;
    float f;
    memcpy((uint8_t *)&bits + 2, emulated.data[tile][row] + 2 * i, 2);
    memcpy(&f, &bits, sizeof f);
    return emulated_flushed(f);
}

/* c += a times b: sums of even and of odd columns apart, each product added with one rounding; subnormals count as 0 */
EMULATED_TILE void emulated_dpbf16ps(int c, int a, int b)
{
    const size_t n_pairs = emulated.row_bytes[a] / 4, n_columns = emulated.row_bytes[c] / 4;
    _Alignas(32) float right[32][16] = {{0}}; /* [column of a][column of b] */
    if (!emulated.rows[a] || emulated.rows[b] != n_pairs) abort();
    for (size_t k = 0; k < 2 * n_pairs; k++)
        for (size_t n = 0; n < n_columns; n++) right[k][n] = emulated_bf16(b, k / 2, 2 * n + k % 2);
    for (size_t m = 0; m < emulated.rows[c]; m++) {
        __m256 sums[2][2] = {{_mm256_setzero_ps(), _mm256_setzero_ps()}, {_mm256_setzero_ps(), _mm256_setzero_ps()}};
        for (size_t k = 0; k < 2 * n_pairs; k++) {
            const __m256 left = _mm256_set1_ps(emulated_bf16(a, m, k));
            for (size_t h = 0; h < 2; h++) sums[k % 2][h] = emulated_flush(_mm256_fmadd_ps(left, _mm256_load_ps(right[k] + 8 * h), sums[k % 2][h]));
        }
        for (size_t h = 0; h < 2; h++) {
            float *out = (float *)(void *)emulated.data[c][m] + 8 * h;
            const __m256 sum = emulated_flush(_mm256_add_ps(sums[0][h], sums[1][h]));
            _mm256_storeu_ps(out, emulated_flush(_mm256_add_ps(emulated_flush(_mm256_loadu_ps(out)), sum)));
        }
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbsud emulated_dpbsud
#define _tile_dpbf16ps emulated_dpbf16ps

#endif
