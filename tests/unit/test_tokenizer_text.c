/* The text tools below the tokenizers: regular expressions in Oniguruma's dialect, normal forms, character classes, the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "text/regex.h"
#include "text/table.h"
#include "text/unicode.h"
#include "text/unicode_form.h"

#include <stdlib.h>
#include <utf8proc.h>

/* ---- regular expressions ------------------------------------------------------------------------------------------ */

/* The text with every match in brackets. */
static void expect_matches(const char *pattern, const char *text, const char *want)
{
    struct zq_regex *re;
    struct zq_regex_scratch rs = {0};
    struct zq_bytes got = {0};
    zq_error err = {0};
    if (zq_regex_compile(&re, pattern, strlen(pattern), "test", &err)) fail_msg("%s", err.message);
    const size_t n = strlen(text);
    for (size_t at = 0, begin, end; at <= n; at = end) {
        bool found;
        assert_int_equal(zq_regex_search(re, &rs, text, n, at, &found, &begin, &end, &err), ZQ_OK);
        if (!found) begin = end = n;
        zq_bytes_put(&got, text + at, begin - at);
        if (!found) break;
        zq_bytes_put(&got, "[", 1);
        zq_bytes_put(&got, text + begin, end - begin);
        zq_bytes_put(&got, "]", 1);
        if (begin == end) { /* an empty match: go on behind the next byte (ASCII texts only) */
            if (end < n) zq_bytes_put(&got, text + end, 1);
            end++;
        }
    }
    zq_bytes_put(&got, "", 1);
    if (strcmp(got.data, want)) fail_msg("%s: got \"%s\", want \"%s\"", pattern, got.data, want);
    zq_bytes_free(&got);
    zq_regex_scratch_free(&rs);
    zq_regex_free(re);
}

static void test_dialect(void **state)
{
    (void)state;
    expect_matches("\\s", "a\xe1\xa0\x8e" "b\xc2\x85" "c d", "a\xe1\xa0\x8e" "b[\xc2\x85]c[ ]d"); /* not U+180E, but U+0085 */
    expect_matches("[\\S\\n]+", "ab \n\xc2\xa0" "c", "[ab] [\n]\xc2\xa0[c]");
    expect_matches("[^\\s\\p{L}]", "a 1\xc3\xa9!", "a [1]\xc3\xa9[!]");
    expect_matches("\\w+", "a\xcc\x81_\xc2\xb2-\xe2\x91\xa0\xe2\x93\x90",
                   "[a\xcc\x81_\xc2\xb2]-\xe2\x91\xa0[\xe2\x93\x90]"); /* U+2460 is a number, U+24D0 alphabetic */
    expect_matches("[\\w]", "\xc2\xb2" "a", "\xc2\xb2[a]");
    expect_matches("\\b", "ab c", "[]ab[] []c[]");
    expect_matches("a\\b", "a\xcc\x81 a", "a\xcc\x81 [a]"); /* a mark goes on with the word */
    expect_matches("\\B", "ab", "a[]b");
    expect_matches("\\h+", "12xFg", "[12]x[F]g"); /* hexadecimal digits */
    expect_matches("\\p{Han}", "\xe6\x97\xa5\xe3\x80\x81", "[\xe6\x97\xa5]\xe3\x80\x81"); /* the script, not its extensions */
    expect_matches("\\P{L}|\\p{^L}", "a1", "a[1]");
    expect_matches("[\\p{L}]", "\xf0\x93\x91\xa0", "[\xf0\x93\x91\xa0]"); /* U+13460, a letter since Unicode 16 */
    expect_matches("\\p{N}", "\xf0\x90\xb5\x80", "[\xf0\x90\xb5\x80]");   /* U+10D40, a digit since Unicode 16 */
    expect_matches("[]a]+|[^]b]", "]ab", "[]a]b");
    expect_matches("[[:digit:]x]+", "a1x", "a[1x]");
    expect_matches("^a$", "a\nb\na", "[a]\nb\n[a]");
    expect_matches("(?i:'S)", "'s '\xc5\xbf", "['s] ['\xc5\xbf]");
    expect_matches("\\.\\[\\\\", ".[\\", "[.[\\]");
}

