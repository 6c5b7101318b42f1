/* The table of CPU kernels and the contract of each slot. Read this before any kernel.
 *
 * A kernel is a pure function: no allocation, lock, I/O, error or thread. Callers (src/ops) check shapes, split the work over
 * outputs and hand in scratch. All slots are first filled with plain C (the yardstick), then each ISA level overwrites what
 * it does better; every level gives the same bits as C.
 *
 * One written order for float sums. Let fma(a, b, c) be a * b + c rounded once. All arithmetic is IEEE binary32 to nearest
 * even, subnormals kept, nothing contracted or reassociated beyond what is written:
 *   chain(k)     acc = 0; for k rising: acc = fma(x[k], w[k], acc).                 Products with float inputs, q.k, p.v
 *   lanes(n)     16 lanes, lane l takes the elements i = l mod 16 in rising i (missing tail elements are left out); then
 *                l and l+8 are added, then l and l+4, l+2, l+1.                        Sums over a row: norms, softmax
 * max and min return the second operand if the first is NaN. rne(x) rounds half to even.
 *
 * exp, tanh and the activation functions are those of kernels/math.h, the same on every level; exp(-inf) is 0.
 * No kernel reads or writes outside the arrays it is given; all tail sizes are allowed; alignment is that of the element
 * type except where packed weights are concerned (64 bytes). Inputs are finite unless said otherwise; a NaN gives some result,
 * never a fault. */
#ifndef ZQ_KERNELS_KERNELS_H
#define ZQ_KERNELS_KERNELS_H

#include "quant/types.h"

/* ISA levels: bundles of instructions that ship together. Bits of a mask. */
enum zq_level {
    ZQ_LEVEL_C = 0,
    ZQ_LEVEL_AVX2 = 1 << 0,       /* AVX2, FMA, F16C */
    ZQ_LEVEL_AVXVNNI = 1 << 1,    /* AVX-VNNI, 256 bit */
    ZQ_LEVEL_AVX512VNNI = 1 << 2, /* AVX-512 F, BW, VL, DQ, VNNI */
    ZQ_LEVEL_AVX512BF16 = 1 << 3, /* AVX-512 BF16, on top of the former; kernels of --math fast only */
    ZQ_LEVEL_AMX = 1 << 4,        /* AMX tiles, INT8 and BF16, permission granted by the kernel */
    ZQ_LEVEL_DOTPROD = 1 << 5,    /* ARM */
    ZQ_LEVEL_I8MM = 1 << 6,
};

enum zq_activation { ZQ_ACT_NONE, ZQ_ACT_RELU, ZQ_ACT_GELU, ZQ_ACT_GELU_TANH, ZQ_ACT_SILU, ZQ_ACT_QUICK_GELU, ZQ_ACT_TANH };

/* Rows of floats [n_rows, n] that end in whichever forms the next operators want. f and q may both be given. */
struct zq_rows_out {
    float *f;     /* [n_rows, ld_f] or NULL */
    int8_t *q;    /* [n_rows, ld_q] or NULL */
    float *scale; /* [n_rows], with q */
    size_t ld_f, ld_q;
    uint16_t *h;  /* devices only: [n_rows, ld_f] of h_dtype (F16, clamped to its range, or BF16) or NULL */
    enum zq_dtype h_dtype;
};

/* INT8 tokens, as every slot that fills q does: scale = max|y| / 127, 1 if that is 0; q = clamp(rne(y / scale), -127, 127),
 * with a true division. max|y| over the finished float values y of the row, which f also receives. */

struct zq_norm {
    const float *x;     /* [n_rows, ld_x] */
    size_t ld_x, n;
    const float *gamma; /* [n] */
    const float *beta;  /* [n] or NULL: none is added (fma becomes a product) */
    float eps;
    bool rms;           /* RMSNorm; else LayerNorm */
    struct zq_rows_out out; /* out.f may equal x */
};
/* LayerNorm: mean = lanes(x) / n; d = x - mean; var = lanes(d * d, accumulated with fma) / n; r = 1 / sqrt(var + eps) (IEEE sqrt
 *            and division); y = fma(d * r, gamma, beta), without beta: (d * r) * gamma.
 * RMSNorm:   ms = lanes(x * x, accumulated with fma) / n; r = 1 / sqrt(ms + eps); y = (x * r) * gamma (+ beta by fma if given). */

