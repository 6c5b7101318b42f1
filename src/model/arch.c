/* The rows of the architecture table. A row says what differs; anything it does not say is the default of arch.h's comments.
 * Names and layouts: the published models of each family on the Hugging Face hub. */
#include "model/arch.h"

#include <string.h>

#define LLAMA_KEYS                                                                                                           \
    {                                                                                                                        \
        .width = "hidden_size", .n_layers = "num_hidden_layers", .n_heads = "num_attention_heads",                           \
        .n_kv_heads = "num_key_value_heads", .head_dim = "head_dim", .ffn_width = "intermediate_size",                       \
        .max_length = "max_position_embeddings", .vocab = "vocab_size", .norm_eps = "rms_norm_eps", .activation = "hidden_act" \
    }
#define LLAMA_NAMES                                                                                                 \
    {                                                                                                               \
        .tokens = "embed_tokens", .final_norm = "norm", .norm1 = "layers.%zu.input_layernorm",                      \
        .norm2 = "layers.%zu.post_attention_layernorm",                                                             \
        .linear = {                                                                                                 \
            [ZQ_Q] = "layers.%zu.self_attn.q_proj", [ZQ_K] = "layers.%zu.self_attn.k_proj",                         \
            [ZQ_V] = "layers.%zu.self_attn.v_proj", [ZQ_O] = "layers.%zu.self_attn.o_proj",                         \
            [ZQ_GATE] = "layers.%zu.mlp.gate_proj", [ZQ_UP] = "layers.%zu.mlp.up_proj",                             \
            [ZQ_DOWN] = "layers.%zu.mlp.down_proj" }                                                                \
    }

