/* make-checkpoint: a model directory of any family and size with random weights, for tests of memory, speed and shapes.
 *
 * Names and layouts come from the architecture table of the library, so what this writes is what the library must read; only
 * which maps have a bias is known here. The values are windows into one pool of normal numbers, so writing runs at the speed
 * of the disk; within a tensor no two rows start at the same place of the pool. */
#include "base/alloc.h"
#include "base/rng.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/modules.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BIT(role) (1u << (role))
#define ALL_BIASED (~0u)

enum head { HEAD_NONE, HEAD_MLM, HEAD_CLS };

/* What the architecture table does not need to say, because a reader sees it in the file. */
static const struct family {
    const char *model_type, *class_name; /* of the model with its language head */
    unsigned biased;                     /* bits of the linear roles that have a bias */
    bool head_bias;
} families[] = {
    {"bert", "BertForMaskedLM", ALL_BIASED, false},
    {"gpt2", "GPT2LMHeadModel", ALL_BIASED, false},
    {"gptj", "GPTJForCausalLM", BIT(ZQ_UP) | BIT(ZQ_DOWN), true},
    {"gpt_neox", "GPTNeoXForCausalLM", ALL_BIASED, false},
    {"opt", "OPTForCausalLM", ALL_BIASED, false},
    {"llama", "LlamaForCausalLM", 0, false},
    {"mistral", "MistralForCausalLM", 0, false},
    {"qwen2", "Qwen2ForCausalLM", BIT(ZQ_Q) | BIT(ZQ_K) | BIT(ZQ_V), false},
};

/* Sizes of published models; the bare names of the families stand for a model of a few megabytes. */
static const struct shape {
    const char *name, *model_type;
    size_t layers, width, heads, kv_heads, ffn, vocab, length;
} shapes[] = {
    {"bert", "bert", 2, 128, 4, 4, 512, 1024, 128},
    {"gpt2", "gpt2", 2, 128, 4, 4, 512, 1024, 128},
    {"gptj", "gptj", 2, 128, 4, 4, 512, 1024, 128},
    {"gpt_neox", "gpt_neox", 2, 128, 4, 4, 512, 1024, 128},
    {"opt", "opt", 2, 128, 4, 4, 512, 1024, 128},
    {"llama", "llama", 2, 128, 4, 2, 384, 1024, 128},
    {"mistral", "mistral", 2, 128, 4, 2, 384, 1024, 128},
    {"qwen2", "qwen2", 2, 128, 4, 2, 384, 1024, 128},
    {"minilm", "bert", 6, 384, 12, 12, 1536, 30522, 512},
    {"bert-base", "bert", 12, 768, 12, 12, 3072, 30522, 512},
    {"bert-large", "bert", 24, 1024, 16, 16, 4096, 30522, 512},
    {"gpt2-124m", "gpt2", 12, 768, 12, 12, 3072, 50257, 1024},
    {"gpt-350m", "gpt2", 24, 1024, 16, 16, 4096, 50257, 2048},
    {"gpt-1.3b", "gpt2", 24, 2048, 16, 16, 8192, 50257, 2048},
    {"gpt-j-6b", "gptj", 28, 4096, 16, 16, 16384, 50400, 2048},
    {"gpt-neox-20b", "gpt_neox", 44, 6144, 64, 64, 24576, 50432, 2048},
    {"opt-1.3b", "opt", 24, 2048, 32, 32, 8192, 50272, 2048},
    {"tinyllama-1.1b", "llama", 22, 2048, 32, 4, 5632, 32000, 2048},
    {"llama-7b", "llama", 32, 4096, 32, 32, 11008, 32000, 4096},
    {"llama-3-8b", "llama", 32, 4096, 32, 8, 14336, 128256, 8192},
    {"mistral-7b", "mistral", 32, 4096, 32, 8, 14336, 32000, 32768},
    {"qwen2-0.5b", "qwen2", 24, 896, 14, 2, 4864, 151936, 32768},
};

