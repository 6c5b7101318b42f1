/* The architecture table: one row per model_type. A row is all that tells families apart; forward (and later backward, other
 * devices) is written once and driven by it. To add a family: add a row in arch.c, a trained or random golden model, done. */
#ifndef ZQ_MODEL_ARCH_H
#define ZQ_MODEL_ARCH_H

#include "quant/types.h"

/* The linear maps of a block, in forward order. A family has some of them. */
enum zq_linear_role { ZQ_QKV, ZQ_Q, ZQ_K, ZQ_V, ZQ_O, ZQ_GATE, ZQ_UP, ZQ_DOWN, ZQ_N_LINEARS };

/* Where the norms of a block stand. */
enum zq_norm_place {
    ZQ_NORM_PRE,      /* x += attn(n1(x)); x += ffn(n2(x)) */
    ZQ_NORM_POST,     /* x = n1(x + attn(x)); x = n2(x + ffn(x)) */
    ZQ_NORM_PARALLEL, /* x += attn(n1(x)) + ffn(n2(x)); without n2: ffn(n1(x)) */
};

enum zq_positions { ZQ_POS_LEARNED, ZQ_POS_ROTARY_HALF, ZQ_POS_ROTARY_PAIRS };

/* Rows of a fused QKV map: all q, all k, all v; or per head q, k, v (GPT-NeoX). */
enum zq_qkv_rows { ZQ_QKV_BY_KIND, ZQ_QKV_BY_HEAD };

/* The part of the network a module belongs to; schemes and reports speak of parts. */
enum zq_part {
    ZQ_PART_QKV,       /* maps into attention: input is what "a16" leaves float in w8a8/16 */
    ZQ_PART_ATTENTION, /* attention output projection */
    ZQ_PART_FFN,
    ZQ_PART_TOKENS,    /* token embedding */
    ZQ_PART_HEAD,      /* LM head or MLM decoder */
    ZQ_PART_OTHER,     /* pooler, classifier, MLM transform, projections around the blocks, other embeddings */
};

/* Keys of config.json by meaning; NULL: the family has none. */
struct zq_config_keys {
    const char *width, *n_layers, *n_heads, *n_kv_heads, *head_dim, *ffn_width, *max_length, *vocab, *norm_eps, *activation;
    const char *rotary_dim; /* GPT-J: a count of dimensions */
};

/* Tensor names below the prefix, without ".weight"/".bias"; "%zu" stands for the layer. NULL: the family has none. */
struct zq_tensor_names {
    const char *tokens, *positions, *types, *embed_norm, *final_norm;
    const char *project_in, *project_out;
    const char *norm1, *norm2;
    const char *linear[ZQ_N_LINEARS];
};

struct zq_arch {
    const char *model_type;
    const char *prefixes[3]; /* what names may begin with, in the order tried; "" among them */
    struct zq_config_keys keys;
    struct zq_tensor_names names;
    const char *head;            /* LM head, from the root (no prefix): "lm_head"; NULL for encoders */
    const char *default_activation;
    const char *ignored[4];      /* PCRE2 patterns of whole tensor names that are known and not needed (buffers) */
    double default_norm_eps, default_theta;
    enum zq_norm_place norm;     /* config.json may change it: use_parallel_residual, do_layer_norm_before */
    enum zq_positions positions;
    enum zq_qkv_rows qkv_rows;
    int position_offset;         /* row of the position table = position + this */
    bool rms;                    /* RMSNorm instead of LayerNorm */
    bool causal;
    bool conv1d;                 /* weights of blocks are stored [in, out] */
    bool tied_by_default;        /* tie_word_embeddings when config.json does not say */
    bool sliding_window;         /* config.json's sliding_window counts */
};

/* NULL if the family is unknown. */
const struct zq_arch *zq_arch_find(const char *model_type);
/* All rows, ended by one whose model_type is NULL. */
extern const struct zq_arch zq_archs[];

enum zq_part zq_linear_part(enum zq_linear_role role);

#endif
