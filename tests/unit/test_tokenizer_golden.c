/* Every component of tokenizer.json against the reference library: tokenizer_golden.json, made by tokenizer_golden.py. And the
 * tokenizers of well-known models against published ids, where the shared data is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- comparing ---------------------------------------------------------------------------------------------------- */

static void print_ids(char *to, size_t room, const int32_t *ids, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n && at + 12 < room; i++) at += (size_t)snprintf(to + at, room - at, i ? " %d" : "%d", (int)ids[i]);
    if (!n) *to = '\0';
}

/* want: a JSON array of ids. */
static void expect_ids(const zq_ids *got, const json_t *want, const char *where)
{
    int32_t *ids = calloc(json_array_size(want) + 1, sizeof *ids);
    for (size_t i = 0; i < json_array_size(want); i++) ids[i] = (int32_t)json_integer_value(json_array_get(want, i));
    if (got->n != json_array_size(want) || (got->n && memcmp(got->ids, ids, got->n * sizeof *ids))) {
        char a[600], b[600];
        print_ids(a, sizeof a, got->ids, got->n);
        print_ids(b, sizeof b, ids, json_array_size(want));
        fail_msg("%.300s:\n   got  %s\n   want %s", where, a, b);
    }
    free(ids);
}

static void expect_encoding(const zq_tokenizer *t, const char *text, size_t n, bool special, const json_t *want, const char *where)
{
    zq_ids ids = {0};
    zq_error err = {0};
    if (zq_tokenizer_encode(t, text, n, NULL, 0, special, &ids, &err)) fail_msg("%s: %s", where, err.message);
    expect_ids(&ids, want, where);
    zq_ids_free(&ids);
}

static void expect_decoding(const zq_tokenizer *t, const json_t *list, bool skip, const json_t *want, const char *where)
{
    int32_t ids[400];
    char *text;
    size_t n;
    zq_error err = {0};
    assert_in_range(json_array_size(list), 0, 400);
    for (size_t i = 0; i < json_array_size(list); i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    if (zq_tokenizer_decode(t, ids, json_array_size(list), skip, &text, &n, &err)) fail_msg("%s: %s", where, err.message);
    if (n != json_string_length(want) || memcmp(text, json_string_value(want), n))
        fail_msg("%.300s:\n   got  \"%s\"\n   want \"%s\"", where, text, json_string_value(want));
    zq_free(text);
}

/* ---- the components ----------------------------------------------------------------------------------------------- */

static void check_case(const json_t *golden, const json_t *entry, size_t number)
{
    json_t *root = json_copy(json_object_get(entry, "parts"));
    json_object_set(root, "model", json_object_get(json_object_get(golden, "models"), json_string_value(json_object_get(entry, "model"))));
    char *parts = json_dumps(json_object_get(entry, "parts"), JSON_COMPACT);
    zq_tokenizer *t;
    zq_error err = {0};
    if (zq_tokenizer_build(&t, root, false, "golden", &err)) fail_msg("%s: %s", parts, err.message);

    const json_t *texts = json_object_get(golden, "texts"), *answers = json_object_get(entry, "answers"), *pair = json_object_get(entry, "pair");
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *text = json_array_get(texts, i), *answer = json_array_get(answers, i);
        char where[300];
        if (json_is_null(answer)) continue;
        snprintf(where, sizeof where, "case %zu %.200s, text %zu", number, parts, i);
        expect_encoding(t, json_string_value(text), json_string_length(text), true, json_array_get(answer, 0), where);
        expect_encoding(t, json_string_value(text), json_string_length(text), false, json_array_get(answer, 1), where);
        expect_decoding(t, json_array_get(answer, 0), true, json_array_get(answer, 2), where);
        expect_decoding(t, json_array_get(answer, 0), false, json_array_get(answer, 3), where);
    }

    zq_ids ids = {0};
    const char *a = json_string_value(json_array_get(texts, 2)), *b = json_string_value(json_array_get(texts, 3));
    assert_int_equal(zq_tokenizer_encode(t, a, strlen(a), b, strlen(b), true, &ids, &err), ZQ_OK);
    expect_ids(&ids, json_array_get(pair, 0), parts);
    for (size_t i = 0; i < ids.n; i++) assert_int_equal(ids.types[i], json_integer_value(json_array_get(json_array_get(pair, 1), i)));
    zq_ids_free(&ids);
    zq_tokenizer_close(t);
    free(parts);
    json_decref(root);
}

