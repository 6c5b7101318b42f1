/* src/bench: costs against figures worked out by hand, limits of a made-up machine, the profiler's accounts, random weights that look like
 * trained ones, and maps that repeat. No test looks at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/repeat.h"
#include "bench/profile.h"
#include "bench/random.h"
#include "bench/unfused.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static zq_error error_text;
#define OK(call) \
    do { if (call) fail_msg("%s: %s", #call, error_text.message); } while (0)

static zq_model *open_shape(const char *name, const char *scheme, size_t n_layers, bool embeddings_int8)
{
    zq_model *m;
    const zq_shape_options o = {.open = {.n_threads = 1}, .scheme = scheme, .n_layers = n_layers, .embeddings_int8 = embeddings_int8};
    OK(zq_shape_open(&m, name, &o, &error_text));
    return m;
}

static void costs_of_an_encoder(void **state)
{
    (void)state;
    zq_model *m = open_shape("bert-base", "w8a8", 1, false);
    const struct zq_cost c = zq_cost_of_step(m, 2, 16, 0, 4);
    /* 4 maps of 768 x 768, two of 768 x 3072; a scale of 4 bytes for each row */
    const double weights = 4.0 * 768 * 768 + 2.0 * 768 * 3072;
    assert_true(c.ops[ZQ_WORK_INT8] == 2 * 32 * weights);
    assert_true(c.ops[ZQ_WORK_INT4] == 0 && c.ops[ZQ_WORK_F32] == 0 && c.ops[ZQ_WORK_BF16] == 0);
    assert_true(c.weight_bytes == weights + 4.0 * (4 * 768 + 3072 + 768));
    assert_true(c.other_bytes == 0); /* keys and values of an encoder are those of the step */
    zq_model_close(m);
}

static void costs_of_a_decoder(void **state)
{
    (void)state;
    zq_model *m = open_shape("gpt-350m", "w4/8a8", 2, true);
    const struct zq_cost c = zq_cost_of_step(m, 3, 1, 100, 4);
    const double attention = 2 * (3072.0 * 1024 + 1024 * 1024), ffn = 2 * (2.0 * 4096 * 1024), head = 50257.0 * 1024;
    assert_true(c.ops[ZQ_WORK_INT8] == 2 * 3 * attention);
    assert_true(c.ops[ZQ_WORK_INT4] == 2 * 3 * ffn);
    assert_true(c.ops[ZQ_WORK_F32] == 2 * 3 * head);
    /* INT8: F32 scales of rows; INT4: groups of 64 with scales of 2 bytes; the head's rows are those of the embedding */
    assert_true(c.weight_bytes == attention + 2 * 4096 * 4.0 + ffn / 2 + ffn / 64 * 2 + head + 50257 * 4.0);
    /* keys and values of 100 tokens before, 3 sequences, 2 layers of 1024 floats */
    assert_true(c.other_bytes == 2.0 * 100 * 3 * 2 * 1024 * 4);
    /* a prompt reads no more weights, and multiplies the head for one token of each sequence only */
    const struct zq_cost prompt = zq_cost_of_step(m, 3, 50, 0, 4);
    assert_true(prompt.weight_bytes == c.weight_bytes && prompt.ops[ZQ_WORK_F32] == c.ops[ZQ_WORK_F32]);
    assert_true(prompt.ops[ZQ_WORK_INT4] == 50 * c.ops[ZQ_WORK_INT4] && prompt.other_bytes == 0);
    assert_true(zq_model_bytes(m) == c.weight_bytes);
    m->kernels.bf16 = true;
    const struct zq_cost bf16 = zq_cost_of_step(m, 3, 1, 100, 4);
    assert_true(c.ops[ZQ_WORK_F32] > 0 && bf16.ops[ZQ_WORK_BF16] == c.ops[ZQ_WORK_F32] && bf16.ops[ZQ_WORK_F32] == 0);
    zq_model_close(m);
}

