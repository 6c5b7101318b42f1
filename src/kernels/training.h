/* Training a block, and what is summed up to solve one: operators and the contract of each. Two tables offer them: distill/processor.c (BLAS, and
 * loops over a team of threads) and a device plug-in (cuda/training.cu: cuBLASLt, and kernels). What drives them is written once (a block's step:
 * distill/forward.c, backward.c, lkd.c, full.c; sums: closed.c, gram.c) and never looks into an array.
 *
 * Arrays lie where the table's alloc() puts them. Operators are queued in order and cannot fail by themselves: check() tells whether all went well.
 * Order of float operations: products and attention have none that is promised; sums over tokens (means, gradients of biases, norms and scales) and
 * of a token's loss are taken in double; everything else is the same bits on every table: rows in 16 lanes as lanes() of kernels.h says, nothing
 * contracted. Arrays of floats are F32. */
#ifndef ZQ_KERNELS_TRAINING_H
#define ZQ_KERNELS_TRAINING_H

#include "kernels/kernels.h"
#include "quant/scheme.h"

/* What the factors of a product may be read as, at the least. Sums stay F32. TF32 (10 bits of mantissa) is F32 on this processor, and so is BF16
 * (7 bits, rounded to nearest even) where it has no units for it. */
enum zq_factors { ZQ_FACTORS_F32, ZQ_FACTORS_TF32, ZQ_FACTORS_BF16 };

/* c [m, n] = alpha * a [m, k] b [k, n] (+ c). Row-major with leading dimensions; a turned operand is stored transposed.
 * Not both may be turned. m, n, k and leading dimensions < 2^31. */
struct zq_matmul {
    size_t m, n, k;
    float alpha;
    const float *a, *b;
    size_t lda, ldb;
    bool turn_a, turn_b;
    float *c;
    size_t ldc;
    bool add;
    enum zq_factors factors;
};

/* out [n_rows, ld] = bias (+ residual [n_rows, n], which may be out with ld n): what a product is added to. */
struct zq_rows_start {
    const float *bias;     /* [n] */
    const float *residual; /* or NULL */
    float *out;
    size_t n_rows, n, ld;
};

/* LayerNorm and RMSNorm in both directions. */
struct zq_norm_pass {
    size_t n_tokens, n;
    bool rms;
    float eps;
    const float *x;     /* [n_tokens, n]: input of the norm, in both directions */
    float *stats;       /* [n_tokens, 2]: mean (0 for RMSNorm) and 1 / sqrt(variance + eps) */
    const float *gamma; /* [n] */
    const float *beta;  /* [n] or NULL */
};
/* From dy [n_tokens, n]: dgamma, dbeta [n] (dbeta NULL where beta is), and dx = gradient of x + add, where add may be NULL and
 * either may be dx or dy. */
struct zq_norm_back {
    struct zq_norm_pass pass;
    const float *dy, *add;
    float *dgamma, *dbeta, *dx;
};

/* All arrays hold n values. y = act(u), or act(u) * times. */
struct zq_activation_pass {
    enum zq_activation act;
    size_t n;
    const float *u;
    const float *times; /* NULL: no gate */
};

/* Softmax attention over several sequences, one after the other. */
struct zq_attention_pass {
    struct zq_heads heads;
    struct zq_rotary rotary;   /* cos and sin: [max_length, n_rotated / 2] */
    bool causal;
    size_t window;             /* 0: none */
    float scale;               /* of scores */
    bool fast;                 /* products of BF16 factors; on a device the same as without */
    zq_matmul_fn *product;     /* this processor's own: of fast products */
    size_t n_sequences, n_tokens, max_length; /* max_length: of any sequence that may come */
    const uint32_t *begins;    /* [n_sequences + 1] first token of each, then n_tokens */
    const uint32_t *positions; /* [n_tokens] in its sequence */
    float *qkv;                /* [n_tokens, ld]; the forward pass rotates queries and keys in place */
    size_t ld;
    float *attended;           /* [n_tokens, n_heads * head_dim] */
    float *stats;              /* devices: [n_tokens, n_heads, 3] what the backward pass needs of the forward pass, and scratch */
    const float *d_attended;   /* backward; devices read `attended` once more */
    float *d_qkv;              /* [n_tokens, ld]: of queries and keys before rotation */
};

/* out = the values of round-to-nearest codes of w, as the exporter makes them. */
struct zq_fake_weights {
    const float *w; /* [n_rows, n_cols] */
    float *out;     /* [n_rows, n_cols], not w */
    size_t n_rows, n_cols;
    const struct zq_layout *layout; /* integer codes */
    float *shared;  /* [n_rows] for groups of rows: becomes their scale */
    float *scales;  /* [n_rows, n_groups] become those of the codes; NULL: not wanted */
};

/* A map whose codes multiply INT8 tokens in integers, as they will when it runs. */
struct zq_coded_map {
    struct zq_matrix w;  /* packed by pack(), read by coded_product() */
    const float *fake;   /* [n_rows, n_cols] values of the codes */
    const float *scales; /* [n_rows, n_groups] */
};

/* Distance of y from target [n_tokens, width], by token, and its gradient. */
struct zq_loss_pass {
    bool kl;            /* KL(softmax(target) || softmax(y)) of each token; else sums of squares */
    const float *y, *target;
    size_t n_tokens, width;
    float *dy;          /* of the mean over tokens (squares: over values); NULL: not wanted. May be y */
    double *row_sums;   /* [n_tokens] */
};

