/* The mutable state of running a model. One block of memory, carved once: activations for a step, caches for every slot. */
#ifndef ZQ_MODEL_SESSION_H
#define ZQ_MODEL_SESSION_H

#include "model/device_step.h"
#include "model/model.h"

/* Sees what each linear map of the blocks is about to read: rows of activations, INT8 (q and scale) if the map's spec has a_bits 8, else
 * float (f). For measuring; on the thread that called zq_session_step. */
struct zq_tap {
    void (*see)(void *user, size_t layer, enum zq_linear_role role, const struct zq_rows *in, size_t n_tokens); /* NULL: nobody looks */
    void *user;
};

struct zq_session {
    const struct zq_model *model;
    size_t n_sequences, max_length, max_batch_tokens, max_logit_rows; /* resolved options */
    bool keep_hidden;
    bool together;           /* encoders: threads share every operator, whatever the batch is; for measuring */
    struct zq_tap tap;
    struct zq_ops ops;
    void *memory; /* all arrays below; T = max_batch_tokens, R = max_logit_rows, D = width */

    struct zq_rows x;        /* residual stream [T, D]; INT8 too where blocks begin without a norm */
    float *embedded;         /* [T, embed_width], only with project_in */
    struct zq_rows h, h2;    /* outputs of the first and second norm [T, D] */
    float *qkv;              /* [T, ld_qkv] */
    size_t ld_qkv;
    struct zq_rows attended; /* [T, n_heads * head_dim] */
    struct zq_rows ffn;      /* [T, ffn_width] */
    float *gate;             /* [T, ffn_width], only in gated families */
    struct zq_rows selected, transformed; /* [R, D]: what heads read */
    float *projected;        /* [R, embed_width], only with project_out */
    float *logits;           /* [R, n_outputs] */
    float *host_logits;      /* the same here, where operators run on a device; else logits */
    float *host_x;           /* encoders: [T, width] here, the last hidden states on their way out; else NULL */
    void *host_memory;       /* of what stays here while `memory` is on a device */
    float *hidden;           /* [n_layers + 1, T, D] with keep_hidden */
    struct zq_token_rows *token_rows; /* [T] what the step's embeddings are the sums of */
    float *simulated;        /* [T, widest input], only in models with a simulation */
    uint8_t *kv;             /* caches of kv_bytes each; decoders: [n_sequences, n_layers]; encoders: one */
    zq_kv_format kv_format;         /* resolved */
    size_t kv_capacity;      /* positions of one cache; encoders: of all sequences of a step */
    size_t kv_first;         /* encoders: where those of the inputs in work begin */
    size_t kv_bytes, n_kv;   /* of one cache; caches */
    size_t n_bytes;          /* of all memory */
    float *cos, *sin;        /* [max_length, n_rotated / 2] */
    size_t *lengths;         /* [n_sequences] tokens held */
    struct zq_span *spans;   /* [n_sequences] of the step in work */
    size_t *slots;           /* [n_sequences] slot of each input of the step */
    size_t *groups;          /* [n_sequences + 1] scratch of zq_encode() */
    size_t n_apart;          /* encoders: inputs of the latest batch that went apart */
    struct zq_tile *tiles;
    size_t n_tiles;
    struct zq_device_step there; /* where operators run on a device; takes the place of kv, and of spans and tiles for attention */

    size_t looked_up;        /* rows of the embedding since they were let go */
    size_t n_tokens, n_logit_rows; /* of the latest step; while one runs on a device, with its padding */
};

/* Runs block `layer` on session->x, n_tokens rows; spans and tiles are those of the step. */
void zq_block_forward(struct zq_session *s, size_t layer, size_t n_inputs);

/* Bytes of one position in the caches of one layer: even, so that 16 positions are a multiple of 32. */
size_t zq_kept_bytes(const struct zq_session *s);
const char *zq_kv_name(zq_kv_format kv);
enum zq_dtype zq_kept_dtype(const struct zq_session *s); /* of keys and values */
/* The cache that begins at `position` of the memory of cache number `index`, with room for `capacity` positions from there. */
struct zq_kv zq_session_cache(const struct zq_session *s, size_t index, size_t position, size_t capacity);
/* Positions that n tokens of an encoder take there. */
static inline size_t zq_encoder_positions(size_t n) { return (n + 15) / 16 * 16; }

/* x = embeddings of all tokens of the step, normed where the family does so. */
void zq_embed_inputs(struct zq_session *s, const zq_input *inputs, size_t n_inputs);

/* Final norm and the head of the model: fills hidden[n_layers] if kept, and the logits. */
void zq_heads_forward(struct zq_session *s, const zq_input *inputs, size_t n_inputs);

/* Lays the inputs out as rows of the step, and cuts them into tiles that end at multiples of 16 positions. */
void zq_plan_step(struct zq_session *s, const zq_input *inputs, size_t n_inputs);
/* The step itself, after its inputs were laid out: embeddings and blocks; and the head. */
void zq_blocks_forward(struct zq_session *s, const zq_input *inputs, size_t n_inputs);
void zq_step_forward(struct zq_session *s, const zq_input *inputs, size_t n_inputs);
/* The same for inputs of an encoder on this processor, in groups. */
void zq_encode(struct zq_session *s, const zq_input *inputs, size_t n_inputs);

/* Copies n floats that operators made to memory of this processor. */
void zq_session_fetch(const struct zq_session *s, float *to, const float *from, size_t n);

/* cos and sin tables [n_positions, n_rotated / 2] of a configuration. The same bits on every machine: own reduction and
 * polynomials in double, rounded to float once. */
void zq_rotary_tables(const struct zq_config *c, size_t n_positions, float *cos, float *sin);

#endif
