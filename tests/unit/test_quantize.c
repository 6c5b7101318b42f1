/* zq_quantize from directory to directory: every tensor of the output against a reference written from the definition, what is
 * refused, and that bytes depend on nothing but model and options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/half.h"
#include "checkpoint/compressed.h"
#include "compress/matrix.h"
#include "made_models.h"

/* ---- the reference ------------------------------------------------------------------------------------------------ */

/* How a module is expected to be written. */
struct expected {
    int w, a;
    size_t k_group, row_groups;
};
typedef struct expected expect_fn(const char *module);

static const struct zq_tensor *part(const struct zq_checkpoint *out, const char *module, const char *suffix, enum zq_dtype dtype, size_t rows,
                                    size_t cols)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s", module, suffix);
    const struct zq_tensor *t = zq_checkpoint_find(out, name);
    if (!t) fail_msg("%s is missing", name);
    assert_int_equal(t->dtype, dtype);
    assert_int_equal(t->n_dims, cols ? 2 : 1);
    assert_int_equal(t->shape[0], rows);
    if (cols) assert_int_equal(t->shape[1], cols);
    return t;
}

/* Weight (r, k) of a matrix of output channels r, in either orientation. */
static float weight_at(const struct zq_tensor *t, bool turned, size_t n_rows, size_t n_cols, size_t r, size_t k)
{
    float x;
    zq_to_float(&x, t->bytes + (turned ? k * n_rows + r : r * n_cols + k) * zq_dtype_bytes(t->dtype), t->dtype, 1);
    return x;
}

/* Bit by bit: code k of a row lies in bits [k * bits, (k + 1) * bits) of its words. */
static int code_at(const struct zq_tensor *t, int bits, bool packed, bool turned, size_t n_rows, size_t n_cols, size_t r, size_t k)
{
    if (!packed) return (int8_t)t->bytes[turned ? k * n_rows + r : r * n_cols + k];
    const uint8_t *row = t->bytes + r * ((n_cols * (size_t)bits + 31) / 32 * 4);
    int code = 0;
    for (size_t b = 0, at = k * (size_t)bits; b < (size_t)bits; b++, at++) code |= (row[at / 8] >> at % 8 & 1) << b;
    return code - (1 << (bits - 1));
}

static bool is_embedding(const char *module)
{
    return strstr(module, "embed_tokens") || strstr(module, "wte");
}

static void check_module(const struct zq_tensor *source, const struct zq_checkpoint *out, const char *module, struct expected e, bool turned,
                         double relative_error)
{
    const size_t n_rows = source->shape[turned], n_cols = source->shape[!turned];
    const size_t groups = e.k_group ? n_cols / e.k_group : 1, length = n_cols / groups;
    const bool packed = !(e.w == 8 && (is_embedding(module) || (e.a == 8 && !e.k_group)));
    const enum zq_dtype scale_dtype = e.w == 8 && !e.k_group ? ZQ_F32 : source->dtype;
    const float half = (float)(1 << (e.w - 1)), low = e.w == 8 ? -127 : -half, high = half - 1;
    const struct zq_tensor *codes = packed ? part(out, module, ".weight_packed", ZQ_I32, n_rows, (n_cols * (size_t)e.w + 31) / 32)
                                           : part(out, module, ".weight", ZQ_I8, turned ? n_cols : n_rows, turned ? n_rows : n_cols);
    const struct zq_tensor *scales = part(out, module, ".weight_scale", scale_dtype, n_rows, groups);
    if (packed) {
        const struct zq_tensor *shape = part(out, module, ".weight_shape", ZQ_I64, 2, 0);
        assert_memory_equal(shape->bytes, ((int64_t[]){(int64_t)n_rows, (int64_t)n_cols}), 16);
    }
    double error = 0, norm = 0;
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t g = 0; g < groups; g++) {
            float max = -INFINITY, min = INFINITY;
            for (size_t q = 0; q < n_rows; q++) {
                if (e.row_groups ? q * e.row_groups / n_rows != r * e.row_groups / n_rows : q != r) continue;
                for (size_t k = g * length; k < (g + 1) * length; k++) {
                    max = fmaxf(max, weight_at(source, turned, n_rows, n_cols, q, k));
                    min = fminf(min, weight_at(source, turned, n_rows, n_cols, q, k));
                }
            }
            float scale = e.w == 8 ? fmaxf(max, -min) / 127.0f : fmaxf(max / high, -min / half), stored;
            if (scale_dtype == ZQ_F16) scale = zq_f16_to_float(zq_float_to_f16(scale));
            if (scale_dtype == ZQ_BF16) scale = zq_bf16_to_float(zq_float_to_bf16(scale));
            if (scale == 0) scale = 1;
            zq_to_float(&stored, scales->bytes + (r * groups + g) * zq_dtype_bytes(scale_dtype), scale_dtype, 1);
            assert_true(stored == scale);
            for (size_t k = g * length; k < (g + 1) * length; k++) {
                const float w = weight_at(source, turned, n_rows, n_cols, r, k), q = nearbyintf(w / scale);
                const int want = (int)fmaxf(low, fminf(high, q));
                assert_int_equal(code_at(codes, e.w, packed, turned, n_rows, n_cols, r, k), want);
                error += ((double)w - want * (double)scale) * ((double)w - want * (double)scale);
                norm += (double)w * w;
            }
        }
    }
    assert_true(fabs(relative_error - sqrt(error / norm)) < 1e-9);
}

