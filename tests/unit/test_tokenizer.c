/* What tokenizer_golden.json cannot say: invalid text, refusals, limits, hostile sizes, failing allocations, threads, and that
 * merging in a heap and cutting long words change no id. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "fail_alloc.h"
#include "text/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static zq_tokenizer *parse(const char *json)
{
    zq_tokenizer *t;
    zq_error err = {0};
    if (zq_tokenizer_parse(&t, json, strlen(json), "test", &err)) fail_msg("%s", err.message);
    return t;
}

static zq_ids encode(const zq_tokenizer *t, const char *text, size_t n)
{
    zq_ids ids = {0};
    zq_error err = {0};
    if (zq_tokenizer_encode(t, text, n, NULL, 0, true, &ids, &err)) fail_msg("%s", err.message);
    return ids;
}

static void expect(const zq_tokenizer *t, const char *text, size_t n, const int32_t *want, size_t n_want)
{
    zq_ids ids = encode(t, text, n);
    assert_int_equal(ids.n, n_want);
    if (n_want) assert_memory_equal(ids.ids, want, n_want * sizeof *want);
    zq_ids_free(&ids);
}
#define EXPECT(t, text, ...)                                                                                                                       \
    expect(t, text, sizeof text - 1, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* ---- small tokenizers --------------------------------------------------------------------------------------------- */

#define SPECIAL(id, content) "{\"id\": " #id ", \"content\": \"" content "\", \"special\": true}"

/* U+FFFD is token 9. */
static const char letters[] = "{\"version\": \"1.0\", \"truncation\": {\"max_length\": 77}, \"added_tokens\": [" SPECIAL(
    11, "<s>") "],"
               " \"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1, \"b\": 2, \"c\": 3, \" \": 4, \"ab\": 5, "
               "\"abc\": 6, \"aa\": 7, \"aaaa\": 8,"
               " \"\xef\xbf\xbd\": 9}, \"merges\": [[\"a\", \"b\"], \"ab c\", \"a a\", \"aa aa\"]}}";

static const char pieces[] =
    "{\"normalizer\": {\"type\": \"BertNormalizer\"}, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, \"decoder\": {\"type\": \"WordPiece\"},"
    " \"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"[CLS]\", 1], \"sep\": [\"[SEP]\", 2]},"
    " \"added_tokens\": [" SPECIAL(1, "[CLS]") ", " SPECIAL(
        2, "[SEP]") "],"
                    " \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"vocab\": {\"[UNK]\": 0, \"[CLS]\": 1, \"[SEP]\": 2, \"a\": "
                    "3, \"##b\": 4, \"e\": 5, \"!\": 6}}}";

/* ---- texts -------------------------------------------------------------------------------------------------------- */

static void test_invalid_utf8(void **state)
{
    (void)state;
    zq_tokenizer *t =
        parse("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 2, \"\xef\xbf\xbd\": 9, \"\xc3\xa9\": 3}, \"merges\": []}}");
    EXPECT(t, "a\xff" "b", 1, 9, 2);
    EXPECT(t, "\xc3\xa9\xc3", 3, 9);                  /* cut short */
    EXPECT(t, "\xe2\x80" "a", 9, 1);                  /* one maximal part */
    EXPECT(t, "\xf0\x9f\x99" "a\xf0\x9f", 9, 1, 9);
    EXPECT(t, "\xc0\x80", 9, 9);                      /* overlong */
    EXPECT(t, "\xed\xa0\x80", 9, 9, 9);               /* surrogate */
    EXPECT(t, "\xf4\x90\x80\x80", 9, 9, 9, 9);        /* above U+10FFFF */
    EXPECT(t, "\x80\xbf" "a", 9, 9, 1);
    zq_tokenizer_close(t);
}

static void test_zero_bytes(void **state)
{
    (void)state;
    zq_tokenizer *t = parse("{\"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1}, \"merges\": []}}");
    EXPECT(t, "a\0\0a", 1, 0, 0, 1);
    expect(t, "", 0, NULL, 0);
    expect(t, NULL, 0, NULL, 0);
    zq_tokenizer_close(t);
}

