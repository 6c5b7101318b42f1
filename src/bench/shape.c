/* The table of shapes. What an architecture row does not need to say, because a reader sees it in the file, is said here: which maps
 * have a bias. Sizes: the models' config.json on the Hugging Face hub; gpt-350m and gpt-1.3b: Brown et al. 2020, table 2.1, as GPT-2. */
#include "bench/shape.h"

#include <stdio.h>
#include <string.h>

#define ALL_BIASED (~0u)
#define FFN_BIASED (1u << ZQ_UP | 1u << ZQ_DOWN)

const struct zq_shape zq_shapes[] = {
    {"bert-base", "bert", "BertModel", 12, 768, 12, 12, 3072, 30522, 512, ALL_BIASED, false},
    {"bert-large", "bert", "BertModel", 24, 1024, 16, 16, 4096, 30522, 512, ALL_BIASED, false},
    {"minilm", "bert", "BertModel", 6, 384, 12, 12, 1536, 30522, 512, ALL_BIASED, false},
    {"gpt-350m", "gpt2", "GPT2LMHeadModel", 24, 1024, 16, 16, 4096, 50257, 2048, ALL_BIASED, false},
    {"gpt-1.3b", "gpt2", "GPT2LMHeadModel", 24, 2048, 16, 16, 8192, 50257, 2048, ALL_BIASED, false},
    {"gpt-j-6b", "gptj", "GPTJForCausalLM", 28, 4096, 16, 16, 16384, 50400, 2048, FFN_BIASED, true},
    {"gpt-neox-20b", "gpt_neox", "GPTNeoXForCausalLM", 44, 6144, 64, 64, 24576, 50432, 2048, ALL_BIASED, false},
    {"tinyllama-1.1b", "llama", "LlamaForCausalLM", 22, 2048, 32, 4, 5632, 32000, 2048, 0, false},
    {.name = NULL},
};

zq_status zq_shape_find(const struct zq_shape **out, const char *name, zq_error *err)
{
    char names[256];
    size_t used = 0;
    for (const struct zq_shape *s = zq_shapes; s->name; s++) {
        *out = s;
        if (!strcmp(s->name, name)) return ZQ_OK;
        if (used < sizeof names) used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", s->name);
    }
    *out = NULL;
    return zq_fail(err, ZQ_EINVAL, "there is no shape \"%.40s\"; shapes are %s", name, names);
}

static void set(json_t *config, bool *ok, const char *key, json_t *value)
{
    if (key) *ok &= !json_object_set_new(config, key, value); /* a NULL value is a failure, too */
    else json_decref(value);
}

static void set_size(json_t *config, bool *ok, const char *key, size_t value) { set(config, ok, key, json_integer((json_int_t)value)); }

json_t *zq_shape_config(const struct zq_shape *s, size_t n_layers, enum zq_dtype dtype)
{
    static const char *const dtypes[ZQ_N_DTYPES] = {[ZQ_F32] = "float32", [ZQ_F16] = "float16", [ZQ_BF16] = "bfloat16"};
    const struct zq_arch *arch = zq_arch_find(s->model_type);
    const struct zq_config_keys *k = &arch->keys;
    const size_t head_dim = s->width / s->n_heads;
    json_t *config = json_object();
    bool ok = config != NULL;
    set(config, &ok, "architectures", json_pack("[s]", s->class_name));
    set(config, &ok, "model_type", json_string(s->model_type));
    set(config, &ok, "dtype", json_string(dtypes[dtype]));
    set_size(config, &ok, k->width, s->width);
    set_size(config, &ok, k->n_layers, n_layers ? n_layers : s->n_layers);
    set_size(config, &ok, k->n_heads, s->n_heads);
    set_size(config, &ok, k->n_kv_heads, s->n_kv_heads);
    set_size(config, &ok, k->head_dim, head_dim);
    set_size(config, &ok, k->ffn_width, s->ffn_width);
    set_size(config, &ok, k->max_length, s->max_length);
    set_size(config, &ok, k->vocab, s->vocab);
    set_size(config, &ok, k->rotary_dim, head_dim < 64 ? head_dim : 64);
    if (ok) return config;
    json_decref(config);
    return NULL;
}