static const zq_plan_entry *entry_of(const zq_quantize_report *report, const char *name)
{
    const zq_plan_entry *e = NULL;
    for (size_t i = 0; (e = zq_quantize_report_entry(report, i)) && strcmp(e->name, name); i++) {}
    return e;
}

/* Every tensor of the source in the output, as expected, and nothing more. */
static void check_output(const char *source_dir, const char *out_dir, expect_fn *expect, const zq_quantize_report *report)
{
    struct zq_checkpoint *source, *out;
    struct zq_compressed *compressed;
    assert_int_equal(zq_checkpoint_open(&source, source_dir, NULL), ZQ_OK);
    assert_int_equal(zq_checkpoint_open(&out, out_dir, NULL), ZQ_OK);
    assert_int_equal(zq_compressed_parse(&compressed, out->config, "config.json", NULL), ZQ_OK);
    const bool gpt2 = !strcmp(json_string_value(json_object_get(source->config, "model_type")), "gpt2");
    const bool tied = json_is_true(json_object_get(source->config, "tie_word_embeddings"));
    size_t n = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < source->n_tensors; i++) {
        const struct zq_tensor *t = source->tensors[i];
        const zq_plan_entry *entry = entry_of(report, t->name);
        assert_non_null(entry);
        assert_int_equal(entry->bytes_in, t->n_bytes);
        char module[300];
        snprintf(module, sizeof module, "%s", t->name);
        char *suffix = strstr(module, ".weight");
        if (suffix) *suffix = '\0';
        const struct expected e = suffix && t->n_dims == 2 ? expect(module) : (struct expected){16, 16, 0, 0};
        if (!e.w) continue;
        if (e.w == 16) {
            const struct zq_tensor *copy = zq_checkpoint_find(out, t->name);
            assert_non_null(copy);
            assert_true(copy->dtype == t->dtype && copy->n_bytes == t->n_bytes && !memcmp(copy->bytes, t->bytes, t->n_bytes));
            assert_true(isnan(entry->relative_error));
            n++;
        } else {
            struct zq_spec spec;
            enum zq_storage storage;
            const bool embedding = is_embedding(module);
            check_module(t, out, module, e, gpt2 && !embedding, entry->relative_error);
            assert_int_equal(zq_compressed_find(compressed, module, embedding ? "Embedding" : "Linear", &spec, &storage, NULL), ZQ_OK);
            assert_true(spec.w_bits == e.w && spec.a_bits == e.a && spec.k_group == e.k_group);
            n += storage == ZQ_STORED_INT ? 2 : 3;
            if (embedding && tied && storage == ZQ_STORED_INT) { /* its scales once more */
                const struct zq_tensor *scale = zq_checkpoint_find(out, gpt2 ? "transformer.wte.weight_scale" : "model.embed_tokens.weight_scale");
                const struct zq_tensor *again = zq_checkpoint_find(out, "lm_head.weight_scale");
                assert_true(scale && again && again->n_bytes == scale->n_bytes && !memcmp(again->bytes, scale->bytes, scale->n_bytes));
                n++;
            }
        }
    }
    assert_int_equal(n, out->n_tensors);
    for (size_t i = 0; i < out->n_tensors; i++) bytes += out->tensors[i]->n_bytes;
    assert_int_equal(bytes, zq_quantize_report_totals(report)->bytes_out);
    zq_compressed_free(compressed);
    zq_checkpoint_close(source);
    zq_checkpoint_close(out);
}