struct zq_activate {
    const float *x;     /* [n_rows, ld_x] */
    const float *times; /* [n_rows, ld_times] or NULL: y = act(x) * times, the gated form */
    size_t ld_x, ld_times, n;
    enum zq_activation act;
    struct zq_rows_out out; /* out.f may equal x */
};
/* y = act(x) (* times). ZQ_ACT_NONE with out.q is plain quantization of tokens. With q alone, y is computed twice: give f, too
 * (it may be x), where the input may be overwritten. */

/* Rows of stored values. */
struct zq_lookup {
    const uint8_t *values;      /* [.., n] of dtype, any alignment; NULL: no such table */
    enum zq_dtype dtype;        /* F32, F16 or BF16; I8: codes; I32: codes of `bits`, packed as in quant/pack.h, rows of whole words */
    int bits;
    const uint8_t *scales;      /* of codes: [.., n_groups] of scale_dtype */
    enum zq_dtype scale_dtype;
    size_t k_group;             /* of codes: 0 = one scale per row, else divides n */
};

/* Which row of each table. */
struct zq_token_rows {
    uint32_t token, type, position;
};

struct zq_embed {
    const struct zq_token_rows *rows; /* [n_rows] */
    struct zq_lookup tokens, types, positions;
    size_t n;
    const float *gamma;     /* [n] of the norm that follows or NULL: none */
    const float *beta;      /* beta, eps, rms: as in struct zq_norm */
    float eps;
    bool rms;
    struct zq_rows_out out; /* f is always given */
};
/* x = value of the tokens' table (of codes: (float)code * scale), without one: what f holds; x = x + value of the types' table, x = x + value
 * of the positions' table where there are such; then y = norm of x or x. */

/* ---- products ----------------------------------------------------------------------------------------------------- */

/* A weight matrix [n_rows, n_cols]; row = output channel. */
struct zq_matrix {
    size_t n_rows, n_cols;
    size_t k_group;      /* of integer codes: 0 = one scale per row, else divides n_cols (any divisor is allowed) */
    enum zq_dtype dtype; /* of float weights: F32, F16 or BF16 */
    void *packed;        /* packed_bytes() bytes, aligned to 64, filled by pack() */
};

struct zq_product {
    const struct zq_matrix *w;
    size_t n_tokens;
    const int8_t *q;     /* [n_tokens, ld_x] codes -127 .. 127, for the a8 slots */
    const float *scale;  /* [n_tokens], with q */
    const float *x;      /* [n_tokens, ld_x], for the float-input slots */
    size_t ld_x;
    const uint16_t *h;     /* devices only: [n_tokens, ld_x] values of w->dtype (F16 or BF16) instead of x, or NULL */
    const float *bias;     /* [n_rows] or NULL (counts as 0) */
    const float *residual; /* [n_tokens, ld_out] or NULL; may equal out */
    float *out;            /* [n_tokens, ld_out] */
    size_t ld_out;
};
/* One weight format at one level. Results, b = bias[r] or 0:
 *   w8a8, w4a8    per row:    s = sum_k w[k] * q[k] in int32 (exact: |s| <= 131072 * 127 * 128 < 2^31; n_cols <= 131072)
 *                             y = fma((float)s, token_scale * w_scale, b)
 *                 K-groups:   f = 0; for g rising: f = fma((float)s_g, w_scale[g], f);  y = fma(f, token_scale, b)
 *   w8a16, w4a16  per row:    y = fma(chain over k of x[k] * (float)w[k], w_scale, b)
 *                 K-groups:   f = 0; for g rising: f = fma(chain of group g, w_scale[g], f);  y = f + b
 *   float         y = chain over k of x[k] * (float)w[k], then + b
 * then, with residual: y = y + residual. (float)s is to nearest even. Codes: w8 -128 .. 127, w4 -8 .. 7.
 *
 * BF16 products, which zq_kernels_fast() puts into the a16 slots. bf(x): the BF16 value nearest to x, ties to even. x[k] becomes bf(x[k]), a float
 * weight bf(w[k]) (a code is a BF16 value); sums are of F32, in an order that is the level's, and values below 2^-126 may count as 0.
 * With S_g the sum of |bf(x) bf(w)| over group g, of n columns, and s_g its scale (1 for float weights), a result lies within
 *     1.01 * 2^-24 * (n + n_groups + 8) * (sum_g |s_g| S_g + |b| + |residual|)
 *       + 2^-126 * sum_g |s_g| sum_k (1 + |bf(x)| + |bf(w)|) + 2^-149 * (n_groups + 3)
 * of the same formula without rounding. Codes for up to FEW_TOKENS_BF16 tokens (crossovers.h), or whose k_group is no multiple of 32, keep the
 * products above. */