static void test_appends(void **state)
{
    (void)state;
    zq_tokenizer *t = parse(pieces);
    zq_ids ids = {0};
    assert_int_equal(zq_tokenizer_encode(t, "ab", 2, "E\xcc\x81!", 4, true, &ids, NULL), ZQ_OK);
    assert_int_equal(zq_tokenizer_encode(t, "a", 1, NULL, 0, false, &ids, NULL), ZQ_OK);
    const int32_t want[] = {1, 3, 4, 2, 5, 6, 2, 3};
    const uint8_t types[] = {0, 0, 0, 0, 1, 1, 1, 0};
    assert_int_equal(ids.n, ZQ_LEN(want));
    assert_memory_equal(ids.ids, want, sizeof want);
    assert_memory_equal(ids.types, types, sizeof types);
    zq_ids_free(&ids);
    zq_ids_free(NULL);
    zq_tokenizer_close(t);
}

/* ---- lookups and failures ----------------------------------------------------------------------------------------- */

static void test_lookups(void **state)
{
    (void)state;
    zq_tokenizer *t = parse(letters);
    assert_int_equal(zq_tokenizer_n_vocab(t), 11); /* <s> takes the next free id, whatever the file says */
    assert_int_equal(zq_tokenizer_find(t, "<s>"), 10);
    assert_int_equal(zq_tokenizer_find(t, "aaaa"), 8);
    assert_int_equal(zq_tokenizer_find(t, "aaa"), -1);
    assert_int_equal(zq_tokenizer_find(t, ""), -1);
    assert_int_equal(zq_tokenizer_max_length(t), 77);
    zq_tokenizer_close(t);
    zq_tokenizer_close(NULL);
}

static void expect_texts(const char *json, const char *wanted)
{
    zq_tokenizer *t = parse(json);
    for (size_t i = 0; wanted[i]; i++)
        if (zq_tokenizer_is_text(t, (int32_t)i) != (wanted[i] == '+')) fail_msg("id %zu of %s", i, json);
    assert_false(zq_tokenizer_is_text(t, -1));
    zq_tokenizer_close(t);
}

/* Ids between tokens and beyond them are no texts, either; <0x41> is a text like others where no byte stands in for a character. */
static void test_what_texts_are_made_of(void **state)
{
    (void)state;
    expect_texts(letters, "++++++++++--");
    expect_texts("{\"added_tokens\": [" SPECIAL(0, "<s>") ", {\"id\": 4, \"content\": \"  \", \"special\": false}], \"model\": {\"type\": \"BPE\", "
                 "\"byte_fallback\": true, \"vocab\": {\"<s>\": 0, \"<0x00>\": 1, \"<0x41>\": 2, \"a\": 3}, \"merges\": []}}", "---++-");
    expect_texts("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"<0x41>\": 0, \"a\": 2}, \"merges\": []}}", "+-+-");
    expect_texts("{\"added_tokens\": [" SPECIAL(1, "[CLS]") "], \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"vocab\": "
                 "{\"[unused0]\": 0, \"[CLS]\": 1, \"a\": 2, \"##b\": 3, \"[unused99]\": 4, \"[UNK]\": 5}}}", "--++-+");
}

static void test_decode_refuses(void **state)
{
    (void)state;
    zq_tokenizer *t = parse("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 7}, \"merges\": []}}");
    char *text = "x";
    size_t n = 5;
    zq_error err = {0};
    assert_int_equal(zq_tokenizer_decode(t, (const int32_t[]){1, 8}, 2, true, &text, &n, &err), ZQ_EINVAL);
    assert_null(text);
    assert_int_equal(n, 0);
    assert_non_null(strstr(err.message, "id 8"));
    assert_int_equal(zq_tokenizer_decode(t, (const int32_t[]){-1}, 1, true, &text, &n, &err), ZQ_EINVAL);
    assert_int_equal(zq_tokenizer_decode(t, (const int32_t[]){1, 3, 7}, 3, true, &text, NULL, &err), ZQ_OK); /* no token has id 3 */
    assert_string_equal(text, "a b");
    zq_free(text);
    assert_int_equal(zq_tokenizer_decode(t, NULL, 0, true, &text, &n, &err), ZQ_OK);
    assert_string_equal(text, "");
    zq_free(text);
    zq_tokenizer_close(t);
}

