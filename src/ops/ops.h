/* The waist: what model code calls. An operator checks nothing about outside data (the binder did), splits its work over
 * outputs, and hands ranges to the kernels. All memory comes from the caller. */
#ifndef ZQ_OPS_OPS_H
#define ZQ_OPS_OPS_H

#include <stdatomic.h>

#include "base/threads.h"
#include "cuda/load.h"

struct zq_linear;

/* An operator that has run: which one, on what. */
enum zq_operator { ZQ_OP_EMBED, ZQ_OP_PRODUCT, ZQ_OP_NORM, ZQ_OP_ACTIVATE, ZQ_OP_ATTENTION };
struct zq_event {
    enum zq_operator op;
    const struct zq_embed *embed; /* embeddings */
    const struct zq_linear *map;  /* products */
    size_t n_rows, n;            /* of the output: tokens, and values of each */
    bool f, q;                   /* forms that it left */
    bool residual;               /* products: added on the way out */
};
/* Told before (NULL) and after each operator, for measuring; on the thread that runs the step. */
struct zq_watch {
    void (*see)(void *user, const struct zq_event *event); /* NULL: nobody looks */
    void *user;
};

struct zq_ops {
    const struct zq_kernels *kernels;
    struct zq_team *team;
    float *scratch;         /* [team size][thread_floats], aligned to 64 */
    size_t thread_floats;   /* >= zq_ops_thread_floats() of every operator used */
    const struct zq_plugin *plugin; /* NULL: this processor; else all arrays lie on a device, and work is queued */
    struct zq_queue *queue;
    struct zq_watch watch;
};

static inline void zq_watch_see(const struct zq_ops *ops, const struct zq_event *event)
{
    if (ops->watch.see) ops->watch.see(ops->watch.user, event);
}

/* Rows of activations in the forms the next operator may want: float, INT8 with one scale per row, or both. */
struct zq_rows {
    float *f;     /* [n, ld] or NULL */
    int8_t *q;    /* [n, zq_codes_ld(ld)] or NULL */
    float *scale; /* [n], with q */
    size_t ld;
    uint16_t *h;  /* on a device with --math fast: [n, ld] of h_dtype for float maps of that type, or NULL */
    enum zq_dtype h_dtype;
};
/* Row stride of INT8 codes beside floats of stride ld: the same, but on a device a multiple of what its copies move. */
static inline size_t zq_codes_ld(const struct zq_plugin *plugin, size_t ld)
{
    return plugin ? (ld + ZQ_DEVICE_ALIGN - 1) / ZQ_DEVICE_ALIGN * ZQ_DEVICE_ALIGN : ld;
}

/* The same from a row on; on this processor. */
static inline struct zq_rows zq_rows_from(struct zq_rows r, size_t row)
{
    if (r.f) r.f += row * r.ld;
    if (r.q) r.q += row * r.ld;
    if (r.scale) r.scale += row;
    return r;
}

/* Which forms are wanted. */
struct zq_forms {
    bool f, q, h;
};

/* A linear map as it runs: y = x W^T + bias. */
struct zq_linear {
    struct zq_spec spec;
    struct zq_matrix w;          /* w.packed is NULL if the product goes through BLAS */
    const struct zq_gemm *gemm;  /* NULL: BLAS */
    const uint8_t *stored;       /* BLAS: values of w.dtype, [n_rows, n_cols] or transposed, in the mapped file */
    bool transposed;
    bool halves;                 /* takes the form h of its input */
    float *bias;                 /* [n_rows] or NULL */
    const struct zq_device *device; /* where w.packed and bias lie; NULL: here */
};
static inline bool zq_linear_exists(const struct zq_linear *l) { return l->w.n_rows != 0; }

/* out [n, ld_out] = x W^T + bias (+ residual, which may be out). Takes the form of x that the map's spec asks for. */
void zq_linear_run(const struct zq_ops *ops, const struct zq_linear *l, struct zq_rows x, size_t n, const float *residual, float *out, size_t ld_out);
/* Maps of one input, each into its own outputs: packed ones of this processor with one barrier for all. */
struct zq_linear_output {
    const struct zq_linear *l;
    float *out; /* [n, ld_out] */
};
void zq_linear_run_all(const struct zq_ops *ops, const struct zq_linear_output *maps, size_t n_maps, struct zq_rows x, size_t n, size_t ld_out);
/* What a matrix of this spec is packed for on a device. */
enum zq_device_format zq_device_format(struct zq_spec spec);
/* Scratch floats per thread that a BLAS map needs; 0 for packed ones. */
size_t zq_linear_thread_floats(const struct zq_linear *l);

struct zq_norm_weights {
    float *gamma, *beta; /* [n]; beta may be NULL */
};
/* out's wanted forms = norm of x [n_rows, ld_x], rows of n. */
void zq_norm_run(const struct zq_ops *ops, const struct zq_norm_weights *w, bool rms, float eps, const float *x, size_t ld_x, size_t n_rows, size_t n,
                 struct zq_rows out, struct zq_forms forms);

/* out.f, which is always used, and the other wanted forms = what e says, which lacks its outputs. On this processor: devices look up by
 * themselves. */
void zq_embed_run(const struct zq_ops *ops, const struct zq_embed *e, size_t n_rows, struct zq_rows out, struct zq_forms forms);

/* out's wanted forms = act(x) (* times if not NULL), rows of n; x and times have row stride ld. */
void zq_activate_run(const struct zq_ops *ops, enum zq_activation act, const float *x, const float *times, size_t ld, size_t n_rows, size_t n,
                     struct zq_rows out, struct zq_forms forms);

/* A run of tokens of one sequence within one block of 16 positions: the unit in which attention is dealt to threads. */
struct zq_tile {
    size_t sequence;    /* index into the step's inputs */
    size_t begin, end;  /* tokens of that input */
    atomic_size_t done; /* heads of the operator in work, where several threads share them; 0 before and after */
};

/* One input of a step, as attention sees it. */
struct zq_span {
    size_t row;         /* of its first token in the step's activations */
    size_t n_tokens;
    size_t position;    /* of its first token */
    size_t n_keys;      /* after this step */
    size_t first_tile, n_tiles;
    struct zq_kv kv;    /* of the layer in work */
};

struct zq_attention {
    float *qkv;               /* [n_tokens, ld_qkv] */
    size_t ld_qkv;
    struct zq_heads heads;
    struct zq_rotary rotary;
    size_t window;
    bool causal;
    float scale;
    const struct zq_span *spans;
    struct zq_tile *tiles; /* [n_tiles] */
    size_t n_tiles;
    size_t n_tokens, n_sequences;
    /* on a device, instead of spans and tiles */
    const struct zq_device_token *tokens; /* [n_tokens] */
    struct zq_device_cache cache;
    size_t layer_first;
    bool fast;
    uint32_t *arrived, *joined;
    float *parts;
};
/* Appends keys and values to the caches, then out's wanted forms = attention over them, all heads of a token in a row
 * (one INT8 scale across all heads). out.f is always used as the place of the float result. */
void zq_attention_run(const struct zq_ops *ops, const struct zq_attention *a, struct zq_rows out, struct zq_forms forms);
size_t zq_attention_thread_floats(const struct zq_kernels *kernels, const struct zq_heads *heads);

#endif