static void test_dialect_refuses(void **state)
{
    (void)state;
    static const char *const patterns[] = {"[a[bc]]", "[a&&b]", "[\\W]", "[[:alpha", "a\\", "(", "[a", "\\p{NoSuchProperty}", "(?<=a+)b"};
    for (size_t i = 0; i < ZQ_LEN(patterns); i++) {
        struct zq_regex *re = (struct zq_regex *)&re;
        zq_error err = {0};
        assert_int_equal(zq_regex_compile(&re, patterns[i], strlen(patterns[i]), "file", &err), ZQ_EUNSUPPORTED);
        assert_null(re);
        assert_non_null(strstr(err.message, patterns[i]));
    }
}

/* ---- normal forms ------------------------------------------------------------------------------------------------- */

/* Our regions against utf8proc on the whole text, for characters that all versions of Unicode treat alike. */
static void test_forms_by_region(void **state)
{
    (void)state;
    static const uint32_t ranges[][2] = {{0x20, 0x17f},   {0x300, 0x345},   {0x385, 0x3ce},   {0x5b0, 0x5bd},  {0x928, 0x95f},   {0xdd9, 0xdde},
                                         {0x1100, 0x1112}, {0x1161, 0x1175}, {0x11a8, 0x11c2}, {0xac00, 0xac40}, {0x1e00, 0x1eff}, {0xfb1d, 0xfb36},
                                         {0x2126, 0x212b}, {0x1d15e, 0x1d172}, {0xff21, 0xff3a}, {0x3099, 0x30ac}};
    static const utf8proc_option_t options[] = {UTF8PROC_DECOMPOSE, UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
                                                UTF8PROC_COMPOSE | UTF8PROC_COMPAT};
    uint64_t rng = 11;
    int32_t *chars = NULL;
    size_t capacity = 0;
    for (int round = 0; round < 20000; round++) {
        struct zq_bytes text = {0}, got = {0};
        const int form = round % 4, n = 1 + (int)(zq_rng_next(&rng) % 12);
        for (int i = 0; i < n; i++) {
            const uint32_t *r = ranges[zq_rng_next(&rng) % (zq_rng_next(&rng) % 2 ? ZQ_LEN(ranges) : 2)];
            zq_bytes_put_char(&text, r[0] + (uint32_t)(zq_rng_next(&rng) % (r[1] - r[0] + 1)));
        }
        utf8proc_uint8_t *want;
        const utf8proc_ssize_t n_want =
            utf8proc_map((const utf8proc_uint8_t *)text.data, (utf8proc_ssize_t)text.n, &want, options[form] | UTF8PROC_STABLE);
        const struct zq_form f = {.compose = form & 1, .compat = form >> 1};
        assert_true(zq_form_put(&got, f, text.data, text.n, &chars, &capacity));
        if (got.n != (size_t)n_want || memcmp(got.data, want, got.n)) fail_msg("round %d: \"%.*s\"", round, (int)text.n, text.data);
        /* a text that needs no work is its own normal form */
        if (zq_form_prefix(f, text.data, text.n) == text.n) assert_true(text.n == got.n && !memcmp(text.data, got.data, got.n));
        free(want);
        zq_bytes_free(&text);
        zq_bytes_free(&got);
    }
    zq_free(chars);
}

