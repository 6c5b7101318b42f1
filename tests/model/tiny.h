/* A tiny GPT-2 directory, written by the tests themselves, with one part of it spoiled on demand. */
#ifndef ZQ_TESTS_TINY_H
#define ZQ_TESTS_TINY_H

#include "golden.h"

#include <sys/stat.h>

enum { TINY_WIDTH = 16, TINY_LAYERS = 2, TINY_VOCAB = 40, TINY_LENGTH = 24 };

struct tiny {
    const char *prefix;    /* "transformer." or "" */
    const char *missing;   /* name of a tensor to leave out, without prefix */
    const char *misshaped; /* name of a tensor that gets one value more */
    const char *extra;     /* name of a tensor to add */
    enum zq_dtype dtype;
};

static inline void tiny_add(struct zq_tensor *list, size_t *n, const struct tiny *o, const char *name, size_t rows, size_t cols)
{
    if (o->missing && !strcmp(o->missing, name)) return;
    if (o->misshaped && !strcmp(o->misshaped, name)) rows++;
    struct zq_tensor *t = &list[(*n)++];
    *t = (struct zq_tensor){.name = zq_format("%s%s", o->prefix, name),
                            .dtype = o->dtype,
                            .n_dims = cols ? 2 : 1,
                            .shape = {rows, cols},
                            .n_values = rows * (cols ? cols : 1)};
}

static inline size_t tiny_list(struct zq_tensor *list, const struct tiny *o)
{
    size_t n = 0;
    const size_t w = TINY_WIDTH;
    tiny_add(list, &n, o, "wte.weight", TINY_VOCAB, w);
    tiny_add(list, &n, o, "wpe.weight", TINY_LENGTH, w);
    static const struct { const char *name; size_t rows, cols; } block[] = {
        {"ln_1.weight", TINY_WIDTH, 0}, {"ln_1.bias", TINY_WIDTH, 0}, {"ln_2.weight", TINY_WIDTH, 0}, {"ln_2.bias", TINY_WIDTH, 0},
        {"attn.c_attn.weight", TINY_WIDTH, 3 * TINY_WIDTH}, {"attn.c_attn.bias", 3 * TINY_WIDTH, 0},
        {"attn.c_proj.weight", TINY_WIDTH, TINY_WIDTH}, {"attn.c_proj.bias", TINY_WIDTH, 0},
        {"mlp.c_fc.weight", TINY_WIDTH, 4 * TINY_WIDTH}, {"mlp.c_fc.bias", 4 * TINY_WIDTH, 0},
        {"mlp.c_proj.weight", 4 * TINY_WIDTH, TINY_WIDTH}, {"mlp.c_proj.bias", TINY_WIDTH, 0},
    };
    for (int l = 0; l < TINY_LAYERS; l++) {
        for (size_t i = 0; i < ZQ_LEN(block); i++) {
            char name[64];
            snprintf(name, sizeof name, "h.%d.%s", l, block[i].name);
            tiny_add(list, &n, o, name, block[i].rows, block[i].cols);
        }
    }
    tiny_add(list, &n, o, "ln_f.weight", w, 0);
    tiny_add(list, &n, o, "ln_f.bias", w, 0);
    if (o->extra) tiny_add(list, &n, o, o->extra, 3, 0);
    return n;
}

/* Writes dir/config.json and dir/model.safetensors. */
static inline void tiny_write(const char *dir, const struct tiny *o)
{
    static const char config[] = "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": 16, \"n_layer\": 2, \"n_head\": 2,"
                                 " \"n_positions\": 24, \"vocab_size\": 40, \"eos_token_id\": 0}";
    char path[600];
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/config.json", dir);
    OK(zq_file_write(path, config, sizeof config - 1, err));
    struct zq_tensor list[64];
    const size_t n = tiny_list(list, o);
    struct zq_safetensors_writer w = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    OK(zq_safetensors_begin(&w, path, list, n, err));
    unsigned seed = 12345;
    for (size_t i = 0; i < n; i++) {
        for (size_t v = 0; v < list[i].n_values; v++) {
            seed = seed * 1664525u + 1013904223u;
            const float x = (float)(int)(seed >> 8 & 0xffff) / 65536.0f - 0.5f;
            uint8_t bytes[4];
            zq_from_float(bytes, list[i].dtype, &x, 1);
            OK(zq_safetensors_put(&w, bytes, zq_dtype_bytes(list[i].dtype), err));
        }
        zq_free(list[i].name);
    }
    OK(zq_safetensors_end(&w, err));
}

#endif