static void run_and_check(const char *source, const zq_quantize_options *options, expect_fn *expect)
{
    const char *out = scratch_path("out");
    zq_quantize_report *report;
    zq_error err = {0};
    zq_quantize_options forced = *options;
    forced.force = true;
    if (zq_quantize(source, out, &forced, &report, &err)) fail_msg("%s", err.message);
    assert_string_equal(err.message, "");
    check_output(source, out, expect, report);
    assert_false(exists("%s.partial", out));
    zq_quantize_report_free(report);
}

static bool in_block(const char *m) { return strstr(m, ".layers.") || strstr(m, ".h."); }
static bool in_ffn(const char *m) { return in_block(m) && strstr(m, "mlp"); }
static bool in_qkv(const char *m) { return strstr(m, "q_proj") || strstr(m, "k_proj") || strstr(m, "v_proj") || strstr(m, "c_attn"); }
static const struct expected kept = {16, 16, 0, 0};

/* K is 64 in the small LLaMA's attention and 96 behind its FFN; 32 in the small GPT-2, and 80 behind its FFN. */
static size_t default_group(const char *m)
{
    if (strstr(m, "down_proj")) return 32;
    if (strstr(m, "mlp.c_proj")) return 0;
    return strstr(m, ".h.") ? 32 : 64;
}

static struct expected w8a8(const char *m) { return in_block(m) ? (struct expected){8, 8, 0, 0} : kept; }
static struct expected w8a16(const char *m) { return in_block(m) ? (struct expected){8, 16, 0, 0} : kept; }
static struct expected w4a8(const char *m) { return in_block(m) ? (struct expected){4, 8, default_group(m), 0} : kept; }
static struct expected w48a8(const char *m) { return in_ffn(m) ? w4a8(m) : w8a8(m); }
static struct expected w8a816(const char *m) { return in_qkv(m) ? w8a16(m) : w8a8(m); }
static struct expected w8a8_rows3(const char *m) { return in_block(m) ? (struct expected){8, 8, 0, 3} : kept; }
static struct expected w4a16_rows3(const char *m) { return in_block(m) ? (struct expected){4, 16, 0, 3} : kept; }
static struct expected w8a8_k32(const char *m) { return in_block(m) ? (struct expected){8, 8, strstr(m, "mlp.c_proj") ? 0 : 32, 0} : kept; }
static struct expected w4a8_all(const char *m)
{
    if (strstr(m, "wpe")) return kept;
    if (strstr(m, "embed_tokens") || strstr(m, "wte")) return (struct expected){4, 16, strstr(m, "wte") ? 32 : 64, 0};
    return in_block(m) ? w4a8(m) : (struct expected){4, 8, 64, 0};
}
static struct expected w38a16_rows3(const char *m)
{
    return in_block(m) ? (struct expected){in_ffn(m) ? 3 : 8, 16, 0, 3} : kept;
}
static struct expected w3a8(const char *m) { return in_block(m) ? (struct expected){3, 8, default_group(m), 0} : kept; }
static struct expected w2a16(const char *m) { return in_block(m) ? (struct expected){2, 16, 0, 0} : kept; }
static struct expected w8a8_embeddings(const char *m)
{
    if (strstr(m, "wpe")) return kept;
    return in_block(m) ? w8a8(m) : (struct expected){8, 16, 0, 0};
}
static struct expected w8a8_no_head(const char *m) { return !strcmp(m, "lm_head") ? (struct expected){0, 0, 0, 0} : w8a8_embeddings(m); }
static struct expected last_rule(const char *m)
{
    if (!strcmp(m, "model.layers.1.mlp.up_proj")) return kept;
    if (strstr(m, "layers.1.")) return (struct expected){4, 16, strstr(m, "down_proj") ? 96 : 0, 0};
    return w8a8(m);
}

/* ---- what is written ---------------------------------------------------------------------------------------------- */

