/* Number formats: scales, codes, packing, and the words for schemes. The reference here is written from the definition, with the C
 * library's division and rounding, and checked by hand on small cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "quant/encode.h"
#include "quant/pack.h"

#include <math.h>
#include <string.h>

/* ---- the reference ------------------------------------------------------------------------------------------------ */

static float round_to(float x, enum zq_dtype dtype)
{
    if (dtype == ZQ_F16) return zq_f16_to_float(zq_float_to_f16(x));
    if (dtype == ZQ_BF16) return zq_bf16_to_float(zq_float_to_bf16(x));
    return x;
}

static float reference_scale(int bits, const float *w, size_t n, enum zq_dtype dtype)
{
    float max = -INFINITY, min = INFINITY, absmax = 0;
    for (size_t i = 0; i < n; i++) {
        max = fmaxf(max, w[i]);
        min = fminf(min, w[i]);
        absmax = fmaxf(absmax, fabsf(w[i]));
    }
    const float half = (float)(1 << (bits - 1));
    const float scale = round_to(bits == 8 ? absmax / 127.0f : fmaxf(max / (half - 1), -min / half), dtype);
    return scale == 0 ? 1 : scale;
}

static int reference_code(int bits, float w, float scale)
{
    static const float lows[] = {[8] = -127, [4] = -8, [3] = -4, [2] = -2}, highs[] = {[8] = 127, [4] = 7, [3] = 3, [2] = 1};
    const float q = nearbyintf(w / scale), low = lows[bits], high = highs[bits];
    return (int)(q < low ? low : q > high ? high : q);
}

/* Values that exist in dtype, of very different sizes. */
static void fill(float *w, size_t n, enum zq_dtype dtype, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        const float size = ldexpf(1, (int)(zq_rng_next(&seed) % 12) - 8);
        w[i] = round_to((2 * zq_rng_float(&seed) - 1) * size, dtype);
    }
}

static float scale_of(int bits, const float *w, size_t n, enum zq_dtype dtype)
{
    struct zq_range range;
    assert_true(zq_range_of(&range, w, n));
    return zq_scale_nearest(bits, range, dtype);
}

/* ---- ranges and scales -------------------------------------------------------------------------------------------- */

static void ranges_by_hand(void **state)
{
    (void)state;
    struct zq_range r;
    assert_true(zq_range_of(&r, (float[]){1, -3, 2}, 3));
    assert_true(r.min == -3 && r.max == 2);
    assert_true(zq_range_of(&r, (float[]){0.0f, -0.0f}, 2));
    assert_true(r.min == 0 && r.max == 0);
    assert_true(zq_range_of(&r, (float[]){-1e-45f, -1}, 2));
    assert_true(r.min == -1 && r.max == -1e-45f);
    assert_true(zq_range_of(&r, (float[]){3.4028235e38f, -3.4028235e38f}, 2));
    assert_true(r.max == 3.4028235e38f && r.min == -3.4028235e38f);
    const struct zq_range joined = zq_range_join((struct zq_range){-1, 2}, (struct zq_range){-3, 1});
    assert_true(joined.min == -3 && joined.max == 2);
}

static void range_finds_what_is_not_finite(void **state)
{
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t n = 1; n < 40; n++) {
        for (size_t at = 0; at < n; at++) {
            for (size_t b = 0; b < ZQ_LEN(bad); b++) {
                float w[40];
                fill(w, n, ZQ_F32, n);
                w[at] = bad[b];
                struct zq_range r;
                assert_false(zq_range_of(&r, w, n));
            }
        }
    }
}

