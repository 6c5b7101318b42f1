/* zq_quantize from directory to directory: every tensor of the output against a reference written from the definition; that the
 * bytes depend on nothing but model and options; and that nothing is left behind whatever fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fault.h"
#include "base/half.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/compressed.h"
#include "compress/matrix.h"
#include "fail_alloc.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/file.h>
#include <unistd.h>

/* ---- models made for the tests ------------------------------------------------------------------------------------ */

struct shape {
    const char *family; /* "llama" or "gpt2" */
    size_t layers, width, ffn, vocab;
    enum zq_dtype dtype;
    bool tied;
    bool head_copy;     /* a tied head is in the file once more */
};

static const struct shape tiny_llama = {"llama", 2, 64, 96, 40, ZQ_BF16, false, false};
static const struct shape tiny_gpt2 = {"gpt2", 2, 32, 80, 40, ZQ_F16, true, false};
/* three shards of output */
static const struct shape large_llama = {"llama", 7, 512, 2048, 8192, ZQ_BF16, false, false};

struct maker {
    struct zq_tensor tensors[200];
    size_t n;
    const struct shape *shape;
};

static void add_typed(struct maker *m, enum zq_dtype dtype, size_t rows, size_t cols, const char *format, ...)
{
    char name[200];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    assert_true(m->n < ZQ_LEN(m->tensors));
    m->tensors[m->n++] = (struct zq_tensor){.name = strdup(name), .dtype = dtype, .n_dims = cols ? 2 : 1, .shape = {rows, cols}, .n_values = rows * (cols ? cols : 1)};
}
#define add(m, rows, cols, ...) add_typed(m, (m)->shape->dtype, rows, cols, __VA_ARGS__)

static void list_llama(struct maker *m, const struct shape *s)
{
    const size_t w = s->width;
    for (size_t l = s->layers; l-- > 0;) { /* the order of the file is not the order of the blocks */
        add(m, w, 0, "model.layers.%zu.input_layernorm.weight", l);
        add(m, w, w, "model.layers.%zu.self_attn.q_proj.weight", l);
        add(m, w / 2, w, "model.layers.%zu.self_attn.k_proj.weight", l);
        add(m, w / 2, w, "model.layers.%zu.self_attn.v_proj.weight", l);
        add(m, w, w, "model.layers.%zu.self_attn.o_proj.weight", l);
        add(m, w, 0, "model.layers.%zu.post_attention_layernorm.weight", l);
        add(m, s->ffn, w, "model.layers.%zu.mlp.gate_proj.weight", l);
        add(m, s->ffn, w, "model.layers.%zu.mlp.up_proj.weight", l);
        add(m, w, s->ffn, "model.layers.%zu.mlp.down_proj.weight", l);
    }
    add(m, s->vocab, w, "model.embed_tokens.weight");
    add(m, w, 0, "model.norm.weight");
    if (!s->tied || s->head_copy) add(m, s->vocab, w, "lm_head.weight");
}

static void list_gpt2(struct maker *m, const struct shape *s)
{
    const size_t w = s->width;
    add(m, s->vocab, w, "transformer.wte.weight");
    add(m, 16, w, "transformer.wpe.weight");
    for (size_t l = 0; l < s->layers; l++) {
        add(m, w, 0, "transformer.h.%zu.ln_1.weight", l);
        add(m, w, 0, "transformer.h.%zu.ln_1.bias", l);
        add_typed(m, ZQ_U8, 16, 16, "transformer.h.%zu.attn.bias", l);
        add(m, w, 3 * w, "transformer.h.%zu.attn.c_attn.weight", l);
        add(m, 3 * w, 0, "transformer.h.%zu.attn.c_attn.bias", l);
        add(m, w, w, "transformer.h.%zu.attn.c_proj.weight", l);
        add(m, w, 0, "transformer.h.%zu.attn.c_proj.bias", l);
        add(m, w, 0, "transformer.h.%zu.ln_2.weight", l);
        add(m, w, 0, "transformer.h.%zu.ln_2.bias", l);
        add(m, w, s->ffn, "transformer.h.%zu.mlp.c_fc.weight", l);
        add(m, s->ffn, 0, "transformer.h.%zu.mlp.c_fc.bias", l);
        add(m, s->ffn, w, "transformer.h.%zu.mlp.c_proj.weight", l);
        add(m, w, 0, "transformer.h.%zu.mlp.c_proj.bias", l);
    }
    add(m, w, 0, "transformer.ln_f.weight");
    add(m, w, 0, "transformer.ln_f.bias");
    if (s->head_copy) add(m, s->vocab, w, "lm_head.weight");
}