static void limits_of_a_machine(void **state)
{
    (void)state;
    struct zq_machine m = {.memory = {0, 1e10}, .cache = {0, 1e11}};
    m.ops[0][ZQ_WORK_INT8] = (struct zq_rate){0, 1e12};
    m.ops[0][ZQ_WORK_F32] = (struct zq_rate){0, 1e11};
    m.ops[2][ZQ_WORK_INT8] = (struct zq_rate){0, 4e12};
    struct zq_cost c = {.ops = {[ZQ_WORK_INT8] = 4e9}, .weight_bytes = 1e6, .other_bytes = 1e6};
    struct zq_limit limit = zq_limit_of(&c, &m, ZQ_LEVEL_AVX2, false);
    assert_true(fabs(limit.seconds - 4e-3) < 1e-12);
    assert_string_equal(limit.bound, "int8 avx2");
    limit = zq_limit_of(&c, &m, ZQ_LEVEL_AVX2 | ZQ_LEVEL_AVX512VNNI, false);
    assert_true(fabs(limit.seconds - 1e-3) < 1e-12);
    assert_string_equal(limit.bound, "int8 avx512vnni");
    c.weight_bytes = 99e6;
    limit = zq_limit_of(&c, &m, ZQ_LEVEL_AVX2, false);
    assert_true(fabs(limit.seconds - 1e-2) < 1e-12);
    assert_string_equal(limit.bound, "memory");
    c.ops[ZQ_WORK_INT8] = 1e8;
    limit = zq_limit_of(&c, &m, ZQ_LEVEL_AVX2, true);
    assert_true(fabs(limit.seconds - 1e-3) < 1e-12);
    assert_string_equal(limit.bound, "cache");
    c.ops[ZQ_WORK_INT8] = 4e9;
    c.ops[ZQ_WORK_F32] = 1e9; /* kinds of work add up; the one that takes longest gives the name */
    limit = zq_limit_of(&c, &m, ZQ_LEVEL_AVX2, true);
    assert_true(fabs(limit.seconds - 14e-3) < 1e-12);
    assert_string_equal(limit.bound, "f32 avx2");
    c = (struct zq_cost){.ops = {[ZQ_WORK_BF16] = 4e9}};
    assert_true(isnan(zq_limit_of(&c, &m, ZQ_LEVEL_AVX2, false).seconds)); /* no units */
    m.ops[3][ZQ_WORK_BF16] = (struct zq_rate){0, 2e12};
    limit = zq_limit_of(&c, &m, ZQ_LEVEL_AVX2 | ZQ_LEVEL_AVX512VNNI | ZQ_LEVEL_AVX512BF16, false);
    assert_true(fabs(limit.seconds - 2e-3) < 1e-12);
    assert_string_equal(limit.bound, "bf16 avx512bf16");
    assert_true(isnan(zq_limit_of(&c, &m, 0, false).seconds)); /* plain C has no peak */
}

/* The profile of a step counts the same products and weights as the step's cost, and every operator of a block. */
static void profiles_of_steps(void **state)
{
    (void)state;
    static const struct { const char *shape; int norms, maps; } cases[] = {{"minilm", 4, 6}, {"gpt-350m", 5, 4}, {"tinyllama-1.1b", 5, 7}};
    for (size_t i = 0; i < 3; i++) {
        zq_model *m = open_shape(cases[i].shape, "w4/8a8", 2, true);
        zq_session *s;
        const zq_session_options o = {.n_threads = 1, .n_sequences = 2, .max_length = 8, .max_batch_tokens = 16};
        OK(zq_session_create(&s, m, &o, &error_text));
        const int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        const zq_input in[2] = {{.sequence = 0, .ids = ids, .n = 5}, {.sequence = 1, .ids = ids, .n = 5}};
        struct zq_profile p = {0};
        zq_profile_begin(&p, s);
        OK(zq_session_step(s, in, 2, &error_text));
        assert_true(zq_profile_end(&p, s));
        struct zq_cost maps = {0};
        const struct zq_cost step = zq_cost_of_step(m, 2, 5, 0, 4);
        size_t n_maps = 0;
        double seconds = 0;
        for (int l = 0; l < ZQ_PROFILE_LINES; l++) {
            if (l >= ZQ_PROFILE_MAPS || l == ZQ_PROFILE_HEAD) zq_cost_add(&maps, &p.lines[l].cost);
            if (l >= ZQ_PROFILE_MAPS) n_maps += p.lines[l].n_calls;
            seconds += p.lines[l].seconds;
        }
        assert_int_equal(n_maps, 2 * cases[i].maps);
        assert_int_equal(p.lines[ZQ_PROFILE_EMBED].n_calls, 1);
        assert_int_equal(p.lines[ZQ_PROFILE_NORM].n_calls, cases[i].norms);
        assert_int_equal(p.lines[ZQ_PROFILE_ACTIVATE].n_calls, 2);
        assert_int_equal(p.lines[ZQ_PROFILE_ATTENTION].n_calls, 2);
        for (enum zq_work w = 0; w < ZQ_N_WORKS; w++) assert_true(maps.ops[w] == step.ops[w]);
        assert_true(maps.weight_bytes == step.weight_bytes);
        assert_true(fabs(seconds - p.steps.seconds[0]) < 1e-9); /* nothing is counted twice or lost */
        /* per token: scores and values of each key that it sees, 1 to 5 of a decoder, all 5 of an encoder */
        const double pairs = i ? 2 * 15 : 2 * 25, width = (double)(m->config.n_heads * m->config.head_dim);
        assert_true(p.lines[ZQ_PROFILE_ATTENTION].cost.ops[ZQ_WORK_F32] == 2 * 4 * pairs * width);
        zq_profile_free(&p);
        zq_session_close(s);
        zq_model_close(m);
    }
}