static void scales_by_hand(void **state)
{
    (void)state;
    assert_true(scale_of(8, (float[]){1, -254}, 2, ZQ_F32) == 2);
    assert_true(scale_of(4, (float[]){7, -4}, 2, ZQ_F32) == 1);    /* 7/7 against 4/8 */
    assert_true(scale_of(4, (float[]){7, -16}, 2, ZQ_F32) == 2);   /* 7/7 against 16/8 */
    assert_true(scale_of(4, (float[]){14, 3}, 2, ZQ_F32) == 2);    /* positive only */
    assert_true(scale_of(4, (float[]){-24, -3}, 2, ZQ_F32) == 3);  /* negative only: the signed maximum is negative */
    assert_true(scale_of(8, (float[]){0, -0.0f}, 2, ZQ_F32) == 1);
    assert_true(scale_of(4, (float[]){0, -0.0f}, 2, ZQ_BF16) == 1);
    assert_true(scale_of(4, (float[]){1}, 1, ZQ_BF16) == 0x1.24p-3f);  /* 1/7 = 0x1.2492..p-3, eight bits of it */
    assert_true(scale_of(4, (float[]){1}, 1, ZQ_F16) == 0x1.248p-3f);
    assert_true(scale_of(4, (float[]){0x1p-24f}, 1, ZQ_F16) == 1);     /* below the smallest F16 */
    assert_true(scale_of(4, (float[]){0x1p-20f}, 1, ZQ_F16) == 0x1p-23f); /* 16/7 of the smallest rounds to 2 of it */
    assert_true(scale_of(8, (float[]){1e-45f}, 1, ZQ_F32) == 1);
    assert_true(scale_of(4, (float[]){65504, -65504}, 2, ZQ_F16) == 9360); /* 65504/7 = 9357.7, F16 steps are 8 there */
    assert_true(scale_of(8, (float[]){3.4028235e38f}, 1, ZQ_F32) == 3.4028235e38f / 127);
    assert_true(scale_of(3, (float[]){3, -3.5f}, 2, ZQ_F32) == 1);  /* 3/3 against 3.5/4 */
    assert_true(scale_of(3, (float[]){3, -8}, 2, ZQ_F32) == 2);
    assert_true(scale_of(2, (float[]){1, -1.5f}, 2, ZQ_F32) == 1);  /* 1/1 against 1.5/2 */
    assert_true(scale_of(2, (float[]){0.5f, -5}, 2, ZQ_F32) == 2.5f);
    assert_null(zq_code_format(5));
    assert_null(zq_code_format(1));
}

static void codes_by_hand(void **state)
{
    (void)state;
    const float w[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.49999997f, 126.5f, 127.5f, -300, 300, -0.0f};
    const int8_t want8[] = {0, 2, 2, 0, -2, -2, 0, 126, 127, -127, 127, 0}, want4[] = {0, 2, 2, 0, -2, -2, 0, 7, 7, -8, 7, 0};
    int8_t codes[ZQ_LEN(w)];
    zq_codes(codes, w, ZQ_LEN(w), 1, 8);
    assert_memory_equal(codes, want8, sizeof want8);
    zq_codes(codes, w, ZQ_LEN(w), 1, 4);
    assert_memory_equal(codes, want4, sizeof want4);
    zq_codes(codes, w, ZQ_LEN(w), 1, 3);
    assert_memory_equal(codes, ((int8_t[]){0, 2, 2, 0, -2, -2, 0, 3, 3, -4, 3, 0}), sizeof want4);
    zq_codes(codes, w, ZQ_LEN(w), 1, 2);
    assert_memory_equal(codes, ((int8_t[]){0, 1, 1, 0, -2, -2, 0, 1, 1, -2, 1, 0}), sizeof want4);
    /* a division, not a product with the reciprocal, which is just below 1.5 here */
    const float tie = 1.5f * 0.001f;
    zq_codes(codes, &tie, 1, 0.001f, 8);
    assert_int_equal(codes[0], 2);
    /* a quotient that overflows */
    zq_codes(codes, (float[]){3e38f, -3e38f}, 2, 1e-30f, 8);
    assert_int_equal(codes[0], 127);
    assert_int_equal(codes[1], -127);
}