static void test_unknown_word(void **state)
{
    (void)state;
    zq_tokenizer *t = parse("{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"vocab\": {\"a\": 0}}}");
    zq_ids ids = encode(t, "a", 1);
    zq_error err = {0};
    assert_int_equal(zq_tokenizer_encode(t, "xyz", 3, NULL, 0, true, &ids, &err), ZQ_EINVAL);
    assert_non_null(strstr(err.message, "xyz"));
    assert_int_equal(ids.n, 1); /* unchanged */
    zq_ids_free(&ids);
    zq_tokenizer_close(t);
}

static void test_refusals(void **state)
{
    (void)state;
#define BPE(vocab, merges) "\"model\": {\"type\": \"BPE\", \"vocab\": {" vocab "}, \"merges\": [" merges "]}"
#define A BPE("\"a\": 0", "")
    static const struct {
        zq_status want;
        const char *json, *names; /* names: what the sentence must contain */
    } cases[] = {
        {ZQ_EFORMAT, "[]", "tokenizer.json"},
        {ZQ_EFORMAT, "{}", "model"},
        {ZQ_EUNSUPPORTED, "{\"version\": \"2.0\", " A "}", "2.0"},
        {ZQ_EUNSUPPORTED, "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "Unigram"},
        {ZQ_EUNSUPPORTED, "{\"normalizer\": {\"type\": \"Nmt\"}, " A "}", "Nmt"},
        {ZQ_EUNSUPPORTED, "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"UnicodeScripts\"}]}, " A "}",
         "UnicodeScripts"},
        {ZQ_EUNSUPPORTED, "{\"post_processor\": {\"type\": \"Chat\"}, " A "}", "Chat"},
        {ZQ_EUNSUPPORTED, "{\"decoder\": {\"type\": \"CTC\"}, " A "}", "CTC"},
        {ZQ_EUNSUPPORTED, "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a&&b]\"}}, " A "}", "[a&&b]"},
        {ZQ_EUNSUPPORTED, "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}}, " A "}", "(a"},
        {ZQ_EUNSUPPORTED, "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Both\"}, " A "}", "Both"},
        {ZQ_EUNSUPPORTED, "{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": \"last\"}, " A "}", "last"},
        {ZQ_EFORMAT, "{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"ab\"}, " A "}", "replacement"},
        {ZQ_EUNSUPPORTED, "{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {}, \"merges\": []}}", "dropout"},
        {ZQ_EFORMAT, "{\"normalizer\": {}, " A "}", "normalizer"},
        {ZQ_EFORMAT, "{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}}, " A "}", "content"},
        {ZQ_EFORMAT, "{" BPE("\"a\": -1", "") "}", "-1"},
        {ZQ_EFORMAT, "{" BPE("\"a\": 4194304", "") "}", "4194304"},
        {ZQ_EFORMAT, "{" BPE("\"a\": 1.5", "") "}", "\"a\""},
        {ZQ_EFORMAT, "{" BPE("\"a\\u0000\": 1", "") "}", ""},
        {ZQ_EFORMAT, "{" BPE("\"a\": 0", "\"a b\"") "}", "\"b\""},
        {ZQ_EFORMAT, "{" BPE("\"a\": 0, \"b\": 1", "\"a b\"") "}", "\"ab\""},
        {ZQ_EFORMAT, "{" BPE("\"a\": 0", "\"a\"") "}", "merge 0"},
        {ZQ_EFORMAT, "{" BPE("\"a\": 0", "[\"a\"]") "}", "merge 0"},
        {ZQ_EFORMAT, "{\"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"x\", 5], \"sep\": [\"y\", 0]}, " A "}", "id 5"},
        {ZQ_EFORMAT, "{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"B\"}}], \"pair\": []}, " A "}",
         "\"B\""},
        {ZQ_EFORMAT, "{\"added_tokens\": [{\"id\": 5}], " A "}", "content"},
        {ZQ_EFORMAT, "{\"added_tokens\": {}, " A "}", "added_tokens"},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        zq_tokenizer *t = (zq_tokenizer *)&cases;
        zq_error err = {0};
        const zq_status st = zq_tokenizer_parse(&t, cases[i].json, strlen(cases[i].json), "some.json", &err);
        if (st != cases[i].want || t || !strstr(err.message, cases[i].names) || !strstr(err.message, "some.json"))
            fail_msg("%s: status %d, \"%s\"", cases[i].json, (int)st, err.message);
    }
}

static void test_nesting_is_bounded(void **state)
{
    (void)state;
    char json[4000] = "{\"normalizer\": ", *at = json + strlen(json);
    for (int i = 0; i < 9; i++) at += sprintf(at, "{\"type\": \"Sequence\", \"normalizers\": [");
    at += sprintf(at, "{\"type\": \"NFC\"}");
    for (int i = 0; i < 9; i++) at += sprintf(at, "]}");
    sprintf(at, ", " A "}");
    zq_tokenizer *t;
    zq_error err = {0};
    assert_int_equal(zq_tokenizer_parse(&t, json, strlen(json), "test", &err), ZQ_EFORMAT);
    assert_non_null(strstr(err.message, "Sequence"));
}

static void test_regex_gives_up(void **state)
{
    (void)state;
    zq_tokenizer *t = parse("{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a+)+[bc]\"}}, " A "}");
    char text[60];
    zq_ids ids = {0};
    zq_error err = {0};
    memset(text, 'a', sizeof text);
    assert_int_equal(zq_tokenizer_encode(t, text, sizeof text, NULL, 0, true, &ids, &err), ZQ_ELIMIT);
    assert_non_null(strstr(err.message, "(a+)+[bc]"));
    assert_int_equal(ids.n, 0);
    zq_ids_free(&ids);
    zq_tokenizer_close(t);
}

/* ---- merging ------------------------------------------------------------------------------------------------------ */

/* Byte-pair encoding by its definition: over and over the lowest rank, leftmost. */
static size_t merge_plainly(const zq_tokenizer *t, int32_t *ids, size_t n)
{
    for (;;) {
        uint64_t best = UINT64_MAX, merge;
        size_t where = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            if (!zq_table_get(&t->model.bpe.merges, (uint64_t)(uint32_t)ids[i] << 32 | (uint32_t)ids[i + 1], &merge) || merge >= best) continue;
            best = merge;
            where = i;
        }
        if (best == UINT64_MAX) return n;
        ids[where] = (int32_t)(uint32_t)best;
        memmove(ids + where + 1, ids + where + 2, (n - where - 2) * sizeof *ids);
        n--;
    }
}

