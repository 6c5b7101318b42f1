/* The border between the C library and a device plug-in: libzq_cuda.so (nvcc) or libzq_cuda_host.so (the same kernels, compiled
 * by g++ and run by a simulator). A plug-in exports one symbol, zq_device_plugin, and is opened with dlopen; nothing else of CUDA
 * or C++ is visible to the library.
 *
 * Operators take the argument structs of kernels/kernels.h with device pointers in them, follow the same contract and give the same
 * bits as the CPU. They are queued: results are there after download() or finish(). What fails is remembered by the queue, whose
 * later calls do nothing, and reported by finish(). */
#ifndef ZQ_CUDA_DEVICE_H
#define ZQ_CUDA_DEVICE_H

#include "kernels/training.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZQ_PLUGIN_VERSION = 14 };

/* Row stride of INT8 activations on a device, and where rows of codes begin: multiples of this many bytes. */
enum { ZQ_DEVICE_ALIGN = 16 };

/* Which slot of the kernel table a matrix was packed for. */
enum zq_device_format { ZQ_DEVICE_W8A8, ZQ_DEVICE_W4A8, ZQ_DEVICE_W8A16, ZQ_DEVICE_W4A16, ZQ_DEVICE_FLOAT };

/* Kernels for INT8 products of many tokens. They give the same bits. SMALL: tiles of 32 tokens and 64 rows; WIDE: of 128 and 128; HOPPER: wgmma,
 * tiles of 128 and 128, K-groups of multiples of 64 columns, on devices of compute capability 9.0; CUTLASS: W8A8 without groups and residual, where
 * the plug-in was built with it; VENDOR: cuBLASLt's INT32 sums in the place of the output, and a pass that scales them there, W8A8 without groups and
 * without a residual in that place, where the library is. Where one cannot serve, the rule does: WIDE for more than 128 tokens. */
enum zq_device_kernel { ZQ_KERNEL_BY_TABLE, ZQ_KERNEL_SMALL, ZQ_KERNEL_WIDE, ZQ_KERNEL_HOPPER, ZQ_KERNEL_CUTLASS, ZQ_KERNEL_VENDOR,
                        ZQ_N_DEVICE_KERNELS };

/* What is known to be fastest for a shape, up to so many tokens; cuda/tune.h. */
struct zq_tuned {
    enum zq_device_format format;
    uint32_t n_rows, n_cols, k_group, n_tokens;
    bool residual; /* is added, in the place of the output */
    enum zq_device_kernel kernel;
};

struct zq_queue; /* the plug-in's: work in order, one thread at a time */
struct zq_graph; /* the plug-in's: operators that were recorded, to be queued again as one */

/* One token of a step, as kernels read it from device memory: what differs from step to step lies there, so that a recorded step can be
 * replayed. */
struct zq_device_token {
    uint64_t cache;    /* position of the cache arrays at which its sequence begins, in the first layer */
    uint32_t capacity; /* positions of its sequence's cache, a multiple of 16 */
    uint32_t position; /* in its sequence */
    uint32_t n_keys;   /* of its sequence, this step's included; 0: padding, neither kept nor attended (its output is 0) */
    int32_t id;
    uint32_t type;
    uint32_t reserved;
};

/* Caches of all sequences and layers, each a range of positions: a range of `capacity` positions that begins at position p is laid out as
 * struct zq_kv says from k + p * n_kv_heads * head_dim values and k_scale + p * n_kv_heads on, v likewise. */
struct zq_device_cache {
    enum zq_dtype dtype; /* ZQ_F32, ZQ_F16 (clamped to its range) or ZQ_I8 (codes and scale as INT8 tokens have them) */
    void *k, *v;
    float *k_scale, *v_scale; /* ZQ_I8 */
};

