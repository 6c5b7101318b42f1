/* src/base without files and half floats: allocation, statuses, JSON getters, the cursor, patterns, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/carve.h"
#include "base/cursor.h"
#include "base/json.h"
#include "base/pattern.h"
#include "base/rng.h"
#include "base/threads.h"
#include "fail_alloc.h"
#include "scratch.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- allocation --------------------------------------------------------------------------------------------------- */

static void allocation_is_aligned(void **state)
{
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        uint8_t *p = zq_alloc(n), *z = zq_alloc_zero(n), *a = zq_alloc_array(n, 3);
        assert_true(p && z && a && (uintptr_t)p % 64 == 0 && (uintptr_t)z % 64 == 0 && (uintptr_t)a % 64 == 0);
        memset(p, 1, n);
        for (size_t i = 0; i < n; i++) assert_int_equal(z[i], 0);
        for (size_t i = 0; i < 3 * n; i++) assert_int_equal(a[i], 0);
        zq_free(p);
        zq_free(z);
        zq_free(a);
    }
    zq_free(NULL);
}

static void sizes_do_not_wrap(void **state)
{
    (void)state;
    size_t r = 42;
    assert_false(zq_mul(SIZE_MAX / 2 + 1, 2, &r));
    assert_false(zq_add(SIZE_MAX, 1, &r));
    assert_int_equal(r, 42);
    assert_true(zq_mul(SIZE_MAX / 3, 3, &r) && r == SIZE_MAX);
    assert_true(zq_mul(0, SIZE_MAX, &r) && r == 0);
    assert_true(zq_add(SIZE_MAX - 1, 1, &r) && r == SIZE_MAX);
    assert_null(zq_alloc(SIZE_MAX));
    assert_null(zq_alloc(SIZE_MAX - 63));
    assert_null(zq_alloc_array(SIZE_MAX / 8 + 1, 8)); /* 8 bytes if it wrapped */
    char *p = zq_alloc(4);
    assert_null(zq_realloc(p, 4, SIZE_MAX));
    zq_free(p);
}

/* Measuring and assigning agree; arrays begin on cache lines and do not touch; a size that is none spoils all that follows. */
static void carving(void **state)
{
    (void)state;
    struct zq_carver measure = {0};
    assert_null(zq_carve(&measure, 3, 5));
    assert_null(zq_carve_floats(&measure, 9, 2));
    assert_null(zq_carve(&measure, 0, 8));
    assert_null(zq_carve(&measure, 64, 1));
    assert_true(!measure.overflow && measure.used == 64 + 128 + 0 + 64);
    struct zq_carver c = {.base = zq_alloc(measure.used)};
    uint8_t *base = c.base, *bytes = zq_carve(&c, 3, 5);
    float *floats = zq_carve_floats(&c, 9, 2);
    assert_ptr_equal(bytes, base);
    assert_ptr_equal(floats, base + 64);
    assert_ptr_equal(zq_carve(&c, 0, 8), base + 192);
    assert_ptr_equal(zq_carve(&c, 64, 1), base + 192);
    assert_true(!c.overflow && c.used == measure.used);
    zq_free(base);
    static const size_t sizes[][2] = {{SIZE_MAX / 8 + 1, 2}, {SIZE_MAX / 4, 1}, {SIZE_MAX / 8 - 4, 2}, {SIZE_MAX, SIZE_MAX}};
    for (size_t i = 0; i < ZQ_LEN(sizes); i++) {
        c = (struct zq_carver){.used = 64};
        assert_null(zq_carve_floats(&c, sizes[i][0], sizes[i][1]));
        assert_true(c.overflow);
        assert_null(zq_carve(&c, 1, 1));
        assert_true(c.overflow && c.used == 64);
    }
}