/* A tokenizer with random merges over the letters a .. d. */
static zq_tokenizer *random_merges(uint64_t *rng)
{
    enum { TOKENS = 40, MERGES = 60, LENGTH = 20 };
    char tokens[TOKENS][LENGTH + 1] = {"a", "b", "c", "d"}, joined[2 * LENGTH + 1], vocab[2000] = "", merges[4000] = "", json[7000];
    size_t n_tokens = 4, n_merges = 0, at = 0;
    while (n_tokens < TOKENS && n_merges < MERGES) {
        const char *left = tokens[zq_rng_next(rng) % n_tokens], *right = tokens[zq_rng_next(rng) % n_tokens];
        if (snprintf(joined, sizeof joined, "%s%s", left, right) > LENGTH) continue;
        at += (size_t)snprintf(merges + at, sizeof merges - at, "%s\"%s %s\"", n_merges++ ? ", " : "", left, right);
        bool known = false;
        for (size_t i = 0; i < n_tokens; i++) known |= !strcmp(tokens[i], joined);
        if (!known) strcpy(tokens[n_tokens++], joined);
    }
    at = 0;
    for (size_t i = 0; i < n_tokens; i++)
        at += (size_t)snprintf(vocab + at, sizeof vocab - at, "%s\"%s\": %zu", i ? ", " : "", tokens[i], i);
    snprintf(json, sizeof json, "{\"model\": {\"type\": \"BPE\", \"vocab\": {%s}, \"merges\": [%s]}}", vocab, merges);
    return parse(json);
}

/* Words of all lengths, so that scanning, the heap and the cutting of long words take part. */
static void test_merges_by_definition(void **state)
{
    (void)state;
    uint64_t rng = 5;
    for (int round = 0; round < 60; round++) {
        zq_tokenizer *t = random_merges(&rng);
        for (int k = 0; k < 40; k++) {
            char text[600];
            int32_t want[600];
            const size_t n = 1 + zq_rng_next(&rng) % (k < 30 ? 80 : 599), letters_used = 2 + zq_rng_next(&rng) % 3;
            for (size_t i = 0; i < n; i++) {
                want[i] = (int32_t)(zq_rng_next(&rng) % letters_used);
                text[i] = (char)('a' + want[i]);
            }
            expect(t, text, n, want, merge_plainly(t, want, n));
        }
        zq_tokenizer_close(t);
    }
}