struct zq_gemm {
    const char *name;   /* "gemm_w8_a8_avx512vnni" */
    size_t row_tile;    /* row ranges given to run() begin at multiples of it and end at one or at n_rows */
    size_t (*packed_bytes)(const struct zq_matrix *w); /* 0 if the product of sizes overflows */
    /* Packs rows [row, row + n); row is a multiple of row_tile. values: [n, n_cols] int8_t codes (for w4 too: one per byte), or
     * values of w->dtype. scales: [n, n_groups], NULL for float weights. Padding rows and columns are the kernel's business. */
    void (*pack)(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales);
    void (*run)(const struct zq_product *p, size_t row_begin, size_t row_end);
};

/* ---- attention ---------------------------------------------------------------------------------------------------- */

/* Keys and values of one sequence in one layer, as floats, as F16 or as INT8 codes with one scale per position and key head.
 * k: [n_kv_heads][capacity / 16][head_dim][16]: 16 positions side by side, so that scores of 16 keys are one vector.
 * v: [n_kv_heads][capacity][head_dim]. capacity is a multiple of 16. */
struct zq_kv {
    enum zq_dtype dtype;      /* ZQ_F32, ZQ_F16 or ZQ_I8 */
    void *k, *v;              /* values of dtype; k aligned to 16 values */
    float *k_scale, *v_scale; /* ZQ_I8: [n_kv_heads][capacity] */
    size_t capacity;
};

struct zq_heads {
    size_t n_heads, n_kv_heads, head_dim;
    size_t q_offset, k_offset, v_offset; /* within a token's row of the qkv buffer */
    size_t q_stride, kv_stride;          /* from head to head */
};

struct zq_rotary {
    const float *cos, *sin; /* [position][n_rotated / 2] */
    size_t n_rotated;       /* leading dimensions of each head that are rotated; 0: no rotary positions */
    bool pairs;             /* (2i, 2i+1) rotate together (GPT-J); else (i, i + n_rotated/2) */
};
/* For each pair (a, b) with c = cos, s = sin: a' = fma(a, c, -(b * s)), b' = fma(b, c, a * s).
 * What is kept of a head x[head_dim]: F32: x. F16: rne(min(max(x, -65504), 65504)). INT8: codes and a scale as INT8 tokens have them. */

struct zq_keep { /* rotates q and k of new tokens, and appends k and v to the cache */
    float *qkv;         /* [n_tokens, ld]; q and k are rotated in place */
    size_t ld, n_tokens;
    size_t position;    /* of the first token: its index in the cache and in the rotary tables */
    struct zq_heads heads;
    struct zq_rotary rotary;
    struct zq_kv kv;
};