static void scales_and_codes_follow_the_definition(void **state)
{
    (void)state;
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    float w[400];
    int8_t codes[400];
    for (size_t n = 1; n < 300; n += 1 + n / 9) {
        for (uint64_t seed = 0; seed < 30; seed++) {
            const int bits = (int[]){8, 4, 3, 2}[seed % 4];
            const enum zq_dtype dtype = dtypes[seed % 3];
            fill(w, n, dtype, seed);
            const float scale = scale_of(bits, w, n, dtype);
            assert_true(scale == reference_scale(bits, w, n, dtype));
            zq_codes(codes, w, n, scale, bits);
            for (size_t i = 0; i < n; i++) assert_int_equal(codes[i], reference_code(bits, w[i], scale));
        }
    }
}

/* Every F16 value under scales that put many of them on ties. */
static void every_half_gets_the_nearest_code(void **state)
{
    (void)state;
    const float scales[] = {1, 0.5f, 3, 0x1p-14f, 0.1f, 511.9f};
    for (uint32_t h = 0; h < 65536; h++) {
        const float w = zq_f16_to_float((uint16_t)h);
        if (!isfinite(w)) continue;
        for (size_t s = 0; s < ZQ_LEN(scales); s++) {
            int8_t code;
            zq_codes(&code, &w, 1, scales[s], 8);
            assert_int_equal(code, reference_code(8, w, scales[s]));
            for (int bits = 2; bits <= 4; bits++) {
                zq_codes(&code, &w, 1, scales[s], bits);
                assert_int_equal(code, reference_code(bits, w, scales[s]));
            }
        }
    }
}

static void deviation_is_the_sum_of_squares(void **state)
{
    (void)state;
    for (size_t n = 1; n < 70; n++) {
        float w[70];
        int8_t codes[70];
        fill(w, n, ZQ_F32, n);
        const float scale = scale_of(4, w, n, ZQ_F32);
        zq_codes(codes, w, n, scale, 4);
        struct zq_deviation d = {0};
        zq_deviation_add(&d, w, codes, n, scale);
        double error = 0, norm = 0;
        for (size_t i = 0; i < n; i++) {
            error += ((double)w[i] - codes[i] * (double)scale) * ((double)w[i] - codes[i] * (double)scale);
            norm += (double)w[i] * w[i];
        }
        assert_true(fabs(d.error - error) <= 1e-13 * norm && fabs(d.norm - norm) <= 1e-13 * norm);
    }
}

/* ---- packing ------------------------------------------------------------------------------------------------------ */

static void packing_by_hand(void **state)
{
    (void)state;
    uint8_t words[16];
    const int8_t low[8] = {-8, -7, -6, -5, -4, -3, -2, -1};
    zq_pack_codes(words, low, 4, 8);
    assert_memory_equal(words, ((uint8_t[]){0x10, 0x32, 0x54, 0x76}), 4); /* the little-endian word 0x76543210 */
    zq_pack_codes(words, (int8_t[]){-128, -1, 0, 127, 5}, 8, 5);
    assert_memory_equal(words, ((uint8_t[]){0, 127, 128, 255, 133, 0, 0, 0}), 8);
    zq_pack_codes(words, (int8_t[]){7, -8, 1}, 4, 3);
    assert_memory_equal(words, ((uint8_t[]){0x0f, 0x09, 0, 0}), 4);
    /* three bits without gaps: 0 1 2 3 4 5 6 7 0 7 from the lowest up = 0xfac688, then 7 << 3 */
    zq_pack_codes(words, (int8_t[]){-4, -3, -2, -1, 0, 1, 2, 3, -4, 3}, 3, 10);
    assert_memory_equal(words, ((uint8_t[]){0x88, 0xc6, 0xfa, 0x38}), 4);
    zq_pack_codes(words, (int8_t[]){-2, -1, 0, 1, 1}, 2, 5);
    assert_memory_equal(words, ((uint8_t[]){0xe4, 0x03, 0, 0}), 4);
    assert_int_equal(zq_packed_words(10, 3), 1);
    assert_int_equal(zq_packed_words(11, 3), 2);
    assert_int_equal(zq_packed_words(64, 3), 6);
    assert_int_equal(zq_packed_words(17, 2), 2);
    assert_int_equal(zq_packed_words(0, 4), 0);
    assert_int_equal(zq_packed_words(8, 4), 1);
    assert_int_equal(zq_packed_words(9, 4), 2);
    assert_int_equal(zq_packed_words(9, 8), 3);
    assert_int_equal(zq_packed_words(SIZE_MAX, 4), SIZE_MAX / 8 + 1);
}

