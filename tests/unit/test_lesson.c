/* The machine around distillation: its streams are what the models themselves compute, samples are what was asked for, and every
 * failing allocation is an error that leaves nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "compress/lesson.h"
#include "compress/samples.h"
#include "fail_alloc.h"
#include "made_models.h"
#include "shared.h"

enum { N_SAMPLES = 4, LENGTH = 8 };

static const zq_quantize_options asked = {.scheme = "w8a8", .lkd = "paper", .data = "random", .samples = N_SAMPLES, .length = LENGTH,
                                          .iterations = 2, .batch = 2, .rate = 1e-4f, .seed = 5, .n_threads = 1};

static const float *read_streams(struct zq_map *map, const char *path, size_t n_values)
{
    assert_int_equal(zq_map_open(map, path, NULL), ZQ_OK);
    assert_int_equal(map->n_bytes, 2 * n_values * sizeof(float));
    return (const float *)(const void *)map->bytes;
}

/* hidden states [N_SAMPLES, length, width] of a model after `layer` blocks, each text of a sample by itself */
static void hidden_states(const char *dir, const int32_t *ids, size_t length, size_t layer, size_t width, float *out)
{
    zq_model *m;
    zq_session *s;
    const zq_session_options so = {.n_threads = 1, .max_length = length, .max_batch_tokens = length, .keep_hidden = true};
    assert_int_equal(zq_model_open(&m, dir, NULL, NULL), ZQ_OK);
    assert_int_equal(zq_session_create(&s, m, &so, NULL), ZQ_OK);
    size_t lengths[ZQ_MAX_TEXTS], n_texts = zq_texts(lengths, &m->config, length);
    for (size_t i = 0; i < N_SAMPLES * n_texts; ids += lengths[i % n_texts], out += lengths[i % n_texts] * width, i++) {
        const zq_input input = {.ids = ids, .n = lengths[i % n_texts]};
        assert_int_equal(zq_session_rewind(s, 0, 0, NULL), ZQ_OK);
        assert_int_equal(zq_session_step(s, &input, 1, NULL), ZQ_OK);
        memcpy(out, zq_session_hidden(s, layer, NULL), input.n * width * sizeof *out);
    }
    zq_session_close(s);
    zq_model_close(m);
}

static void texts_of_a_sample(void **state)
{
    (void)state;
    static const struct { zq_model_kind kind; size_t n_tokens, n, lengths[5]; } cases[] = {
        {ZQ_DECODER, 256, 1, {256}}, {ZQ_ENCODER, 256, 5, {128, 64, 32, 16, 16}}, {ZQ_ENCODER_MLM, 100, 3, {50, 25, 25}},
        {ZQ_ENCODER_CLASSIFY, 31, 1, {31}}, {ZQ_ENCODER, 33, 2, {16, 17}}, {ZQ_ENCODER, 1, 1, {1}},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        size_t lengths[ZQ_MAX_TEXTS];
        const struct zq_config config = {.kind = cases[i].kind};
        assert_int_equal(zq_texts(lengths, &config, cases[i].n_tokens), cases[i].n);
        assert_memory_equal(lengths, cases[i].lengths, cases[i].n * sizeof *lengths);
    }
    const struct zq_config config = {.kind = ZQ_ENCODER};
    size_t lengths[ZQ_MAX_TEXTS], sum = 0;
    const size_t n = zq_texts(lengths, &config, (size_t)1 << 50);
    assert_in_range(n, 2, ZQ_MAX_TEXTS);
    for (size_t i = 0; i < n; i++) sum += lengths[i];
    assert_true(sum == (size_t)1 << 50);
}

static void assert_close(const float *got, const float *want, size_t n, double bound)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    if (!(sqrt(error / norm) < bound)) fail_msg("off by %g of the norm, the bound is %g", sqrt(error / norm), bound);
}

static void test_chance(void **state)
{
    (void)state;
    assert_true(zq_samples_chance("self", ZQ_DECODER) == 0 && zq_samples_chance("random", ZQ_DECODER) == 1);
    assert_true(zq_samples_chance("a.txt:3,random,b.txt:2,self:2", ZQ_DECODER) == 0.125);
    assert_true(zq_samples_chance("a.txt,self:3", ZQ_ENCODER) == 0.75 && zq_samples_chance("self", ZQ_ENCODER_CLASSIFY) == 1);
    assert_true(zq_samples_chance("self", ZQ_ENCODER_MLM) == 0 && zq_samples_chance("self:-1", ZQ_DECODER) == 0);
}

