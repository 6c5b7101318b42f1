/* Model directories: which file a tensor is taken from, and that everything missing or cut is an error that names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoint/checkpoint.h"
#include "fail_alloc.h"
#include "scratch.h"
#include "shared.h"

#include <unistd.h>

static char dir[400]; /* the model directory of the running test */

static int new_directory(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", scratch_path("model"));
    if (zq_remove_tree(dir, NULL)) return -1;
    return mkdir(dir, 0777);
}

static const char *in_model(const char *name)
{
    char path[100];
    snprintf(path, sizeof path, "model/%s", name);
    return scratch_path(path);
}

static void put_text(const char *name, const char *text)
{
    char path[100];
    snprintf(path, sizeof path, "model/%s", name);
    scratch_text(path, text);
}

/* A shard with the U8 tensors named in `names`, one letter each, every byte of which is `fill`. */
static void put_shard(const char *file, const char *names, uint8_t fill)
{
    struct zq_tensor tensors[8] = {0};
    char text[8][2] = {0};
    const size_t n = strlen(names);
    for (size_t i = 0; i < n; i++) {
        text[i][0] = names[i];
        tensors[i] = (struct zq_tensor){.name = text[i], .dtype = ZQ_U8, .n_dims = 1, .shape = {100}};
    }
    uint8_t bytes[800];
    memset(bytes, fill, sizeof bytes);
    struct zq_safetensors_writer w;
    assert_int_equal(zq_safetensors_begin(&w, in_model(file), tensors, n, NULL), ZQ_OK);
    assert_int_equal(zq_safetensors_put(&w, bytes, 100 * n, NULL), ZQ_OK);
    assert_int_equal(zq_safetensors_end(&w, NULL), ZQ_OK);
}

#define INDEX "model.safetensors.index.json"
#define ONE "one.safetensors"
#define TWO "two.safetensors"

static void put_two_shards(void)
{
    put_text("config.json", "{\"model_type\":\"gpt2\"}");
    put_shard(TWO, "ca", 2);
    put_shard(ONE, "bd", 1);
    put_text(INDEX, "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"a\":\"" TWO "\",\"b\":\"" ONE "\",\"c\":\"" TWO "\",\"d\":\"" ONE "\"}}");
}

static struct zq_checkpoint *open_model(void)
{
    struct zq_checkpoint *c;
    zq_error err = {0};
    if (zq_checkpoint_open(&c, dir, &err)) fail_msg("%s", err.message);
    return c;
}

static void refused(zq_status want, const char *says)
{
    struct zq_checkpoint *c = (struct zq_checkpoint *)&c;
    zq_error err = {0};
    const zq_status st = zq_checkpoint_open(&c, dir, &err);
    if (st != want || !strstr(err.message, says)) fail_msg("status %d, \"%s\", should say \"%s\"", (int)st, err.message, says);
    assert_null(c);
}

/* ---- what opens --------------------------------------------------------------------------------------------------- */

static void one_file_opens(void **state)
{
    (void)state;
    put_text("config.json", "{\"model_type\":\"gpt2\"}");
    put_shard("model.safetensors", "ba", 9);
    struct zq_checkpoint *c = open_model();
    assert_int_equal(c->n_files, 1);
    assert_int_equal(c->n_tensors, 2);
    assert_int_equal(c->n_bytes, 200);
    assert_string_equal(c->tensors[0]->name, "b");
    assert_string_equal(json_string_value(json_object_get(c->config, "model_type")), "gpt2");
    assert_ptr_equal(zq_checkpoint_find(c, "a"), c->tensors[1]);
    assert_null(zq_checkpoint_find(c, "aa"));
    assert_null(zq_checkpoint_find(c, ""));
    zq_map_drop(c->tensors[0]->map, c->tensors[0]->bytes, 100);
    assert_int_equal(c->tensors[0]->bytes[99], 9);
    zq_checkpoint_close(c);
    zq_checkpoint_close(NULL);
}