/* AdamW over n values: first = b1 first + (1 - b1) g, second = b2 second + (1 - b2) g g,
 * params = params keep - rate (first / (sqrt(second) correction + eps)). */
struct zq_adamw_pass {
    float *params, *first, *second;
    const float *grads;
    size_t n;
    float b1, b2, eps, keep, rate, correction;
};
/* mean += share (grads - mean); params -= rate * sign(mean), kept within [-limit, limit]; settled += share (params - settled). */
struct zq_sign_pass {
    float *params, *mean, *settled;
    const float *grads;
    size_t n;
    float share, rate, limit;
};

/* A quantized map whose roundings are learned: of each weight an offset, of each scale a factor. Groups are runs of n_cols / n_groups weights of a
 * row; n_scales = n_rows * n_groups. */
struct zq_rounding {
    size_t n_rows, n_cols, n_groups;
    int bits;
    enum zq_dtype scale_dtype;
    size_t row_groups;     /* rows that share a scale share its factor; 0: none do */
    float *w;              /* [n_rows, n_cols] the weights at first; offsets in units of the scale from begin_rounding() on */
    float *fake, *dw;      /* [n_rows, n_cols] values, and their gradients */
    int8_t *codes;         /* [n_rows, n_cols] the best so far */
    float *scales;         /* [n_scales] of these */
    float *centres;        /* [n_rows, n_cols] weights in units of the scale, within `reach` of the first code */
    float *first;          /* [n_scales] the scales that training began with */
    float *stretch;        /* [n_scales] the present ones are first * (1 + stretch), as their dtype has it */
    float *slope;          /* [n_scales] gradients of stretch, but for a positive factor */
    float *present;        /* [n_scales] */
    float reach;           /* how far from its code a weight may begin */
};

struct zq_training_ops {
    bool on_device;
    void *(*alloc)(void *self, size_t n_bytes); /* zeros, aligned to 64; NULL: no memory */
    void (*free)(void *self, void *p);          /* accepts NULL */
    void (*upload)(void *self, void *to, const void *from, size_t n_bytes); /* `from` may be reused at once */
    void (*download)(void *self, void *to, const void *from, size_t n_bytes);
    void (*copy)(void *self, void *to, const void *from, size_t n_bytes);
    void (*clear)(void *self, void *to, size_t n_bytes); /* multiples of 4 */
    const char *(*check)(void *self); /* waits; the first failure as a sentence, or NULL */

    void (*product)(void *self, const struct zq_matmul *a);
    void (*start)(void *self, const struct zq_rows_start *a);
    void (*column_sums)(void *self, const float *x, size_t ld, size_t n_rows, size_t n, float *out); /* out[j] = sum over rows, j < n */
    void (*add_columns)(void *self, const float *x, size_t n_rows, size_t n, double *sums); /* sums[j] += sum over rows of x [n_rows, n] */
    void (*norm)(void *self, const struct zq_norm_pass *a, float *out); /* out may be x; fills stats */
    void (*norm_back)(void *self, const struct zq_norm_back *a);
    void (*activate)(void *self, const struct zq_activation_pass *a, float *out); /* out may be u */
    /* du, and with a gate dtimes, from dy; du or dtimes may be dy. */
    void (*activate_back)(void *self, const struct zq_activation_pass *a, const float *dy, float *du, float *dtimes);
    void (*attend)(void *self, const struct zq_attention_pass *a);
    void (*attend_back)(void *self, const struct zq_attention_pass *a);
    /* INT8 tokens of x [n_tokens, n] as floats, one scale each; out may be x. A token with a NaN or an infinity stays as it is. */
    void (*fake_tokens)(void *self, const float *x, float *out, size_t n_tokens, size_t n);
    void (*fake_weights)(void *self, const struct zq_fake_weights *a, uint32_t *bad); /* *bad = 1 if a weight is NaN or infinite, else kept */
    void (*add)(void *self, float *x, const float *y, size_t n); /* x += y */
    void (*add_difference)(void *self, float *x, const float *a, const float *b, float by, size_t n); /* x += by (a - b) */
    void (*scale)(void *self, float *x, float by, size_t n);     /* x *= by */
    void (*loss)(void *self, const struct zq_loss_pass *a);
    void (*adamw)(void *self, const struct zq_adamw_pass *a);
    void (*signsgd)(void *self, const struct zq_sign_pass *a);

    void (*begin_rounding)(void *self, const struct zq_rounding *a); /* centres, first and present from w, codes and scales; w = 0 */
    void (*round)(void *self, const struct zq_rounding *a);          /* present and fake = what offsets and factors come to */
    void (*slopes)(void *self, const struct zq_rounding *a);         /* slope; dw = 0 where a weight lies beyond the last code */
    void (*keep_rounding)(void *self, const struct zq_rounding *a);  /* codes and scales = the present ones */
    void (*decode)(void *self, const struct zq_rounding *a);         /* fake = codes * scales */

    /* NULL where products of codes are those of their values, as on devices. */
    void (*pack)(void *self, const struct zq_coded_map *a);
    /* fake_tokens, and codes q [n_tokens, n] with scale [n_tokens]; NaN for a token that has none. */
    void (*code_tokens)(void *self, const float *x, float *out, int8_t *q, float *scale, size_t n_tokens, size_t n);
    void (*coded_product)(void *self, const struct zq_product *p); /* w8_a8 of struct zq_kernels */
};

/* A table with what its operators take first. */
struct zq_trainer {
    const struct zq_training_ops *ops;
    void *self;
};

#endif
