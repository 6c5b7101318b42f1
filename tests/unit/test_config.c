/* config.json in the spellings of transformers 4 and 5, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/config.h"
#include "model/session.h"

#include <math.h>
#include <string.h>

static zq_status parse(struct zq_config *c, const char *text, zq_error *e)
{
    json_t *json;
    assert_int_equal(zq_json_parse(&json, text, strlen(text), "config.json", e), ZQ_OK);
    const zq_status st = zq_config_read(c, json, "config.json", e);
    json_decref(json);
    return st;
}

static struct zq_config good(const char *text)
{
    struct zq_config c;
    zq_error e = {0};
    if (parse(&c, text, &e)) fail_msg("%s", e.message);
    return c;
}

static void bad(zq_status want, const char *text, const char *part)
{
    struct zq_config c;
    zq_error e = {0};
    assert_int_equal(parse(&c, text, &e), want);
    if (!strstr(e.message, part)) fail_msg("\"%s\" does not speak of \"%s\"", e.message, part);
}

#define LLAMA(more)                                                                                                     \
    "{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 8, "           \
    "\"intermediate_size\": 172, \"max_position_embeddings\": 512, \"vocab_size\": 512" more "}"
#define NEOX(more)                                                                                                      \
    "{\"model_type\": \"gpt_neox\", \"hidden_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "        \
    "\"intermediate_size\": 256, \"max_position_embeddings\": 512, \"vocab_size\": 512" more "}"
#define GPT2(more) "{\"model_type\": \"gpt2\", \"n_embd\": 64, \"n_layer\": 2, \"n_head\": 4, \"n_positions\": 128, \"vocab_size\": 512" more "}"
#define BERT(more)                                                                                                      \
    "{\"model_type\": \"bert\", \"hidden_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "            \
    "\"intermediate_size\": 256, \"max_position_embeddings\": 512, \"vocab_size\": 512" more "}"

static void test_both_spellings(void **state)
{
    (void)state;
    const struct zq_config v4 = good(NEOX(", \"rotary_pct\": 0.5, \"rotary_emb_base\": 5000, \"torch_dtype\": \"float16\""));
    const struct zq_config v5 = good(NEOX(
        ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000.0, \"partial_rotary_factor\": 0.5}, \"dtype\": \"float16\""));
    assert_int_equal(v4.n_rotated, 8);
    assert_int_equal(v5.n_rotated, 8);
    assert_true(v4.theta == 5000 && v5.theta == 5000);
    assert_int_equal(v4.dtype, ZQ_F16);
    assert_int_equal(v5.dtype, ZQ_F16);
    assert_int_equal(v4.norm, ZQ_NORM_PARALLEL);
    assert_int_equal(good(NEOX(", \"use_parallel_residual\": false")).norm, ZQ_NORM_PRE);
    assert_int_equal(good(NEOX("")).n_rotated, 4); /* a quarter by default */

    const struct zq_config s4 = good(LLAMA(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}"));
    const struct zq_config s5 = good(LLAMA(", \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4.0, \"rope_theta\": 10000.0}"));
    assert_int_equal(s4.rope, ZQ_ROPE_LINEAR);
    assert_int_equal(s5.rope, ZQ_ROPE_LINEAR);
    assert_true(s4.rope_factor == 4 && s5.rope_factor == 4);
}

static void test_defaults(void **state)
{
    (void)state;
    struct zq_config c = good(LLAMA(""));
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_true(!c.tied && c.gated && c.final_norm);
    c = good(LLAMA(", \"num_key_value_heads\": 2, \"head_dim\": 32, \"tie_word_embeddings\": true"));
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.head_dim, 32);
    assert_true(c.tied);
    c = good(GPT2(", \"n_inner\": null"));
    assert_int_equal(c.ffn_width, 256);
    assert_int_equal(c.activation, ZQ_ACT_GELU_TANH);
    assert_true(c.tied && c.kind == ZQ_DECODER);
    c = good(BERT(", \"architectures\": [\"BertForSequenceClassification\"], \"id2label\": {\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}"));
    assert_int_equal(c.kind, ZQ_ENCODER_CLASSIFY);
    assert_int_equal(c.n_labels, 3);
    assert_int_equal(good(BERT(", \"architectures\": [\"BertForMaskedLM\"]")).kind, ZQ_ENCODER_MLM);
    assert_int_equal(good(BERT("")).kind, ZQ_ENCODER);
}