static void packing_round_trips(void **state)
{
    (void)state;
    for (int bits = 2; bits <= 8; bits += bits == 4 ? 4 : 1) {
        for (size_t n = 0; n < 70; n++) {
            int8_t codes[70] = {0}, back[71];
            uint8_t words[1 + 72 + 1]; /* at an odd address, with a guard */
            uint64_t seed = n;
            memset(words, 0xa5, sizeof words);
            for (size_t i = 0; i < n; i++) codes[i] = (int8_t)((int)(zq_rng_next(&seed) % (1u << bits)) - (1 << (bits - 1)));
            zq_pack_codes(words + 1, codes, bits, n);
            assert_int_equal(words[1 + 4 * zq_packed_words(n, bits)], 0xa5); /* writes no further */
            back[n] = 99;
            zq_unpack_codes(back, words + 1, bits, n);
            assert_memory_equal(back, codes, n);
            assert_int_equal(back[n], 99);
        }
    }
}

/* ---- schemes ------------------------------------------------------------------------------------------------------ */

static void assert_bits(struct zq_bits b, int w, int a)
{
    assert_int_equal(b.w, w);
    assert_int_equal(b.a, a);
}

static void schemes_by_name(void **state)
{
    (void)state;
    const struct zq_scheme *s;
    assert_int_equal(zq_scheme_parse(&s, NULL, NULL), ZQ_OK);
    assert_string_equal(s->name, "w8a8");
    assert_int_equal(zq_scheme_parse(&s, "w4/8a16", NULL), ZQ_OK);
    assert_bits(s->ffn, 4, 16);
    assert_bits(s->attention, 8, 16);
    assert_bits(s->qkv, 8, 16);
    assert_int_equal(zq_scheme_parse(&s, "w8a8/16", NULL), ZQ_OK);
    assert_bits(s->qkv, 8, 16);
    assert_bits(s->attention, 8, 8);
    assert_bits(s->ffn, 8, 8);
    assert_int_equal(zq_scheme_parse(&s, "w3/8a16", NULL), ZQ_OK);
    assert_bits(s->qkv, 8, 16);
    assert_bits(s->attention, 8, 16);
    assert_bits(s->ffn, 3, 16);
    assert_int_equal(zq_scheme_parse(&s, "w2a8", NULL), ZQ_OK);
    assert_bits(s->qkv, 2, 8);
    assert_bits(s->ffn, 2, 8);
    const char *const wrong[] = {"", "w8", "w1a8", "W8A8", "w8a8 ", "w4/8", "float"};
    for (size_t i = 0; i < ZQ_LEN(wrong); i++) {
        zq_error err;
        assert_int_equal(zq_scheme_parse(&s, wrong[i], &err), ZQ_EINVAL);
        assert_null(s);
        assert_non_null(strstr(err.message, "w4/8a8"));
    }
}

static void groups_by_name(void **state)
{
    (void)state;
    struct zq_grouping g;
    assert_int_equal(zq_grouping_parse(&g, NULL, NULL), ZQ_OK);
    assert_int_equal(g.kind, ZQ_BY_DEFAULT);
    assert_int_equal(zq_grouping_parse(&g, "channel", NULL), ZQ_OK);
    assert_int_equal(g.kind, ZQ_BY_CHANNEL);
    assert_int_equal(zq_grouping_parse(&g, "rows:48", NULL), ZQ_OK);
    assert_true(g.kind == ZQ_BY_ROWS && g.n == 48);
    assert_int_equal(zq_grouping_parse(&g, "k:2147483648", NULL), ZQ_OK);
    assert_true(g.kind == ZQ_BY_K && g.n == (size_t)1 << 31);
    const char *const wrong[] = {"", "k", "k:", "k:0", "k:-1", "k:+1", "k: 4", "k:4 ", "k:2147483649",
                                 "k:99999999999999999999", "rows:x", "channels"};
    for (size_t i = 0; i < ZQ_LEN(wrong); i++) {
        zq_error err;
        assert_int_equal(zq_grouping_parse(&g, wrong[i], &err), ZQ_EINVAL);
        assert_int_equal(g.kind, ZQ_BY_DEFAULT);
    }
}