/* Values that exist in dtype; rows of different size; the seed is the tensor's name. */
static void fill(uint8_t *bytes, const struct zq_tensor *t)
{
    uint64_t seed = 0;
    for (const char *p = t->name; *p; p++) seed = 31 * seed + (uint8_t)*p;
    for (size_t i = 0; i < t->n_values; i++) {
        const float size = ldexpf(1, (int)(i / 7 % 5) - 6), x = (2 * zq_rng_float(&seed) - 1) * size;
        if (t->dtype == ZQ_U8) bytes[i] = i & 1;
        else zq_from_float(bytes + i * zq_dtype_bytes(t->dtype), t->dtype, &x, 1);
    }
}

static const char llama_config[] = "{\n  \"model_type\": \"llama\",\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"rms_norm_eps\": 1e-05,\n"
    "  \"hidden_size\": %zu, \"intermediate_size\": %zu, \"num_hidden_layers\": %zu, \"vocab_size\": %zu,\n"
    "  \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"max_position_embeddings\": 16, \"tie_word_embeddings\": %s\n}\n";
static const char gpt2_config[] = "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": %zu, \"n_inner\": %zu, \"n_layer\": %zu, "
    "\"vocab_size\": %zu, \"n_head\": 2, \"n_positions\": 16, \"tie_word_embeddings\": %s}";

/* Writes a model directory below the scratch directory and returns its path. */
static const char *make_model(const char *name, const struct shape *s)
{
    static char paths[4][250];
    static unsigned next;
    char *dir = paths[next++ % 4], path[400];
    snprintf(dir, sizeof paths[0], "%s/%s", scratch_dir, name);
    zq_remove_tree(dir, NULL);
    assert_int_equal(mkdir(dir, 0777), 0);
    struct maker m = {.shape = s};
    const bool llama = !strcmp(s->family, "llama");
    if (llama) list_llama(&m, s);
    else list_gpt2(&m, s);
    struct zq_safetensors_writer w;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(zq_safetensors_begin(&w, path, m.tensors, m.n, NULL), ZQ_OK);
    for (size_t i = 0; i < m.n; i++) {
        const size_t n_bytes = m.tensors[i].n_values * zq_dtype_bytes(m.tensors[i].dtype);
        uint8_t *bytes = malloc(n_bytes);
        fill(bytes, &m.tensors[i]);
        assert_int_equal(zq_safetensors_put(&w, bytes, n_bytes, NULL), ZQ_OK);
        free(bytes);
        free(m.tensors[i].name);
    }
    assert_int_equal(zq_safetensors_end(&w, NULL), ZQ_OK);
    char config[1000];
    snprintf(config, sizeof config, llama ? llama_config : gpt2_config, s->width, s->ffn, s->layers, s->vocab, s->tied ? "true" : "false");
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(zq_file_write(path, config, strlen(config), NULL), ZQ_OK);
    return dir;
}

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(zq_file_write(path, text, strlen(text), NULL), ZQ_OK);
}

/* ---- directories -------------------------------------------------------------------------------------------------- */

static bool exists(const char *format, ...)
{
    char path[500];
    va_list ap;
    va_start(ap, format);
    vsnprintf(path, sizeof path, format, ap);
    va_end(ap);
    return zq_file_exists(path);
}

static void assert_nothing_left(const char *out)
{
    assert_false(exists("%s", out));
    assert_false(exists("%s.partial", out));
    assert_false(exists("%s.replaced", out));
}

static void assert_same_file(const char *a, const char *b)
{
    struct zq_map x, y;
    zq_error err = {0};
    if (zq_map_open(&x, a, &err) || zq_map_open(&y, b, &err)) fail_msg("%s", err.message);
    if (x.n_bytes != y.n_bytes || (x.n_bytes && memcmp(x.bytes, y.bytes, x.n_bytes))) fail_msg("%s differs from %s", a, b);
    zq_map_close(&x);
    zq_map_close(&y);
}