/* Through one block: the teacher's stream is the original model's, the student's that of the directory that is written. */
static void streams_are_what_the_models_compute(const struct shape *shape, const char *name, size_t length)
{
    const char *source = make_model(name, shape), *out = scratch_path("distilled");
    const size_t width = shape->width, n_values = N_SAMPLES * length * width;
    zq_quantize_options o = asked;
    o.force = true;
    o.length = length;
    assert_int_equal(zq_quantize(source, out, &o, NULL, NULL), ZQ_OK);

    struct zq_plan plan;
    struct zq_lesson *lesson;
    struct zq_lesson_block block;
    const struct zq_means means = {.n_threads = 2};
    assert_int_equal(zq_plan_make(&plan, source, &o, NULL), ZQ_OK);
    assert_int_equal(plan.lesson.n_held, 1);
    assert_int_equal(zq_lesson_open(&lesson, &plan, NULL, &means, NULL), ZQ_OK);
    int32_t *ids = zq_alloc_array(N_SAMPLES * length, sizeof *ids);
    zq_model *model;
    const struct zq_sample_request request = {.sources = "random", .n = N_SAMPLES, .length = length, .seed = asked.seed, .n_threads = 1};
    assert_int_equal(zq_model_open(&model, source, NULL, NULL), ZQ_OK);
    assert_int_equal(zq_samples_make(ids, &request, model, NULL), ZQ_OK);
    zq_model_close(model);

    float *want = zq_alloc(n_values * sizeof *want);
    struct zq_map map = {0};
    for (size_t layer = 0; layer < shape->layers; layer++) { /* what enters a block: the last one's output is seen through the final norm */
        assert_int_equal(zq_lesson_save(lesson, scratch_path("streams"), NULL), ZQ_OK);
        const float *streams = read_streams(&map, scratch_path("streams"), n_values);
        hidden_states(source, ids, length, layer, width, want);
        assert_close(streams, want, n_values, 1e-5);
        hidden_states(out, ids, length, layer, width, want);
        assert_close(streams + n_values, want, n_values, 1e-3);
        zq_map_close(&map);
        assert_int_equal(zq_lesson_solve(lesson, layer, 0, &block, NULL), ZQ_OK);
        assert_true(block.after <= block.before);
    }
    zq_free(want);
    zq_free(ids);
    zq_lesson_close(lesson);
    zq_plan_free(&plan);
}

static void streams_of_llama(void **state)
{
    (void)state;
    streams_are_what_the_models_compute(&tiny_llama, "llama", LENGTH);
}

static void streams_of_gpt2(void **state)
{
    (void)state;
    streams_are_what_the_models_compute(&tiny_gpt2, "gpt2", LENGTH);
}

static void streams_of_bert(void **state)
{
    (void)state;
    streams_are_what_the_models_compute(&tiny_bert, "bert", 6 * LENGTH); /* texts of 24 and 24 tokens */
}

/* Each text has the frame, and what is between follows on in the file. */
static void texts_of_an_encoder_are_framed(void **state)
{
    (void)state;
    enum { FRAMED = 48, TEXT = 44 };
    const char *source = make_model("frames", &tiny_bert);
    put_file(source, "vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\ne\nf\ng\nh\n");
    char text[2 * TEXT + 1];
    for (size_t i = 0; i < TEXT; i++) sprintf(text + 2 * i, "%c ", (int)('a' + i % 8));
    const char *path = scratch_text("letters", text);
    zq_model *model;
    int32_t ids[FRAMED];
    const struct zq_sample_request request = {.sources = path, .n = 1, .length = FRAMED, .n_threads = 1};
    assert_int_equal(zq_model_open(&model, source, NULL, NULL), ZQ_OK);
    assert_int_equal(zq_samples_make(ids, &request, model, NULL), ZQ_OK);
    for (size_t i = 0, letter = 0; i < FRAMED; i++)
        assert_int_equal(ids[i], i % 24 == 0 ? 1 : i % 24 == 23 ? 2 : 3 + (int)(letter++ % 8));
    zq_model_close(model);
}