/* keep() and attend() of kernels.h for tokens of any number of sequences in one launch. */
struct zq_device_attention {
    float *qkv;                           /* [n_tokens, ld]; keep() rotates q and k in place */
    size_t ld, n_tokens;
    const struct zq_device_token *tokens; /* [n_tokens] on the device */
    struct zq_heads heads;
    struct zq_rotary rotary;
    struct zq_device_cache cache;
    size_t layer_first;                   /* positions from the first layer to this one */
    size_t window;
    bool causal;
    bool fast;                            /* tensor cores may be used; see below */
    size_t n_sequences;                   /* that the tokens are of; the tokens of one lie side by side, in rising positions */
    float scale;
    struct zq_rows_out out;               /* f: always; h; q and scale: NULL or INT8 tokens of it, one scale across all heads */
    uint32_t *arrived;                    /* [n_tokens] zeros, and zeros again afterwards; needed with q or h */
    uint32_t *joined;                     /* [ZQ_DEVICE_SPLIT_BLOCKS] likewise; needed with fast */
    float *parts;                         /* zq_device_parts() floats of scratch; needed with fast */
};
/* With `fast`, heads whose head_dim is a multiple of 8 up to ZQ_DEVICE_FAST_HEAD_DIM read q, keys, values and weights as F16 and add in FP32,
 * tile by tile of keys with a running maximum: prompts (more than ZQ_DEVICE_FEW tokens per sequence), and decoding from an F16 or INT8 cache.
 * Against attention in exact arithmetic, with d = scale * max_j sum|q k_j| * (2^-10 + head_dim * 2^-22), an output's error is at most
 *   (expm1(2 d) + 2^-9 + n_keys * 2^-22) * (sum p_j |v_j| / sum p_j) + n_keys * 2^-24 * (max|v_j| + 1)
 * where |q|, |k|, |v| are below 65504; beyond, they are clamped. The order within one m16n8k16 is the hardware's, so the bits are not the
 * simulator's. A token's result depends on its own keys and values only, not on the other tokens of the launch, but for this: decoding cuts the
 * keys of a token into so many parts as fill the device, hence the fewer the more tokens there are, and the rounding depends on the cuts. */
enum { ZQ_DEVICE_FEW = 8, ZQ_DEVICE_FAST_HEAD_DIM = 256 };

/* Decoding: at most so many parts of a token's keys, blocks that all parts together should reach, and heads that a block attends at once. */
enum { ZQ_DEVICE_SPLITS = 32, ZQ_DEVICE_SPLIT_BLOCKS = 512, ZQ_DEVICE_SPLIT_ROWS = 16 };

/* Blocks that one token needs for one part: a block has up to ZQ_DEVICE_SPLIT_ROWS heads of one key head. */
static inline size_t zq_device_split_heads(const struct zq_heads *h)
{
    return h->n_kv_heads * ((h->n_heads / h->n_kv_heads + ZQ_DEVICE_SPLIT_ROWS - 1) / ZQ_DEVICE_SPLIT_ROWS);
}
static inline size_t zq_device_splits(const struct zq_heads *h, size_t n_tokens)
{
    const size_t n = ZQ_DEVICE_SPLIT_BLOCKS / (n_tokens * zq_device_split_heads(h));
    return n < 1 ? 1 : n > ZQ_DEVICE_SPLITS ? (size_t)ZQ_DEVICE_SPLITS : n;
}
/* Floats that parts leave for the block that joins them, of any number of tokens: sums [head_dim], maximum and sum of weights of each row. */
static inline size_t zq_device_parts(const struct zq_heads *h)
{
    const size_t group = h->n_heads / h->n_kv_heads;
    return ZQ_DEVICE_SPLIT_BLOCKS * (group < ZQ_DEVICE_SPLIT_ROWS ? group : (size_t)ZQ_DEVICE_SPLIT_ROWS) * (h->head_dim + 2);
}

/* out [n_tokens, ld_out] (+)= token row (+ type row) (+ position row), added in this order. */
struct zq_device_embed {
    const struct zq_device_token *tokens;
    size_t n_tokens, n;
    const struct zq_matrix *table;        /* packed for a float-input format, row = id; NULL: out is added to */
    enum zq_device_format format;
    const float *types, *positions;       /* [.., n] or NULL */
    size_t position_offset;
    float *out;
    size_t ld_out;
};

/* How one row of logits becomes an id. */
struct zq_device_choice {
    float temperature; /* 0: the largest logit, the smaller id among equals */
    float top_p;       /* 0 or >= 1: all */
    int32_t top_k;     /* 0: all */
    float u;           /* uniform in [0, 1): the number that zq_sample() would draw */
};
/* Gives the id of zq_sample(). Candidates lie in falling order of logits, rising ids among equals, with weights exp((logit - largest) /
 * temperature) in double; top_k keeps the first k; top_p the shortest beginning of those whose sum reaches top_p times their sum; the
 * result is the first whose running sum exceeds u times the sum of what is left. Sums are added in another order than the processor's,
 * and exp is the device's own: where a bound falls within 1e-9 of a running sum, a neighbour may be chosen. Logits are finite. */
struct zq_device_sample {
    const float *logits; /* [n_rows, ld] */
    size_t ld, n, n_rows;
    const struct zq_device_choice *choices; /* [n_rows] on the device */
    double *weights;                        /* [n_rows, n] scratch */
    int32_t *ids;                           /* [n_rows] */
};

struct zq_plugin {
    unsigned version;     /* ZQ_PLUGIN_VERSION */
    bool simulated;