/* Outputs [n] of a prompt of two sequences, or of the step of one token each after it. */
static float *run_steps(zq_model *m, bool unfused, bool decode, size_t *n)
{
    zq_session *s;
    struct zq_unfused *u = NULL;
    const zq_session_options o = {.n_threads = 2, .n_sequences = 2, .max_length = 24, .max_batch_tokens = 48};
    OK(zq_session_create(&s, m, &o, &error_text));
    if (unfused) OK(zq_unfused_begin(&u, s, &error_text));
    int32_t ids[24];
    for (int i = 0; i < 24; i++) ids[i] = 7 * i + 1;
    zq_input in[2] = {{.sequence = 0, .ids = ids, .n = 21}, {.sequence = 1, .ids = ids + 3, .n = 18}};
    OK(zq_session_step(s, in, 2, &error_text));
    in[0].n = in[1].n = 1;
    if (decode) OK(zq_session_step(s, in, 2, &error_text));
    size_t rows;
    const bool encoder = m->config.kind == ZQ_ENCODER;
    const float *from = encoder ? zq_session_hidden(s, m->config.n_layers, &rows) : zq_session_logits(s, &rows);
    *n = rows * (encoder ? m->config.width : m->config.vocab);
    float *out = malloc(*n * sizeof *out);
    memcpy(out, from, *n * sizeof *out);
    zq_unfused_end(u);
    zq_session_close(s);
    return out;
}

/* Without fusion the same is computed, up to the rounding of a scale that is multiplied later, and codes that it tips over. */
static void unfused_steps_agree(void **state)
{
    (void)state;
    static const struct { const char *shape, *scheme; } cases[] = {{"minilm", "w8a8"}, {"gpt-350m", "w4/8a8"}, {"tinyllama-1.1b", "w4a8"},
                                                                  {"minilm", "w8a8/16"}};
    for (size_t i = 0; i < 4; i++) {
        zq_model *m = open_shape(cases[i].shape, cases[i].scheme, 2, true);
        for (int decode = 0; decode <= (m->config.arch->causal ? 1 : 0); decode++) {
            size_t n, n_unfused;
            float *want = run_steps(m, false, decode, &n), *got = run_steps(m, true, decode, &n_unfused);
            double error_sum = 0, sum = 0;
            assert_int_equal(n, n_unfused);
            for (size_t k = 0; k < n; k++) {
                error_sum += (double)(got[k] - want[k]) * (got[k] - want[k]);
                sum += (double)want[k] * want[k];
            }
            if (!(sqrt(error_sum / sum) < 0.02)) fail_msg("%s %s: relative error %g", cases[i].shape, cases[i].scheme, sqrt(error_sum / sum));
            free(want);
            free(got);
        }
        zq_model_close(m);
    }
}

