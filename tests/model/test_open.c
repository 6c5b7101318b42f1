/* Opening and running a directory when something is wrong with it, with the request, or with memory. */
#include "tiny.h"

#include <unistd.h>

static char dir[400];

static void expect(zq_status want, const char *part)
{
    zq_model *m = NULL;
    zq_error e = {0};
    const zq_status st = zq_model_open(&m, dir, NULL, &e);
    if (st != want || !strstr(e.message, part) || strncmp(e.message, dir, strlen(dir)))
        fail_msg("status %d, \"%s\"; expected %d with \"%s: .. %s\"", st, e.message, want, dir, part);
    assert_null(m);
}

static void test_prefix(void **state)
{
    (void)state;
    const char *const prefixes[] = {"transformer.", ""};
    float first[TINY_VOCAB];
    for (int i = 0; i < 2; i++) {
        tiny_write(dir, &(struct tiny){.prefix = prefixes[i]});
        zq_model *m = NULL;
        zq_session *s = NULL;
        OK(zq_model_open(&m, dir, NULL, err));
        OK(zq_session_create(&s, m, NULL, err));
        const int32_t ids[] = {1, 2, 39};
        OK(zq_session_step(s, &(zq_input){.ids = ids, .n = 3}, 1, err));
        if (i == 0) memcpy(first, zq_session_logits(s, NULL), sizeof first);
        else assert_memory_equal(first, zq_session_logits(s, NULL), sizeof first);
        zq_session_close(s);
        zq_model_close(m);
    }
}

static void test_spoiled_tensors(void **state)
{
    (void)state;
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .missing = "h.1.attn.c_attn.weight"});
    expect(ZQ_EFORMAT, "transformer.h.1.attn.c_attn.weight is missing");
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .missing = "h.0.ln_2.bias"});
    expect(ZQ_EFORMAT, "transformer.h.0.ln_2.bias is missing");
    tiny_write(dir, &(struct tiny){.prefix = "", .missing = "wpe.weight"});
    expect(ZQ_EFORMAT, "wpe.weight is missing");
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .misshaped = "h.1.mlp.c_fc.weight"});
    expect(ZQ_EFORMAT, "h.1.mlp.c_fc.weight has shape [17, 64], expected [16, 64]");
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .misshaped = "h.1.mlp.c_fc.bias"});
    expect(ZQ_EFORMAT, "h.1.mlp.c_fc.bias has 65 values");
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .missing = "wte.weight"});
    expect(ZQ_EFORMAT, "wte.weight");
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .dtype = ZQ_I32});
    expect(ZQ_EFORMAT, "is I32, expected");
}

static void count_notes(void *user, const char *sentence)
{
    int *n = user;
    if (strstr(sentence, "something.else")) ++*n;
    else *n += 100;
}

static void test_extra_tensors(void **state)
{
    (void)state;
    int notes = 0;
    const zq_open_options o = {.note = count_notes, .user = &notes};
    zq_model *m = NULL;
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .extra = "something.else"});
    OK(zq_model_open(&m, dir, &o, err));
    assert_int_equal(notes, 1);
    zq_model_close(m);
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .extra = "h.0.attn.masked_bias"});
    OK(zq_model_open(&m, dir, &o, err));
    assert_int_equal(notes, 1);
    zq_model_close(m);
}

static void test_truncated(void **state)
{
    (void)state;
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .dtype = ZQ_BF16});
    char path[600];
    static const char *const files[] = {"model.safetensors", "config.json"};
    for (size_t f = 0; f < ZQ_LEN(files); f++) {
        size_t n;
        snprintf(path, sizeof path, "%s/%s", dir, files[f]);
        char *whole = read_text(path, &n);
        for (size_t i = 0; i < 100; i++) {
            OK(zq_file_write(path, whole, n * i / 100, err));
            zq_model *m = NULL;
            zq_error e = {0};
            assert_int_not_equal(zq_model_open(&m, dir, NULL, &e), ZQ_OK);
            assert_true(e.message[0] && !strchr(e.message, '\n'));
        }
        OK(zq_file_write(path, whole, n, err));
        zq_free(whole);
    }
}