static void assert_same_tree(const char *a, const char *b)
{
    assert_int_equal(scratch_count(a), scratch_count(b));
    DIR *dir = opendir(a);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        char x[600], y[600];
        if (e->d_name[0] == '.') continue;
        snprintf(x, sizeof x, "%s/%s", a, e->d_name);
        snprintf(y, sizeof y, "%s/%s", b, e->d_name);
        if (zq_is_directory(x)) assert_same_tree(x, y);
        else assert_same_file(x, y);
    }
    closedir(dir);
}

/* ---- the reference ------------------------------------------------------------------------------------------------ */

/* How a module is expected to be written. */
struct expected {
    int w, a;
    size_t k_group, row_groups;
};
typedef struct expected expect_fn(const char *module);

static const struct zq_tensor *part(const struct zq_checkpoint *out, const char *module, const char *suffix, enum zq_dtype dtype, size_t rows, size_t cols)
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

static int code_at(const struct zq_tensor *t, int bits, bool packed, bool turned, size_t n_rows, size_t n_cols, size_t r, size_t k)
{
    if (!packed) return (int8_t)t->bytes[turned ? k * n_rows + r : r * n_cols + k];
    const size_t per_word = 32 / (size_t)bits, words = (n_cols + per_word - 1) / per_word;
    uint32_t word = 0;
    for (size_t b = 0; b < 4; b++) word |= (uint32_t)t->bytes[4 * (r * words + k / per_word) + b] << 8 * b;
    return (int)(word >> k % per_word * (size_t)bits & ((1u << bits) - 1)) - (1 << (bits - 1));
}

static bool is_embedding(const char *module)
{
    return strstr(module, "embed_tokens") || strstr(module, "wte");
}