/* ---- sizes -------------------------------------------------------------------------------------------------------- */

static const char bytelevel_parts[] =
    "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
    "\"added_tokens\": [" SPECIAL(0, "<|endoftext|>") ", {\"id\": 1, \"content\": \"  \", \"normalized\": true, \"rstrip\": true, \"lstrip\": true}]";

/* A megabyte of one thing must not take more than proportional time: the time limit of the test program tells. */
static void test_hostile_megabytes(void **state)
{
    (void)state;
    static const char *const units[] = {"a", " ", "\n", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x99\x82", "<", "<|", "<|endoftext|", "\xcc\x81",
                                        "\xcc\x81\xcc\xa3", "\xff", " a", "a\xcc\x81", "'", "\xe1\x84\x80\xe1\x85\xa1"};
    enum { SIZE = 1 << 20 };
    char json[2000], *text = zq_alloc(SIZE);
    zq_tokenizer *tokenizers[3];
    tokenizers[0] = parse(letters);
    tokenizers[1] = parse(pieces);
    snprintf(json, sizeof json, "{%s, \"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1, \"aa\": 2, \"aaaa\": 3}, "
             "\"merges\": [\"a a\", \"aa aa\"]}}", bytelevel_parts);
    tokenizers[2] = parse(json);
    for (size_t u = 0; u < ZQ_LEN(units); u++) {
        const size_t n_unit = strlen(units[u]), n = SIZE / n_unit * n_unit;
        for (size_t i = 0; i < n; i += n_unit) memcpy(text + i, units[u], n_unit);
        for (size_t k = 0; k < ZQ_LEN(tokenizers); k++) {
            zq_ids ids = encode(tokenizers[k], text, n);
            char *decoded;
            assert_int_equal(zq_tokenizer_decode(tokenizers[k], ids.ids, ids.n, false, &decoded, NULL, NULL), ZQ_OK);
            if (u == 0 && k == 0) assert_int_equal(ids.n, SIZE / 4);
            zq_free(decoded);
            zq_ids_free(&ids);
        }
    }
    for (size_t k = 0; k < ZQ_LEN(tokenizers); k++) zq_tokenizer_close(tokenizers[k]);
    zq_free(text);
}

/* More different words than the cache holds: what is forgotten and found again makes no difference. */
static void test_cache_is_invisible(void **state)
{
    (void)state;
    enum { WORDS = 400000, LENGTH = 12 };
    zq_tokenizer *t = parse(pieces);
    char *text = zq_alloc(WORDS * LENGTH + 1);
    size_t n = 0;
    for (int round = 0; round < 2; round++) {
        uint64_t rng = 3;
        for (int i = 0; i < WORDS / 2; i++) {
            text[n++] = 'a';
            for (uint64_t bits = zq_rng_next(&rng) % 1000; bits; bits /= 2) text[n++] = bits & 1 ? 'b' : 'e';
            text[n++] = ' ';
        }
    }
    zq_ids whole = encode(t, text, n);
    size_t at = 1; /* after [CLS] */
    for (size_t i = 0, end; i < n; i = end + 1) {
        end = i;
        bool known = true; /* "a" and then only "b": in the vocabulary piece by piece */
        for (; text[end] != ' '; end++) known &= end == i || text[end] == 'b';
        if (known) {
            for (size_t k = 0; k < end - i; k++) assert_int_equal(whole.ids[at++], k ? 4 : 3);
        } else {
            assert_int_equal(whole.ids[at++], 0);
        }
    }
    assert_int_equal(at + 1, whole.n);
    zq_ids_free(&whole);
    zq_free(text);
    zq_tokenizer_close(t);
}

/* ---- allocations and threads -------------------------------------------------------------------------------------- */