static void test_requests(void **state)
{
    (void)state;
    tiny_write(dir, &(struct tiny){.prefix = "transformer."});
    zq_model *m = NULL;
    zq_session *s = NULL;
    zq_error e = {0};
    OK(zq_model_open(&m, dir, NULL, err));
    assert_int_equal(zq_session_create(&s, m, &(zq_session_options){.max_length = 25}, &e), ZQ_ELIMIT);
    assert_non_null(strstr(e.message, "24"));
    OK(zq_session_create(&s, m, &(zq_session_options){.n_sequences = 2, .max_batch_tokens = 20}, err));
    int32_t ids[32] = {0};
    const int32_t outside[] = {3, 40}, negative[] = {-1};
    const uint8_t types[] = {1};
    assert_int_equal(zq_session_step(s, NULL, 0, &e), ZQ_EINVAL);
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = ids, .n = 0}, 1, &e), ZQ_EINVAL);
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = outside, .n = 2}, 1, &e), ZQ_EINVAL);
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = negative, .n = 1}, 1, &e), ZQ_EINVAL);
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = ids, .types = types, .n = 1}, 1, &e), ZQ_EINVAL);
    assert_int_equal(zq_session_step(s, &(zq_input){.sequence = 2, .ids = ids, .n = 1}, 1, &e), ZQ_EINVAL);
    const zq_input twice[] = {{.ids = ids, .n = 1}, {.ids = ids, .n = 1}};
    assert_int_equal(zq_session_step(s, twice, 2, &e), ZQ_EINVAL);
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = ids, .n = 21}, 1, &e), ZQ_ELIMIT);
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = ids, .n = 3, .all_logits = true}, 1, &e), ZQ_ELIMIT);
    OK(zq_session_step(s, &(zq_input){.ids = ids, .n = 20}, 1, err));
    assert_int_equal(zq_session_step(s, &(zq_input){.ids = ids, .n = 5}, 1, &e), ZQ_ELIMIT);
    assert_non_null(strstr(e.message, "24"));
    assert_int_equal(zq_session_length(s, 0), 20);
    OK(zq_session_step(s, &(zq_input){.ids = ids, .n = 4}, 1, err));
    assert_int_equal(zq_session_rewind(s, 0, 25, &e), ZQ_EINVAL);
    zq_session_close(s);
    zq_model_close(m);
    OK(zq_model_open(&m, dir, &(zq_open_options){.header_only = true}, err));
    assert_int_equal(zq_session_create(&s, m, NULL, &e), ZQ_EINVAL);
    zq_model_close(m);
}

/* Opens, runs a step, evaluates: the status of the first failure. */
static zq_status open_and_run(zq_error *e)
{
    zq_model *m = NULL;
    zq_session *s = NULL;
    const int32_t ids[] = {1, 2, 3};
    zq_status st = zq_model_open(&m, dir, &(zq_open_options){.n_threads = 1}, e);
    if (!st) st = zq_session_create(&s, m, &(zq_session_options){.n_threads = 1}, e);
    if (!st) st = zq_session_step(s, &(zq_input){.ids = ids, .n = 3}, 1, e);
    zq_session_close(s);
    zq_model_close(m);
    return st;
}

static void test_no_memory(void **state)
{
    const char *scheme = *state;
    char quantized[ZQ_LEN(dir) + 2], plain[ZQ_LEN(dir)];
    tiny_write(dir, &(struct tiny){.prefix = "transformer.", .dtype = ZQ_F16});
    snprintf(plain, sizeof plain, "%s", dir);
    if (scheme) {
        snprintf(quantized, sizeof quantized, "%s-q", dir);
        OK(zq_quantize(dir, quantized, &(zq_quantize_options){.scheme = scheme, .force = true}, NULL, err));
        memcpy(dir, quantized, sizeof dir);
    }
    json_set_alloc_funcs(zq_alloc, zq_free);
    zq_alloc_fail_at(0, false);
    OK(open_and_run(err));
    const size_t n = zq_alloc_count();
    assert_true(n > 50);
    for (int persistent = 0; persistent < 2; persistent++) {
        for (size_t i = 1; i <= n; i++) {
            zq_error e = {0};
            zq_alloc_fail_at(i, persistent);
            const zq_status st = open_and_run(&e);
            zq_alloc_fail_at(0, false);
            if (st != ZQ_ENOMEM) fail_msg("allocation %zu of %zu failed, status %d: %s", i, n, st, e.message);
        }
    }
    json_set_alloc_funcs(malloc, free);
    if (scheme) OK(zq_remove_tree(dir, err));
    snprintf(dir, sizeof dir, "%s", plain);
}

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/zq-open-%ld", tmp ? tmp : "/tmp", (long)getpid());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return (int)zq_remove_tree(dir, NULL);
}

int main(void)
{
    static char w8a8[] = "w8a8", w4a16[] = "w4a16";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefix), cmocka_unit_test(test_spoiled_tensors), cmocka_unit_test(test_extra_tensors),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_requests), cmocka_unit_test(test_no_memory),
        {"no memory, w8a8", test_no_memory, NULL, NULL, w8a8}, {"no memory, w4a16", test_no_memory, NULL, NULL, w4a16},
    };
    return cmocka_run_group_tests_name("open", tests, set_up, tear_down);
}