const struct zq_arch zq_archs[] = {
    {
        .model_type = "bert",
        .prefixes = {"bert.", ""},
        .keys = {.width = "hidden_size", .n_layers = "num_hidden_layers", .n_heads = "num_attention_heads", .ffn_width = "intermediate_size",
                 .max_length = "max_position_embeddings", .vocab = "vocab_size", .norm_eps = "layer_norm_eps", .activation = "hidden_act"},
        .names = {.tokens = "embeddings.word_embeddings", .positions = "embeddings.position_embeddings",
                  .types = "embeddings.token_type_embeddings", .embed_norm = "embeddings.LayerNorm",
                  .norm1 = "encoder.layer.%zu.attention.output.LayerNorm", .norm2 = "encoder.layer.%zu.output.LayerNorm",
                  .linear = {[ZQ_Q] = "encoder.layer.%zu.attention.self.query", [ZQ_K] = "encoder.layer.%zu.attention.self.key",
                             [ZQ_V] = "encoder.layer.%zu.attention.self.value", [ZQ_O] = "encoder.layer.%zu.attention.output.dense",
                             [ZQ_UP] = "encoder.layer.%zu.intermediate.dense", [ZQ_DOWN] = "encoder.layer.%zu.output.dense"}},
        .default_activation = "gelu", .default_norm_eps = 1e-12,
        .ignored = {"(.*\\.)?position_ids", "cls\\.seq_relationship\\..*", "(bert\\.)?pooler\\.dense\\..*", "cls\\.predictions\\..*"},
        .norm = ZQ_NORM_POST, .positions = ZQ_POS_LEARNED, .tied_by_default = true,
    },
    {
        .model_type = "gpt2",
        .prefixes = {"transformer.", ""},
        .keys = {.width = "n_embd", .n_layers = "n_layer", .n_heads = "n_head", .ffn_width = "n_inner", .max_length = "n_positions",
                 .vocab = "vocab_size", .norm_eps = "layer_norm_epsilon", .activation = "activation_function"},
        .names = {.tokens = "wte", .positions = "wpe", .final_norm = "ln_f", .norm1 = "h.%zu.ln_1", .norm2 = "h.%zu.ln_2",
                  .linear = {[ZQ_QKV] = "h.%zu.attn.c_attn", [ZQ_O] = "h.%zu.attn.c_proj", [ZQ_UP] = "h.%zu.mlp.c_fc",
                             [ZQ_DOWN] = "h.%zu.mlp.c_proj"}},
        .head = "lm_head",
        .default_activation = "gelu_new", .default_norm_eps = 1e-5,
        .ignored = {"(.*\\.)?h\\.\\d+\\.attn\\.(bias|masked_bias)"},
        .norm = ZQ_NORM_PRE, .positions = ZQ_POS_LEARNED, .causal = true, .conv1d = true, .tied_by_default = true,
    },
    {
        .model_type = "gptj",
        .prefixes = {"transformer.", ""},
        .keys = {.width = "n_embd", .n_layers = "n_layer", .n_heads = "n_head", .ffn_width = "n_inner", .max_length = "n_positions",
                 .vocab = "vocab_size", .norm_eps = "layer_norm_epsilon", .activation = "activation_function", .rotary_dim = "rotary_dim"},
        .names = {.tokens = "wte", .final_norm = "ln_f", .norm1 = "h.%zu.ln_1",
                  .linear = {[ZQ_Q] = "h.%zu.attn.q_proj", [ZQ_K] = "h.%zu.attn.k_proj", [ZQ_V] = "h.%zu.attn.v_proj",
                             [ZQ_O] = "h.%zu.attn.out_proj", [ZQ_UP] = "h.%zu.mlp.fc_in", [ZQ_DOWN] = "h.%zu.mlp.fc_out"}},
        .head = "lm_head",
        .default_activation = "gelu_new", .default_norm_eps = 1e-5, .default_theta = 10000,
        .ignored = {"(.*\\.)?h\\.\\d+\\.attn\\.(bias|masked_bias|embed_positions)"},
        .norm = ZQ_NORM_PARALLEL, .positions = ZQ_POS_ROTARY_PAIRS, .causal = true,
    },
    {
        .model_type = "gpt_neox",
        .prefixes = {"gpt_neox.", ""},
        .keys = {.width = "hidden_size", .n_layers = "num_hidden_layers", .n_heads = "num_attention_heads", .ffn_width = "intermediate_size",
                 .max_length = "max_position_embeddings", .vocab = "vocab_size", .norm_eps = "layer_norm_eps", .activation = "hidden_act"},
        .names = {.tokens = "embed_in", .final_norm = "final_layer_norm", .norm1 = "layers.%zu.input_layernorm",
                  .norm2 = "layers.%zu.post_attention_layernorm",
                  .linear = {[ZQ_QKV] = "layers.%zu.attention.query_key_value", [ZQ_O] = "layers.%zu.attention.dense",
                             [ZQ_UP] = "layers.%zu.mlp.dense_h_to_4h", [ZQ_DOWN] = "layers.%zu.mlp.dense_4h_to_h"}},
        .head = "embed_out",
        .default_activation = "gelu", .default_norm_eps = 1e-5, .default_theta = 10000,
        .ignored = {"(.*\\.)?layers\\.\\d+\\.attention\\.(bias|masked_bias|rotary_emb\\.inv_freq)"},
        .norm = ZQ_NORM_PARALLEL, .positions = ZQ_POS_ROTARY_HALF, .qkv_rows = ZQ_QKV_BY_HEAD, .causal = true,
    },
    {
        .model_type = "opt",
        .prefixes = {"model.decoder.", "decoder.", ""},
        .keys = {.width = "hidden_size", .n_layers = "num_hidden_layers", .n_heads = "num_attention_heads", .ffn_width = "ffn_dim",
                 .max_length = "max_position_embeddings", .vocab = "vocab_size", .activation = "activation_function"},
        .names = {.tokens = "embed_tokens", .positions = "embed_positions", .final_norm = "final_layer_norm",
                  .project_in = "project_in", .project_out = "project_out", .norm1 = "layers.%zu.self_attn_layer_norm",
                  .norm2 = "layers.%zu.final_layer_norm",
                  .linear = {[ZQ_Q] = "layers.%zu.self_attn.q_proj", [ZQ_K] = "layers.%zu.self_attn.k_proj",
                             [ZQ_V] = "layers.%zu.self_attn.v_proj", [ZQ_O] = "layers.%zu.self_attn.out_proj",
                             [ZQ_UP] = "layers.%zu.fc1", [ZQ_DOWN] = "layers.%zu.fc2"}},
        .head = "lm_head",
        .default_activation = "relu", .default_norm_eps = 1e-5,
        .norm = ZQ_NORM_PRE, .positions = ZQ_POS_LEARNED, .position_offset = 2, .causal = true, .tied_by_default = true,
    },
    {
        .model_type = "llama",
        .prefixes = {"model.", ""},
        .keys = LLAMA_KEYS, .names = LLAMA_NAMES, .head = "lm_head",
        .default_activation = "silu", .default_norm_eps = 1e-6, .default_theta = 10000,
        .ignored = {"(.*\\.)?rotary_emb\\.inv_freq"},
        .norm = ZQ_NORM_PRE, .positions = ZQ_POS_ROTARY_HALF, .rms = true, .causal = true,
    },
    {
        .model_type = "mistral",
        .prefixes = {"model.", ""},
        .keys = LLAMA_KEYS, .names = LLAMA_NAMES, .head = "lm_head",
        .default_activation = "silu", .default_norm_eps = 1e-6, .default_theta = 10000,
        .ignored = {"(.*\\.)?rotary_emb\\.inv_freq"},
        .norm = ZQ_NORM_PRE, .positions = ZQ_POS_ROTARY_HALF, .rms = true, .causal = true, .sliding_window = true,
    },
    {
        .model_type = "qwen2",
        .prefixes = {"model.", ""},
        .keys = LLAMA_KEYS, .names = LLAMA_NAMES, .head = "lm_head",
        .default_activation = "silu", .default_norm_eps = 1e-6, .default_theta = 10000,
        .ignored = {"(.*\\.)?rotary_emb\\.inv_freq"},
        .norm = ZQ_NORM_PRE, .positions = ZQ_POS_ROTARY_HALF, .rms = true, .causal = true,
    },
    {.model_type = NULL},
};

const struct zq_arch *zq_arch_find(const char *model_type)
{
    for (const struct zq_arch *a = zq_archs; a->model_type; a++)
        if (!strcmp(a->model_type, model_type)) return a;
    return NULL;
}

enum zq_part zq_linear_part(enum zq_linear_role role)
{
    return role <= ZQ_V ? ZQ_PART_QKV : role == ZQ_O ? ZQ_PART_ATTENTION : ZQ_PART_FFN;
}