/* A text of many passages: windows that reach from one into the next, as all places do here, hold what the text holds. */
static void windows_cross_passages(void **state)
{
    (void)state;
    enum { LINE = 80, N_LINES = 60000, N_IDS = 8 * N_LINES, FRAMED = 48, TEXT = 44, N_WINDOWS = N_IDS / TEXT };
    const char *source = make_model("passages", &tiny_bert);
    char word[LINE], line[LINE + 1];
    memset(word, 'h', sizeof word);
    snprintf(line, sizeof line, "a b c d e f g %.65s\n", word);
    assert_int_equal(strlen(line), LINE);
    char *text = zq_alloc((size_t)LINE * N_LINES + 1), vocab[200];
    for (size_t i = 0; i < N_LINES; i++) memcpy(text + i * LINE, line, LINE + 1);
    snprintf(vocab, sizeof vocab, "[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\ne\nf\ng\n%.65s\n", word);
    put_file(source, "vocab.txt", vocab);
    const char *path = scratch_text("long", text);
    zq_model *model;
    int32_t *ids = zq_alloc_array((size_t)N_WINDOWS * FRAMED, sizeof *ids);
    const struct zq_sample_request request = {.sources = path, .n = N_WINDOWS, .length = FRAMED, .n_threads = 1};
    assert_int_equal(zq_model_open(&model, source, NULL, NULL), ZQ_OK);
    assert_int_equal(zq_samples_make(ids, &request, model, NULL), ZQ_OK);
    for (size_t w = 0; w < N_WINDOWS; w++) {
        size_t at = (size_t)((double)(N_IDS - TEXT) * (double)w / (N_WINDOWS - 1));
        for (size_t i = 0; i < FRAMED; i++)
            if (ids[w * FRAMED + i] != (i % 24 == 0 ? 1 : i % 24 == 23 ? 2 : 3 + (int)(at++ % 8))) fail_msg("window %zu, place %zu", w, i);
    }
    zq_model_close(model);
    zq_free(ids);
    zq_free(text);
}

/* Nothing of a text that has words is lost or doubled where passages meet, whatever the tokenizer makes of spaces. */
static void expect_ids_of_the_whole(const char *config)
{
    enum { LONG = 64, N_WINDOWS = 2000 };
    char dir[1000];
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(config, '/') - config), config);
    zq_model *model;
    if (zq_model_open(&model, dir, NULL, NULL)) return; /* a directory of another kind */
    if (!zq_model_tokenizer(model) || model->config.kind != ZQ_DECODER) {
        zq_model_close(model);
        return;
    }
    const char *path = "models/novels/heldout.txt";
    char *text;
    size_t n_bytes;
    zq_ids whole = {0};
    int32_t *ids = zq_alloc_array((size_t)N_WINDOWS * LONG, sizeof *ids);
    const struct zq_sample_request request = {.sources = path, .n = N_WINDOWS, .length = LONG, .n_threads = 1};
    assert_int_equal(zq_file_read(&text, &n_bytes, path, 1 << 20, NULL), ZQ_OK);
    assert_int_equal(zq_tokenizer_encode(zq_model_tokenizer(model), text, n_bytes, NULL, 0, false, &whole, NULL), ZQ_OK);
    assert_int_equal(zq_samples_make(ids, &request, model, NULL), ZQ_OK);
    for (size_t w = 0; w < N_WINDOWS; w++) {
        const size_t at = (size_t)((double)(whole.n - LONG) * (double)w / (N_WINDOWS - 1));
        if (memcmp(ids + w * LONG, whole.ids + at, LONG * sizeof *ids)) fail_msg("%s: window %zu has other ids than the text", dir, w);
    }
    zq_ids_free(&whole);
    zq_free(text);
    zq_free(ids);
    zq_model_close(model);
}

static void passages_have_the_ids_of_the_whole(void **state)
{
    (void)state;
    expect_ids_of_the_whole("models/novels/config.json");
    shared_each_file("models", "/config.json", expect_ids_of_the_whole);
}

static void damaged_streams_are_refused(void **state)
{
    (void)state;
    const char *source = make_model("damaged", &tiny_llama);
    struct zq_plan plan;
    struct zq_lesson *lesson;
    zq_error err;
    const struct zq_means means = {.n_threads = 1};
    assert_int_equal(zq_plan_make(&plan, source, &asked, NULL), ZQ_OK);
    assert_int_equal(zq_file_write(scratch_path("short"), "short", 5, NULL), ZQ_OK);
    assert_int_equal(zq_lesson_open(&lesson, &plan, scratch_path("short"), &means, &err), ZQ_EFORMAT);
    assert_non_null(strstr(err.message, "has 5 bytes"));
    assert_null(lesson);
    zq_plan_free(&plan);
}

enum { N = 20 };