static void every_scheme_follows_the_definition(void **state)
{
    (void)state;
    const struct {
        zq_quantize_options options;
        expect_fn *expect;
    } cases[] = {
        {{0}, w8a8},
        {{.scheme = "w8a16"}, w8a16},
        {{.scheme = "w4a8"}, w4a8},
        {{.scheme = "w4/8a8"}, w48a8},
        {{.scheme = "w8a8/16"}, w8a816},
        {{.scheme = "w8a8", .group = "rows:3"}, w8a8_rows3},
        {{.scheme = "w4a16", .group = "rows:3"}, w4a16_rows3},
        {{.scheme = "w8a8", .group = "rows:100000"}, w8a8},
        {{.scheme = "w8a8", .group = "k:32"}, w8a8_k32},
        {{.embeddings_int8 = true}, w8a8_embeddings},
        {{.scheme = "w3/8a16", .group = "rows:3"}, w38a16_rows3},
        {{.scheme = "w3a8"}, w3a8},
        {{.scheme = "w2a16", .group = "channel"}, w2a16},
        {{.rules = (zq_rule[]){{".*", "w4a8"}}, .n_rules = 1}, w4a8_all},
    };
    const char *llama = make_model("llama", &tiny_llama), *gpt2 = make_model("gpt2", &tiny_gpt2);
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        run_and_check(llama, &cases[i].options, cases[i].expect);
        run_and_check(gpt2, &cases[i].options, cases[i].expect);
    }
}

static void other_dtypes_follow_the_definition(void **state)
{
    (void)state;
    struct shape s = tiny_llama;
    for (int i = 0; i < 2; i++) {
        s.dtype = i ? ZQ_F32 : ZQ_F16;
        const char *source = make_model("dtype", &s);
        run_and_check(source, &(zq_quantize_options){.scheme = "w4a8"}, w4a8);
        run_and_check(source, &(zq_quantize_options){.scheme = "w8a8"}, w8a8);
    }
    s = tiny_gpt2;
    s.dtype = ZQ_F32;
    run_and_check(make_model("dtype", &s), &(zq_quantize_options){.scheme = "w4/8a8"}, w48a8);
}

static void the_last_matching_rule_counts(void **state)
{
    (void)state;
    const zq_rule rules[] = {{"model\\.layers\\.[01]\\..*", "w4a8"}, {"model\\.layers\\.0\\..*", "w8a8"},
                             {"model\\.layers\\.1\\..*", "w4a16,channel"}, {".*\\.1\\.mlp\\.down_proj", "w4a16,k:96"},
                             {"model\\.layers\\.1\\.mlp\\.up_proj", "float"}};
    const char *source = make_model("llama", &tiny_llama);
    run_and_check(source, &(zq_quantize_options){.rules = rules, .n_rules = ZQ_LEN(rules)}, last_rule);
    /* the whole name must match: neither of these matches anything */
    run_and_check(source, &(zq_quantize_options){.rules = (zq_rule[]){{"layers", "float"}, {"model.layers.0", "float"}}, .n_rules = 2}, w8a8);
}

static void a_copy_of_a_tied_head_is_left_out(void **state)
{
    (void)state;
    struct shape s = tiny_llama;
    s.tied = s.head_copy = true;
    run_and_check(make_model("copy", &s), &(zq_quantize_options){.embeddings_int8 = true}, w8a8_no_head);
    run_and_check(make_model("copy", &s), &(zq_quantize_options){0}, w8a8);
}

static void config_keeps_its_text(void **state)
{
    (void)state;
    const char *source = make_model("gpt2", &tiny_gpt2), *out = scratch_path("out");
    zq_remove_tree(out, NULL);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    char *text, path[300];
    snprintf(path, sizeof path, "%s/config.json", out);
    assert_int_equal(zq_file_read(&text, NULL, path, 1 << 20, NULL), ZQ_OK);
    const char start[] = "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": 32, \"n_inner\": 80, \"n_layer\": 2, "
                         "\"vocab_size\": 40, \"n_head\": 2, \"n_positions\": 16, \"tie_word_embeddings\": true,\n  \"quantization_config\": {";
    assert_memory_equal(text, start, sizeof start - 1);
    zq_free(text);
    /* a null is replaced, not doubled */
    put_file(source, "config.json", "{\"quantization_config\": null, \"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], "
             "\"n_embd\": 32, \"n_inner\": 80, \"n_layer\": 2, \"vocab_size\": 40, \"n_head\": 2, \"n_positions\": 16}");
    run_and_check(source, &(zq_quantize_options){0}, w8a8);
}