static zq_status whole_life(void *json, zq_error *err)
{
    zq_tokenizer *t;
    zq_ids ids = {0};
    char *text = NULL;
    char mixed[400];
    memset(mixed, 'a', sizeof mixed);
    memcpy(mixed, "ab<s> \xc3\xa9\xcc\x81\xe6\x97\xa5 \xff [SEP]  x", 25);
    zq_status st = zq_tokenizer_parse(&t, json, strlen(json), "test", err);
    if (st) {
        assert_null(t);
        return st;
    }
    st = zq_tokenizer_encode(t, mixed, sizeof mixed, "b", 1, true, &ids, err);
    if (st) assert_int_equal(ids.n, 0);
    if (!st) st = zq_tokenizer_decode(t, ids.ids, ids.n, false, &text, NULL, err);
    if (st) assert_null(text);
    zq_free(text);
    zq_ids_free(&ids);
    zq_tokenizer_close(t);
    return st;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    static const char mixture[] =
        "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": "
        "\"x+\"}, \"content\": \"a\"},"
        " {\"type\": \"Prepend\", \"prepend\": \"a\"}, {\"type\": \"Lowercase\"}]},"
        " \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Metaspace\"}, {\"type\": \"ByteLevel\"}, {\"type\": "
        "\"Digits\"}]},"
        " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}], \"pair\": [{\"Sequence\": {\"id\": "
        "\"A\"}},"
        " {\"SpecialToken\": {\"id\": \"s\"}}, {\"Sequence\": {\"id\": \"B\"}}], \"special_tokens\": {\"s\": {\"ids\": [1]}}},"
        " \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a\"}, \"content\": \"b\"}, "
        "{\"type\": \"ByteFallback\"},"
        " {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \"b\", \"start\": 1}, {\"type\": \"Metaspace\"}, {\"type\": \"ByteLevel\"}]},"
        " \"added_tokens\": [{\"id\": 9, \"content\": \"X\", \"normalized\": true, \"special\": true}],"
        " \"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"fuse_unk\": true, \"continuing_subword_prefix\": \"##\", \"end_of_word_suffix\": "
        "\"$\","
        " \"vocab\": {\"?\": 0, \"a\": 1, \"##a\": 2, \"aa\": 3, \"##a$\": 4}, \"merges\": [\"a ##a\"]}}";
    assert_in_range(fail_each_allocation(whole_life, (void *)(uintptr_t)letters), 20, 1000);
    assert_in_range(fail_each_allocation(whole_life, (void *)(uintptr_t)pieces), 20, 1000);
    assert_in_range(fail_each_allocation(whole_life, (void *)(uintptr_t)mixture), 50, 2000);
}

enum { THREADS = 8 };

static void *encode_often(void *tokenizer)
{
    static const char text[] =
        "ab abc aaaa aab <s> abcabc aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b";
    zq_ids first = {0};
    bool same = true;
    for (int i = 0; i < 300 && same; i++) {
        zq_ids ids = {0};
        same = zq_tokenizer_encode(tokenizer, text, sizeof text - 1, NULL, 0, true, i ? &ids : &first, NULL) == ZQ_OK;
        if (i) same = same && ids.n == first.n && !memcmp(ids.ids, first.ids, ids.n * sizeof *ids.ids);
        zq_ids_free(&ids);
    }
    const size_t n = first.n;
    zq_ids_free(&first);
    return (void *)(same ? n : 0);
}

static void test_threads_share(void **state)
{
    (void)state;
    zq_tokenizer *t = parse(letters);
    pthread_t threads[THREADS];
    void *n, *n_first = encode_often(t);
    assert_non_null(n_first);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &n);
        assert_ptr_equal(n, n_first);
    }
    zq_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invalid_utf8),       cmocka_unit_test(test_zero_bytes),
        cmocka_unit_test(test_appends),            cmocka_unit_test(test_lookups),
        cmocka_unit_test(test_decode_refuses),     cmocka_unit_test(test_unknown_word),
        cmocka_unit_test(test_refusals),           cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_regex_gives_up),     cmocka_unit_test(test_merges_by_definition),
        cmocka_unit_test(test_hostile_megabytes),  cmocka_unit_test(test_cache_is_invisible),
        cmocka_unit_test(test_failing_allocations), cmocka_unit_test(test_threads_share),
        cmocka_unit_test(test_what_texts_are_made_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
