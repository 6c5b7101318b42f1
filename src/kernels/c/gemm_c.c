/* Integer products in plain C: the yardstick of every other level. Sums of codes are exact in int32, so any order gives the
 * same integers and the compiler may vectorise dot(); the float part that follows is spelled out in kernels.h.
 *
 * Packed weights: codes row by row (w4: two per byte as code + 8, the even column in the low half; a row starts at a byte),
 * then, from a multiple of 64 bytes, the scales [n_rows, n_groups]. */
#include "kernels/level.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 512 }; /* nibbles unpacked at a time; even */

static size_t row_bytes(const struct zq_matrix *w, int bits) { return bits == 8 ? w->n_cols : w->n_cols / 2 + w->n_cols % 2; }

static size_t codes_bytes(const struct zq_matrix *w, int bits) { return (w->n_rows * row_bytes(w, bits) + 63) / 64 * 64; }

static float *scales_of(const struct zq_matrix *w, int bits) { return (float *)(void *)((uint8_t *)w->packed + codes_bytes(w, bits)); }

static size_t packed_bytes(const struct zq_matrix *w, int bits)
{
    size_t n_scales, n_bytes, bound; /* of codes_bytes() */
    if (!zq_mul(w->n_rows, w->n_cols, &bound) || !zq_add(bound, w->n_rows, &bound) || !zq_add(bound, 63, &bound)) return 0;
    if (!zq_mul(w->n_rows, zq_n_groups(w), &n_scales) || !zq_mul(n_scales, sizeof(float), &n_bytes)) return 0;
    if (!zq_add(n_bytes, codes_bytes(w, bits), &n_bytes)) return 0;
    return n_bytes ? n_bytes : 64;
}

static void pack_row(uint8_t *row, const int8_t *codes, size_t n, int bits)
{
    if (bits == 8) {
        memcpy(row, codes, n);
        return;
    }
    for (size_t k = 0; k < n; k += 2) {
        const int even = codes[k] + 8, odd = k + 1 < n ? codes[k + 1] + 8 : 0;
        row[k / 2] = (uint8_t)(even | odd << 4);
    }
}

static void pack(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales, int bits)
{
    const size_t n_groups = zq_n_groups(w);
    const int8_t *codes = values;
    for (size_t r = 0; r < n; r++)
        pack_row((uint8_t *)w->packed + (row + r) * row_bytes(w, bits), codes + r * w->n_cols, w->n_cols, bits);
    memcpy(scales_of(w, bits) + row * n_groups, scales, n * n_groups * sizeof *scales);
}

/* |s| <= n * 128 * 127 < 2^31 for n <= 131072. */
static int32_t dot(const int8_t *w, const int8_t *q, size_t n)
{
    int32_t s = 0;
    for (size_t k = 0; k < n; k++) s += w[k] * q[k];
    return s;
}

/* Columns [begin, begin + n) of a row of nibbles. */
static int32_t dot_nibbles(const uint8_t *row, const int8_t *q, size_t begin, size_t n)
{
    int8_t codes[CHUNK];
    int32_t s = 0;
    for (size_t k = begin & ~(size_t)1; k < begin + n; k += CHUNK) {
        const size_t end = zq_smaller(k + CHUNK, begin + n);
        for (size_t i = 0; i < (end - k + 1) / 2; i++) {
            codes[2 * i] = (int8_t)((row[k / 2 + i] & 15) - 8);
            codes[2 * i + 1] = (int8_t)((row[k / 2 + i] >> 4) - 8);
        }
        const size_t skip = k < begin; /* the group may begin in the middle of a byte */
        s += dot(codes + skip, q + k + skip, end - k - skip);
    }
    return s;
}

static int32_t dot_row(const uint8_t *row, const int8_t *q, size_t begin, size_t n, int bits)
{
    return bits == 8 ? dot((const int8_t *)row + begin, q + begin, n) : dot_nibbles(row, q, begin, n);
}

static float product(const struct zq_product *p, size_t token, size_t row, int bits)
{
    const struct zq_matrix *w = p->w;
    const uint8_t *codes = (const uint8_t *)w->packed + row * row_bytes(w, bits);
    const int8_t *q = p->q + token * p->ld_x;
    const size_t n_groups = zq_n_groups(w), group = zq_group_cols(w);
    const float *scales = scales_of(w, bits) + row * n_groups;
    const float bias = p->bias ? p->bias[row] : 0.0f;

    if (!w->k_group) return fmaf((float)dot_row(codes, q, 0, w->n_cols, bits), p->scale[token] * scales[0], bias);
    float f = 0;
    for (size_t g = 0; g < n_groups; g++) f = fmaf((float)dot_row(codes, q, g * group, group, bits), scales[g], f);
    return fmaf(f, p->scale[token], bias);
}

static void run(const struct zq_product *p, size_t row_begin, size_t row_end, int bits)
{
    for (size_t row = row_begin; row < row_end; row++) {
        for (size_t t = 0; t < p->n_tokens; t++) {
            const float y = product(p, t, row, bits);
            p->out[t * p->ld_out + row] = p->residual ? y + p->residual[t * p->ld_out + row] : y;
        }
    }
}

/* ---- the slots ---- */

static size_t bytes_w8(const struct zq_matrix *w) { return packed_bytes(w, 8); }
static size_t bytes_w4(const struct zq_matrix *w) { return packed_bytes(w, 4); }

static void pack_w8(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack(w, row, n, values, scales, 8);
}

static void pack_w4(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack(w, row, n, values, scales, 4);
}

static void gemm_w8_a8_c(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 8); }
static void gemm_w4_a8_c(const struct zq_product *p, size_t row_begin, size_t row_end) { run(p, row_begin, row_end, 4); }

void zq_gemm_c(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_c", 1, bytes_w8, pack_w8, gemm_w8_a8_c};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_c", 1, bytes_w4, pack_w4, gemm_w4_a8_c};
}