static void side_files_are_copied(void **state)
{
    (void)state;
    const char *source = make_model("side", &tiny_llama), *out = scratch_path("out");
    const char *const wanted[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "merges.txt", "vocab.json", "spiece.model",
                                  "chat_template.jinja", "modules.json", "sentence_bert_config.json", "LICENSE", "1_Pooling/config.json"};
    const char *const unwanted[] = {"README.md", "pytorch_model.bin", "training_args.bin", ".gitattributes", "golden.json", "logs/tokenizer.json"};
    char path[400];
    snprintf(path, sizeof path, "%s/1_Pooling", source);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/logs", source);
    assert_int_equal(mkdir(path, 0777), 0);
    for (size_t i = 0; i < ZQ_LEN(wanted); i++) put_file(source, wanted[i], wanted[i]);
    for (size_t i = 0; i < ZQ_LEN(unwanted); i++) put_file(source, unwanted[i], unwanted[i]);
    zq_remove_tree(out, NULL);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    for (size_t i = 0; i < ZQ_LEN(wanted); i++) {
        char from[400], to[400];
        snprintf(from, sizeof from, "%s/%s", source, wanted[i]);
        snprintf(to, sizeof to, "%s/%s", out, wanted[i]);
        assert_same_file(from, to);
    }
    for (size_t i = 0; i < ZQ_LEN(unwanted); i++) assert_false(exists("%s/%s", out, unwanted[i]));
    assert_false(exists("%s/logs", out));
    assert_int_equal(scratch_count(out), ZQ_LEN(wanted) + 5); /* config, index, one shard, report and page */
}

static void totals_are_those_of_the_files(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama);
    zq_quantize_report *r;
    assert_int_equal(zq_quantize(source, NULL, &(zq_quantize_options){.scheme = "w4/8a8", .dry_run = true}, &r, NULL), ZQ_OK);
    const zq_quantize_totals *t = zq_quantize_report_totals(r);
    const uint64_t attention = 2 * (64 * 64 + 32 * 64) * 2, ffn = 2 * 3 * 64 * 96;
    assert_int_equal(t->block_values, attention + ffn);
    /* per layer: 8-bit codes and 192 F32 scales; 4-bit codes, one BF16 scale for 64 or 32 of them, three shapes */
    assert_int_equal(t->block_bytes, attention + 2 * 192 * 4 + ffn / 2 + 2 * (2 * 96 * 2 + 64 * 3 * 2 + 3 * 16));
    assert_true(fabs(t->block_ratio - 2.0 * (double)t->block_values / (double)t->block_bytes) < 1e-12);
    assert_true(fabs(t->bits_per_weight - 8.0 * (double)t->block_bytes / (double)t->block_values) < 1e-12);
    assert_true(fabs(t->file_ratio - (double)t->bytes_in / (double)t->bytes_out) < 1e-12); /* BF16 has two bytes per value */
    assert_true(t->memory_bytes > 0 && t->seconds > 0);
    assert_true(isnan(zq_quantize_report_entry(r, 0)->relative_error));
    assert_null(zq_quantize_report_entry(r, t->n_entries));
    json_t *json;
    assert_int_equal(zq_json_parse(&json, zq_quantize_report_json(r), strlen(zq_quantize_report_json(r)), "report", NULL), ZQ_OK);
    assert_int_equal(json_array_size(json_object_get(json, "tensors")), t->n_entries);
    json_decref(json);
    zq_quantize_report_free(r);
}

static bool has_remark(const zq_quantize_report *r, const char *words)
{
    const char *remark;
    for (size_t i = 0; (remark = zq_quantize_report_remark(r, i)); i++)
        if (strstr(remark, words)) return true;
    return false;
}

static void assert_remark(const char *source, const zq_quantize_options *options, const char *words, bool wanted)
{
    zq_quantize_options dry = *options;
    zq_quantize_report *r;
    zq_error err;
    dry.dry_run = true;
    if (zq_quantize(source, NULL, &dry, &r, &err)) fail_msg("%s", err.message);
    if (has_remark(r, words) != wanted) fail_msg("\"%s\": %s", words, wanted ? "missing" : "said without need");
    zq_quantize_report_free(r);
}

