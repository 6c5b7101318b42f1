/* Which files of a folder make its tokenizer, and the files of before tokenizer.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fail_alloc.h"
#include "scratch.h"
#include "zeroquant.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* An empty folder below the scratch directory. */
static const char *folder(const char *name)
{
    static char paths[8][300];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s", scratch_path(name));
    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[100];
    snprintf(path, sizeof path, "%s/%s", strrchr(dir, '/') + 1, name);
    scratch_text(path, text);
}

static zq_tokenizer *open_good(const char *path)
{
    zq_tokenizer *t;
    zq_error err = {0};
    if (zq_tokenizer_open(&t, path, &err)) fail_msg("%s", err.message);
    return t;
}

static void open_bad(const char *path, zq_status want, const char *part)
{
    zq_tokenizer *t = (zq_tokenizer *)&path;
    zq_error err = {0};
    const zq_status st = zq_tokenizer_open(&t, path, &err);
    if (st != want || t || !strstr(err.message, part)) fail_msg("%s: status %d, \"%s\"", path, (int)st, err.message);
}

/* Opens, encodes text (and pair, if any), compares and closes. */
static void expect_pair(const char *path, const char *text, const char *pair, const int32_t *want, size_t n)
{
    zq_tokenizer *t = open_good(path);
    zq_ids ids = {0};
    zq_error err = {0};
    if (zq_tokenizer_encode(t, text, strlen(text), pair, pair ? strlen(pair) : 0, true, &ids, &err)) fail_msg("%s", err.message);
    char got[300] = "";
    for (size_t i = 0, at = 0; i < ids.n && at < sizeof got - 12; i++) at += (size_t)sprintf(got + at, "%d ", (int)ids.ids[i]);
    if (ids.n != n || memcmp(ids.ids, want, n * sizeof *want)) fail_msg("%s: \"%s\": %s", path, text, got);
    zq_ids_free(&ids);
    zq_tokenizer_close(t);
}
#define EXPECT_PAIR(path, text, pair, ...) \
    expect_pair(path, text, pair, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))
#define EXPECT(path, text, ...) EXPECT_PAIR(path, text, NULL, __VA_ARGS__)

#define JSON_A "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1}, \"merges\": []}}"
#define JSON_B "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 2}, \"merges\": []}}"

static void test_order_of_files(void **state)
{
    (void)state;
    const char *dir = folder("order");
    open_bad(dir, ZQ_EIO, "vocab.txt");
    put(dir, "20B_tokenizer.json", JSON_B);
    EXPECT(dir, "a", 2);
    put(dir, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\n");
    EXPECT(dir, "a", 1, 3, 2);
    put(dir, "encoder.json", "{\"a\": 4}");
    put(dir, "vocab.bpe", "#version: 0.2\n");
    EXPECT(dir, "a", 4);
    put(dir, "vocab.json", "{\"a\": 5}");
    EXPECT(dir, "a", 4); /* no merges.txt */
    put(dir, "merges.txt", "");
    EXPECT(dir, "a", 5);
    put(dir, "tokenizer.json", JSON_A);
    EXPECT(dir, "a", 1);
    EXPECT(scratch_path("order/20B_tokenizer.json"), "a", 2);
    EXPECT(scratch_path("order/vocab.txt"), "a", 1, 3, 2);
    EXPECT(scratch_path("order/encoder.json"), "a", 4); /* either of two stands for both */
    EXPECT(scratch_path("order/vocab.bpe"), "a", 4);
    EXPECT(scratch_path("order/vocab.json"), "a", 5);
    EXPECT(scratch_path("order/merges.txt"), "a", 5);
    assert_int_equal(unlink(scratch_path("order/merges.txt")), 0);
    open_bad(scratch_path("order/vocab.json"), ZQ_EIO, "merges.txt");
    open_bad(scratch_path("nowhere"), ZQ_EIO, "nowhere");
}

static void test_gpt2(void **state)
{
    (void)state;
    const char *dir = folder("gpt2");
    put(dir, "vocab.json", "{\"a\": 0, \"b\": 1, \"\xc4\xa0\": 2, \"\xc4\xa0" "a\": 3, \"<|endoftext|>\": 4, \"</s>\": 5, \"ab\": 6}");
    put(dir, "merges.txt", "#version: 0.2\n\xc4\xa0 a\r\na b\n\n");
    EXPECT(dir, "ab a<|endoftext|>b", 6, 3, 4, 1);
    put(dir, "merges.txt", "#version: 0.2\n\xc4\xa0 a\r\na b");
    open_bad(dir, ZQ_EFORMAT, "merges.txt ends within a line");
    put(dir, "merges.txt", "#version: 0.2\n\xc4\xa0 a\r\na b\n\n");
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\": \"GPT2TokenizerFast\", \"add_bos_token\": true, \"bos_token\": {\"content\": \"</s>\"}}");
    EXPECT(dir, "a</s>b", 5, 0, 5, 1); /* as OPT */
    EXPECT_PAIR(dir, "a", "b", 5, 0, 1);
    put(dir, "tokenizer_config.json",
        "{\"add_prefix_space\": true, \"pad_token\": \"<pad>\", \"model_max_length\": 1000000000000000019884624838656}");
    EXPECT(dir, "a<pad>", 3, 7); /* a token that is named, but not in the vocabulary, gets an id behind it */
    put(dir, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"9\": {\"content\": \"<x>\", \"special\": true, \"rstrip\": true}}}");
    EXPECT(dir, "a<x> b", 0, 9, 1);
    put(dir, "tokenizer_config.json", "{\"tokenizer_class\": \"CLIPTokenizer\"}");
    open_bad(dir, ZQ_EUNSUPPORTED, "CLIPTokenizer");
    put(dir, "tokenizer_config.json", "{\"add_bos_token\": true, \"bos_token\": \"<none>\"}");
    open_bad(dir, ZQ_EFORMAT, "<none>");
    put(dir, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"9x\": {\"content\": \"<x>\"}}}");
    open_bad(dir, ZQ_EFORMAT, "9x");
}