/* On a device the passes add nothing to what is computed: the same bits. */
static void unfused_steps_on_a_device_agree(void **state)
{
    (void)state;
    zq_model *m;
    const zq_shape_options o = {.open = {.n_threads = 1, .device = "cuda-host"}, .scheme = "w8a8", .n_layers = 1};
    const zq_status st = zq_shape_open(&m, "minilm", &o, &error_text);
    if (st == ZQ_EUNSUPPORTED) skip(); /* no C++ compiler, so no simulated device */
    assert_int_equal(st, ZQ_OK);
    size_t n, n_unfused;
    float *want = run_steps(m, false, false, &n), *got = run_steps(m, true, false, &n_unfused);
    assert_int_equal(n, n_unfused);
    assert_memory_equal(got, want, n * sizeof *got);
    free(want);
    free(got);
    zq_model_close(m);
}

/* A step d leaves d^2 / 12. Of n normal values with sigma 1, d = max(max / 7, -min / 8): sqrt(E[d^2] / 12) by 6000 draws in Python. */
static void rounding_errors(void **state)
{
    (void)state;
    zq_model *m = open_shape("minilm", "f32", 2, false);
    static const struct { const char *scheme, *group; double error; } cases[] = {{"w4a8", "k:64", 0.1026}, {"w4a8", "k:32", 0.0932}};
    double error, finer;
    for (size_t i = 0; i < 2; i++) {
        OK(zq_rounding_error(m, cases[i].scheme, cases[i].group, &error, &error_text));
        if (fabs(error - cases[i].error) > 0.02 * error) fail_msg("%s: %g, expected %g", cases[i].group, error, cases[i].error);
    }
    OK(zq_rounding_error(m, "w8a8", "tensor", &error, &error_text));
    OK(zq_rounding_error(m, "w8a8", "channel", &finer, &error_text));
    assert_true(finer < error && error < 0.02);
    zq_model_close(m);
}

/* Codes are distributed as those of trained matrices are, roughly; scales are positive; no two neighbouring rows are the same. */
static void random_weights_look_normal(void **state)
{
    (void)state;
    zq_model *m = open_shape("minilm", "w4/8a8", 1, true);
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_stored *w = &m->stored[i];
        int8_t codes[2 * 1536];
        float scales[2 * 64];
        double sum = 0, squares = 0;
        assert_true(w->n_cols <= 1536 && w->storage != ZQ_STORED_FLOAT);
        for (size_t r = 0; r + 2 <= w->n_rows && r < 200; r += 2) {
            zq_stored_codes(w, r, 2, codes);
            zq_stored_scales(w, r, 2, scales);
            assert_true(memcmp(codes, codes + w->n_cols, w->n_cols) != 0);
            for (size_t g = 0; g < 2 * zq_spec_n_groups(w->spec, w->n_cols); g++) assert_true(scales[g] > 0 && scales[g] < 0.1f);
            for (size_t k = 0; k < 2 * w->n_cols; k++) {
                sum += codes[k];
                squares += (double)codes[k] * codes[k];
            }
        }
        const double n = 200.0 * (double)w->n_cols, sigma = w->spec.w_bits == 8 ? 35 : 2.9;
        assert_true(fabs(sum / n) < 0.02 * sigma);
        assert_true(fabs(sqrt(squares / n) - sigma) < 0.05 * sigma);
    }
    zq_model_close(m);
}

static void every_shape_opens(void **state)
{
    (void)state;
    size_t n = 0;
    for (const char *name; (name = zq_shape_name(n)); n++) {
        const zq_shape_options o = {.open = {.n_threads = 1, .header_only = true}, .scheme = "w4a8", .embeddings_int8 = true};
        zq_model *m;
        OK(zq_shape_open(&m, name, &o, &error_text));
        zq_model_info info;
        zq_model_info_get(m, &info);
        assert_true(info.quantized && info.bits_per_weight == 4.25); /* INT4 and 16 bits of scale for 64 */
        if (!strcmp(name, "gpt-neox-20b")) { /* its model card: 20,554,567,680 parameters */
            assert_true(info.n_parameters > 20500000000 && info.n_parameters < 20600000000);
            assert_int_equal(info.n_layers, 44);
        }
        zq_model_close(m);
    }
    assert_int_equal(n, 8);
}