static void remarks_say_what_matters(void **state)
{
    (void)state;
    const char *llama = make_model("llama", &tiny_llama), *gpt2 = make_model("gpt2", &tiny_gpt2);
    const zq_quantize_options plain = {0}, int8 = {.embeddings_int8 = true};
    const zq_quantize_options w4 = {.scheme = "w4a8", .group = "k:128"}, w4_48 = {.scheme = "w4a8", .group = "k:48"};
    const zq_quantize_options split = {.rules = (zq_rule[]){{".*\\.1\\..*k_proj", "w4a8"}}, .n_rules = 1};
    const zq_quantize_options unknown = {.rules = (zq_rule[]){{"no\\.such", "float"}}, .n_rules = 1};
    const zq_quantize_options all = {.rules = (zq_rule[]){{".*", "w8a8"}}, .n_rules = 1};
    assert_remark(gpt2, &plain, "transformers must not load", true);
    assert_remark(gpt2, &plain, "Only this program", false);
    assert_remark(gpt2, &int8, "Only this program", true);
    assert_remark(llama, &(zq_quantize_options){.rules = (zq_rule[]){{".*embed_tokens", "w4a16"}}, .n_rules = 1}, "4-bit embedding", true);
    assert_remark(llama, &plain, "", false); /* nothing to say at all */
    assert_remark(llama, &w4, "A group of 128 does not divide 64 input channels: one scale per row in 12 maps", true);
    assert_remark(llama, &w4, "A group of 128 does not divide 96 input channels: one scale per row in 2 maps", true);
    assert_remark(llama, &w4_48, "32, 64 and 128, not 48", true);
    assert_remark(gpt2, &(zq_quantize_options){.scheme = "w4a16"}, "No default group (64, 32) divides 80 input channels", true);
    assert_remark(llama, &(zq_quantize_options){.scheme = "w4a16"}, "divide", false);
    assert_remark(gpt2, &(zq_quantize_options){.scheme = "w3/8a16"}, "only this program reads", true);
    assert_remark(gpt2, &(zq_quantize_options){.scheme = "w3/8a16"}, "transformers must not load", false);
    assert_remark(llama, &int8, "quantized embeddings", true);
    assert_remark(llama, &split, "Q, K and V as one map and refuses different schemes for them, as layer 1 has", true);
    assert_remark(llama, &split, "gate and up", false);
    assert_remark(llama, &unknown, "matches none", true);
    assert_remark(gpt2, &all, "transformer.wpe.weight", true);
    assert_remark(llama, &all, "is an embedding", true);
}

/* ---- what is refused ---------------------------------------------------------------------------------------------- */

static void options_are_checked(void **state)
{
    (void)state;
    const char *llama = make_model("llama", &tiny_llama), *gpt2 = make_model("gpt2", &tiny_gpt2), *out = scratch_path("refused");
    struct shape tied_shape = tiny_llama;
    tied_shape.tied = true;
    const char *tied = make_model("tied", &tied_shape);
    const struct {
        const char *source;
        zq_rule rule;
        zq_status status;
        const char *words;
    } rules[] = {
        {llama, {"(", "w8a8"}, ZQ_EINVAL, "regular expression"},
        {llama, {".*", "w5a8"}, ZQ_EINVAL, "w5a8"},
        {llama, {".*", "w4/8a8"}, ZQ_EINVAL, "single module"},
        {llama, {".*", NULL}, ZQ_EINVAL, "no scheme"},
        {llama, {"q_proj", "w4a8"}, ZQ_EINVAL, "matches no module"},
        {llama, {"model.norm", "w4a8"}, ZQ_EUNSUPPORTED, "model.norm.weight"},
        {gpt2, {"transformer.wpe", "w8a16"}, ZQ_EUNSUPPORTED, "transformer.wpe.weight"},
        {gpt2, {"transformer.h.0.attn.bias", "w8a16"}, ZQ_EUNSUPPORTED, "attn.bias"},
        {tied, {"lm_head", "w8a8"}, ZQ_EINVAL, "model.embed_tokens"},
        {llama, {".*", "float"}, ZQ_EINVAL, "nothing to quantize"},
        {llama, {"(((a+)+)+)+((b+)+)+x", "w8a8"}, ZQ_EINVAL, "matches no module"},
    };
    for (size_t i = 0; i < ZQ_LEN(rules); i++)
        assert_refused(rules[i].source, out, &(zq_quantize_options){.rules = &rules[i].rule, .n_rules = 1}, rules[i].status, rules[i].words);
    assert_refused(llama, out, &(zq_quantize_options){.scheme = "w1a8"}, ZQ_EINVAL, "w1a8");
    assert_refused(llama, out, &(zq_quantize_options){.group = "k:0"}, ZQ_EINVAL, "k:0");
    assert_refused(llama, out, &(zq_quantize_options){.memory_bytes = 1 << 20}, ZQ_ENOMEM, "MiB of memory");
    assert_nothing_left(out);
}