static void check_module(const struct zq_tensor *source, const struct zq_checkpoint *out, const char *module, struct expected e, bool turned, double relative_error)
{
    const size_t n_rows = source->shape[turned], n_cols = source->shape[!turned], groups = e.k_group ? n_cols / e.k_group : 1, length = n_cols / groups;
    const bool packed = !(e.w == 8 && (is_embedding(module) || (e.a == 8 && !e.k_group)));
    const enum zq_dtype scale_dtype = e.w == 8 && !e.k_group ? ZQ_F32 : source->dtype;
    const size_t per_word = 32 / (size_t)e.w;
    const struct zq_tensor *codes = packed ? part(out, module, ".weight_packed", ZQ_I32, n_rows, (n_cols + per_word - 1) / per_word)
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
            float scale = e.w == 8 ? fmaxf(max, -min) / 127.0f : fmaxf(max / 7.0f, -min / 8.0f), stored;
            if (scale_dtype == ZQ_F16) scale = zq_f16_to_float(zq_float_to_f16(scale));
            if (scale_dtype == ZQ_BF16) scale = zq_bf16_to_float(zq_float_to_bf16(scale));
            if (scale == 0) scale = 1;
            zq_to_float(&stored, scales->bytes + (r * groups + g) * zq_dtype_bytes(scale_dtype), scale_dtype, 1);
            assert_true(stored == scale);
            for (size_t k = g * length; k < (g + 1) * length; k++) {
                const float w = weight_at(source, turned, n_rows, n_cols, r, k), q = nearbyintf(w / scale);
                const int want = (int)fmaxf(e.w == 8 ? -127 : -8, fminf(e.w == 8 ? 127 : 7, q));
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
    const zq_rule rules[] = {{"model\\.layers\\.[01]\\..*", "w4a8"}, {"model\\.layers\\.0\\..*", "w8a8"}, {"model\\.layers\\.1\\..*", "w4a16,channel"},
                             {".*\\.1\\.mlp\\.down_proj", "w4a16,k:96"}, {"model\\.layers\\.1\\.mlp\\.up_proj", "float"}};
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
    put_file(source, "config.json", "{\"quantization_config\": null, \"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": 32, \"n_inner\": 80,"
             "\"n_layer\": 2, \"vocab_size\": 40, \"n_head\": 2, \"n_positions\": 16}");
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
    assert_int_equal(scratch_count(out), ZQ_LEN(wanted) + 4); /* config, index, one shard, report */
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
    const zq_quantize_options plain = {0}, w4 = {.scheme = "w4a8", .group = "k:128"}, w4_48 = {.scheme = "w4a8", .group = "k:48"}, int8 = {.embeddings_int8 = true};
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
    assert_remark(llama, &int8, "quantized embeddings", true);
    assert_remark(llama, &split, "Q, K and V as one map and refuses different schemes for them, as layer 1 has", true);
    assert_remark(llama, &split, "gate and up", false);
    assert_remark(llama, &unknown, "matches none", true);
    assert_remark(gpt2, &all, "transformer.wpe.weight", true);
    assert_remark(llama, &all, "is an embedding", true);
}

/* ---- what is refused ---------------------------------------------------------------------------------------------- */

static void assert_refused(const char *source, const char *out, const zq_quantize_options *options, zq_status status, const char *words)
{
    zq_error err = {0};
    zq_quantize_report *r = (zq_quantize_report *)&err;
    const zq_status st = zq_quantize(source, out, options, &r, &err);
    if (st != status || !strstr(err.message, words)) fail_msg("status %d, \"%s\" instead of %d, \"%s\"", (int)st, err.message, (int)status, words);
    assert_null(r);
}

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
    assert_refused(llama, out, &(zq_quantize_options){.scheme = "w2a8"}, ZQ_EINVAL, "w2a8");
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

/* Changes one value of a tensor in place. */
static void poke(const char *dir, const char *tensor, size_t index, uint16_t value)
{
    struct zq_checkpoint *c;
    char path[400];
    assert_int_equal(zq_checkpoint_open(&c, dir, NULL), ZQ_OK);
    const struct zq_tensor *t = zq_checkpoint_find(c, tensor);
    assert_non_null(t);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, &value, 2, t->bytes - t->map->bytes + (off_t)index * 2), 2);
    close(fd);
    zq_checkpoint_close(c);
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
    put_file(misshaped, "config.json", "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"intermediate_size\": 96,"
             "\"num_hidden_layers\": 2, \"vocab_size\": 40, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"max_position_embeddings\": 16}");
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
static void write_items(const struct zq_plan *plan, size_t strip_bytes, int n_threads, const char *path, double *errors)
{
    const struct zq_means means = {.n_threads = n_threads, .strip_bytes = strip_bytes, .encode = zq_encode_nearest};
    struct zq_tensor parts[400];
    size_t n = 0;
    for (size_t i = 0; i < plan->n_items; i++)
        for (size_t p = 0; p < plan->items[i].n_parts; p++) parts[n++] = plan->items[i].parts[p];
    struct zq_safetensors_writer w;
    zq_error err;
    if (zq_safetensors_begin(&w, path, parts, n, &err)) fail_msg("%s", err.message);
    for (size_t i = 0; i < plan->n_items; i++)
        if (zq_item_write(&plan->items[i], &means, &w, &errors[i], &err)) fail_msg("%s", err.message);
    if (zq_safetensors_end(&w, &err)) fail_msg("%s", err.message);
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
            double whole[100], strips[100];
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

/* ---- existing outputs and interrupted runs ------------------------------------------------------------------------ */

static void an_existing_output_needs_force(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("out");
    zq_remove_tree(out, NULL);
    assert_int_equal(mkdir(out, 0777), 0);
    put_file(out, "precious", "text");
    assert_refused(source, out, NULL, ZQ_EEXIST, "exists already");
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EEXIST, "holds no zq-report.json");
    assert_int_equal(scratch_count(out), 1);
    /* a failing run with force leaves the old output alone */
    const char *bad = make_model("nan", &tiny_llama);
    poke(bad, "model.layers.1.mlp.up_proj.weight", 0, 0x7fc0);
    assert_refused(bad, out, &(zq_quantize_options){.force = true}, ZQ_EFORMAT, "NaN");
    assert_true(exists("%s/precious", out));
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    assert_false(exists("%s/precious", out));
    assert_false(exists("%s.partial", out));
    /* so does a dry run, and it asks for nothing */
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.dry_run = true}, NULL, NULL), ZQ_OK);
    /* a link is replaced, not what it leads to */
    const char *link = scratch_path("link");
    assert_int_equal(symlink(source, link), 0);
    assert_int_equal(zq_quantize(source, link, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    assert_int_equal(scratch_count(source), 2);
    assert_same_tree(out, link);
}

static void a_finished_output_needs_no_resume(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("out");
    zq_remove_tree(out, NULL);
    zq_quantize_report *first, *second;
    zq_quantize_options o = {.resume = true, .rules = (zq_rule[]){{".*up_proj", "w4a8"}}, .n_rules = 1};
    assert_int_equal(zq_quantize(source, out, &o, &first, NULL), ZQ_OK);
    assert_false(zq_quantize_report_totals(first)->nothing_to_do || zq_quantize_report_totals(first)->resumed);
    struct stat before, after;
    assert_int_equal(stat(out, &before), 0);
    assert_int_equal(zq_quantize(source, out, &o, &second, NULL), ZQ_OK);
    assert_int_equal(stat(out, &after), 0);
    assert_true(zq_quantize_report_totals(second)->nothing_to_do && before.st_ino == after.st_ino);
    for (size_t i = 0; i < zq_quantize_report_totals(first)->n_entries; i++) {
        const double a = zq_quantize_report_entry(first, i)->relative_error, b = zq_quantize_report_entry(second, i)->relative_error;
        assert_true(a == b || (isnan(a) && isnan(b)));
    }
    zq_quantize_report_free(first);
    zq_quantize_report_free(second);
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EINVAL, "rules is [\".*up_proj=w4a8\"] there, [] here");
    o.scheme = "w4a8";
    assert_refused(source, out, &o, ZQ_EINVAL, "scheme is w8a8 there, w4a8 here");
    o.scheme = NULL;
    o.group = "k:32";
    assert_refused(source, out, &o, ZQ_EINVAL, "group is default there, k:32 here");
    o.group = NULL;
    o.embeddings_int8 = true;
    assert_refused(source, out, &o, ZQ_EINVAL, "embeddings is source there, int8 here");
    o.embeddings_int8 = false;
    poke(source, "model.norm.weight", 3, 0x3f80);
    assert_refused(source, out, &o, ZQ_EINVAL, "made from another model");
    assert_false(exists("%s.partial", out));
}