static void shards_open(void **state)
{
    (void)state;
    put_two_shards();
    put_shard("model.safetensors", "z", 3); /* the index counts, not a file beside it */
    struct zq_checkpoint *c = open_model();
    assert_int_equal(c->n_files, 2);
    assert_string_equal(c->file_names[0], ONE);
    assert_string_equal(c->file_names[1], TWO);
    assert_int_equal(c->n_tensors, 4);
    assert_int_equal(c->n_bytes, 400);
    static const char order[] = "bdca";
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(c->tensors[i]->name[0], order[i]);
        assert_int_equal(c->tensors[i]->bytes[50], i < 2 ? 1 : 2);
        assert_ptr_equal(c->tensors[i]->map, &c->files[i / 2].map);
        assert_ptr_equal(zq_checkpoint_find(c, c->tensors[i]->name), c->tensors[i]);
    }
    zq_checkpoint_close(c);
}

/* x is in no index and listed; a's copy in the wrong shard is not. */
static void the_index_chooses_between_copies(void **state)
{
    (void)state;
    put_two_shards();
    put_shard(ONE, "abdx", 1);
    struct zq_checkpoint *c = open_model();
    assert_int_equal(c->n_tensors, 5);
    assert_int_equal(c->n_bytes, 500);
    assert_int_equal(zq_checkpoint_find(c, "a")->bytes[0], 2);
    assert_int_equal(zq_checkpoint_find(c, "x")->bytes[0], 1);
    zq_checkpoint_close(c);
    put_shard(TWO, "cax", 2);
    refused(ZQ_EFORMAT, "tensor \"x\"");
}

static void an_empty_index_is_an_empty_model(void **state)
{
    (void)state;
    put_text("config.json", "{}");
    put_text(INDEX, "{\"weight_map\":{}}");
    struct zq_checkpoint *c = open_model();
    assert_true(c->n_files == 0 && c->n_tensors == 0);
    assert_null(zq_checkpoint_find(c, "a"));
    zq_checkpoint_close(c);
}

/* ---- what does not ------------------------------------------------------------------------------------------------ */

static void a_directory_must_be_one(void **state)
{
    (void)state;
    assert_int_equal(rmdir(dir), 0);
    refused(ZQ_EIO, "there is no directory");
    refused(ZQ_EIO, dir);
    scratch_text("model", "x");
    refused(ZQ_EIO, "is not a directory");
    assert_int_equal(unlink(dir), 0);
}

static void missing_files_are_named(void **state)
{
    (void)state;
    refused(ZQ_EIO, "config.json");
    put_text("config.json", "{}");
    refused(ZQ_EIO, "neither model.safetensors nor");
    put_text("pytorch_model.bin.index.json", "{}");
    refused(ZQ_EUNSUPPORTED, "safe_serialization=True");
    put_text("pytorch_model.bin", "x");
    refused(ZQ_EUNSUPPORTED, "pytorch_model.bin");
    put_two_shards();
    assert_int_equal(unlink(in_model(TWO)), 0);
    refused(ZQ_EIO, TWO);
}

static void a_wrong_config_is_refused(void **state)
{
    (void)state;
    put_two_shards();
    static const char *const bad[] = {"", "[]", "7", "{", "{\"a\":1,\"a\":2}"};
    for (size_t i = 0; i < ZQ_LEN(bad); i++) {
        put_text("config.json", bad[i]);
        refused(ZQ_EFORMAT, "config.json");
    }
}

static void a_wrong_index_is_refused(void **state)
{
    (void)state;
    static const struct { const char *index, *says; } cases[] = {
        {"", INDEX},
        {"[]", INDEX},
        {"{}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{\"weight_map\":{\"a\":7}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\"\"}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\"..\"}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\".\"}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\"../model/" TWO "\"}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\"" TWO "\\u0000\"}}", "\"a\""},
        {"{\"weight_map\":{\"a\":\"" ONE "\"}}", ONE " has no tensor \"a\""},
        {"{\"weight_map\":{\"a\":\"" TWO "\",\"q\":\"" TWO "\"}}", TWO " has no tensor \"q\""},
    };
    put_two_shards();
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        put_text(INDEX, cases[i].index);
        refused(ZQ_EFORMAT, cases[i].says);
    }
    put_text(INDEX, "{\"weight_map\":{\"a\":\"three.safetensors\"}}");
    refused(ZQ_EIO, "three.safetensors");
}