static void places_are_checked(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama);
    char path[400];
    assert_refused(source, source, NULL, ZQ_EINVAL, "is the model itself");
    assert_refused(source, source, &(zq_quantize_options){.force = true}, ZQ_EINVAL, "is the model itself");
    snprintf(path, sizeof path, "%s/", source);
    assert_refused(source, path, &(zq_quantize_options){.force = true}, ZQ_EINVAL, "is the model itself");
    snprintf(path, sizeof path, "%s/../llama", source);
    assert_refused(source, path, &(zq_quantize_options){.force = true}, ZQ_EINVAL, "is the model itself");
    snprintf(path, sizeof path, "%s/out", source);
    assert_refused(source, path, NULL, ZQ_EINVAL, "lies inside the model directory");
    assert_refused(source, scratch_dir, &(zq_quantize_options){.force = true}, ZQ_EINVAL, "lies inside the output directory");
    assert_refused(source, "/", NULL, ZQ_EINVAL, "does not name a new directory");
    assert_refused(source, "..", NULL, ZQ_EINVAL, "does not name a new directory");
    assert_refused(source, "", NULL, ZQ_EINVAL, "does not name a new directory");
    assert_refused(source, scratch_path("no/such"), NULL, ZQ_EIO, "no");
    assert_refused(scratch_path("nothing"), scratch_path("refused"), NULL, ZQ_EIO, "nothing");
    assert_refused(source, scratch_path("llama.old"), &(zq_quantize_options){.memory_bytes = 1}, ZQ_ENOMEM, "MiB");
    scratch_text("way.partial", "in the way");
    assert_refused(source, scratch_path("way"), NULL, ZQ_EEXIST, "is no directory");
    assert_true(exists("%s/way.partial", scratch_dir));
    assert_int_equal(scratch_count(source), 2);
}

static void damaged_weights_are_named(void **state)
{
    (void)state;
    const char *out = scratch_path("refused");
    const uint16_t bad[] = {0x7fc0, 0xffc1, 0x7f80, 0xff80}; /* BF16 NaN, -NaN, inf, -inf */
    for (size_t i = 0; i < ZQ_LEN(bad); i++) {
        const char *source = make_model("nan", &tiny_llama);
        poke(source, "model.layers.1.mlp.up_proj.weight", 5 * 64 + 7, bad[i]);
        assert_refused(source, out, NULL, ZQ_EFORMAT, "model.layers.1.mlp.up_proj.weight holds NaN or infinity in output channel 5,");
        assert_refused(source, out, &(zq_quantize_options){.scheme = "w4a8", .group = "rows:4"}, ZQ_EFORMAT, "in output channel 5,");
        assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EFORMAT, "in output channel 5,");
        assert_nothing_left(out);
    }
    const char *gpt2 = make_model("nan", &tiny_gpt2);
    poke(gpt2, "transformer.h.0.mlp.c_fc.weight", 3 * 80 + 11, 0x7c00);
    assert_refused(gpt2, out, NULL, ZQ_EFORMAT, "in output channel 11,");
    /* where nothing is coded, NaN is none of our business */
    const char *norm = make_model("nan", &tiny_llama);
    poke(norm, "model.norm.weight", 1, 0x7fc0);
    run_and_check(norm, &(zq_quantize_options){0}, w8a8);
    struct shape narrow = tiny_llama;
    narrow.ffn = 95;
    const char *misshaped = make_model("bad", &narrow);
    put_file(misshaped, "config.json", "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, "
             "\"intermediate_size\": 96, \"num_hidden_layers\": 2, \"vocab_size\": 40, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
             "\"max_position_embeddings\": 16}");
    assert_refused(misshaped, out, NULL, ZQ_EFORMAT, "model.layers.0.mlp.gate_proj.weight has shape [95, 64]");
    assert_nothing_left(out);
}

static void a_quantized_model_is_refused(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("out"), *again = scratch_path("again");
    zq_remove_tree(out, NULL);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    assert_refused(out, again, NULL, ZQ_EUNSUPPORTED, "is quantized already (compressed-tensors)");
    assert_nothing_left(again);
}

