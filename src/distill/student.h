/* One transformer block in training: float weights, what their codes would stand for, gradients, and the activations of one
 * batch. Forward and backward are written once and driven by the architecture row, as model/block.c is for running.
 *
 * The same block is teacher and student: fed float (quantized false) before training starts, it gives the targets.
 * All memory is one piece, whose size follows from the options alone; loading another layer takes no more. */
#ifndef ZQ_DISTILL_STUDENT_H
#define ZQ_DISTILL_STUDENT_H

#include "distill/processor.h"
#include "distill/texts.h"
#include "model/config.h"

struct zq_student_options {
    const struct zq_config *config; /* copied */
    struct zq_layout layouts[ZQ_N_LINEARS]; /* how each map is quantized; those of maps that the family lacks are not read */
    size_t max_sequences; /* of a batch */
    size_t max_length;    /* tokens of a sequence, <= config->max_length */
    size_t max_tokens;    /* of a batch, all sequences together */
    bool trains;          /* false: forward only, nothing is kept for gradients */
    bool adam;            /* with trains: memory for lkd.h, two moments and a copy of every parameter and a batch */
    int n_threads;        /* >= 1 */
    struct zq_trainer trainer; /* where the block lies and its operators run; ops NULL: this processor */
    bool fast;            /* products in training are of BF16 factors */
};

/* A linear map. Rows are output channels, whatever the layout in the file. */
struct zq_student_linear {
    size_t n_rows, n_cols; /* 0: the family has no such map */
    struct zq_layout layout;
    bool has_bias;         /* the file has one; bias is all zeros otherwise */
    float *w, *bias;       /* [n_rows, n_cols], [n_rows]: slices of params */
    float *dw, *dbias;     /* their gradients: slices of grads */
    float *fake;           /* [n_rows, n_cols]: the values of the codes; w itself where weights stay float */
    float *shared;         /* [n_rows] groups of rows only: the scale of a row as quantized last */
    float *scales;         /* [n_rows, n_groups] of the codes as quantized last, where there is `coded` */
    struct zq_matrix coded; /* the codes, packed; packed NULL: products are of their values */
};

struct zq_student_norm {
    float *gamma, *beta;   /* [width]; gamma NULL: no such norm, beta NULL: RMSNorm */
    float *dgamma, *dbeta;
    float *stats;          /* [T, 2] of the latest forward pass */
};

/* What maps read: floats, and INT8 tokens as floats for maps with 8-bit activations. The two are one array where nothing needs
 * the floats any more. */
struct zq_student_input {
    const float *f; /* [T, n] */
    float *fake;    /* [T, n]; NULL: no map wants it */
    size_t n;
    int8_t *q;      /* [T, n] the codes; NULL: no product of codes wants them */
    float *q_scale; /* [T], with q */
};

/* Arrays lie where the trainer says, and code that may run anywhere hands them to its operators and never looks into them. */
struct zq_student {
    struct zq_config config;
    const struct zq_training_ops *ops;
    void *self;            /* their first argument */
    struct zq_processor processor; /* that argument where they run here */
    int n_threads;
    enum zq_factors factors; /* of products in the passes that follow */
    bool coded;            /* those of maps that have codes are of codes */
    size_t max_sequences, max_length, max_tokens;
    bool trains, adam;
    struct zq_heads heads;
    size_t ld_qkv;
    float score_scale;     /* 1 / sqrt(head_dim) */
    void *memory;          /* all arrays below and above; T = max_tokens, D = width, F = ffn_width, A = n_heads * head_dim */

    float *params, *grads; /* [n_params]: every weight, bias and norm in a row; gaps between them stay 0 in both */
    size_t n_params;
    struct zq_student_linear linear[ZQ_N_LINEARS];
    struct zq_student_norm norm1, norm2;

    size_t n_sequences, n_tokens; /* of the latest batch */
    size_t *lengths;       /* here: [max_sequences] of zq_student_samples */
    uint32_t *begins;      /* here: [max_sequences + 1] first token of each sequence, then n_tokens */
    uint32_t *positions;   /* here: [T] of each token in its sequence */
    uint32_t *there;       /* both for the operators, begins first; begins itself where they run here */
    bool quantized;        /* the latest forward pass was the student's */
    const float *x;        /* [T, D] its input */
    struct zq_student_input attention_in, o_in, ffn_in, down_in;
    float *normed1, *normed2; /* [T, D] outputs of the norms; post: that of norm2 is the caller's */
    float *qkv;            /* [T, ld_qkv] after rotation */
    float *attended;       /* [T, A] */
    float *mid;            /* [T, D] x + attention */
    float *last;           /* [T, D] before norm2 where norms come last, else unused */
    float *up, *gate, *act; /* [T, F]; gate only in gated families */
    float *cos, *sin;      /* [max_length, n_rotated / 2] */

    float *d_stream, *d_in; /* [T, D] gradients of the residual stream and of a norm's output */
    float *d_qkv, *d_attended; /* as qkv, attended */
    float *d_up, *d_gate;  /* as up, gate */