struct stopper {
    size_t n_calls, stop_at;
};

static bool stop(void *user, const zq_quantize_progress *p)
{
    struct stopper *s = user;
    assert_true(p->bytes_done <= p->n_bytes && p->tensors_done <= p->n_tensors && p->tensor);
    return ++s->n_calls != s->stop_at;
}

static void a_cancelled_run_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    const char *source = make_model("large", &large_llama), *whole = scratch_path("whole"), *out = scratch_path("stopped");
    struct stopper s = {0};
    zq_quantize_options o = {.scheme = "w4/8a8", .progress = stop, .user = &s, .force = true};
    assert_int_equal(zq_quantize(source, whole, &o, NULL, NULL), ZQ_OK);
    const size_t n_calls = s.n_calls;
    bool resumed_once = false;
    o.force = false;
    for (size_t at = 1; at <= n_calls; at += n_calls / 7) {
        s = (struct stopper){.stop_at = at};
        zq_remove_tree(out, NULL);
        assert_refused(source, out, &o, ZQ_ECANCELLED, "cancelled");
        assert_false(exists("%s", out));
        const bool left = exists("%s.partial", out);
        if (left) {
            zq_quantize_options other = o;
            other.scheme = "w8a8";
            other.resume = true;
            assert_refused(source, out, &other, ZQ_EINVAL, "scheme is w4/8a8 there, w8a8 here");
            assert_true(exists("%s.partial/journal.json", out));
        }
        zq_quantize_report *r;
        s = (struct stopper){0};
        zq_quantize_options again = o;
        again.resume = true;
        assert_int_equal(zq_quantize(source, out, &again, &r, NULL), ZQ_OK);
        assert_int_equal(zq_quantize_report_totals(r)->resumed, left);
        assert_true(left ? s.n_calls < n_calls : s.n_calls == n_calls);
        resumed_once |= left;
        zq_quantize_report_free(r);
        assert_same_tree(whole, out);
        assert_false(exists("%s.partial", out));
    }
    assert_true(resumed_once);
    zq_remove_tree(out, NULL);
}

static void count_note(void *user, const char *sentence)
{
    *(size_t *)user += strstr(sentence, "removed what an interrupted run had left") != NULL;
}