static struct {
    struct shape shape;
    const struct family *family;
    const char *out, *tokenizer;
    enum zq_dtype dtype;
    enum head head;
    size_t labels;
    uint64_t shard_bytes, seed;
    bool sparse, tied;
} opt = {.dtype = ZQ_F16, .head = HEAD_MLM, .labels = 2, .shard_bytes = 4ull << 30, .seed = 1};

/* ---- the list of tensors */

enum values { VALUES_NORMAL, VALUES_NEAR_ONE };

struct list {
    struct zq_tensor *tensors; /* [n] */
    enum values *values;       /* [n] */
    size_t n, capacity, values_capacity;
    zq_status status; /* of the first failure; later calls do nothing */
    zq_error *err;
};

/* A tensor [rows, cols], or [rows] if cols is 0. */
static void add(struct list *l, const char *prefix, const char *pattern, size_t layer, const char *suffix, size_t rows, size_t cols,
                enum values values)
{
    if (l->status) return;
    struct zq_tensor t = {.dtype = opt.dtype, .n_dims = cols ? 2 : 1, .shape = {rows, cols}};
    t.n_bytes = rows * (cols ? cols : 1) * zq_dtype_bytes(t.dtype); /* sizes were bounded by zq_config_read */
    const bool room = zq_grow((void **)&l->tensors, l->n, &l->capacity, sizeof *l->tensors) &&
                      zq_grow((void **)&l->values, l->n, &l->values_capacity, sizeof *l->values);
    t.name = room ? zq_tensor_name(prefix, pattern, layer, suffix) : NULL;
    if (!t.name) {
        l->status = zq_fail(l->err, ZQ_ENOMEM, "no memory for the list of tensors");
        return;
    }
    l->values[l->n] = values;
    l->tensors[l->n++] = t;
}

static void add_norm(struct list *l, const struct zq_config *c, const char *prefix, const char *pattern, size_t layer)
{
    if (!pattern) return;
    add(l, prefix, pattern, layer, ".weight", c->width, 0, VALUES_NEAR_ONE);
    if (!c->arch->rms) add(l, prefix, pattern, layer, ".bias", c->width, 0, VALUES_NORMAL);
}

static void add_linear(struct list *l, const char *prefix, const char *pattern, size_t layer, size_t rows, size_t cols, bool conv1d, bool bias)
{
    add(l, prefix, pattern, layer, ".weight", conv1d ? cols : rows, conv1d ? rows : cols, VALUES_NORMAL);
    if (bias) add(l, prefix, pattern, layer, ".bias", rows, 0, VALUES_NORMAL);
}

static void add_block(struct list *l, const struct zq_config *c, const char *prefix, size_t layer)
{
    const struct zq_tensor_names *names = &c->arch->names;
    add_norm(l, c, prefix, names->norm1, layer);
    for (enum zq_linear_role role = 0; role < ZQ_N_LINEARS; role++)
        if (names->linear[role])
            add_linear(l, prefix, names->linear[role], layer, zq_linear_rows(c, role), zq_linear_cols(c, role), c->arch->conv1d,
                       opt.family->biased & BIT(role));
    add_norm(l, c, prefix, names->norm2, layer);
}

static void add_head(struct list *l, const struct zq_config *c, const char *prefix)
{
    if (c->kind == ZQ_DECODER && !c->tied) {
        add_linear(l, "", c->arch->head, 0, c->vocab, c->embed_width, false, opt.family->head_bias);
    } else if (c->kind == ZQ_ENCODER_MLM) {
        add_linear(l, "", "cls.predictions.transform.dense", 0, c->width, c->width, false, true);
        add_norm(l, c, "", "cls.predictions.transform.LayerNorm", 0);
        add(l, "", "cls.predictions", 0, ".bias", c->vocab, 0, VALUES_NORMAL);
    } else if (c->kind == ZQ_ENCODER || c->kind == ZQ_ENCODER_CLASSIFY) {
        add_linear(l, prefix, "pooler.dense", 0, c->width, c->width, false, true);
        if (c->kind == ZQ_ENCODER_CLASSIFY) add_linear(l, "", "classifier", 0, c->n_labels, c->width, false, true);
    }
}