    float *start, *moments; /* adam: [n_params] to fall back on, [2, n_params] */
    float *batch_x, *batch_target, *batch_out; /* adam: [T, D] */
    double *row_sums;      /* adam: [T] */

    uint32_t *bad;         /* [1] of zq_student_quantize */
    float *attention_stats; /* devices: [T, n_heads, 3] */
    void *here;            /* devices: the arrays that lie here */
    double *sums_here;     /* devices: [T], here */
};

/* Bytes that zq_student_create will take. ZQ_EINVAL or ZQ_ELIMIT, with *n_bytes 0, for sizes that cannot be. */
zq_status zq_student_bytes(size_t *n_bytes, const struct zq_student_options *options, zq_error *err);
/* The same with the sizes of every map and norm; pointers of *out mean nothing. */
zq_status zq_student_shape(struct zq_student *out, size_t *n_bytes, const struct zq_student_options *options, zq_error *err);
/* All weights are 0 until they are loaded or written by the caller. *out is NULL unless ZQ_OK. */
zq_status zq_student_create(struct zq_student **out, const struct zq_student_options *options, zq_error *err);
/* Accepts NULL. By the thread that created it: until then that thread's team is kept (base/threads.h). */
void zq_student_free(struct zq_student *s);

/* Reads the float weights of a layer of a model (header_only is enough). ZQ_EUNSUPPORTED if a map is quantized already. */
zq_status zq_student_load(struct zq_student *s, const zq_model *model, size_t layer, zq_error *err);

/* The loss; dy and row_sums as the operator leaves them. */
double zq_student_loss(struct zq_student *s, const struct zq_loss_pass *a);
/* ZQ_OK, or ZQ_EIO where an operator failed. */
zq_status zq_student_check(const struct zq_student *s, zq_error *err);

/* From begin to end quantized passes of a student that trains multiply codes where its table does, and other products may be fast. Until its first
 * pass zq_student_quantize() is due, and zq_student_pack() after each other change of `fake`. */
void zq_student_begin_training(struct zq_student *s, bool fast);
void zq_student_end_training(struct zq_student *s);
/* What judges multiplies in F32 on this processor, whatever training may, and in TF32 on a device where training may BF16. Returns what `factors`
 * was and is afterwards to be again. */
enum zq_factors zq_student_judges(struct zq_student *s);

/* Brings `fake` of every map up to date with its weights; due after each change of params. false if a weight is NaN or infinite. */
bool zq_student_quantize(struct zq_student *s);
/* In training: the map's codes are those of `fake` under these scales. */
void zq_student_pack(struct zq_student *s, enum zq_linear_role role, const float *scales);

/* A batch: rows of several sequences, one after the other, each from position 0. */
struct zq_student_batch {
    const float *x;        /* [sum of lengths, width]; must stay until the backward pass */
    const size_t *lengths; /* [n_sequences], each 1 .. max_length */
    size_t n_sequences;
};
/* out [n_tokens, width] = the block's output, not x. quantized: with fake weights and INT8 tokens, else all float. The batch
 * fits the options. */
void zq_student_forward(struct zq_student *s, const struct zq_student_batch *batch, bool quantized, float *out);
/* The maps of a block by what they read, in the order in which a forward pass comes to them. */
enum zq_student_stage { ZQ_AT_QKV, ZQ_AT_O, ZQ_AT_FFN, ZQ_AT_DOWN, ZQ_N_STAGES };
static inline const struct zq_student_input *zq_student_input_at(const struct zq_student *s, enum zq_student_stage at)
{
    return at == ZQ_AT_QKV ? &s->attention_in : at == ZQ_AT_O ? &s->o_in : at == ZQ_AT_FFN ? &s->ffn_in : &s->down_in;
}
/* Runs a forward pass as far as the input of the maps of a stage. */
void zq_student_reach(struct zq_student *s, const struct zq_student_batch *batch, bool quantized, enum zq_student_stage stage);
/* n samples of `length` tokens, one after the other in x, as a batch of the texts in them (texts.h). Valid until the next such batch. */
struct zq_student_batch zq_student_samples(struct zq_student *s, const float *x, size_t n, size_t length);
void zq_student_forward_samples(struct zq_student *s, const float *x, size_t n, size_t length, bool quantized, float *out);
/* Gradients of the latest forward pass from dy [n_tokens, width], the gradient of its output: overwrites grads, and dx
 * [n_tokens, width] unless it is NULL. Only for a student that trains. */
void zq_student_backward(struct zq_student *s, const float *dy, float *dx);

/* ---- parts, for forward.c and backward.c ---------------------------------------------------------------------------- */

/* What attention takes in both directions. */
struct zq_attention_pass zq_student_attention(const struct zq_student *s);

/* The form of its input that a map reads in the latest pass, and the weights it multiplies with. */
static inline const float *zq_student_read(const struct zq_student *s, const struct zq_student_linear *l, const struct zq_student_input *in)
{
    return s->quantized && l->layout.spec.a_bits == 8 ? in->fake : in->f;
}
static inline const float *zq_student_weights(const struct zq_student *s, const struct zq_student_linear *l)
{
    return s->quantized ? l->fake : l->w;
}

#endif
