/* Packs weights for a device. What a newcomer would get wrong: K-groups are padded one by one, so a column's place depends on its
 * group; and w4 codes are stored 16 times too large for their scale, which is why the scale is divided by 16 (exactly, unless that
 * makes it subnormal). */
#include "cuda/layout.h"

#include "base/alloc.h"

#include <string.h>

enum float_format { VALUES_4, VALUES_2, CODES_8, CODES_4 };

static size_t coded_bytes(const struct zq_matrix *w, int bits)
{
    size_t all, scales;
    if (!zq_mul(w->n_rows, w->n_cols, &all) || !zq_mul(all, 64, &all)) return 0; /* 64: bounds padding, scales and rounding up */
    if (!zq_mul(w->n_rows, zq_layout_groups(w) * sizeof(float), &scales)) return 0;
    return zq_layout_codes(w, bits) + scales + 64;
}

static void put_code(uint8_t *row, size_t column, int code, int bits)
{
    if (bits == 8) {
        row[column] = (uint8_t)(int8_t)code;
        return;
    }
    const size_t at = column / 32 * 16 + column % 16;
    const unsigned nibble = (unsigned)code & 15u;
    if (column % 32 < 16) row[at] = (uint8_t)((row[at] & 0xf0u) | nibble);
    else row[at] = (uint8_t)((row[at] & 0x0fu) | nibble << 4);
}

static void put_scales(const struct zq_matrix *w, float *to, size_t row, size_t n, const float *scales, float factor)
{
    const size_t groups = zq_layout_groups(w);
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < groups; g++) to[g * w->n_rows + row + r] = scales[r * groups + g] * factor;
}

static void pack_coded(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales, int bits)
{
    const size_t cols = zq_layout_cols(w), group = zq_layout_group(w), step = zq_layout_step(w), row_bytes = cols * (size_t)bits / 8;
    const int8_t *codes = values;
    uint8_t *to = (uint8_t *)w->packed + row * row_bytes;
    memset(to, 0, n * row_bytes);
    for (size_t r = 0; r < n; r++)
        for (size_t k = 0; k < w->n_cols; k++)
            put_code(to + r * row_bytes, k / group * step + k % group, codes[r * w->n_cols + k], bits);
    put_scales(w, (float *)(void *)((uint8_t *)w->packed + zq_layout_codes(w, bits)), row, n, scales, bits == 4 ? 1.0f / 16 : 1.0f);
}

static size_t side_bytes(const struct zq_matrix *w, enum float_format format)
{
    const size_t width = zq_layout_width(w);
    return w->n_cols * (format == VALUES_4 ? 4 * width : format == VALUES_2 ? 2 * width : format == CODES_8 ? width : width / 2);
}

static size_t bytes_beside(const struct zq_matrix *w, enum float_format format)
{
    size_t all;
    if (w->n_rows > SIZE_MAX / 2 || !zq_mul(zq_layout_width(w), w->n_cols + 1, &all) || !zq_mul(all, 8, &all)) return 0;
    return side_bytes(w, format) + zq_layout_groups(w) * w->n_rows * sizeof(float) + 64;
}

static void pack_beside(const struct zq_matrix *w, enum float_format format, size_t row, size_t n, const void *values, const float *scales)
{
    const size_t width = zq_layout_width(w), value = format == VALUES_4 ? 4 : format == VALUES_2 ? 2 : 1;
    const uint8_t *from = values;
    uint8_t *to = w->packed;
    for (size_t k = 0; k < w->n_cols; k++) {
        for (size_t r = 0; r < n; r++) {
            const size_t i = r * w->n_cols + k, place = k * width + row + r;
            if (format != CODES_4) {
                memcpy(to + place * value, from + i * value, value);
                continue;
            }
            const unsigned code = (unsigned)(((const int8_t *)values)[i] + 8);
            uint8_t *byte = to + place / 2;
            *byte = (uint8_t)(place % 2 ? (*byte & 0x0fu) | code << 4 : (*byte & 0xf0u) | code);
        }
    }
    if (scales) put_scales(w, (float *)(void *)(to + side_bytes(w, format)), row, n, scales, 1);
}

static enum float_format float_format(const struct zq_matrix *w) { return w->dtype == ZQ_F32 ? VALUES_4 : VALUES_2; }

static size_t bytes_w8a8(const struct zq_matrix *w) { return coded_bytes(w, 8); }
static size_t bytes_w4a8(const struct zq_matrix *w) { return coded_bytes(w, 4); }
static size_t bytes_w8a16(const struct zq_matrix *w) { return bytes_beside(w, CODES_8); }
static size_t bytes_w4a16(const struct zq_matrix *w) { return bytes_beside(w, CODES_4); }
static size_t bytes_float(const struct zq_matrix *w) { return bytes_beside(w, float_format(w)); }

static void pack_w8a8(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack_coded(w, row, n, values, scales, 8);
}

static void pack_w4a8(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack_coded(w, row, n, values, scales, 4);
}

static void pack_w8a16(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack_beside(w, CODES_8, row, n, values, scales);
}

static void pack_w4a16(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    pack_beside(w, CODES_4, row, n, values, scales);
}

static void pack_float(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    (void)scales;
    pack_beside(w, float_format(w), row, n, values, NULL);
}

/* Two rows share a byte in w4a16, so ranges that threads pack begin at even rows. */
void zq_device_layouts(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_device", 16, bytes_w8a8, pack_w8a8, NULL};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_device", 16, bytes_w4a8, pack_w4a8, NULL};
    k->w8_a16 = (struct zq_gemm){"gemm_w8_a16_device", 16, bytes_w8a16, pack_w8a16, NULL};
    k->w4_a16 = (struct zq_gemm){"gemm_w4_a16_device", 16, bytes_w4a16, pack_w4a16, NULL};
    k->f32_a16 = (struct zq_gemm){"gemm_f32_a16_device", 16, bytes_float, pack_float, NULL};
}