static void list_tensors(struct list *l, const struct zq_config *c)
{
    const struct zq_tensor_names *names = &c->arch->names;
    const char *prefix = c->kind == ZQ_ENCODER ? "" : c->arch->prefixes[0]; /* a bare encoder is saved without prefix */
    add(l, prefix, names->tokens, 0, ".weight", c->vocab, c->embed_width, VALUES_NORMAL);
    if (names->positions) add(l, prefix, names->positions, 0, ".weight", c->max_length + (size_t)c->arch->position_offset, c->width, VALUES_NORMAL);
    if (names->types) add(l, prefix, names->types, 0, ".weight", c->n_types, c->width, VALUES_NORMAL);
    add_norm(l, c, prefix, names->embed_norm, 0);
    for (size_t layer = 0; layer < c->n_layers; layer++) add_block(l, c, prefix, layer);
    add_norm(l, c, prefix, names->final_norm, 0);
    add_head(l, c, prefix);
}

static void free_list(struct list *l)
{
    for (size_t i = 0; i < l->n; i++) zq_free(l->tensors[i].name);
    zq_free(l->tensors);
    zq_free(l->values);
}

/* ---- config.json */

static void set(json_t *config, const char *key, json_t *value)
{
    if (key) json_object_set_new(config, key, value); /* a missing value is found when the configuration is read back */
    else json_decref(value);
}

static void set_size(json_t *config, const char *key, size_t value) { set(config, key, json_integer((json_int_t)value)); }

static const char *class_name(void)
{
    if (strcmp(opt.family->model_type, "bert")) return opt.family->class_name;
    return opt.head == HEAD_NONE ? "BertModel" : opt.head == HEAD_CLS ? "BertForSequenceClassification" : opt.family->class_name;
}

static void set_labels(json_t *config)
{
    json_t *names = json_object();
    for (size_t i = 0; i < opt.labels; i++) {
        char key[24], value[32];
        snprintf(key, sizeof key, "%zu", i);
        snprintf(value, sizeof value, "LABEL_%zu", i);
        set(names, key, json_string(value));
    }
    set(config, "id2label", names);
}

static json_t *make_config(const struct zq_arch *arch)
{
    static const char *const dtypes[] = {[ZQ_F32] = "float32", [ZQ_F16] = "float16", [ZQ_BF16] = "bfloat16"};
    const struct zq_config_keys *k = &arch->keys;
    const struct shape *s = &opt.shape;
    const size_t head_dim = s->width / s->heads;
    json_t *config = json_object();
    set(config, "architectures", json_pack("[s]", class_name()));
    set(config, "model_type", json_string(arch->model_type));
    set(config, "dtype", json_string(dtypes[opt.dtype]));
    set(config, "tie_word_embeddings", json_boolean(opt.tied || arch->tied_by_default));
    set_size(config, k->width, s->width);
    set_size(config, k->n_layers, s->layers);
    set_size(config, k->n_heads, s->heads);
    set_size(config, k->n_kv_heads, s->kv_heads);
    set_size(config, k->head_dim, head_dim);
    set_size(config, k->ffn_width, s->ffn);
    set_size(config, k->max_length, s->length);
    set_size(config, k->vocab, s->vocab);
    set(config, k->norm_eps, json_real(arch->default_norm_eps));
    set(config, k->activation, json_string(arch->default_activation));
    set_size(config, k->rotary_dim, head_dim < 64 ? head_dim : 64);
    if (arch->positions != ZQ_POS_LEARNED && !k->rotary_dim)
        set(config, "rope_parameters",
            json_pack("{s:s, s:f, s:f}", "rope_type", "default", "rope_theta", arch->default_theta, "partial_rotary_factor",
                      arch->qkv_rows == ZQ_QKV_BY_HEAD ? 0.25 : 1.0));
    if (arch->names.types) set_size(config, "type_vocab_size", 2);
    if (arch->names.project_in) set_size(config, "word_embed_proj_dim", s->width);
    if (opt.head == HEAD_CLS) set_labels(config);
    return config;
}

/* ---- values */

enum { POOL = 1 << 21 }; /* values; a power of two, so that odd strides visit every place before they repeat */