    /* Device `index`; 0 and *queue, or nonzero and a sentence in why [n_why]. seed: of the simulator's orders; 0: the environment's
     * ZQ_SIM_SEED, else a fresh one. */
    int (*open)(struct zq_queue **queue, int index, uint64_t seed, char *why, size_t n_why);
    void (*close)(struct zq_queue *queue); /* accepts NULL */
    uint64_t (*seed)(const struct zq_queue *queue);
    void (*describe)(struct zq_queue *queue, char *text, size_t n); /* name, capability, memory, driver, in one line */

    void *(*alloc)(struct zq_queue *queue, size_t n_bytes); /* aligned to 256; NULL: no memory */
    void (*free)(struct zq_queue *queue, void *p);          /* accepts NULL */
    void (*upload)(struct zq_queue *queue, void *to, const void *from, size_t n_bytes); /* `from` may be reused at once */
    void (*download)(struct zq_queue *queue, void *to, const void *from, size_t n_bytes);
    void (*copy)(struct zq_queue *queue, void *to, const void *from, size_t n_bytes); /* within the device */
    const char *(*finish)(struct zq_queue *queue); /* waits; the first failure as a sentence, or NULL */
    /* Milliseconds that the device spent between the two calls, by its own clock; waits. 0 in the simulator, which has no time. */
    void (*start_clock)(struct zq_queue *queue);
    double (*read_clock)(struct zq_queue *queue);

    void (*norm)(struct zq_queue *queue, const struct zq_norm *a, size_t n_rows);
    void (*activate)(struct zq_queue *queue, const struct zq_activate *a, size_t n_rows);
    /* INT8 products: with q NULL and at most 4 tokens x is quantized on the way in, as activate() with ZQ_ACT_NONE does. ld_x is a
     * multiple of ZQ_DEVICE_ALIGN where q is given. */
    void (*product)(struct zq_queue *queue, const struct zq_product *a, enum zq_device_format format);
    void (*keep)(struct zq_queue *queue, const struct zq_device_attention *a);
    void (*attend)(struct zq_queue *queue, const struct zq_device_attention *a);
    void (*embed)(struct zq_queue *queue, const struct zq_device_embed *a);
    void (*gather)(struct zq_queue *queue, float *to, const float *from, const int32_t *rows, size_t n_rows, size_t n); /* to[i] = from[rows[i]] */
    void (*sample)(struct zq_queue *queue, const struct zq_device_sample *a);
    /* The INT32 sums [n_tokens, n_rows] of a product in W8A8 without K-groups by the vendor's library (cuBLASLt), which is a witness that owes
     * nothing to this code: for checks. Nonzero, and nothing is queued: it is not there or refuses. */
    int (*sums)(struct zq_queue *queue, const struct zq_product *a, int32_t *sums);
    /* Whether a kernel for many tokens serves on this device, INT8 products by w packed for this format; residual: with one in the place of the
     * output. */
    bool (*serves)(struct zq_queue *queue, enum zq_device_kernel kernel, const struct zq_matrix *w, enum zq_device_format format, bool residual);
    /* From now on this kernel for products of many tokens, or (BY_TABLE, as at first) the one that the table has for the shape, with or
     * without a residual, and the fewest tokens that are not below; then the rule. The table stays the caller's. */
    void (*prefer)(struct zq_queue *queue, enum zq_device_kernel kernel);
    void (*tuned)(struct zq_queue *queue, const struct zq_tuned *items, size_t n);
    /* The kernel for many tokens that the latest product took; BY_TABLE: that for few. With float inputs: VENDOR, or BY_TABLE for ours. */
    enum zq_device_kernel (*took)(const struct zq_queue *queue);

    /* The operators of training, which take the queue first; NULL where there is no library of products (cuBLASLt). Heads of up to
     * ZQ_TRAINING_HEAD_DIM values. */
    const struct zq_training_ops *(*training)(struct zq_queue *queue);

    /* Operators and copies between the two calls are recorded, not run. NULL: this cannot be recorded, and the queue is as before. */
    void (*begin_graph)(struct zq_queue *queue);
    struct zq_graph *(*end_graph)(struct zq_queue *queue);
    void (*run_graph)(struct zq_queue *queue, struct zq_graph *graph);
    void (*free_graph)(struct zq_graph *graph); /* accepts NULL */
};

typedef const struct zq_plugin *zq_plugin_fn(void); /* of the symbol zq_device_plugin */

/* Head dimensions that attend() takes. */
enum { ZQ_DEVICE_MAX_HEAD_DIM = 512, ZQ_TRAINING_HEAD_DIM = 256 };

#ifdef __cplusplus
}
#endif
#endif
