/* A model in memory: configuration, weights bound by the architecture row, and the kernels they are packed for. Immutable
 * after zq_model_open. */
#ifndef ZQ_MODEL_MODEL_H
#define ZQ_MODEL_MODEL_H

#include "model/weights.h"

struct zq_block {
    struct zq_norm_weights norm1, norm2; /* gamma NULL: the family has none */
    struct zq_linear linear[ZQ_N_LINEARS];
    struct zq_forms attention_in, o_in, ffn_in, down_in; /* what the maps of this block want */
};

struct zq_model {
    char *dir;
    struct zq_checkpoint *ckpt;
    struct zq_compressed *compressed; /* NULL: nothing is quantized */
    struct zq_config config;
    struct zq_modules modules;
    struct zq_stored *stored;         /* [modules.n] */
    struct zq_kernels kernels;
    struct zq_arena arena;            /* of packed weights, unless they lie on a device */
    struct zq_device *device;         /* NULL: weights lie here; else those that operators read lie there */
    zq_math math;
    zq_kv_format kv;                         /* of sessions, unless they say otherwise: never ZQ_KV_DEFAULT */
    bool blas;                        /* float products go through BLAS */
    enum zq_dtype halves;             /* what float maps read on a device with --math fast: ZQ_F16 or ZQ_BF16; ZQ_F32: floats */
    bool ready;                       /* packed: sessions may run it */

    struct zq_stored tokens;          /* looked up row by row */
    const struct zq_tensor *positions, *types; /* NULL: none */
    struct zq_linear device_tokens;   /* on a device: the embedding, unless the head's matrix serves for it */
    const struct zq_linear *lookup;   /* on a device: whichever it is */
    float *device_positions, *device_types; /* on a device: the tables as floats */
    struct zq_linear project_in, project_out;  /* OPT-350m */
    struct zq_norm_weights embed_norm, final_norm;
    struct zq_block *blocks;          /* [n_layers] */
    struct zq_linear head;            /* decoder, MLM: [vocab, embed_width]; shares the rows of `tokens` when tied */
    struct zq_linear pooler, classifier, mlm_dense;
    struct zq_norm_weights mlm_norm;

    struct zq_simulation *simulation; /* NULL: the model runs as it is stored */

    char **labels;                    /* [n_labels] */
    int32_t end_ids[16];
    size_t n_end_ids;
    zq_tokenizer *tokenizer;          /* NULL: none in the directory */
    zq_pooling pooling;               /* of sentence-transformers files; ZQ_POOL_MEAN without */
    bool pool_normalize;
};

/* Makes a model of a checkpoint, which it takes over, also when it fails: all of zq_model_open but the files beside config.json
 * and weights. *out is NULL unless ZQ_OK is returned. */
zq_status zq_model_make(zq_model **out, struct zq_checkpoint *ckpt, const zq_open_options *options, zq_error *err);
/* Fills the weights of m from its checkpoint: every tensor that the row calls for, with its shape; then names what is left over. */
zq_status zq_model_bind(struct zq_model *m, const zq_open_options *options, zq_error *err);
/* Reads modules.json and 1_Pooling/config.json if the directory has them. */
zq_status zq_pooling_read(struct zq_model *m, zq_error *err);

#endif