/* A ring of POOL numbers N(0, 0.02^2) in the dtype of the checkpoint: the usual initialisation of these families. */
static void *make_pool(void)
{
    float *pool = zq_alloc_array(POOL, sizeof *pool);
    void *stored = zq_alloc_array(POOL, zq_dtype_bytes(opt.dtype));
    uint64_t state = opt.seed;
    for (size_t i = 0; pool && i < POOL; i += 2) {
        const float radius = 0.02f * sqrtf(-2 * logf(1 - zq_rng_float(&state))), angle = 6.28318531f * zq_rng_float(&state);
        pool[i] = radius * cosf(angle);
        pool[i + 1] = radius * sinf(angle);
    }
    if (pool && stored) zq_from_float(stored, opt.dtype, pool, POOL);
    zq_free(pool);
    return stored;
}

/* n values of the ring from place `at` on. */
static zq_status put_window(struct zq_safetensors_writer *w, const uint8_t *pool, size_t at, size_t n, zq_error *err)
{
    const size_t size = zq_dtype_bytes(opt.dtype);
    zq_status st = ZQ_OK;
    while (n && !st) {
        at %= POOL;
        const size_t part = n < POOL - at ? n : POOL - at;
        st = zq_safetensors_put(w, pool + at * size, part * size, err);
        at += part;
        n -= part;
    }
    return st;
}

/* Weights of a norm: 1 + N(0, 0.02^2). */
static zq_status put_near_one(struct zq_safetensors_writer *w, const uint8_t *pool, size_t at, size_t n, zq_error *err)
{
    const size_t size = zq_dtype_bytes(opt.dtype);
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < n && !st; i++) {
        float x;
        uint8_t stored[4];
        zq_to_float(&x, pool + (at + i) % POOL * size, opt.dtype, 1);
        x += 1;
        zq_from_float(stored, opt.dtype, &x, 1);
        st = zq_safetensors_put(w, stored, size, err);
    }
    return st;
}

static zq_status put_tensor(struct zq_safetensors_writer *w, const struct zq_tensor *t, enum values values, const uint8_t *pool, uint64_t *state,
                            zq_error *err)
{
    const size_t start = zq_rng_next(state) % POOL, stride = zq_rng_next(state) % POOL | 1;
    if (values == VALUES_NEAR_ONE) return put_near_one(w, pool, start, t->shape[0], err);
    if (t->n_dims == 1) return put_window(w, pool, start, t->shape[0], err);
    zq_status st = ZQ_OK;
    for (size_t row = 0; row < t->shape[0] && !st; row++) st = put_window(w, pool, start + row * stride, t->shape[1], err);
    return st;
}

/* ---- files */

static zq_status write_shard(const char *path, const struct list *l, size_t begin, size_t end, const uint8_t *pool, uint64_t *state, zq_error *err)
{
    struct zq_safetensors_writer w;
    zq_status st = zq_safetensors_begin(&w, path, l->tensors + begin, end - begin, err);
    if (st) return st;
    if (opt.sparse) { /* the header alone is written; the data is a hole of the right size */
        const uint64_t n_bytes = w.expected;
        st = zq_output_commit(&w.out, err);
        return !st && truncate(path, (off_t)n_bytes) ? zq_fail_errno(err, "cannot extend %s to %" PRIu64 " bytes", path, n_bytes) : st;
    }
    for (size_t i = begin; i < end && !st; i++) st = put_tensor(&w, &l->tensors[i], l->values[i], pool, state, err);
    if (!st) st = zq_safetensors_end(&w, err);
    zq_safetensors_abandon(&w);
    return st;
}

/* End of the shard that starts at tensor `begin`: at least one tensor, at most shard_bytes. */
static size_t shard_end(const struct list *l, size_t begin)
{
    size_t end = begin + 1;
    for (uint64_t n = l->tensors[begin].n_bytes; end < l->n && n + l->tensors[end].n_bytes <= opt.shard_bytes; end++) n += l->tensors[end].n_bytes;
    return end;
}