static zq_status make_samples(int32_t *ids, const char *sources, const zq_model *model, int n_threads, zq_error *err)
{
    const struct zq_sample_request request = {.sources = sources, .n = N, .length = LENGTH, .seed = 1, .n_threads = n_threads};
    return zq_samples_make(ids, &request, model, err);
}

static void sources_are_shared_by_weight(void **state)
{
    (void)state;
    const char *source = make_model("shares", &tiny_llama);
    zq_model *model;
    assert_int_equal(zq_model_open(&model, source, NULL, NULL), ZQ_OK);
    int32_t random[N * LENGTH], mixed[N * LENGTH], again[N * LENGTH];
    assert_int_equal(make_samples(random, "random", model, 1, NULL), ZQ_OK);
    assert_int_equal(make_samples(mixed, "random:3,self:1", model, 1, NULL), ZQ_OK);
    assert_int_equal(make_samples(again, "random:3,self:1", model, 2, NULL), ZQ_OK);
    assert_memory_equal(mixed, random, 15 * LENGTH * sizeof *mixed);
    assert_memory_not_equal(mixed + 15 * LENGTH, random + 15 * LENGTH, 5 * LENGTH * sizeof *mixed);
    assert_memory_equal(mixed, again, sizeof mixed);
    for (size_t i = 0; i < N * LENGTH; i++) assert_in_range(mixed[i], 0, tiny_llama.vocab - 1);
    zq_error err;
    static const char *const wrong[] = {"", "self,", ":2", "self:0", "random:-1"};
    for (size_t i = 0; i < ZQ_LEN(wrong); i++)
        assert_int_equal(make_samples(random, wrong[i], model, 1, &err), ZQ_EINVAL);
    zq_model_close(model);
}

/* Where there is a tokenizer, random ids are such as texts are made of. */
static void random_ids_are_of_texts(void **state)
{
    (void)state;
    static const char tokenizer[] = "{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true}], \"model\": {\"type\": \"BPE\", "
        "\"byte_fallback\": true, \"vocab\": {\"<0x0A>\": 0, \"<s>\": 1, \"a\": 7, \"b\": 9, \"c\": 30}, \"merges\": []}}";
    const char *source = make_model("texts", &tiny_llama);
    char path[300];
    snprintf(path, sizeof path, "%s/tokenizer.json", source);
    assert_int_equal(zq_file_write(path, tokenizer, strlen(tokenizer), NULL), ZQ_OK);
    zq_model *model;
    assert_int_equal(zq_model_open(&model, source, NULL, NULL), ZQ_OK);
    int32_t ids[N * LENGTH];
    size_t counts[3] = {0};
    assert_int_equal(make_samples(ids, "random", model, 1, NULL), ZQ_OK);
    for (size_t i = 0; i < N * LENGTH; i++) {
        assert_true(ids[i] == 7 || ids[i] == 9 || ids[i] == 30);
        counts[ids[i] == 7 ? 0 : ids[i] == 9 ? 1 : 2]++;
    }
    assert_true(counts[0] && counts[1] && counts[2]);
    zq_model_close(model);
}

static zq_status distil_once(void *source, zq_error *err)
{
    char out[300];
    snprintf(out, sizeof out, "%s/memory", scratch_dir);
    zq_quantize_options o = asked;
    o.data = "self";
    o.iterations = 1;
    const zq_status st = zq_quantize(source, out, &o, NULL, err);
    if (st) assert_nothing_left(out);
    return st;
}

static void every_failing_allocation_leaves_nothing(void **state)
{
    (void)state;
    struct shape s = tiny_llama;
    s.layers = 2;
    s.width = 32;
    s.ffn = 32;
    const char *source = make_model("memory-model", &s);
    assert_true(fail_each_allocation(distil_once, (void *)(uintptr_t)source) > 300);
}

static int open_in_memory(void **state)
{
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 1);
    return scratch_open(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chance), cmocka_unit_test(texts_of_a_sample), cmocka_unit_test(streams_of_llama),
        cmocka_unit_test(streams_of_gpt2), cmocka_unit_test(streams_of_bert), cmocka_unit_test(texts_of_an_encoder_are_framed),
        cmocka_unit_test(windows_cross_passages), cmocka_unit_test(passages_have_the_ids_of_the_whole),
        cmocka_unit_test(damaged_streams_are_refused), cmocka_unit_test(sources_are_shared_by_weight),
        cmocka_unit_test(random_ids_are_of_texts), cmocka_unit_test(every_failing_allocation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, open_in_memory, scratch_close);
}