/* ---- what bytes depend on ----------------------------------------------------------------------------------------- */

static void bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    const char *const families[] = {make_model("llama", &tiny_llama), make_model("gpt2", &tiny_gpt2), make_model("large", &large_llama)};
    for (size_t i = 0; i < ZQ_LEN(families); i++) {
        zq_quantize_options o = {.scheme = "w4/8a8", .embeddings_int8 = true, .force = true, .n_threads = 1, .memory_bytes = (uint64_t)1 << 40};
        assert_int_equal(zq_quantize(families[i], scratch_path("one"), &o, NULL, NULL), ZQ_OK);
        for (o.n_threads = 2; o.n_threads <= 7; o.n_threads += 5) {
            assert_int_equal(zq_quantize(families[i], scratch_path("two"), &o, NULL, NULL), ZQ_OK);
            assert_same_tree(scratch_path("one"), scratch_path("two"));
        }
    }
}

/* All items of a plan in one file, with strips of a given size. */
static void write_items(const struct zq_plan *plan, size_t strip_bytes, int n_threads, const char *path, struct zq_measured *measured)
{
    struct zq_means means = {.n_threads = n_threads, .strip_bytes = strip_bytes, .encode = zq_encode_nearest};
    struct zq_tensor parts[400];
    size_t n = 0, most = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const size_t wanted = zq_item_buffers(&plan->items[i], &means);
        most = wanted > most ? wanted : most;
    }
    means.buffers = zq_alloc(most);
    for (size_t i = 0; i < plan->n_items; i++)
        for (size_t p = 0; p < plan->items[i].n_parts; p++) parts[n++] = plan->items[i].parts[p];
    struct zq_safetensors_writer w;
    zq_error err;
    if (zq_safetensors_begin(&w, path, parts, n, &err)) fail_msg("%s", err.message);
    for (size_t i = 0; i < plan->n_items; i++)
        if (zq_item_write(&plan->items[i], &means, &w, &measured[i], &err)) fail_msg("%s", err.message);
    if (zq_safetensors_end(&w, &err)) fail_msg("%s", err.message);
    zq_free(means.buffers);
}

/* Memory decides how much of a matrix is in work at a time, and nothing else. */
static void bytes_do_not_depend_on_strips(void **state)
{
    (void)state;
    const struct shape wide_gpt2 = {"gpt2", 1, 320, 1300, 40, ZQ_F16, true, false};
    const char *const families[] = {make_model("llama", &tiny_llama), make_model("gpt2", &wide_gpt2)};
    const zq_quantize_options schemes[] = {{.scheme = "w4/8a8", .embeddings_int8 = true}, {.scheme = "w4a8", .group = "rows:5"}, {.group = "rows:3"}};
    for (size_t i = 0; i < ZQ_LEN(families); i++) {
        for (size_t j = 0; j < ZQ_LEN(schemes); j++) {
            struct zq_plan plan;
            struct zq_measured whole[100], strips[100];
            assert_int_equal(zq_plan_make(&plan, families[i], &schemes[j], NULL), ZQ_OK);
            assert_true(plan.n_items <= 100);
            write_items(&plan, 1 << 30, 1, scratch_path("whole-file"), whole);
            for (size_t bytes = 1; bytes < 1 << 20; bytes = bytes * 6 + 1) {
                write_items(&plan, bytes, 1 + (int)(bytes % 3), scratch_path("strips"), strips);
                assert_same_file(scratch_path("whole-file"), scratch_path("strips"));
                assert_memory_equal(whole, strips, plan.n_items * sizeof *whole);
            }
            zq_plan_free(&plan);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheme_follows_the_definition), cmocka_unit_test(other_dtypes_follow_the_definition),
        cmocka_unit_test(the_last_matching_rule_counts), cmocka_unit_test(a_copy_of_a_tied_head_is_left_out),
        cmocka_unit_test(config_keeps_its_text), cmocka_unit_test(side_files_are_copied),
        cmocka_unit_test(totals_are_those_of_the_files), cmocka_unit_test(remarks_say_what_matters),
        cmocka_unit_test(options_are_checked), cmocka_unit_test(places_are_checked), cmocka_unit_test(damaged_weights_are_named),
        cmocka_unit_test(a_quantized_model_is_refused), cmocka_unit_test(bytes_do_not_depend_on_threads),
        cmocka_unit_test(bytes_do_not_depend_on_strips),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