static void recipes_by_name(void **state)
{
    (void)state;
    struct zq_recipe r;
    const struct zq_grouping channel = {ZQ_BY_CHANNEL, 0};
    assert_int_equal(zq_recipe_parse(&r, "w4a8,k:128", channel, NULL), ZQ_OK);
    assert_bits(r.bits, 4, 8);
    assert_true(r.group.kind == ZQ_BY_K && r.group.n == 128);
    assert_int_equal(zq_recipe_parse(&r, "w8a16", channel, NULL), ZQ_OK);
    assert_bits(r.bits, 8, 16);
    assert_int_equal(r.group.kind, ZQ_BY_CHANNEL);
    assert_int_equal(zq_recipe_parse(&r, "float", channel, NULL), ZQ_OK);
    assert_bits(r.bits, 16, 16);
    const char *const wrong[] = {"", "float,k:64", "w4/8a8", "w8a8/16", "w4a8,", "w4a8,k:64,k:32", ",k:64", "a very long name of no scheme at all"};
    for (size_t i = 0; i < ZQ_LEN(wrong); i++) assert_int_equal(zq_recipe_parse(&r, wrong[i], channel, NULL), ZQ_EINVAL);
}

static struct zq_layout layout_of(const char *text, size_t n_rows, size_t n_cols, enum zq_dtype dtype)
{
    struct zq_recipe r;
    assert_int_equal(zq_recipe_parse(&r, text, (struct zq_grouping){ZQ_BY_DEFAULT, 0}, NULL), ZQ_OK);
    return zq_recipe_layout(r, n_rows, n_cols, dtype);
}

static void layouts_by_shape(void **state)
{
    (void)state;
    char text[32];
    struct zq_layout l = layout_of("w4a8", 8, 192, ZQ_BF16);
    assert_int_equal(l.spec.k_group, 64);
    assert_int_equal(l.scale_dtype, ZQ_BF16);
    assert_int_equal(layout_of("w4a16", 8, 96, ZQ_F16).spec.k_group, 32);
    assert_int_equal(layout_of("w4a16", 8, 100, ZQ_F16).spec.k_group, 0);
    assert_true(layout_of("w4a16", 8, 100, ZQ_F16).fell_back);
    assert_false(layout_of("w8a16", 8, 100, ZQ_F16).fell_back);
    assert_int_equal(layout_of("w8a8", 8, 192, ZQ_F16).spec.k_group, 0);
    assert_int_equal(layout_of("w8a8", 8, 192, ZQ_F16).scale_dtype, ZQ_F32);
    assert_int_equal(layout_of("w8a16", 8, 192, ZQ_F16).scale_dtype, ZQ_F32);
    assert_int_equal(layout_of("w8a8,k:64", 8, 192, ZQ_F16).scale_dtype, ZQ_F16);
    assert_int_equal(layout_of("w3a8", 8, 192, ZQ_F16).spec.k_group, 64);
    assert_int_equal(layout_of("w2a16", 8, 96, ZQ_BF16).spec.k_group, 32);
    assert_int_equal(layout_of("w2a16,channel", 8, 96, ZQ_BF16).scale_dtype, ZQ_BF16);
    l = layout_of("w4a8,k:128", 8, 192, ZQ_F16);
    assert_true(l.fell_back && !l.spec.k_group);
    assert_false(layout_of("w4a8,channel", 8, 192, ZQ_F16).fell_back);
    l = layout_of("w4a8,rows:3", 8, 192, ZQ_F16);
    assert_int_equal(l.row_groups, 3);
    zq_layout_group_text(&l, text);
    assert_string_equal(text, "rows:3");
    assert_int_equal(layout_of("w4a8,rows:8", 8, 192, ZQ_F16).row_groups, 0);
    l = layout_of("w4a8,k:96", 8, 192, ZQ_F16);
    zq_layout_group_text(&l, text);
    assert_string_equal(text, "k:96");
    l = layout_of("float", 8, 192, ZQ_F16);
    zq_layout_group_text(&l, text);
    assert_string_equal(text, "");
    assert_true(zq_spec_equal(l.spec, ZQ_SPEC_FLOAT));
}