static void an_arena_cuts_pieces(void **state)
{
    (void)state;
    enum { N = 40 };
    struct zq_arena arena = {0};
    uint8_t *pieces[N];
    for (size_t i = 0; i < N; i++) { /* the large ones do not fit one block together */
        const size_t n = i % 10 == 9 ? (size_t)40 << 20 : 1 + 1000 * i;
        assert_non_null(pieces[i] = zq_arena_alloc(&arena, n));
        assert_int_equal((uintptr_t)pieces[i] % 64, 0);
        pieces[i][0] = pieces[i][n - 1] = (uint8_t)i;
    }
    for (size_t i = 0; i < N; i++) assert_int_equal(pieces[i][0], i);
    zq_arena_free(&arena);
    assert_null(arena.blocks);
    zq_alloc_fail_at(2, false); /* the block's bytes */
    assert_null(zq_arena_alloc(&arena, 1));
    assert_null(zq_arena_alloc(&arena, SIZE_MAX));
    zq_alloc_fail_at(0, false);
    assert_null(arena.blocks);
}

static void growing_keeps_contents(void **state)
{
    (void)state;
    uint32_t *items = NULL;
    size_t capacity = 0;
    for (size_t n = 0; n < 1000; n++) {
        assert_true(zq_grow((void **)&items, n, &capacity, sizeof *items));
        assert_true(capacity > n);
        items[n] = (uint32_t)(n * n);
    }
    for (size_t n = 0; n < 1000; n++) assert_int_equal(items[n], n * n);
    const uint32_t *before = items;
    const size_t old_capacity = capacity;
    zq_alloc_fail_at(1, false);
    assert_false(zq_grow((void **)&items, capacity, &capacity, sizeof *items));
    zq_alloc_fail_at(0, false);
    assert_true(items == before && capacity == old_capacity);
    capacity = SIZE_MAX / 2 + 1;
    assert_false(zq_grow((void **)&items, capacity, &capacity, sizeof *items));
    zq_free(items);

    char *text = zq_realloc(NULL, 0, 6);
    memcpy(text, "hello", 6);
    text = zq_realloc(text, 6, 100);
    assert_string_equal(text, "hello");
    text = zq_realloc(text, 100, 3);
    assert_memory_equal(text, "hel", 3);
    zq_free(text);
}

static void strings_are_copied(void **state)
{
    (void)state;
    char *a = zq_strdup("abc"), *b = zq_strndup("abcdef", 2), *c = zq_format("%s-%d", a, 7), *d = zq_strdup("");
    assert_string_equal(a, "abc");
    assert_string_equal(b, "ab");
    assert_string_equal(c, "abc-7");
    assert_string_equal(d, "");
    zq_free(a);
    zq_free(b);
    zq_free(c);
    zq_free(d);
}

static void the_chosen_allocation_fails(void **state)
{
    (void)state;
    zq_alloc_fail_at(3, false);
    for (size_t i = 1; i <= 5; i++) {
        void *p = zq_alloc(1);
        assert_int_equal(p == NULL, i == 3);
        assert_int_equal(zq_alloc_count(), i);
        zq_free(p);
    }
    zq_alloc_fail_at(3, true);
    for (size_t i = 1; i <= 5; i++) {
        void *p = i % 2 ? zq_alloc_zero(1) : (void *)zq_strdup("x");
        assert_int_equal(p == NULL, i >= 3);
        zq_free(p);
    }
    zq_alloc_fail_at(0, false);
    assert_int_equal(zq_alloc_count(), 0);
}

