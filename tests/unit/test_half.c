/* 16-bit floats against arithmetic in double precision, which holds every value and every midpoint exactly, and the dtype and
 * spec texts of src/quant/types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "quant/types.h"

#include <math.h>

/* A 16-bit format: bits of fraction, exponent of the smallest normal number, largest finite value. */
struct format {
    int fraction, min_exponent;
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
};
static const struct format f16 = {10, -14, zq_f16_to_float, zq_float_to_f16}, bf16 = {7, -126, zq_bf16_to_float, zq_float_to_bf16};

/* The value of a code by the definition of the format. */
static double value_of(const struct format *f, uint16_t code)
{
    const int exponent_bits = 15 - f->fraction, field = (code & 0x7fff) >> f->fraction, fraction = code & ((1 << f->fraction) - 1);
    const double sign = code & 0x8000 ? -1 : 1;
    if (field == (1 << exponent_bits) - 1) return fraction ? NAN : sign * INFINITY;
    if (!field) return sign * ldexp(fraction, f->min_exponent - f->fraction);
    return sign * ldexp(fraction + (1 << f->fraction), field - 1 + f->min_exponent - f->fraction);
}

/* The value that x rounds to: whole units in the last place, ties to even (rint), infinity from half a unit above the largest. */
static double round_to(const struct format *f, double x)
{
    if (isnan(x) || isinf(x) || x == 0) return x;
    int exponent = ilogb(x);
    if (exponent < f->min_exponent) exponent = f->min_exponent;
    const double r = ldexp(rint(ldexp(x, f->fraction - exponent)), exponent - f->fraction);
    return fabs(r) >= ldexp(1, 2 - f->min_exponent) ? copysign(INFINITY, x) : r;
}

static bool same(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && !signbit(a) == !signbit(b));
}

static void check_narrow(const struct format *f, float x)
{
    const uint16_t code = f->narrow(x);
    const double got = value_of(f, code), want = round_to(f, x);
    if (!same(got, want) || !(code & 0x8000) != !signbit(x)) fail_msg("%a: got %a, want %a", (double)x, got, want);
}

static void check_every_code(const struct format *f)
{
    for (uint32_t code = 0; code < 65536; code++) {
        const float got = f->widen((uint16_t)code);
        if (!same(got, value_of(f, (uint16_t)code)) || !signbit(got) != !(code & 0x8000)) fail_msg("code %04x: got %a", code, (double)got);
        const uint16_t back = f->narrow(got);
        if (isnan(got)) {
            if (!isnan(value_of(f, back)) || (back ^ code) & 0x8000) fail_msg("NaN %04x came back as %04x", code, back);
        } else {
            assert_int_equal(back, code);
        }
    }
}

/* Both sides of every midpoint between neighbours, and the midpoint itself. */
static void check_every_midpoint(const struct format *f)
{
    for (uint32_t code = 0; code < 0x7fff; code++) {
        const double a = value_of(f, (uint16_t)code), b = value_of(f, (uint16_t)(code + 1));
        if (!isfinite(a)) break;
        /* above the largest value the next one would be a power of two */
        const double middle = isfinite(b) ? (a + b) / 2 : (a + ldexp(1, 2 - f->min_exponent)) / 2;
        const float m = (float)middle;
        if (isfinite(m)) assert_true(m == middle);
        for (int sign = -1; sign <= 1; sign += 2) {
            check_narrow(f, (float)sign * m);
            check_narrow(f, (float)sign * nextafterf(m, INFINITY));
            check_narrow(f, (float)sign * nextafterf(m, 0));
        }
    }
}

static void check_samples(const struct format *f)
{
    uint64_t seed = 5;
    for (int i = 0; i < 2000000; i++) check_narrow(f, zq_bits_float((uint32_t)(zq_rng_next(&seed) >> 32)));
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 65503.99f, 65504, 65519.99f, 65520, 65536, 0x1p-24f, 0x1p-25f,
                                    0x1.000002p-25f, 0x1p-149f, 0x1.fffffep-15f, 0x1p-14f, 3.4028235e38f, 0x1.fep127f, 0x1.fffffep127f};
    for (size_t i = 0; i < ZQ_LEN(special); i++) check_narrow(f, special[i]);
}

static void f16_codes(void **state) { (void)state; check_every_code(&f16); }
static void f16_midpoints(void **state) { (void)state; check_every_midpoint(&f16); }
static void f16_samples(void **state) { (void)state; check_samples(&f16); }
static void bf16_codes(void **state) { (void)state; check_every_code(&bf16); }
static void bf16_midpoints(void **state) { (void)state; check_every_midpoint(&bf16); }
static void bf16_samples(void **state) { (void)state; check_samples(&bf16); }