static void groups_of_rows_follow_the_definition(void **state)
{
    (void)state;
    for (size_t rows = 1; rows < 40; rows++) {
        for (size_t n = 1; n <= rows; n++) {
            assert_int_equal(zq_row_group_begin(0, rows, n), 0);
            assert_int_equal(zq_row_group_begin(n, rows, n), rows);
            for (size_t r = 0; r < rows; r++) {
                const size_t g = r * n / rows;
                assert_int_equal(zq_row_group(r, rows, n), g);
                assert_true(zq_row_group_begin(g, rows, n) <= r && r < zq_row_group_begin(g + 1, rows, n));
            }
        }
    }
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

static void rows_are_coded_by_groups(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 96 };
    float w[ROWS * COLS], scales[ROWS * 3];
    int8_t codes[ROWS * COLS];
    fill(w, ROWS * COLS, ZQ_BF16, 7);
    for (size_t i = 32; i < 64; i++) w[i] = 0;
    const struct zq_layout layout = layout_of("w4a8", ROWS, COLS, ZQ_BF16);
    const struct zq_weight_rows rows = {.w = w, .n = ROWS, .n_cols = COLS, .layout = &layout};
    assert_true(zq_encode_nearest(NULL, &rows, codes, scales));
    for (size_t i = 0; i < ROWS * 3; i++) {
        assert_true(scales[i] == reference_scale(4, w + 32 * i, 32, ZQ_BF16));
        for (size_t k = 0; k < 32; k++) assert_int_equal(codes[32 * i + k], reference_code(4, w[32 * i + k], scales[i]));
    }
    assert_true(scales[1] == 1);
    struct zq_deviation d = {0}, one = {0};
    zq_weight_deviation(&d, &rows, codes, scales);
    for (size_t i = 0; i < ROWS * 3; i++) zq_deviation_add(&one, w + 32 * i, codes + 32 * i, 32, scales[i]);
    assert_true(d.error == one.error && d.norm == one.norm);
    w[77] = NAN;
    assert_false(zq_encode_nearest(NULL, &rows, codes, scales));
}

static void rows_take_shared_scales(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 20 };
    float w[ROWS * COLS], scales[ROWS];
    int8_t codes[ROWS * COLS];
    fill(w, ROWS * COLS, ZQ_F16, 9);
    const float shared[ROWS] = {0.25f, 0.5f, 0.5f};
    const struct zq_layout layout = layout_of("w8a8,rows:2", ROWS, COLS, ZQ_F16);
    const struct zq_weight_rows rows = {.w = w, .n = ROWS, .n_cols = COLS, .layout = &layout, .shared = shared};
    assert_true(zq_encode_nearest(NULL, &rows, codes, scales));
    assert_memory_equal(scales, shared, sizeof shared);
    for (size_t i = 0; i < ROWS * COLS; i++) assert_int_equal(codes[i], reference_code(8, w[i], shared[i / COLS]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_by_hand), cmocka_unit_test(range_finds_what_is_not_finite), cmocka_unit_test(scales_by_hand),
        cmocka_unit_test(codes_by_hand), cmocka_unit_test(scales_and_codes_follow_the_definition),
        cmocka_unit_test(every_half_gets_the_nearest_code), cmocka_unit_test(deviation_is_the_sum_of_squares),
        cmocka_unit_test(packing_by_hand), cmocka_unit_test(packing_round_trips), cmocka_unit_test(schemes_by_name),
        cmocka_unit_test(groups_by_name), cmocka_unit_test(recipes_by_name), cmocka_unit_test(layouts_by_shape),
        cmocka_unit_test(groups_of_rows_follow_the_definition), cmocka_unit_test(rows_are_coded_by_groups), cmocka_unit_test(rows_take_shared_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