static void a_new_run_removes_what_an_interrupted_one_left(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("anew");
    size_t n = 0;
    assert_int_equal(mkdir(scratch_path("anew.partial"), 0777), 0);
    scratch_text("anew.partial/model-00001-of-00009.safetensors.tmp", "torn");
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.note = count_note, .user = &n}, NULL, NULL), ZQ_OK);
    assert_int_equal(n, 1);
    assert_int_equal(scratch_count(out), 4);
    /* resume where nothing was begun, beside torn files: from the beginning */
    zq_remove_tree(out, NULL);
    assert_int_equal(mkdir(scratch_path("anew.partial"), 0777), 0);
    scratch_text("anew.partial/config.json.tmp", "torn");
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, NULL, NULL), ZQ_OK);
    assert_int_equal(scratch_count(out), 4);
    zq_remove_tree(out, NULL);
    /* a journal that is no journal */
    assert_int_equal(mkdir(scratch_path("anew.partial"), 0777), 0);
    scratch_text("anew.partial/journal.json", "{\"program\": 3}");
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EINVAL, "program is 3 there");
    scratch_text("anew.partial/journal.json", "{");
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EFORMAT, "journal.json");
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    assert_false(exists("%s.partial", out));
}

/* The states that a kill leaves at the end: all shards counted; the report written; the journal gone. */
static void a_run_killed_at_its_end_resumes(void **state)
{
    (void)state;
    const char *source = make_model("large", &large_llama), *whole = scratch_path("whole"), *out = scratch_path("late");
    char from[400], to[260];
    zq_remove_tree(out, NULL);
    assert_int_equal(zq_quantize(source, whole, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    snprintf(to, sizeof to, "%s.partial", out);
    assert_int_equal(rename(out, to), 0);
    zq_quantize_report *r;
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, &r, NULL), ZQ_OK);
    assert_true(zq_quantize_report_totals(r)->resumed);
    zq_quantize_report_free(r);
    assert_same_tree(whole, out);
    /* a shard that is gone, and one that was cut, are written again */
    const int n_shards = (int)scratch_count(out) - 3;
    assert_true(n_shards >= 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rename(out, to), 0);
        snprintf(from, sizeof from, "%s/late.partial/model-0000%d-of-0000%d.safetensors", scratch_dir, 2 - i, n_shards);
        assert_int_equal(i ? truncate(from, 1000) : unlink(from), 0);
        assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, NULL, NULL), ZQ_OK);
        assert_same_tree(whole, out);
    }
    /* killed after the exchange with an older output, which is left under the name of the directory of work */
    assert_int_equal(mkdir(to, 0777), 0);
    put_file(to, "config.json", "old");
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, &r, NULL), ZQ_OK);
    assert_true(zq_quantize_report_totals(r)->nothing_to_do);
    zq_quantize_report_free(r);
    assert_false(exists("%s", to));
    zq_remove_tree(out, NULL);
}

static void two_runs_at_once_are_refused(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("busy");
    assert_int_equal(mkdir(scratch_path("busy.partial"), 0777), 0);
    scratch_text("busy.partial/model-00001-of-00001.safetensors.tmp", "in work");
    const int fd = open(scratch_path("busy.partial"), O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_refused(source, out, NULL, ZQ_EEXIST, "another run");
    assert_refused(source, out, &(zq_quantize_options){.resume = true, .force = true}, ZQ_EEXIST, "another run");
    assert_int_equal(scratch_count(scratch_path("busy.partial")), 1);
    close(fd);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
}

/* ---- faults ------------------------------------------------------------------------------------------------------- */

static void every_failing_write_leaves_nothing(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("full"), *old = scratch_path("old");
    put_file(source, "tokenizer.json", "{}");
    zq_remove_tree(old, NULL);
    assert_int_equal(mkdir(old, 0777), 0);
    zq_fault_write_at(0, 0);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    const size_t n_writes = zq_fault_write_count();
    assert_true(n_writes >= 6); /* shard, journal, tokenizer, config, index, report */
    zq_remove_tree(out, NULL);
    for (size_t n = 1; n <= n_writes; n++) {
        for (int resume = 0; resume < 2; resume++) {
            zq_fault_write_at(n, n % 2 ? ENOSPC : EIO);
            assert_refused(source, out, &(zq_quantize_options){.resume = resume}, n % 2 ? ZQ_ENOSPC : ZQ_EIO, "cannot write");
            zq_fault_write_at(0, 0);
            assert_false(exists("%s", out));
            /* the only shard is finished, and counted, after the second write */
            assert_int_equal(exists("%s.partial", out), resume && n > 2);
            if (resume) {
                assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, NULL, NULL), ZQ_OK);
                zq_remove_tree(out, NULL);
            }
        }
        zq_fault_write_at(n, ENOSPC);
        assert_refused(source, old, &(zq_quantize_options){.force = true}, ZQ_ENOSPC, "cannot write");
        zq_fault_write_at(0, 0);
        assert_int_equal(scratch_count(old), 0); /* still the empty directory of before */
        assert_false(exists("%s.partial", old));
    }
}

