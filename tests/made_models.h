/* Small models made on the spot for the tests of zq_quantize, and what those tests ask of directories. Include after cmocka.h. */
#ifndef ZQ_TESTS_MADE_MODELS_H
#define ZQ_TESTS_MADE_MODELS_H

#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "scratch.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

/* ---- models made for the tests ------------------------------------------------------------------------------------ */

struct shape {
    const char *family; /* "llama", "gpt2" or "bert", which is no decoder */
    size_t layers, width, ffn, vocab;
    enum zq_dtype dtype;
    bool tied;
    bool head_copy;     /* a tied head is in the file once more */
};

static const struct shape tiny_llama = {"llama", 2, 64, 96, 40, ZQ_BF16, false, false};
static const struct shape tiny_gpt2 = {"gpt2", 2, 32, 80, 40, ZQ_F16, true, false};
static const struct shape tiny_bert = {"bert", 2, 32, 80, 40, ZQ_F32, true, false};
/* three shards of output */
static const struct shape large_llama = {"llama", 7, 512, 2048, 8192, ZQ_BF16, false, false};

struct maker {
    struct zq_tensor tensors[200];
    size_t n;
    const struct shape *shape;
};

static inline void add_typed(struct maker *m, enum zq_dtype dtype, size_t rows, size_t cols, const char *format, ...)
{
    char name[200];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    assert_true(m->n < ZQ_LEN(m->tensors));
    m->tensors[m->n++] = (struct zq_tensor){.name = strdup(name), .dtype = dtype, .n_dims = cols ? 2 : 1, .shape = {rows, cols},
                                            .n_values = rows * (cols ? cols : 1)};
}
#define add(m, rows, cols, ...) add_typed(m, (m)->shape->dtype, rows, cols, __VA_ARGS__)

static inline void list_llama(struct maker *m, const struct shape *s)
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

static inline void list_gpt2(struct maker *m, const struct shape *s)
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

static inline void list_bert(struct maker *m, const struct shape *s)
{
    static const char *const square[] = {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"};
    const size_t w = s->width;
    add(m, s->vocab, w, "embeddings.word_embeddings.weight");
    add(m, 64, w, "embeddings.position_embeddings.weight");
    add(m, 2, w, "embeddings.token_type_embeddings.weight");
    add(m, w, 0, "embeddings.LayerNorm.weight");
    add(m, w, 0, "embeddings.LayerNorm.bias");
    for (size_t l = 0; l < s->layers; l++) {
        for (size_t i = 0; i < ZQ_LEN(square); i++) {
            add(m, w, w, "encoder.layer.%zu.%s.weight", l, square[i]);
            add(m, w, 0, "encoder.layer.%zu.%s.bias", l, square[i]);
        }
        add(m, w, 0, "encoder.layer.%zu.attention.output.LayerNorm.weight", l);
        add(m, w, 0, "encoder.layer.%zu.attention.output.LayerNorm.bias", l);
        add(m, s->ffn, w, "encoder.layer.%zu.intermediate.dense.weight", l);
        add(m, s->ffn, 0, "encoder.layer.%zu.intermediate.dense.bias", l);
        add(m, w, s->ffn, "encoder.layer.%zu.output.dense.weight", l);
        add(m, w, 0, "encoder.layer.%zu.output.dense.bias", l);
        add(m, w, 0, "encoder.layer.%zu.output.LayerNorm.weight", l);
        add(m, w, 0, "encoder.layer.%zu.output.LayerNorm.bias", l);
    }
}

/* Values that exist in dtype; rows of different size; the seed is the tensor's name. */
static inline void fill(uint8_t *bytes, const struct zq_tensor *t)
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
static const char gpt2_config[] = "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": %zu, \"n_inner\": %zu, "
    "\"n_layer\": %zu, \"vocab_size\": %zu, \"n_head\": 2, \"n_positions\": 16, \"tie_word_embeddings\": %s}";

static const char bert_config[] = "{\"model_type\": \"bert\", \"architectures\": [\"BertModel\"], \"hidden_size\": %zu, \"intermediate_size\": %zu, "
    "\"num_hidden_layers\": %zu, \"vocab_size\": %zu, \"num_attention_heads\": 2, \"max_position_embeddings\": 64, \"type_vocab_size\": 2, "
    "\"hidden_act\": \"gelu\", \"tie_word_embeddings\": %s}";

/* Writes a model directory below the scratch directory and returns its path. */
static inline const char *make_model(const char *name, const struct shape *s)
{
    static char paths[4][250];
    static unsigned next;
    char *dir = paths[next++ % 4], path[400];
    snprintf(dir, sizeof paths[0], "%s/%s", scratch_dir, name);
    zq_remove_tree(dir, NULL);
    assert_int_equal(mkdir(dir, 0777), 0);
    struct maker m = {.shape = s};
    const bool llama = !strcmp(s->family, "llama"), bert = !strcmp(s->family, "bert");
    const char *const format = llama ? llama_config : bert ? bert_config : gpt2_config;
    if (llama) list_llama(&m, s);
    else if (bert) list_bert(&m, s);
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
    snprintf(config, sizeof config, format, s->width, s->ffn, s->layers, s->vocab, s->tied ? "true" : "false");
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(zq_file_write(path, config, strlen(config), NULL), ZQ_OK);
    return dir;
}

static inline void put_file(const char *dir, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(zq_file_write(path, text, strlen(text), NULL), ZQ_OK);
}

/* ---- directories -------------------------------------------------------------------------------------------------- */

static inline bool exists(const char *format, ...)
{
    char path[500];
    va_list ap;
    va_start(ap, format);
    vsnprintf(path, sizeof path, format, ap);
    va_end(ap);
    return zq_file_exists(path);
}

static inline void assert_nothing_left(const char *out)
{
    assert_false(exists("%s", out));
    assert_false(exists("%s.partial", out));
    assert_false(exists("%s.replaced", out));
}

static inline void assert_same_file(const char *a, const char *b)
{
    struct zq_map x, y;
    zq_error err = {0};
    if (zq_map_open(&x, a, &err) || zq_map_open(&y, b, &err)) fail_msg("%s", err.message);
    if (x.n_bytes != y.n_bytes || (x.n_bytes && memcmp(x.bytes, y.bytes, x.n_bytes))) fail_msg("%s differs from %s", a, b);
    zq_map_close(&x);
    zq_map_close(&y);
}

/* Whatever the runs that wrote them; zq-report.html tells of time and memory. */
static inline void assert_same_tree(const char *a, const char *b)
{
    assert_int_equal(scratch_count(a), scratch_count(b));
    DIR *dir = opendir(a);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.' || !strcmp(e->d_name, "zq-report.html")) continue;
        char *x = zq_path_join(a, e->d_name), *y = zq_path_join(b, e->d_name);
        if (zq_is_directory(x)) assert_same_tree(x, y);
        else assert_same_file(x, y);
        zq_free(x);
        zq_free(y);
    }
    closedir(dir);
}

static inline void assert_refused(const char *source, const char *out, const zq_quantize_options *options, zq_status status, const char *words)
{
    zq_error err = {0};
    zq_quantize_report *r = (zq_quantize_report *)&err;
    const zq_status st = zq_quantize(source, out, options, &r, &err);
    if (st != status || !strstr(err.message, words)) fail_msg("status %d, \"%s\" instead of %d, \"%s\"", (int)st, err.message, (int)status, words);
    assert_null(r);
}

/* Changes one value of a tensor in place. */
static inline void poke(const char *dir, const char *tensor, size_t index, uint16_t value)
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

#endif