/* ---- faults ------------------------------------------------------------------------------------------------------- */

static zq_status open_once(void *unused, zq_error *err)
{
    (void)unused;
    struct zq_checkpoint *c;
    const zq_status st = zq_checkpoint_open(&c, dir, err);
    assert_int_equal(st == ZQ_OK, c != NULL);
    zq_checkpoint_close(c);
    return st;
}

static zq_status refuse_once(void *unused, zq_error *err)
{
    const zq_status st = open_once(unused, err);
    if (st != ZQ_EUNSUPPORTED) return st;
    *err = (zq_error){0};
    return ZQ_OK;
}

static void failing_allocations_are_survived(void **state)
{
    (void)state;
    put_two_shards();
    assert_true(fail_each_allocation(open_once, NULL) > 50);
    assert_int_equal(unlink(in_model(INDEX)), 0);
    put_shard("model.safetensors", "ab", 1);
    assert_true(fail_each_allocation(open_once, NULL) > 20);
    assert_int_equal(unlink(in_model("model.safetensors")), 0);
    put_text("pytorch_model.bin", "x");
    assert_true(fail_each_allocation(refuse_once, NULL) > 5);
}

static void every_cut_is_an_error(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", INDEX, ONE, TWO};
    put_two_shards();
    for (size_t i = 0; i < ZQ_LEN(names); i++) {
        char *text, path[100];
        size_t n;
        assert_int_equal(zq_file_read(&text, &n, in_model(names[i]), 10000, NULL), ZQ_OK);
        snprintf(path, sizeof path, "model/%s", names[i]);
        for (size_t cut = 0; cut < n; cut++) {
            scratch_write(path, text, cut);
            refused(ZQ_EFORMAT, names[i]);
        }
        scratch_write(path, text, n);
        zq_free(text);
        zq_checkpoint_close(open_model());
    }
}

/* ---- real models -------------------------------------------------------------------------------------------------- */

static void check_cuts(const char *path)
{
    char *text;
    size_t n;
    assert_int_equal(zq_file_read(&text, &n, path, SIZE_MAX, NULL), ZQ_OK);
    while (n && text[n - 1] == '\n') n--;
    for (size_t i = 0; i < 100; i++) {
        json_t *v;
        assert_int_equal(zq_json_parse(&v, text, n * i / 100, path, NULL), ZQ_EFORMAT);
    }
    zq_free(text);
}

static void check_model(const char *config)
{
    struct zq_checkpoint *c;
    zq_error err = {0};
    char model[1000];
    snprintf(model, sizeof model, "%.*s", (int)(strrchr(config, '/') - config), config);
    if (zq_checkpoint_open(&c, model, &err)) fail_msg("%s", err.message);
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        n_bytes += c->tensors[i]->n_bytes;
        assert_ptr_equal(zq_checkpoint_find(c, c->tensors[i]->name), c->tensors[i]);
    }
    assert_true(n_bytes == c->n_bytes && n_bytes > 200000);
    zq_checkpoint_close(c);
    check_cuts(config);
}

static void real_models_open(void **state)
{
    (void)state;
    const size_t n = shared_each_file("models", "/config.json", check_model);
    if (!n) {
        print_message("skipped: no shared data\n");
        skip();
    }
    assert_true(n >= 13);
    assert_true(shared_each_file("models", ".index.json", check_cuts) >= 1);
}

#define TEST(f) cmocka_unit_test_setup(f, new_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_file_opens),
        TEST(shards_open),
        TEST(the_index_chooses_between_copies),
        TEST(an_empty_index_is_an_empty_model),
        TEST(a_directory_must_be_one),
        TEST(missing_files_are_named),
        TEST(a_wrong_config_is_refused),
        TEST(a_wrong_index_is_refused),
        TEST(failing_allocations_are_survived),
        TEST(every_cut_is_an_error),
        TEST(real_models_open),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