/* A long run is ordered by counting, a short one by insertion: both keep equal classes in their order. */
static void test_order_of_many_marks(void **state)
{
    (void)state;
    enum { MARKS = 1000 };
    struct zq_bytes text = {0}, got = {0}, want = {0};
    int32_t *chars = NULL;
    size_t capacity = 0;
    zq_bytes_put_char(&text, 'x');
    zq_bytes_put_char(&want, 'x');
    static const uint32_t by_class[][2] = {{0x334, 0x335}, {0x323, 0x324}, {0x301, 0x300}}; /* classes 1, 220, 230 */
    for (int i = 0; i < MARKS; i++) zq_bytes_put_char(&text, by_class[(i * 2) % 3][i & 1]);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < MARKS; i++)
            if ((i * 2) % 3 == k) zq_bytes_put_char(&want, by_class[k][i & 1]);
    assert_true(zq_form_put(&got, (struct zq_form){false, false}, text.data, text.n, &chars, &capacity));
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.data, want.data, want.n);
    zq_bytes_free(&text);
    zq_bytes_free(&got);
    zq_bytes_free(&want);
    zq_free(chars);
}

/* ---- classes ------------------------------------------------------------------------------------------------------ */

static void test_classes(void **state)
{
    (void)state;
    assert_true(zq_is_space('\v') && zq_is_space(0x85) && zq_is_space(0x3000));
    assert_false(zq_is_space(0x180e) || zq_is_space(0x200b) || zq_is_space(0x1c));
    assert_true(zq_is_punctuation('$') && zq_is_punctuation(0x2019) && zq_is_punctuation(0x166d));
    assert_false(zq_is_punctuation(0x20ac) || zq_is_punctuation(0x2e5d)); /* the euro sign; of Unicode 14 */
    assert_true(zq_is_nonspacing_mark(0x301) && !zq_is_nonspacing_mark(0x903) && zq_is_mark(0x903));
    assert_true(zq_is_mark(0x8d4) && !zq_is_nonspacing_mark(0x8d4)); /* of Unicode 9 */
    assert_false(zq_is_mark(0x8d3));                                 /* of Unicode 11 */
    assert_true(zq_is_bert_control(0) && zq_is_bert_control(0xad) && zq_is_bert_control(0xe000));
    assert_false(zq_is_bert_control('\t') || zq_is_bert_control(0x378)); /* unassigned */
    assert_true(zq_is_cjk(0x4e00) && zq_is_cjk(0x2ceaf) && !zq_is_cjk(0x3042) && !zq_is_cjk(0x2b820));
    assert_true(zq_is_word('_') && zq_is_word(0x24d0) && zq_is_word(0x200d) && !zq_is_word(0xb2));
    uint32_t lower[2];
    assert_int_equal(zq_lower(0x130, lower), 2);
    assert_true(lower[0] == 'i' && lower[1] == 0x307);
    assert_int_equal(zq_lower(0x3a3, lower), 1); /* never the final sigma */
    assert_int_equal(lower[0], 0x3c3);
    zq_lower(0xa7dc, lower); /* of Unicode 16 */
    assert_int_equal(lower[0], 0x19b);
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static void test_table(void **state)
{
    (void)state;
    enum { KEYS = 5000 };
    struct zq_table t = {0};
    uint64_t value;
    assert_false(zq_table_get(&t, 1, &value));
    for (uint64_t i = 0; i < KEYS; i++) assert_true(zq_table_put(&t, i << 32 | i, i));
    for (uint64_t i = 0; i < KEYS; i += 2) assert_true(zq_table_put(&t, i << 32 | i, i + 7));
    assert_int_equal(t.n, KEYS);
    for (uint64_t i = 0; i < KEYS; i++) {
        assert_true(zq_table_get(&t, i << 32 | i, &value));
        assert_int_equal(value, i % 2 ? i : i + 7);
        assert_false(zq_table_get(&t, i << 32 | (i + 1), &value));
    }
    zq_table_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialect),             cmocka_unit_test(test_dialect_refuses), cmocka_unit_test(test_forms_by_region),
        cmocka_unit_test(test_order_of_many_marks), cmocka_unit_test(test_classes),         cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