static void test_refused(void **state)
{
    (void)state;
    bad(ZQ_EUNSUPPORTED, "{\"model_type\": \"mamba\"}", "only bert, gpt2, gptj, gpt_neox, opt, llama, mistral, qwen2 are");
    bad(ZQ_EFORMAT, "{}", "model_type");
    bad(ZQ_EFORMAT, "[]", "not a JSON object");
    bad(ZQ_EFORMAT, "{\"model_type\": \"gpt2\"}", "n_embd");
    bad(ZQ_EFORMAT, GPT2(", \"n_inner\": -1"), "n_inner");
    bad(ZQ_EFORMAT, LLAMA(", \"num_key_value_heads\": 3"), "8 heads cannot share 3");
    bad(ZQ_EFORMAT, "{\"model_type\": \"gpt2\", \"n_embd\": 65, \"n_layer\": 2, \"n_head\": 4, \"n_positions\": 128, \"vocab_size\": 512}",
        "no multiple");
    bad(ZQ_EUNSUPPORTED, GPT2(", \"activation_function\": \"snake\""), "snake");
    bad(ZQ_EUNSUPPORTED, GPT2(", \"scale_attn_by_inverse_layer_idx\": true"), "scale_attn_by_inverse_layer_idx");
    bad(ZQ_EUNSUPPORTED, LLAMA(", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}"), "yarn");
    bad(ZQ_EFORMAT, LLAMA(", \"rope_scaling\": {\"rope_type\": \"linear\"}"), "factor");
    bad(ZQ_EUNSUPPORTED, BERT(", \"architectures\": [\"BertForQuestionAnswering\"]"), "BertForQuestionAnswering");
    bad(ZQ_EUNSUPPORTED, BERT(", \"position_embedding_type\": \"relative_key\""), "relative_key");
    bad(ZQ_EFORMAT, BERT(", \"hidden_act\": 3"), "hidden_act");
}

/* Rotary tables against libm, where the same floats are rounded, and the three kinds of scaling against their definitions. */
static void test_rotary_tables(void **state)
{
    (void)state;
    enum { POSITIONS = 700, HALF = 4 };
    static float cosine[POSITIONS * HALF], sine[POSITIONS * HALF], scaled[POSITIONS * HALF], scaled_sine[POSITIONS * HALF];
    const struct zq_config plain = good(LLAMA(""));
    zq_rotary_tables(&plain, POSITIONS, cosine, sine);
    for (size_t p = 0; p < POSITIONS; p++) {
        for (size_t i = 0; i < HALF; i++) {
            const float angle = (float)p * (float)(1 / pow(10000, 2.0 * (double)i / 8));
            assert_true(fabs(cosine[p * HALF + i] - cos(angle)) < 4e-8);
            assert_true(fabs(sine[p * HALF + i] - sin(angle)) < 4e-8);
        }
    }
    const struct zq_config linear = good(LLAMA(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}"));
    zq_rotary_tables(&linear, POSITIONS, scaled, scaled_sine);
    for (size_t p = 0; p < POSITIONS / 4; p++) /* four positions of the slow one are one of the fast */
        for (size_t i = 0; i < HALF; i++) assert_true(fabsf(scaled[4 * p * HALF + i] - cosine[p * HALF + i]) < 1e-6f);

    const struct zq_config llama3 = good(LLAMA(", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0,"
                                               " \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 256}"));
    zq_rotary_tables(&llama3, POSITIONS, scaled, scaled_sine);
    assert_true(scaled[HALF] == cosine[HALF]);                     /* wavelength 6.3: kept */
    const double slow = 1e-3 / 8;                                  /* wavelength 6283: divided by the factor */
    assert_true(fabs(scaled_sine[HALF + 3] - sin(slow)) < 1e-9);
    const double wave = 2 * 3.14159265358979 / 1e-1, smooth = (256 / wave - 1) / 3, inv = (1 - smooth) * 1e-1 / 8 + smooth * 1e-1;
    if (smooth > 0 && smooth < 1) assert_true(fabs(scaled_sine[HALF + 1] - sin(inv)) < 1e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_spellings), cmocka_unit_test(test_defaults), cmocka_unit_test(test_refused), cmocka_unit_test(test_rotary_tables),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