static void test_components(void **state)
{
    (void)state;
    json_t *golden;
    zq_error err = {0};
    if (zq_json_read(&golden, "tests/unit/tokenizer_golden.json", 1 << 20, &err)) fail_msg("%s", err.message);
    const json_t *cases = json_object_get(golden, "cases");
    assert_in_range(json_array_size(cases), 30, 1000);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(golden, json_array_get(cases, i), i);
    json_decref(golden);
}

/* ---- well-known tokenizers ---------------------------------------------------------------------------------------- */

static const char *shared_path(const char *name)
{
    static char paths[4][600];
    static unsigned next;
    char *path = paths[next++ % 4];
    const char *root = getenv("ZQ_SHARED");
    snprintf(path, sizeof paths[0], "%s/%s", root && *root ? root : "../shared", name);
    return path;
}

/* The ids of one line of an .out file as a JSON array; *line moves on. */
static json_t *take_line(char **line)
{
    json_t *ids = json_array();
    for (char *end; **line && **line != '\n'; *line = end) {
        const long id = strtol(*line, &end, 10);
        if (end == *line) {
            end++;
            continue;
        }
        json_array_append_new(ids, json_integer(id));
    }
    if (**line) ++*line;
    return ids;
}

/* 46 texts and their ids without special tokens, as published with llama.cpp. */
static void check_vectors(const char *vectors, const char *folder)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char name[200], *texts, *ids;
    zq_error err = {0};
    zq_tokenizer *t;
    if (zq_tokenizer_open(&t, shared_path(folder), &err)) fail_msg("%s", err.message);
    snprintf(name, sizeof name, "data/tokenizers/llama.cpp-vectors/ggml-vocab-%s.gguf.inp", vectors);
    assert_int_equal(zq_file_read(&texts, NULL, shared_path(name), 1 << 20, &err), ZQ_OK);
    snprintf(name, sizeof name, "data/tokenizers/llama.cpp-vectors/ggml-vocab-%s.gguf.out", vectors);
    assert_int_equal(zq_file_read(&ids, NULL, shared_path(name), 1 << 20, &err), ZQ_OK);
    char *text = texts, *line = ids;
    size_t n = 0;
    for (bool last = false; !last; n++) {
        char *end = strstr(text, separator), where[100];
        last = !end;
        if (last) end = text + strlen(text);
        json_t *want = take_line(&line);
        snprintf(where, sizeof where, "%s, text %zu", vectors, n);
        expect_encoding(t, text, (size_t)(end - text), false, want, where);
        json_decref(want);
        text = end + sizeof separator - 1;
    }
    assert_in_range(n, 46, 47);
    zq_free(texts);
    zq_free(ids);
    zq_tokenizer_close(t);
}

static void test_published_vectors(void **state)
{
    (void)state;
    if (!zq_is_directory(shared_path("data/tokenizers/llama.cpp-vectors"))) {
        print_message("skipped: no shared data\n");
        skip();
    }
    check_vectors("gpt-2", "data/tokenizers/gpt2");
    check_vectors("mpt", "data/tokenizers/gpt-neox-20b");
    check_vectors("bert-bge", "data/tokenizers/bert-base-uncased");
    check_vectors("llama-spm", "data/tokenizers/llama-2");
    check_vectors("qwen2", "data/tokenizers/qwen2-0_5b");
}

/* The "tokenizer" list of a model's golden.json: ids with special tokens, as transformers gives them. */
static void check_model(const char *folder)
{
    char name[300];
    json_t *golden;
    zq_error err = {0};
    zq_tokenizer *t;
    snprintf(name, sizeof name, "%s/golden.json", folder);
    if (zq_json_read(&golden, name, 64 << 20, &err)) fail_msg("%s", err.message);
    if (zq_tokenizer_open(&t, folder, &err)) fail_msg("%s", err.message);
    const json_t *list = json_object_get(golden, "tokenizer");
    assert_true(json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *text = json_object_get(json_array_get(list, i), "text");
        expect_encoding(t, json_string_value(text), json_string_length(text), true, json_object_get(json_array_get(list, i), "ids"), folder);
    }
    zq_tokenizer_close(t);
    json_decref(golden);
}

static void test_models(void **state)
{
    (void)state;
    static const char *const models[] = {"bert",  "gpt2-novels", "gptj", "llama", "llama-rope3", "minilm-sst2",
                                         "mistral", "neox",      "opt",  "qwen2", "stories260k"};
    check_model("models/novels");
    if (!zq_is_directory(shared_path("models"))) {
        print_message("skipped: no shared data\n");
        skip();
    }
    for (size_t i = 0; i < ZQ_LEN(models); i++) {
        char name[100];
        snprintf(name, sizeof name, "models/%s", models[i]);
        check_model(shared_path(name));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_components),
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