#ifndef NDEBUG
static void a_frozen_thread_may_not_allocate(void **state)
{
    (void)state;
    zq_alloc_freeze();
    zq_alloc_thaw();
    zq_free(zq_alloc(1));
    const pid_t child = fork();
    if (!child) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        signal(SIGABRT, SIG_DFL); /* cmocka catches it */
        zq_alloc_freeze();
        zq_free(zq_alloc(1));
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
#endif

/* ---- statuses ----------------------------------------------------------------------------------------------------- */

static void failures_carry_one_sentence(void **state)
{
    (void)state;
    zq_error err = {0};
    assert_int_equal(zq_fail(&err, ZQ_EFORMAT, "%s: %d", "file", 3), ZQ_EFORMAT);
    assert_int_equal(err.status, ZQ_EFORMAT);
    assert_string_equal(err.message, "file: 3");
    assert_int_equal(zq_fail(NULL, ZQ_EINVAL, "nobody listens"), ZQ_EINVAL);

    char long_text[2000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    zq_fail(&err, ZQ_EINVAL, "%s", long_text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    errno = EIO;
    assert_int_equal(zq_fail_errno(&err, "%s", long_text), ZQ_EIO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void failures_stay_on_one_line(void **state)
{
    (void)state;
    zq_error err = {0};
    zq_fail(&err, ZQ_EFORMAT, "tensor \"%s\"", "a\nb\r\t\x1b[2Jc\x7f \xc3\xa9");
    assert_string_equal(err.message, "tensor \"a b   [2Jc  \xc3\xa9\"");
    errno = EIO;
    zq_fail_errno(&err, "cannot open %s", "x\ny");
    assert_ptr_equal(strstr(err.message, "cannot open x y: "), err.message);
    char text[800]; /* a cut never splits a character, wherever it falls */
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4) memcpy(text + i, "\xf0\x9f\x99\x82", 5);
        zq_fail(&err, ZQ_EFORMAT, "%s", text);
        const size_t n = strlen(err.message);
        assert_true(n >= sizeof err.message - 5 && (n - shift) % 4 == 0);
        assert_memory_equal(err.message, text, n);
    }
}

static void system_errors_are_sorted(void **state)
{
    (void)state;
    static const struct { int error; zq_status status; } cases[] = {
        {ENOSPC, ZQ_ENOSPC}, {EDQUOT, ZQ_ENOSPC}, {ENOMEM, ZQ_ENOMEM}, {ENOENT, ZQ_EIO}, {EACCES, ZQ_EIO}};
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        zq_error err = {0};
        errno = cases[i].error;
        assert_int_equal(zq_fail_errno(&err, "cannot open %s", "f"), cases[i].status);
        assert_int_equal(err.status, cases[i].status);
        assert_ptr_equal(strstr(err.message, "cannot open f: "), err.message);
        assert_non_null(strstr(err.message, strerror(cases[i].error)));
        errno = cases[i].error;
        assert_int_equal(zq_fail_errno(NULL, "quiet"), cases[i].status);
    }
}

static void every_status_has_a_text(void **state)
{
    (void)state;
#define CHECK(code, value, text)                       \
    assert_int_equal(code, value);                     \
    assert_string_equal(zq_status_text(code), text);
    ZQ_STATUS_TABLE(CHECK)
#undef CHECK
    assert_string_equal(zq_status_text((zq_status)999), "unknown status");
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static zq_status parse(json_t **out, const char *text, zq_error *err)
{
    return zq_json_parse(out, text, strlen(text), "doc", err);
}

static void bad_json_names_the_place(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", " ", "{", "[", "{\"a\":1,\"a\":2}", "{\"x\":{\"a\":1,\"a\":1}}", "[1,]", "{}x", "nul", "tru", "{\"a\"}", "{\"a\":}", "{1:2}",
        "{\"a\":1,}", "[1 2]", "\xef\xbb\xbf{}", "{\"a\\u0000\":1}",
        /* numbers */
        "1e999", "01", "-", "1.", ".5", "1e", "+1",
        /* strings: ends, escapes, surrogates, control characters, UTF-8 */
        "\"a", "\"\\", "\"\\x\"", "\"\\u12g4\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800\\ud800\"", "\"\n\"",
        "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xc3\"", "\"\xe2\x82\""};
    for (size_t i = 0; i < ZQ_LEN(bad); i++) {
        json_t *v = (json_t *)&v;
        zq_error err = {0};
        assert_int_equal(parse(&v, bad[i], &err), ZQ_EFORMAT);
        assert_null(v);
        assert_ptr_equal(strstr(err.message, "doc: line "), err.message);
    }
    char deep[100001];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    json_t *v;
    assert_int_equal(parse(&v, deep, NULL), ZQ_EFORMAT);
}

static void getters_check_types_and_ranges(void **state)
{
    (void)state;
    json_t *o;
    assert_int_equal(parse(&o, "{\"i\":5,\"r\":2.5,\"b\":true,\"s\":\"t\",\"n\":null,\"big\":9223372036854775807,"
                                "\"huge\":9223372036854775808}", NULL), ZQ_OK);
    int64_t i;
    double r;
    bool b;
    const char *s;
    zq_error err = {0};
    assert_true(!zq_json_int(o, "i", 0, 5, 9, &i, "doc", &err) && i == 5);
    assert_true(!zq_json_int(o, "missing", 0, 5, 9, &i, "doc", &err) && i == 9);
    assert_true(!zq_json_int(o, "n", 0, 5, 9, &i, "doc", &err) && i == 9);
    assert_true(!zq_json_int(o, "big", 0, INT64_MAX, 9, &i, "doc", &err) && i == INT64_MAX);
    assert_int_equal(zq_json_int(o, "i", 6, 8, 9, &i, "doc", &err), ZQ_EFORMAT);
    assert_string_equal(err.message, "doc: \"i\" is 5, outside 6 .. 8");
    assert_int_equal(zq_json_int(o, "i", 0, 4, 9, &i, "doc", NULL), ZQ_EFORMAT);
    assert_int_equal(zq_json_int(o, "r", 0, 4, 9, &i, "doc", NULL), ZQ_EFORMAT);
    assert_int_equal(zq_json_int(o, "huge", 0, INT64_MAX, 9, &i, "doc", NULL), ZQ_EFORMAT);
    assert_int_equal(zq_json_int(o, "s", 0, 4, 9, &i, "doc", NULL), ZQ_EFORMAT);

    assert_true(!zq_json_real(o, "r", 1, &r, "doc", &err) && r == 2.5);
    assert_true(!zq_json_real(o, "i", 1, &r, "doc", &err) && r == 5); /* 1 is written for 1.0 */
    assert_true(!zq_json_real(o, "n", 1.5, &r, "doc", &err) && r == 1.5);
    assert_int_equal(zq_json_real(o, "b", 1, &r, "doc", &err), ZQ_EFORMAT);
    assert_non_null(strstr(err.message, "\"b\""));

    assert_true(!zq_json_bool(o, "b", false, &b, "doc", &err) && b);
    assert_true(!zq_json_bool(o, "n", true, &b, "doc", &err) && b);
    assert_int_equal(zq_json_bool(o, "i", false, &b, "doc", &err), ZQ_EFORMAT);

    assert_int_equal(zq_json_string(o, "s", "f", &s, "doc", &err), ZQ_OK);
    assert_string_equal(s, "t");
    assert_int_equal(zq_json_string(o, "missing", "f", &s, "doc", &err), ZQ_OK);
    assert_string_equal(s, "f");
    assert_int_equal(zq_json_string(o, "i", "f", &s, "doc", &err), ZQ_EFORMAT);
    json_decref(o);
}

/* Whether the parser's tree, printed, is `want`. */
static void json_is_understood(void **state)
{
    (void)state;
    static const struct { const char *text, *want; } cases[] = {
        {" [ ] ", "[]"}, {"{ }", "{}"}, {"\t\r\n7", "7"}, {"-0", "0"}, {"9223372036854775807", "9223372036854775807"},
        {"9223372036854775808", "9.22337204e18"}, {"-9223372036854775809", "-9.22337204e18"}, {"1000000000000000019884624838656", "1e30"},
        {"-9223372036854775808", "-9223372036854775808"}, {"1e2", "100.0"}, {"-1.5E-1", "-0.15"}, {"1e-400", "0.0"}, {"true", "true"},
        {"[false , null]", "[false,null]"}, {"{\"b\":1,\"a\":[{}]}", "{\"b\":1,\"a\":[{}]}"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\""}, {"\"\\u0041\\u00e9\\uFFFD\"", "\"A\xc3\xa9\xef\xbf\xbd\""},
        {"\"\\ud83d\\ude42\"", "\"\xf0\x9f\x99\x82\""}, {"\"\\u0000x\"", "\"\\u0000x\""}, {"\"\x7f\xf4\x8f\xbf\xbf\"", "\"\x7f\xf4\x8f\xbf\xbf\""}};
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        json_t *v;
        char *text;
        size_t n;
        if (parse(&v, cases[i].text, NULL)) fail_msg("%s is refused", cases[i].text);
        assert_int_equal(zq_json_print(&text, &n, v, JSON_COMPACT | JSON_REAL_PRECISION(9), NULL), ZQ_OK);
        assert_string_equal(text, cases[i].want);
        assert_int_equal(n, strlen(text));
        zq_free(text);
        json_decref(v);
    }
}

static zq_status parse_once(void *text, zq_error *err)
{
    json_t *v;
    zq_status st = parse(&v, text, err);
    char *again = NULL;
    if (!st) st = zq_json_print(&again, NULL, v, JSON_COMPACT, err);
    if (!st) assert_string_equal(again, text);
    zq_free(again);
    json_decref(v);
    return st;
}

static void json_survives_failing_allocations(void **state)
{
    (void)state;
    char text[] = "{\"a\":[1,2.5,\"x\xc3\xa9\",null,true,{\"b\":{}}],\"c\":\"long enough to grow a buffer a few times over\"}";
    assert_true(fail_each_allocation(parse_once, text) > 10);
}

static zq_status read_once(void *path, zq_error *err)
{
    json_t *v;
    const zq_status st = zq_json_read(&v, path, 100, err);
    json_decref(v);
    return st;
}

static void json_files_have_a_limit(void **state)
{
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_text("a.json", "{\"a\": 1}"));
    json_t *v;
    zq_error err = {0};
    assert_int_equal(zq_json_read(&v, path, 8, &err), ZQ_OK);
    json_decref(v);
    assert_int_equal(zq_json_read(&v, path, 7, &err), ZQ_ELIMIT);
    assert_null(v);
    assert_non_null(strstr(err.message, "a.json"));
    assert_int_equal(zq_json_read(&v, scratch_path("none.json"), 7, &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "none.json"));
    assert_true(fail_each_allocation(read_once, path) > 3);
}

/* ---- cursor ------------------------------------------------------------------------------------------------------- */

static void the_cursor_stops_at_the_end(void **state)
{
    (void)state;
    const uint8_t bytes[12] = {1, 2, 3, 4, 5, 6, 7, 0x88, 9, 10, 11, 12};
    struct zq_cursor c = {.bytes = bytes, .n_bytes = sizeof bytes};
    assert_true(zq_cursor_u64(&c) == 0x8807060504030201u);
    assert_ptr_equal(zq_cursor_take(&c, 0), bytes + 8);
    assert_ptr_equal(zq_cursor_take(&c, 4), bytes + 8);
    assert_ptr_equal(zq_cursor_take(&c, 0), bytes + 12);
    assert_false(c.bad);
    assert_null(zq_cursor_take(&c, 1));
    assert_true(c.bad);
    assert_null(zq_cursor_take(&c, 0)); /* once bad, always bad */
    assert_true(zq_cursor_u64(&c) == 0);

    c = (struct zq_cursor){.bytes = bytes, .n_bytes = 7};
    assert_true(zq_cursor_u64(&c) == 0 && c.bad && c.at == 0);
    c = (struct zq_cursor){.bytes = bytes, .n_bytes = 7, .at = 3};
    assert_null(zq_cursor_take(&c, SIZE_MAX)); /* at + n would wrap */
    c = (struct zq_cursor){0};
    assert_null(zq_cursor_take(&c, 1));
}

/* ---- patterns ----------------------------------------------------------------------------------------------------- */

static bool matches(const char *regex, bool whole, const char *text)
{
    struct zq_pattern *p;
    bool yes = false;
    assert_int_equal(zq_pattern_compile(&p, regex, whole, NULL), ZQ_OK);
    assert_int_equal(zq_pattern_match(p, text, &yes, NULL), ZQ_OK);
    zq_pattern_free(p);
    return yes;
}

static void patterns_match_from_the_start(void **state)
{
    (void)state;
    assert_true(matches("ab", false, "abc"));
    assert_false(matches("ab", true, "abc"));
    assert_false(matches("bc", false, "abc"));
    assert_true(matches("a|abc", true, "abc")); /* a shorter alternative does not hide the whole match */
    assert_true(matches(".*c$", false, "abc"));
    assert_false(matches("b|xbc", true, "abc"));
    assert_true(matches("", false, "abc"));
    assert_true(matches("", true, ""));
    assert_true(matches("\\w+", true, "caf\xc3\xa9"));
    assert_true(matches("(a)(b)(c)", true, "abc"));
    assert_true(matches("(?P<x>a)(?P=x)", true, "aa"));
}

static void wrong_patterns_are_refused(void **state)
{
    (void)state;
    struct zq_pattern *p = (struct zq_pattern *)&p;
    zq_error err = {0};
    assert_int_equal(zq_pattern_compile(&p, "a(b", false, &err), ZQ_EINVAL);
    assert_null(p);
    assert_non_null(strstr(err.message, "a(b"));
    assert_non_null(strstr(err.message, "at byte 3"));
    assert_int_equal(zq_pattern_compile(&p, "\xff", false, &err), ZQ_EINVAL);
    bool yes = true;
    assert_int_equal(zq_pattern_compile(&p, "a", false, &err), ZQ_OK);
    assert_int_equal(zq_pattern_match(p, "a\xff", &yes, &err), ZQ_EINVAL);
    assert_false(yes);
    zq_pattern_free(p);
    zq_pattern_free(NULL);
}

static void a_pattern_cannot_run_for_ever(void **state)
{
    (void)state;
    struct zq_pattern *p;
    bool yes = true;
    zq_error err = {0};
    assert_int_equal(zq_pattern_compile(&p, "(a|aa|a)+$", false, NULL), ZQ_OK);
    assert_int_equal(zq_pattern_match(p, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaay", &yes, &err), ZQ_ELIMIT);
    assert_false(yes);
    assert_non_null(strstr(err.message, "too many steps"));
    zq_pattern_free(p);
}

static zq_status match_once(void *regex, zq_error *err)
{
    struct zq_pattern *p;
    bool yes;
    zq_status st = zq_pattern_compile(&p, regex, true, err);
    if (!st) st = zq_pattern_match(p, "model.layers.12.mlp", &yes, err);
    if (!st) assert_true(yes);
    zq_pattern_free(p);
    return st;
}

static void patterns_survive_failing_allocations(void **state)
{
    (void)state;
    char regex[] = "model\\.(layers|h)\\.\\d+\\.[a-z]+";
    assert_true(fail_each_allocation(match_once, regex) >= 6);
}

/* ---- random numbers ----------------------------------------------------------------------------------------------- */

static void the_generator_is_splitmix64(void **state)
{
    (void)state;
    uint64_t s = 1234567; /* the first values that the reference implementation prints for this seed */
    assert_true(zq_rng_next(&s) == 6457827717110365317u);
    assert_true(zq_rng_next(&s) == 3203168211198807973u);
    assert_true(zq_rng_next(&s) == 9817491932198370423u);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        const float f = zq_rng_float(&s);
        assert_true(f >= 0 && f < 1);
        sum += f;
    }
    assert_true(sum > 49500 && sum < 50500); /* 5 standard deviations are 456 */
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

enum { MAX_ITEMS = 1000 };

struct tally {
    atomic_int seen[MAX_ITEMS];
    size_t n, grain;
    int n_threads;
    bool slow; /* the caller's parts are done long before the others' */
    atomic_int wrong;
};

static void count_range(void *work, size_t begin, size_t end, int thread)
{
    struct tally *t = work;
    if (begin >= end || end > t->n || begin % t->grain || (end % t->grain && end != t->n) || thread < 0 || thread >= t->n_threads) t->wrong++;
    if (t->slow && thread) usleep(1000);
    for (size_t i = begin; i < end && i < MAX_ITEMS; i++) t->seen[i]++;
}

static void every_item_is_handled_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 7, 64, 65, 1000}, grains[] = {1, 3, 64, 5000};
    static const int teams[] = {1, 2, 3, 7, 16};
    for (size_t a = 0; a < ZQ_LEN(sizes); a++) {
        for (size_t b = 0; b < ZQ_LEN(grains); b++) {
            for (size_t c = 0; c < ZQ_LEN(teams); c++) {
                static struct tally t;
                memset(&t, 0, sizeof t);
                t.n = sizes[a];
                t.grain = grains[b];
                t.n_threads = teams[c];
                zq_parallel(t.n_threads, t.n, t.grain, count_range, &t);
                assert_int_equal(t.wrong, 0);
                for (size_t i = 0; i < MAX_ITEMS; i++) assert_int_equal(t.seen[i], i < t.n);
            }
        }
    }
}

/* Runs follow each other at once (spinning members) and after a pause (sleeping ones). */
static void a_team_serves_many_runs(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int size = 1; size <= 5; size += 2) {
        struct zq_team *team = zq_team_create(size);
        assert_non_null(team);
        static struct tally t;
        memset(&t, 0, sizeof t);
        t.n_threads = zq_team_size(team);
        assert_true(t.n_threads >= 1 && t.n_threads <= size);
        int want[MAX_ITEMS] = {0};
        for (int run = 0; run < 300; run++) {
            t.n = zq_rng_next(&seed) % (MAX_ITEMS + 1);
            t.grain = 1 + zq_rng_next(&seed) % 40;
            t.slow = run % 10 == 0;
            (run % 2 ? zq_team_run : zq_team_run_uneven)(team, t.n, t.grain, count_range, &t);
            for (size_t i = 0; i < t.n; i++) want[i]++;
            for (size_t i = 0; i < MAX_ITEMS; i++) assert_int_equal(t.seen[i], want[i]); /* all done when run returns */
            if (run % 100 == 99) usleep(2000);
        }
        assert_int_equal(t.wrong, 0);
        zq_team_free(team);
    }
    zq_team_free(NULL);
}

static void work_is_done_without_memory_for_threads(void **state)
{
    (void)state;
    static struct tally t;
    memset(&t, 0, sizeof t);
    t.n = 100;
    t.grain = 3;
    t.n_threads = 4;
    zq_alloc_fail_at(1, true);
    struct zq_team *team = zq_team_create(4);
    zq_parallel(4, t.n, t.grain, count_range, &t);
    zq_alloc_fail_at(0, false);
    assert_null(team);
    assert_int_equal(t.wrong, 0);
    for (size_t i = 0; i < MAX_ITEMS; i++) assert_int_equal(t.seen[i], i < t.n);
}

static void thread_counts_are_sane(void **state)
{
    (void)state;
    assert_true(zq_available_cores() >= 1);
    assert_int_equal(zq_thread_count(0), zq_available_cores());
    assert_int_equal(zq_thread_count(-3), zq_available_cores());
    assert_int_equal(zq_thread_count(5), 5);
    assert_int_equal(zq_thread_count(1 << 30), 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocation_is_aligned),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(carving), cmocka_unit_test(growing_keeps_contents), cmocka_unit_test(an_arena_cuts_pieces),
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(the_chosen_allocation_fails),
#ifndef NDEBUG
        cmocka_unit_test(a_frozen_thread_may_not_allocate),
#endif
        cmocka_unit_test(failures_carry_one_sentence),
        cmocka_unit_test(failures_stay_on_one_line),
        cmocka_unit_test(system_errors_are_sorted),
        cmocka_unit_test(every_status_has_a_text),
        cmocka_unit_test(bad_json_names_the_place),
        cmocka_unit_test(json_is_understood),
        cmocka_unit_test(getters_check_types_and_ranges),
        cmocka_unit_test(json_survives_failing_allocations),
        cmocka_unit_test(json_files_have_a_limit),
        cmocka_unit_test(the_cursor_stops_at_the_end),
        cmocka_unit_test(patterns_match_from_the_start),
        cmocka_unit_test(wrong_patterns_are_refused),
        cmocka_unit_test(a_pattern_cannot_run_for_ever),
        cmocka_unit_test(patterns_survive_failing_allocations),
        cmocka_unit_test(the_generator_is_splitmix64),
        cmocka_unit_test(every_item_is_handled_once),
        cmocka_unit_test(a_team_serves_many_runs),
        cmocka_unit_test(work_is_done_without_memory_for_threads),
        cmocka_unit_test(thread_counts_are_sane),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