static void nan_stays_nan_in_the_low_bits(void **state)
{
    (void)state;
    for (uint32_t bit = 0; bit < 23; bit++) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            const float nan = zq_bits_float(sign << 31 | 0x7f800000u | 1u << bit);
            assert_true(isnan(zq_f16_to_float(zq_float_to_f16(nan))));
            assert_true(isnan(zq_bf16_to_float(zq_float_to_bf16(nan))));
        }
    }
}

static void dtypes_have_names_and_sizes(void **state)
{
    (void)state;
    for (int i = 0; i < ZQ_N_DTYPES; i++) {
        enum zq_dtype back = ZQ_N_DTYPES;
        assert_true(zq_dtype_parse(zq_dtype_name((enum zq_dtype)i), &back));
        assert_int_equal(back, i);
    }
    static const struct { const char *name; size_t bytes; bool is_float; } known[] = {
        {"F64", 8, false}, {"F32", 4, true}, {"F16", 2, true}, {"BF16", 2, true}, {"I64", 8, false}, {"I32", 4, false}, {"I16", 2, false},
        {"I8", 1, false}, {"U64", 8, false}, {"U32", 4, false}, {"U16", 2, false}, {"U8", 1, false}, {"BOOL", 1, false}};
    assert_int_equal(ZQ_LEN(known), ZQ_N_DTYPES);
    for (size_t i = 0; i < ZQ_LEN(known); i++) {
        enum zq_dtype d;
        assert_true(zq_dtype_parse(known[i].name, &d));
        assert_int_equal(zq_dtype_bytes(d), known[i].bytes);
        assert_int_equal(zq_dtype_is_float(d), known[i].is_float);
    }
    enum zq_dtype d = ZQ_I8;
    assert_false(zq_dtype_parse("F8_E4M3", &d) || zq_dtype_parse("f32", &d) || zq_dtype_parse("", &d) || zq_dtype_parse("F321", &d));
    assert_int_equal(d, ZQ_I8);
}

static void arrays_convert_at_any_alignment(void **state)
{
    (void)state;
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    const float values[] = {0, 1, -2.5f, 0.333333f, 1e-6f, -65000, 1e-30f};
    enum { N = ZQ_LEN(values) };
    for (size_t d = 0; d < ZQ_LEN(dtypes); d++) {
        for (size_t shift = 0; shift < 4; shift++) {
            uint8_t stored[4 * N + 8];
            memset(stored, 0xaa, sizeof stored);
            float back[N];
            zq_from_float(stored + shift, dtypes[d], values, N);
            assert_int_equal(stored[shift + N * zq_dtype_bytes(dtypes[d])], 0xaa);
            zq_to_float(back, stored + shift, dtypes[d], N);
            for (size_t i = 0; i < N; i++) {
                const double want = dtypes[d] == ZQ_F32 ? (double)values[i] : round_to(dtypes[d] == ZQ_F16 ? &f16 : &bf16, values[i]);
                assert_true(same(back[i], want));
            }
        }
    }
    zq_to_float(NULL, NULL, ZQ_F16, 0);
}

static void specs_have_texts(void **state)
{
    (void)state;
    static const struct { struct zq_spec spec; const char *scheme, *group; } cases[] = {
        {{16, 16, 0}, "float", ""}, {{8, 8, 0}, "w8a8", "channel"}, {{4, 8, 64}, "w4a8", "k:64"}, {{4, 16, 128}, "w4a16", "k:128"},
        {{8, 16, 0}, "w8a16", "channel"}};
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        char text[16];
        zq_spec_scheme_text(cases[i].spec, text);
        assert_string_equal(text, cases[i].scheme);
        zq_spec_group_text(cases[i].spec, text);
        assert_string_equal(text, cases[i].group);
        for (size_t j = 0; j < ZQ_LEN(cases); j++) assert_int_equal(zq_spec_equal(cases[i].spec, cases[j].spec), i == j);
    }
    assert_true(zq_spec_equal(ZQ_SPEC_FLOAT, cases[0].spec));
    assert_int_equal(zq_spec_n_groups((struct zq_spec){4, 8, 64}, 256), 4);
    assert_int_equal(zq_spec_n_groups((struct zq_spec){8, 8, 0}, 256), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_codes),
        cmocka_unit_test(f16_midpoints),
        cmocka_unit_test(f16_samples),
        cmocka_unit_test(bf16_codes),
        cmocka_unit_test(bf16_midpoints),
        cmocka_unit_test(bf16_samples),
        cmocka_unit_test(nan_stays_nan_in_the_low_bits),
        cmocka_unit_test(dtypes_have_names_and_sizes),
        cmocka_unit_test(arrays_convert_at_any_alignment),
        cmocka_unit_test(specs_have_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