static void a_full_disk_keeps_finished_shards_for_resume(void **state)
{
    (void)state;
    const char *source = make_model("large", &large_llama), *whole = scratch_path("whole"), *out = scratch_path("full");
    zq_fault_write_at(0, 0);
    assert_int_equal(zq_quantize(source, whole, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    const size_t n_writes = zq_fault_write_count();
    size_t n_resumed = 0;
    for (size_t n = 1; n <= n_writes; n += n_writes / 5) {
        zq_fault_write_at(n, ENOSPC);
        assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_ENOSPC, "No space left");
        zq_fault_write_at(0, 0);
        zq_quantize_report *r;
        assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, &r, NULL), ZQ_OK);
        n_resumed += zq_quantize_report_totals(r)->resumed;
        zq_quantize_report_free(r);
        assert_same_tree(whole, out);
        zq_remove_tree(out, NULL);
    }
    assert_true(n_resumed >= 2);
}

static zq_status quantize_once(void *source, zq_error *err)
{
    const zq_rule rules[] = {{".*up_proj", "w4a8,rows:3"}, {"lm_head", "float"}};
    const zq_quantize_options o = {.scheme = "w4/8a8", .embeddings_int8 = true, .rules = rules, .n_rules = ZQ_LEN(rules), .n_threads = 1};
    char out[300];
    snprintf(out, sizeof out, "%s/memory", scratch_dir);
    zq_quantize_report *report;
    const zq_status st = zq_quantize(source, out, &o, &report, err);
    if (st) {
        assert_null(report);
        assert_nothing_left(out);
    }
    zq_quantize_report_free(report);
    return st;
}

static zq_status resume_once(void *source, zq_error *err)
{
    char out[300];
    snprintf(out, sizeof out, "%s/finished", scratch_dir);
    return zq_quantize(source, out, &(zq_quantize_options){.resume = true, .n_threads = 1}, NULL, err);
}

static void every_failing_allocation_leaves_nothing(void **state)
{
    (void)state;
    struct shape s = tiny_llama;
    s.layers = 1;
    const char *source = make_model("memory-model", &s);
    put_file(source, "tokenizer.json", "{}");
    const size_t n = fail_each_allocation(quantize_once, (void *)(uintptr_t)source);
    assert_true(n > 300);
    assert_int_equal(zq_quantize(source, scratch_path("finished"), NULL, NULL, NULL), ZQ_OK);
    assert_true(fail_each_allocation(resume_once, (void *)(uintptr_t)source) > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheme_follows_the_definition), cmocka_unit_test(other_dtypes_follow_the_definition),
        cmocka_unit_test(the_last_matching_rule_counts), cmocka_unit_test(a_copy_of_a_tied_head_is_left_out),
        cmocka_unit_test(config_keeps_its_text), cmocka_unit_test(side_files_are_copied), cmocka_unit_test(totals_are_those_of_the_files),
        cmocka_unit_test(remarks_say_what_matters), cmocka_unit_test(options_are_checked), cmocka_unit_test(places_are_checked),
        cmocka_unit_test(damaged_weights_are_named), cmocka_unit_test(a_quantized_model_is_refused),
        cmocka_unit_test(bytes_do_not_depend_on_threads), cmocka_unit_test(bytes_do_not_depend_on_strips),
        cmocka_unit_test(an_existing_output_needs_force),
        cmocka_unit_test(a_finished_output_needs_no_resume), cmocka_unit_test(a_cancelled_run_resumes_to_the_same_bytes),
        cmocka_unit_test(a_new_run_removes_what_an_interrupted_one_left), cmocka_unit_test(a_run_killed_at_its_end_resumes),
        cmocka_unit_test(two_runs_at_once_are_refused), cmocka_unit_test(every_failing_write_leaves_nothing),
        cmocka_unit_test(a_full_disk_keeps_finished_shards_for_resume), cmocka_unit_test(every_failing_allocation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