/* A float model must read its weights from memory, so each has some of its own; tensors of a quantized one share a few megabytes. */
static void only_float_models_have_weights_of_their_own(void **state)
{
    (void)state;
    const struct zq_shape *shape;
    OK(zq_shape_find(&shape, "minilm", &error_text));
    for (int quantized = 0; quantized < 2; quantized++) {
        const int bits = quantized ? 8 : 16;
        const struct zq_random_options o = {.scheme = {"", {bits, bits}, {bits, bits}, {bits, bits}}, .dtype = ZQ_BF16};
        struct zq_checkpoint *ckpt;
        OK(zq_random_checkpoint(&ckpt, shape, &o, &error_text));
        const struct zq_tensor *a = zq_checkpoint_find(ckpt, "encoder.layer.0.output.dense.weight");
        const struct zq_tensor *b = zq_checkpoint_find(ckpt, "encoder.layer.1.output.dense.weight");
        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal(a->n_bytes, 384 * 1536 * (quantized ? 1 : 2));
        const bool apart = a->bytes + a->n_bytes <= b->bytes || b->bytes + b->n_bytes <= a->bytes;
        if (!quantized) assert_true(apart);
        assert_ptr_equal(json_object_get(ckpt->config, "quantization_config") != NULL, quantized);
        size_t mapped = 0;
        for (size_t f = 0; f < ckpt->n_files; f++) mapped += ckpt->files[f].map.n_bytes;
        assert_true(quantized || mapped >= ckpt->n_bytes / 100 * 99);
        zq_checkpoint_close(ckpt);
    }
}

static void maps_repeat(void **state)
{
    (void)state;
    enum { PERIOD = 1 << 16, N = 3 * PERIOD + 1234 };
    uint8_t *tile = malloc(PERIOD);
    for (size_t i = 0; i < PERIOD; i++) tile[i] = (uint8_t)(i * 31 + i / 256);
    for (int own = 0; own < 2; own++) {
        struct zq_map map;
        OK(zq_map_repeat(&map, tile, PERIOD, N, own, &error_text));
        assert_int_equal(map.n_bytes, N);
        for (size_t i = 0; i < N; i++) assert_int_equal(map.bytes[i], tile[i % PERIOD]);
        zq_map_drop(&map, map.bytes, N);
        for (size_t i = 0; i < N; i += 999) assert_int_equal(map.bytes[i], tile[i % PERIOD]);
        zq_map_close(&map);
    }
    free(tile);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    zq_model *m;
    const zq_shape_options o = {.open = {.n_threads = 1}, .scheme = "w4a8", .n_layers = 1};
    json_set_alloc_funcs(zq_alloc, zq_free);
    zq_alloc_fail_at(0, false);
    OK(zq_shape_open(&m, "minilm", &o, &error_text));
    const size_t n = zq_alloc_count();
    zq_model_close(m);
    for (size_t i = 1; i <= n; i += i < 300 ? 3 : 31) { /* opening is tested elsewhere for every n */
        zq_alloc_fail_at(i, true);
        const zq_status st = zq_shape_open(&m, "minilm", &o, &error_text);
        zq_alloc_fail_at(0, false);
        if (st != ZQ_ENOMEM || m) fail_msg("allocation %zu of %zu failed, status %d: %s", i, n, st, error_text.message);
    }
    json_set_alloc_funcs(malloc, free);
}

static void medians(void **state)
{
    (void)state;
    struct zq_samples s = {0};
    static const double seconds[] = {5, 1, 4, 2};
    for (size_t i = 0; i < 4; i++) assert_true(zq_samples_add(&s, seconds[i]));
    assert_true(zq_samples_median(&s) == 3 && zq_samples_best(&s) == 1);
    assert_true(zq_samples_add(&s, 100) && zq_samples_median(&s) == 4);
    zq_samples_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_of_an_encoder),          cmocka_unit_test(costs_of_a_decoder),
        cmocka_unit_test(limits_of_a_machine),          cmocka_unit_test(profiles_of_steps),
        cmocka_unit_test(rounding_errors),            cmocka_unit_test(unfused_steps_agree),
        cmocka_unit_test(unfused_steps_on_a_device_agree),
              cmocka_unit_test(every_shape_opens),
        cmocka_unit_test(random_weights_look_normal),
        cmocka_unit_test(only_float_models_have_weights_of_their_own),
        cmocka_unit_test(maps_repeat),                  cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(medians),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