/* Qwen2 normalizes to NFC, and its words are not GPT-2's: a punctuation mark goes with the letters behind it. */
static void test_qwen2(void **state)
{
    (void)state;
    const char *dir = folder("qwen2");
    put(dir, "vocab.json", "{\"a\": 0, \".\": 1, \".a\": 2, \"1\": 3, \"11\": 4, \"\xc3\x83\": 5, \"\xc2\xa4\": 6}");
    put(dir, "merges.txt", ". a\n1 1\n");
    EXPECT(dir, "a.a11", 0, 1, 0, 4);
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"added_tokens_decoder\": {\"7\": {\"content\": \"<|im_end|>\", \"special\": true}}}");
    EXPECT(dir, "a.a11", 0, 2, 3, 3);
    EXPECT(dir, "a\xcc\x88<|im_end|>", 5, 6, 7);
}

static void test_roberta(void **state)
{
    (void)state;
    const char *dir = folder("roberta");
    put(dir, "vocab.json", "{\"<s>\": 0, \"</s>\": 2, \"<mask>\": 4, \"a\": 5, \"\xc4\xa0\": 6}");
    put(dir, "merges.txt", "");
    put(dir, "tokenizer_config.json", "{\"tokenizer_class\": \"RobertaTokenizer\"}");
    put(dir, "special_tokens_map.json", "{\"mask_token\": \"<mask>\"}");
    EXPECT(dir, "a <mask>a", 0, 5, 4, 5, 2); /* the mask takes the space on its left */
    EXPECT_PAIR(dir, "a", "a", 0, 5, 2, 2, 5, 2);
}

static void test_bert(void **state)
{
    (void)state;
    const char *dir = folder("bert");
    put(dir, "vocab.txt", "[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nA\n##b\n\xc3\xa4\n,\n");
    EXPECT(dir, "AB, \xc3\xa4 [MASK]x", 2, 5, 7, 9, 5, 4, 1, 3);
    EXPECT_PAIR(dir, "a", "ab", 2, 5, 3, 5, 7, 3);
    put(dir, "tokenizer_config.json", "{\"tokenizer_class\": \"BertTokenizer\", \"do_lower_case\": false}");
    EXPECT(dir, "Ab \xc3\xa4", 2, 6, 7, 8, 3);
    put(dir, "tokenizer_config.json", "{\"do_lower_case\": true, \"strip_accents\": false}");
    EXPECT(dir, "A \xc3\x84", 2, 5, 8, 3);
    put(dir, "tokenizer_config.json", "{\"cls_token\": \"[BOS]\"}");
    open_bad(dir, ZQ_EFORMAT, "[BOS]");
    put(dir, "tokenizer_config.json", "[1]");
    open_bad(dir, ZQ_EFORMAT, "tokenizer_config.json");
    put(dir, "tokenizer_config.json", "{}");
    put(dir, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\n\xff\n");
    open_bad(dir, ZQ_EFORMAT, "UTF-8");
    put(dir, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\nb");
    open_bad(dir, ZQ_EFORMAT, "vocab.txt ends within a line");
    put(dir, "vocab.txt", "");
    open_bad(dir, ZQ_EFORMAT, "[CLS]");
}

static zq_status open_and_close(void *path, zq_error *err)
{
    zq_tokenizer *t;
    const zq_status st = zq_tokenizer_open(&t, path, err);
    zq_tokenizer_close(t);
    return st;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    const char *bpe = folder("bpe-alloc"), *bert = folder("bert-alloc");
    put(bpe, "vocab.json", "{\"a\": 0, \"b\": 1, \"ab\": 2, \"</s>\": 3}");
    put(bpe, "merges.txt", "a b\n");
    put(bpe, "tokenizer_config.json", "{\"add_bos_token\": true, \"bos_token\": \"</s>\", \"additional_special_tokens\": [\"<x>\"],"
                                      " \"added_tokens_decoder\": {\"5\": {\"content\": \"<y>\"}}}");
    put(bert, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\n");
    assert_in_range(fail_each_allocation(open_and_close, (void *)(uintptr_t)bpe), 50, 5000);
    assert_in_range(fail_each_allocation(open_and_close, (void *)(uintptr_t)bert), 50, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_files), cmocka_unit_test(test_gpt2), cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_roberta),        cmocka_unit_test(test_bert), cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