static void shard_name(char *name, size_t room, size_t shard, size_t n_shards)
{
    if (n_shards == 1) snprintf(name, room, "model.safetensors");
    else snprintf(name, room, "model-%05zu-of-%05zu.safetensors", shard + 1, n_shards);
}

static zq_status write_json(const json_t *json, const char *name, zq_error *err)
{
    char *path = zq_path_join(opt.out, name);
    char *text = json_dumps(json, JSON_INDENT(2));
    zq_status st = path && text ? zq_file_write(path, text, strlen(text), err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for %s", opt.out, name);
    free(text);
    zq_free(path);
    return st;
}

static zq_status write_tensors(const struct list *l, zq_error *err)
{
    uint8_t *pool = opt.sparse ? NULL : make_pool();
    if (!opt.sparse && !pool) return zq_fail(err, ZQ_ENOMEM, "no memory for %d random values", (int)POOL);
    json_t *map = json_object();
    uint64_t state = opt.seed, total = 0;
    size_t n_shards = 0;
    for (size_t begin = 0; begin < l->n; begin = shard_end(l, begin)) n_shards++;
    zq_status st = ZQ_OK;
    for (size_t begin = 0, shard = 0, end; begin < l->n && !st; begin = end, shard++) {
        char name[64];
        shard_name(name, sizeof name, shard, n_shards);
        end = shard_end(l, begin);
        for (size_t i = begin; i < end; i++) {
            set(map, l->tensors[i].name, json_string(name));
            total += l->tensors[i].n_bytes;
        }
        char *path = zq_path_join(opt.out, name);
        st = path ? write_shard(path, l, begin, end, pool, &state, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", opt.out);
        zq_free(path);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (!st && n_shards > 1) st = write_json(index, "model.safetensors.index.json", err);
    json_decref(index);
    zq_free(pool);
    if (!st) printf("%s: %zu tensors, %" PRIu64 " bytes, %zu file%s\n", opt.out, l->n, total, n_shards, n_shards == 1 ? "" : "s");
    return st;
}

static zq_status copy_file(const char *from, const char *name, zq_error *err)
{
    char *to = zq_path_join(opt.out, name);
    zq_status st = to ? zq_file_copy(from, to, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", opt.out);
    zq_free(to);
    return st;
}

static zq_status copy_tokenizer(zq_error *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
                                        "encoder.json",   "vocab.bpe",             "vocab.txt",               "tokenizer.model"};
    if (!zq_is_directory(opt.tokenizer)) {
        const size_t n = strlen(opt.tokenizer);
        return copy_file(opt.tokenizer, n > 4 && !strcmp(opt.tokenizer + n - 4, ".txt") ? "vocab.txt" : "tokenizer.json", err);
    }
    size_t n_copied = 0;
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < ZQ_LEN(names) && !st; i++) {
        char *from = zq_path_join(opt.tokenizer, names[i]);
        if (!from) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", opt.tokenizer);
        else if (zq_file_exists(from) && !(st = copy_file(from, names[i], err))) n_copied++;
        zq_free(from);
    }
    return st || n_copied ? st : zq_fail(err, ZQ_EIO, "%s holds no tokenizer file", opt.tokenizer);
}

static zq_status write_model(zq_error *err)
{
    json_t *json = make_config(zq_arch_find(opt.shape.model_type));
    struct zq_config config;
    struct list list = {.err = err};
    zq_status st = zq_config_read(&config, json, "the configuration asked for", err);
    if (!st) {
        list_tensors(&list, &config);
        st = list.status;
    }
    if (!st && mkdir(opt.out, 0777)) {
        st = errno == EEXIST ? zq_fail(err, ZQ_EEXIST, "%s exists already", opt.out) : zq_fail_errno(err, "cannot create %s", opt.out);
    } else if (!st) {
        st = write_json(json, "config.json", err);
        if (!st && opt.tokenizer) st = copy_tokenizer(err);
        if (!st) st = write_tensors(&list, err);
        if (st) zq_remove_tree(opt.out, NULL);
    }
    free_list(&list);
    json_decref(json);
    return st;
}

/* ---- the command line */

static const char usage[] =
    "usage: make-checkpoint MODEL OUT [options]\n"
    "\n"
    "Writes a Hugging Face model directory with random weights. MODEL is a family (a small model, to be resized by options)\n"
    "or the name of a published size:\n";
static const char options_text[] =
    "\n"
    "  --layers N  --width N  --heads N  --kv-heads N  --ffn N  --vocab N  --length N\n"
    "                    sizes that replace those of MODEL; with --width or --heads alone, kv-heads = heads and ffn = 4 * width\n"
    "  --dtype TYPE      f32, f16 (default) or bf16\n"
    "  --tied            the head is the token embedding (families whose head is untied by default)\n"
    "  --head HEAD       bert: none, mlm (default) or cls\n"
    "  --labels N        classes of --head cls, default 2\n"
    "  --shard-size SIZE largest file, default 4G; K, M, G are powers of 1024\n"
    "  --seed N          of the random numbers, default 1\n"
    "  --sparse          headers and config only; the data is a hole and reads as zeros (for quantize --dry-run of huge models)\n"
    "  --tokenizer PATH  tokenizer file, or directory whose tokenizer files are copied\n"
    "\n"
    "exit codes: as zq (0 ok, 2 wrong option, 3 cannot read or write, 7 no space left, 8 OUT exists)\n"
    "example: make-checkpoint gpt-j-6b /tmp/gptj6b --dtype bf16\n";

static void print_help(void)
{
    fputs(usage, stdout);
    for (size_t i = 0; i < ZQ_LEN(shapes); i++)
        printf("  %-15s %-9s %2zu layers, width %4zu, %2zu heads (%zu kv), ffn %5zu, vocab %6zu, length %zu\n", shapes[i].name, shapes[i].model_type,
               shapes[i].layers, shapes[i].width, shapes[i].heads, shapes[i].kv_heads, shapes[i].ffn, shapes[i].vocab, shapes[i].length);
    fputs(options_text, stdout);
}

/* A whole number >= 1, followed by at most one of the letters in `units` (powers of 1024). */
static zq_status parse_number(const char *option, const char *text, const char *units, uint64_t *out, zq_error *err)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    const unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (errno || end == text || *text == '-' || !v || (unit ? end[1] : *end) || v > UINT64_MAX >> shift)
        return zq_fail(err, ZQ_EINVAL, "--%s wants a number above 0, not \"%s\"", option, text);
    *out = v << shift;
    return ZQ_OK;
}

static zq_status choose_word(const char *option, const char *text, const char *const *words, size_t n, size_t *out, zq_error *err)
{
    for (*out = 0; *out < n; ++*out)
        if (!strcmp(words[*out], text)) return ZQ_OK;
    return zq_fail(err, ZQ_EINVAL, "--%s cannot be \"%s\"", option, text);
}

static zq_status choose_model(const char *name, zq_error *err)
{
    for (size_t i = 0; i < ZQ_LEN(shapes); i++) {
        if (strcmp(shapes[i].name, name)) continue;
        opt.shape = shapes[i];
        for (size_t f = 0; f < ZQ_LEN(families); f++)
            if (!strcmp(families[f].model_type, opt.shape.model_type)) opt.family = &families[f];
        return ZQ_OK;
    }
    return zq_fail(err, ZQ_EINVAL, "\"%s\" is neither a family nor the name of a size; --help lists them", name);
}

/* the first eight are sizes, in the order of resize() */
enum {
    O_LAYERS = 256, O_WIDTH, O_HEADS, O_KV_HEADS, O_FFN, O_VOCAB, O_LENGTH, O_LABELS,
    O_SHARD, O_SEED, O_DTYPE, O_HEAD, O_TOKENIZER, O_TIED, O_SPARSE, O_HELP
};
enum { N_SIZES = O_LABELS - O_LAYERS + 1 };
static const struct option long_options[] = {
    {"layers", 1, 0, O_LAYERS}, {"width", 1, 0, O_WIDTH},   {"heads", 1, 0, O_HEADS},        {"kv-heads", 1, 0, O_KV_HEADS},
    {"ffn", 1, 0, O_FFN},       {"vocab", 1, 0, O_VOCAB},   {"length", 1, 0, O_LENGTH},      {"labels", 1, 0, O_LABELS},
    {"seed", 1, 0, O_SEED},     {"dtype", 1, 0, O_DTYPE},   {"shard-size", 1, 0, O_SHARD},   {"head", 1, 0, O_HEAD},
    {"tied", 0, 0, O_TIED},     {"sparse", 0, 0, O_SPARSE}, {"tokenizer", 1, 0, O_TOKENIZER}, {"help", 0, 0, O_HELP},
    {0},
};

static zq_status read_option(int code, const char *name, uint64_t sizes[N_SIZES], zq_error *err)
{
    static const char *const dtypes[] = {"f32", "f16", "bf16"}, *const heads[] = {"none", "mlm", "cls"};
    static const enum zq_dtype dtype_of[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    size_t word = 0;
    zq_status st = ZQ_OK;
    switch (code) {
    case O_SHARD: return parse_number(name, optarg, "KMGT", &opt.shard_bytes, err);
    case O_SEED: return parse_number(name, optarg, "", &opt.seed, err);
    case O_DTYPE:
        st = choose_word(name, optarg, dtypes, ZQ_LEN(dtypes), &word, err);
        if (!st) opt.dtype = dtype_of[word];
        return st;
    case O_HEAD:
        st = choose_word(name, optarg, heads, ZQ_LEN(heads), &word, err);
        opt.head = (enum head)word;
        return st;
    case O_TOKENIZER: opt.tokenizer = optarg; return ZQ_OK;
    case O_TIED: opt.tied = true; return ZQ_OK;
    case O_SPARSE: opt.sparse = true; return ZQ_OK;
    default: return parse_number(name, optarg, "", &sizes[code - O_LAYERS], err);
    }
}

/* Sizes given on the command line replace those of the model; what depends on a replaced one follows it. */
static void resize(const uint64_t sizes[N_SIZES])
{
    struct shape *s = &opt.shape;
    size_t *const fields[] = {&s->layers, &s->width, &s->heads, &s->kv_heads, &s->ffn, &s->vocab, &s->length, &opt.labels};
    if (sizes[O_HEADS - O_LAYERS]) s->kv_heads = (size_t)sizes[O_HEADS - O_LAYERS];
    if (sizes[O_WIDTH - O_LAYERS]) s->ffn = 4 * (size_t)sizes[O_WIDTH - O_LAYERS];
    for (size_t i = 0; i < ZQ_LEN(fields); i++)
        if (sizes[i]) *fields[i] = (size_t)sizes[i];
}

static zq_status run(int argc, char **argv, zq_error *err)
{
    uint64_t sizes[N_SIZES] = {0};
    opterr = 0;
    for (int code, index = 0; (code = getopt_long(argc, argv, "", long_options, &index)) != -1;) {
        if (code == O_HELP) {
            print_help();
            return ZQ_OK;
        }
        if (code == '?') return zq_fail(err, ZQ_EINVAL, "\"%s\" is no option, or its value is missing; see --help", argv[optind - 1]);
        zq_status st = read_option(code, long_options[index].name, sizes, err);
        if (st) return st;
    }
    if (argc - optind != 2) return zq_fail(err, ZQ_EINVAL, "MODEL and OUT are wanted; see --help");
    zq_status st = choose_model(argv[optind], err);
    if (st) return st;
    resize(sizes);
    opt.out = argv[optind + 1];
    const bool bert = !strcmp(opt.family->model_type, "bert");
    if (opt.head != HEAD_MLM && !bert) return zq_fail(err, ZQ_EINVAL, "--head is for bert, not for %s", opt.family->model_type);
    if (opt.shape.width % opt.shape.heads) return zq_fail(err, ZQ_EINVAL, "width %zu is no multiple of %zu heads", opt.shape.width, opt.shape.heads);
    return write_model(err);
}

int main(int argc, char **argv)
{
    zq_error err = {0};
    const zq_status st = run(argc, argv, &err);
    if (st) fprintf(stderr, "make-checkpoint: %s\n", err.message);
    return (int)st;
}