struct zq_attend {
    const float *qkv;    /* [n_tokens, ld]: q after rotation */
    size_t ld, n_tokens;
    size_t position;     /* of the first token */
    size_t n_keys;       /* keys in the cache, these tokens' own included */
    size_t window;       /* the token at position i sees keys j with i - j < window; 0: no limit */
    bool causal;         /* a token sees keys up to its own position; else all n_keys */
    float scale;         /* of scores */
    struct zq_heads heads;
    struct zq_kv kv;
    float *out;          /* [n_tokens, ld_out]: head h at h * head_dim */
    size_t ld_out;
    float *scratch;      /* attend_scratch() floats, aligned to 64, of this thread */
};
/* For token i and head h (its kv head: h * n_kv_heads / n_heads), over the visible keys j in [first, last]:
 *   m = -inf; l = 16 lanes of 0; o[d] = 0
 *   for each key tile [64 t, 64 t + 64) that holds a visible key, t rising:
 *     s_j = chain over d of q[d] * k[j][d], for INT8 times k_scale[j], times scale    (-inf for keys of the tile that are not visible)
 *     m' = max(m, max_j s_j);  a = exp(m - m') (0 when m is -inf);  p_j = exp(s_j - m') (0 for keys that are not visible)
 *     l[j mod 16] = fma(l[j mod 16], a, p_j) for the tile's first 16 keys, then l[j mod 16] += p_j for its next 16, and so on
 *     o[d] = o[d] * a, then for visible j rising: o[d] = fma(p_j, v[j][d], o[d]), for INT8 with p_j * v_scale[j];  m = m'
 *   out[d] = o[d] / (l reduced as lanes() does)
 * So a token's result depends neither on the other tokens of the call nor on how a text was cut into calls.
 *
 * BF16 attention, which zq_kernels_fast_attention() puts in: bf(q[d]) * bf(k[j][d]) and bf(p_j) * bf(v[j][d]), INT8 keys and values with
 * their scales before they are rounded; l sums p_j as it is. Sums of products are of F32, in an order that is the level's. With e the largest
 * 2^-24 (head_dim + 6) scale sum_d |bf(q) bf(k)| of a visible key and P the weighted sum of |bf(v[d])|, a result lies within
 *     1.01 * (2 (exp(2 e) - 1) + 2^-24 (3 n_keys + 20) + 2^-8) * P + 2^-126 * sum_j (2 + |bf(v_j[d])|)
 * of the formula without rounding but bf(q), bf(k), bf(v). Calls with up to FEW_QUERIES_BF16 queries (crossovers.h) of a key head, and heads of
 * odd size, keep the attention above. */

/* ---- the table ---------------------------------------------------------------------------------------------------- */

struct zq_matmul;
typedef void zq_matmul_fn(const struct zq_matmul *p);

struct zq_kernels {
    unsigned levels; /* the mask it was filled with */
    bool bf16;       /* the a16 slots hold BF16 products */
    bool bf16_attention; /* so does attend */

    /* For training: struct zq_matmul of training.h, with bf(alpha a) and bf(b) in place of alpha a and b. Sums are of F32, in an order that is the
     * level's but the same for every part of c. With S the sum of |bf(alpha a) bf(b)| over k, within
     *     1.01 * 2^-24 * (k + 8) * (S + |c|) + 2^-126 * (1 + sum_k (1 + |bf(alpha a)| + |bf(b)|))
     * of the same formula without rounding. NULL but for what zq_kernels_fast() finds units for. */
    zq_matmul_fn *matmul;

    /* rows [begin, end) */
    void (*norm)(const struct zq_norm *a, size_t begin, size_t end);
    void (*activate)(const struct zq_activate *a, size_t begin, size_t end);
    void (*embed)(const struct zq_embed *a, size_t begin, size_t end);

    struct zq_gemm w8_a8, w4_a8, w8_a16, w4_a16, f32_a16; /* f32_a16: float weights of any float dtype */

    /* tokens [begin, end) of the call, key heads [head_begin, head_end) and the heads that read them. Two threads never write the same
     * cache line of k: ranges of tokens are cut at multiples of 16 positions by the caller. */
    void (*keep)(const struct zq_keep *a, size_t begin, size_t end, size_t head_begin, size_t head_end);
    size_t (*attend_scratch)(const struct zq_heads *heads); /* floats */
    /* tokens [begin, end), heads [head_begin, head_end) */
    void (*attend)(const struct zq_attend *a, size_t begin, size_t end, size_t head_begin, size_t head_end);

    /* dst[i] = the i-th value of a float dtype, exactly. */
    void (*to_float)(float *dst, const void *src, enum zq_dtype dtype, size_t n);
};

/* Fills every slot for a mask of levels. */
void zq_kernels_init(struct zq_kernels *k, unsigned levels);
/* What --math fast changes in a filled table: BF16 products if its levels have units for them, else nothing. */
void zq_kernels_fast(struct zq_kernels *k);
/* The same of attention, for models whose tokens stay float. */
void zq_kernels_fast_attention(struct zq_kernels *k);

/* Levels of this processor that the operating system lets us use, reduced by the environment variable ZQ_ISA: the name of a
 * level ("c", "avx2", "avxvnni", "avx512vnni", "avx512bf16", "amx", "dotprod", "i8mm") means that level and those below it.
 * ZQ_EINVAL for an unknown name: the sentence lists the valid ones. */
zq_status zq_levels_detect(unsigned *levels, zq_error *err);
/* Name of the highest level in a mask: "c", "avx2", ... */
const char *zq_levels_name(unsigned levels);

#endif
