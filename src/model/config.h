/* The numbers of one model: config.json read through its architecture row. */
#ifndef ZQ_MODEL_CONFIG_H
#define ZQ_MODEL_CONFIG_H

#include "base/json.h"
#include "kernels/kernels.h"
#include "model/arch.h"

enum zq_rope_scaling { ZQ_ROPE_DEFAULT, ZQ_ROPE_LINEAR, ZQ_ROPE_LLAMA3 };

struct zq_config {
    const struct zq_arch *arch;
    zq_model_kind kind;
    size_t n_layers, width, n_heads, n_kv_heads, head_dim, ffn_width, vocab, max_length;
    size_t embed_width;      /* OPT-350m: word_embed_proj_dim; else width */
    size_t n_types;          /* BERT token types; 0: none */
    size_t n_labels;         /* classifiers */
    size_t window;           /* sliding window; 0: none */
    enum zq_norm_place norm;
    enum zq_activation activation;
    bool gated;              /* the family has a gate map */
    bool tied;               /* the head is the token embedding */
    bool final_norm;
    double norm_eps;
    size_t n_rotated;        /* rotary dimensions per head; 0: learned positions */
    double theta;
    enum zq_rope_scaling rope;
    double rope_factor, rope_low, rope_high;
    size_t rope_original;
    enum zq_dtype dtype;     /* dtype / torch_dtype; F32 when it does not say */
};

/* Reads and checks config.json (spellings of transformers 4 and 5). `name` is for error sentences. ZQ_EUNSUPPORTED for an
 * unknown model_type (lists the known ones), activation or rope type. */
zq_status zq_config_read(struct zq_config *out, const json_t *config, const char *name, zq_error *err);

#endif
