/* ZeroQuant: quantize transformers after training and run them with integer kernels.
 *
 * Nouns: a *model* is an opened directory, immutable, shared by any number of threads; a *session* is the mutable state of
 * running it (KV caches, scratch), owned by one thread at a time; a *tokenizer* turns text into ids and back.
 *
 * Conventions. Functions that can fail return zq_status and nothing else; results go to out-parameters, which are NULL or
 * zero unless ZQ_OK is returned. The last parameter, zq_error, may be NULL; it receives one sentence that names the file,
 * tensor, limit and value. Every pointer parameter is only read during the call unless its comment says otherwise.
 * The library never prints, exits or aborts. Strings are UTF-8. Option structs: zero-initialise, set what you need; a zero
 * field means the default that its comment names.
 */
#ifndef ZEROQUANT_H
#define ZEROQUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ZQ_API __attribute__((visibility("default")))
#else
#define ZQ_API
#endif

/* "major.minor.patch" of the library that is running. */
ZQ_API const char *zq_version(void);

/* ---- errors ------------------------------------------------------------------------------------------------------- */

/* code, value, text. The value is also the exit code of the program `zq`; 1 is left to the shell's own failures. */
#define ZQ_STATUS_TABLE(X)                                             \
    X(ZQ_OK, 0, "ok")                                                  \
    X(ZQ_EINVAL, 2, "wrong option or argument")                        \
    X(ZQ_EIO, 3, "cannot read or write a file")                        \
    X(ZQ_EFORMAT, 4, "malformed file")                                 \
    X(ZQ_EUNSUPPORTED, 5, "well-formed, but not supported")            \
    X(ZQ_ENOMEM, 6, "out of memory, or above the given memory bound")  \
    X(ZQ_ENOSPC, 7, "no space left on the device")                     \
    X(ZQ_EEXIST, 8, "the output exists already")                       \
    X(ZQ_ELIMIT, 9, "above a limit of the model or session")           \
    X(ZQ_ECANCELLED, 10, "cancelled by the caller")

typedef enum zq_status {
#define ZQ_STATUS_ENUM(code, value, text) code = value,
    ZQ_STATUS_TABLE(ZQ_STATUS_ENUM)
#undef ZQ_STATUS_ENUM
} zq_status;

typedef struct zq_error {
    zq_status status;
    char message[512]; /* one sentence, no newline, NUL-terminated, cut if longer */
} zq_error;

/* The table's text for a code; "unknown status" for any other value. Never NULL. */
ZQ_API const char *zq_status_text(zq_status status);

/* Remarks that are no errors (an unused tensor, a fallback). One sentence without newline, valid during the call.
 * May be called from the thread that called the library, never from another. */
typedef void zq_note_fn(void *user, const char *sentence);

/* ---- models ------------------------------------------------------------------------------------------------------- */

typedef struct zq_model zq_model;
typedef struct zq_tokenizer zq_tokenizer;

/* How float operations may be done. EXACT: one written order; the same bits for every processor, number of threads and split of a batch. FAST:
 * whatever is quickest here - sums in any order, BF16 products where the processor has them, cheaper functions - within a gate: perplexity within
 * 0.1 % of EXACT's, cosine of embeddings 0.9999. */
typedef enum zq_math { ZQ_MATH_EXACT, ZQ_MATH_FAST } zq_math;

/* What decoders keep keys and values as, between steps. F16 halves and INT8 (one scale per token and key head) quarters the memory of F32, and the
 * time of attention over long texts nearly so. Encoders keep nothing. */
typedef enum zq_kv_format { ZQ_KV_DEFAULT, ZQ_KV_F32, ZQ_KV_F16, ZQ_KV_INT8 } zq_kv_format; /* default: F32 with EXACT, F16 with FAST */

typedef struct zq_open_options {
    int n_threads;    /* used while weights are repacked; 0: one per available core */
    bool header_only; /* bind and check all tensors, but repack nothing: enough for zq_model_info, not for sessions */
    zq_note_fn *note; /* may be NULL */
    void *user;
    const char *device; /* where it runs: NULL or "cpu"; "cuda" or "cuda:N", an NVIDIA GPU; "cuda-host", its simulator (quantized models) */
    zq_math math;     /* of everything this model runs; kernels are chosen and weights packed for it */
    zq_kv_format kv;  /* of sessions that do not choose themselves */
} zq_open_options;

/* Opens a model directory (Hugging Face layout, plain or compressed-tensors): maps its files, binds every tensor and
 * repacks quantized weights for this processor. *out is NULL unless ZQ_OK is returned; the caller closes it with
 * zq_model_close(). options and err may be NULL. Immutable afterwards: threads may share it.
 * Returns ZQ_OK, ZQ_EIO, ZQ_EFORMAT (a missing, misshaped or damaged tensor is named), ZQ_EUNSUPPORTED or ZQ_ENOMEM. */
ZQ_API zq_status zq_model_open(zq_model **out, const char *dir, const zq_open_options *options, zq_error *err);
ZQ_API void zq_model_close(zq_model *model); /* accepts NULL */

typedef enum zq_model_kind {
    ZQ_DECODER,          /* causal language model: logits [vocab] per token */
    ZQ_ENCODER,          /* hidden states only (embeddings of sentences) */
    ZQ_ENCODER_MLM,      /* logits [vocab] per token */
    ZQ_ENCODER_CLASSIFY, /* logits [labels] per sequence */
} zq_model_kind;

typedef struct zq_model_info {
    const char *arch; /* "gpt2", "llama", ...: model_type of config.json; owned by the model */
    zq_model_kind kind;
    size_t n_layers, width, n_heads, n_kv_heads, head_dim, ffn_width, vocab, max_length;
    size_t n_outputs;        /* values of one row of logits: vocab or labels; 0 for ZQ_ENCODER */
    bool quantized;          /* at least one module holds integer codes */
    size_t n_modules;        /* see zq_model_module */
    uint64_t n_parameters;   /* weights and biases, tied ones once */
    uint64_t file_bytes;     /* all tensors of the directory, as stored */
    uint64_t fp16_bytes;     /* the same tensors with two bytes per value, codes counted as values */
    double bits_per_weight;  /* of the linear maps inside the blocks, scales included */
} zq_model_info;
ZQ_API void zq_model_info_get(const zq_model *model, zq_model_info *out);

/* One module that holds a matrix (linear map or embedding), in the order of the forward pass. */
typedef struct zq_module_info {
    const char *name;  /* as in the file, without ".weight"; owned by the model */
    size_t n_rows;     /* output channels (embedding: entries), whatever the stored layout */
    size_t n_cols;     /* input channels */
    char scheme[40];   /* "float", "w8a8", "w4a8", "w4a16", ...  */
    char group[16];    /* "channel" or "k:64"; empty for float */
    char dtype[8];     /* of the stored weight: "F32", "F16", "BF16", "I8", "I32" */
    uint64_t bytes;    /* weight, scales and bias, as stored */
    bool in_block;     /* a linear map inside a transformer block */
} zq_module_info;
/* index < n_modules of zq_model_info; ZQ_EINVAL otherwise. */
ZQ_API zq_status zq_model_module(const zq_model *model, size_t index, zq_module_info *out, zq_error *err);

/* The class names of a ZQ_ENCODER_CLASSIFY model; NULL if index >= n_outputs. Owned by the model. */
ZQ_API const char *zq_model_label(const zq_model *model, size_t index);

/* The tokenizer found in the model's directory; NULL if there is none. Owned by the model. */
ZQ_API const zq_tokenizer *zq_model_tokenizer(const zq_model *model);

/* Whether `id` ends a text (eos_token_id of config.json and generation_config.json). */
ZQ_API bool zq_model_is_end(const zq_model *model, int32_t id);

/* ---- tokenizers --------------------------------------------------------------------------------------------------- */

/* Opens the tokenizer of a model directory, of a folder that holds only tokenizer files, or one tokenizer file
 * (tokenizer.json under any name, vocab.txt, or either of two that lie side by side, such as vocab.json + merges.txt).
 * Folders are searched for tokenizer.json, vocab.json + merges.txt, encoder.json + vocab.bpe, vocab.txt, *tokenizer.json,
 * in this order. Immutable afterwards: threads may share it.
 * Returns ZQ_OK, ZQ_EIO (none found), ZQ_EFORMAT, ZQ_EUNSUPPORTED (names the unknown component) or ZQ_ENOMEM. */
ZQ_API zq_status zq_tokenizer_open(zq_tokenizer **out, const char *path, zq_error *err);
ZQ_API void zq_tokenizer_close(zq_tokenizer *tokenizer); /* accepts NULL */

/* A growing array of ids. Zero-initialise before the first use; release with zq_ids_free(). */
typedef struct zq_ids {
    int32_t *ids;   /* [n] */
    uint8_t *types; /* [n] token types (segment A 0, B 1), for encoders */
    size_t n, capacity;
} zq_ids;
ZQ_API void zq_ids_free(zq_ids *ids); /* accepts NULL and zero */

/* Appends the ids of text[0..n_bytes). Invalid UTF-8 is read as U+FFFD, one for each maximal invalid part. With
 * add_special the post-processor of the tokenizer adds its tokens ([CLS] .. [SEP], <s>). pair may be NULL; else it is
 * the second sequence. Text that looks like a special token becomes that token, as in the reference library.
 * Returns ZQ_OK, ZQ_EINVAL (a word without any token and without unknown token), ZQ_ELIMIT (regex limits) or ZQ_ENOMEM; on failure out is
 * unchanged. */
ZQ_API zq_status zq_tokenizer_encode(const zq_tokenizer *tokenizer, const char *text, size_t n_bytes, const char *pair,
                                     size_t pair_bytes, bool add_special, zq_ids *out, zq_error *err);

/* The text of ids, NUL-terminated, *n_bytes without the NUL (may be NULL); release with zq_free(). Ids outside the
 * vocabulary are ZQ_EINVAL. skip_special drops special tokens. */
ZQ_API zq_status zq_tokenizer_decode(const zq_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                                     char **text, size_t *n_bytes, zq_error *err);

/* Number of ids, added tokens included: 1 + largest id. */
ZQ_API size_t zq_tokenizer_n_vocab(const zq_tokenizer *tokenizer);
/* The id of a token by its exact content, added tokens included; -1 if there is none. */
ZQ_API int32_t zq_tokenizer_find(const zq_tokenizer *tokenizer, const char *content);
/* truncation.max_length of tokenizer.json; 0 if there is none. Encoding itself never truncates. */
ZQ_API size_t zq_tokenizer_max_length(const zq_tokenizer *tokenizer);

/* Releases memory that a function of this library handed to the caller. Accepts NULL. */
ZQ_API void zq_free(void *memory);

/* ---- sessions ----------------------------------------------------------------------------------------------------- */

typedef struct zq_session zq_session;

typedef struct zq_session_options {
    int n_threads;           /* 0: one per available core */
    size_t n_sequences;      /* slots that can hold a sequence at the same time; 0: 1 */
    size_t max_length;       /* tokens per sequence; 0: the model's limit */
    size_t max_batch_tokens; /* tokens of one step, all sequences together; 0: 512, or max_length if that is less (encoders: at least max_length) */
    size_t max_logit_rows;   /* rows of logits of one step; 0: n_sequences, enough unless all_logits is used */
    bool keep_hidden;        /* keep the hidden states of every layer of the latest step, for zq_session_hidden */
    zq_kv_format kv;                /* default: what the model was opened with */
} zq_session_options;

/* Creates the state for running a model. The model must outlive the session. All memory is taken here: steps allocate
 * nothing. Returns ZQ_OK, ZQ_EINVAL, ZQ_ELIMIT (max_length above the model's), ZQ_EUNSUPPORTED (the device cannot be used) or ZQ_ENOMEM
 * (says how much the caches and all else would take). */
ZQ_API zq_status zq_session_create(zq_session **out, const zq_model *model, const zq_session_options *options, zq_error *err);
ZQ_API void zq_session_close(zq_session *session); /* accepts NULL */

/* The new tokens of one sequence in a step. */
typedef struct zq_input {
    size_t sequence;      /* slot, < n_sequences; each slot at most once in a step */
    const int32_t *ids;   /* [n] */
    const uint8_t *types; /* [n] token types; NULL: all 0 (only BERT uses them) */
    size_t n;             /* >= 1 */
    bool all_logits;      /* logits for each of the n tokens; else for the last one only */
} zq_input;

typedef struct zq_session_memory {
    zq_kv_format kv;          /* resolved: never ZQ_KV_DEFAULT */
    uint64_t kv_bytes; /* caches of all slots; of encoders the keys and values of one step and layer */
    uint64_t bytes;    /* all that the session holds, caches included */
} zq_session_memory;
ZQ_API void zq_session_memory_get(const zq_session *session, zq_session_memory *out);

/* Appends tokens to sequences and computes logits. Decoders continue after what the slot holds; encoders always start
 * anew and see the whole sequence. Inputs of any number of slots and lengths share the step; nothing is padded, and with
 * quantized models a sequence's results do not depend on what else is in the step, on how its tokens were split over
 * steps, or on the number of threads. Returns ZQ_OK, ZQ_EINVAL (slot, id or type out of range) or ZQ_ELIMIT (sequence
 * above max_length, step above max_batch_tokens or max_logit_rows); on failure no slot has changed. */
ZQ_API zq_status zq_session_step(zq_session *session, const zq_input *inputs, size_t n_inputs, zq_error *err);

/* Logits of the latest step: float [n_rows, n_outputs], rows in input order (for each input its n rows or its last one;
 * classifiers: one row per input). n_rows may be NULL. NULL for ZQ_ENCODER or before a step. Valid until the next step. */
ZQ_API const float *zq_session_logits(const zq_session *session, size_t *n_rows);

/* Hidden states of the latest step, float [n_tokens, width], tokens of all inputs in order: layer 0 is the output of the
 * embeddings, layer n_layers what the head receives (after the final norm), as hidden_states of transformers.
 * NULL unless keep_hidden was set (encoders always have layer n_layers) or if layer > n_layers. Valid until the next step. */
ZQ_API const float *zq_session_hidden(const zq_session *session, size_t layer, size_t *n_tokens);

/* Tokens that a slot holds; 0 for slots that do not exist. */
ZQ_API size_t zq_session_length(const zq_session *session, size_t sequence);
/* Forgets all but the first `length` tokens of a slot (0: all). ZQ_EINVAL if it holds fewer. */
ZQ_API zq_status zq_session_rewind(zq_session *session, size_t sequence, size_t length, zq_error *err);

typedef enum zq_pooling { ZQ_POOL_AUTO, ZQ_POOL_MEAN, ZQ_POOL_CLS } zq_pooling; /* auto: modules.json / 1_Pooling of the model, else mean */

/* Sentence embedding of one tokenized text: float [width] into out. normalize: to length 1 (AUTO pooling also applies the
 * Normalize module of modules.json). Uses slot 0. Errors as zq_session_step. */
ZQ_API zq_status zq_session_embed(zq_session *session, const int32_t *ids, const uint8_t *types, size_t n, zq_pooling pooling,
                                  bool normalize, float *out, zq_error *err);

/* ---- sampling ----------------------------------------------------------------------------------------------------- */

/* Zero-initialised: greedy (largest logit, the smaller id among equals). */
typedef struct zq_sampler {
    float temperature; /* 0: greedy */
    int top_k;         /* 0: all */
    float top_p;       /* 0 or >= 1: all */
    uint64_t state;    /* of the generator; set it to the seed */
} zq_sampler;
/* Chooses an id from logits [n], n >= 1; those that are no number are never chosen. ZQ_ENOMEM only when sampling (temperature > 0); ZQ_EINVAL
 * for n = 0; ZQ_EFORMAT if the largest is not finite or none is a number. */
ZQ_API zq_status zq_sample(zq_sampler *sampler, const float *logits, size_t n, int32_t *id, zq_error *err);
/* The same for each row of logits of a decoder's latest step, where the step ran: on a device the logits stay there. Row i takes
 * samplers[i] and gives ids[i]; n is the number of rows, at most n_sequences. On a device sums are added in another order: where a bound
 * falls within 1e-9 of one, another id than zq_sample()'s may be chosen.
 * Returns ZQ_OK, ZQ_EINVAL (n is another number, no decoder), ZQ_ELIMIT, ZQ_ENOMEM or ZQ_EIO (the device failed). */
ZQ_API zq_status zq_session_sample(zq_session *session, zq_sampler *samplers, size_t n, int32_t *ids, zq_error *err);

/* ---- evaluation --------------------------------------------------------------------------------------------------- */

typedef struct zq_eval_options {
    int n_threads;
    size_t window;  /* ids per window; 0: 256 or the model's limit, if smaller */
    size_t limit;   /* use the first `limit` ids of the text only; 0: all */
    const zq_model *against; /* the original: adds kl and top1; must have the same vocabulary. May be NULL */
    bool (*progress)(void *user, size_t done, size_t total); /* windows; return false to cancel. May be NULL */
    void *user;
} zq_eval_options;

typedef struct zq_eval_result {
    size_t n_tokens;     /* predicted positions */
    double nll;          /* mean negative log-likelihood, nats per token */
    double ppl;          /* exp(nll) */
    double kl;           /* mean KL(against || model), nats; NaN without `against` */
    double top1;         /* share of positions where both have the same most likely token; NaN without */
    double tokens_per_s; /* of the model, tokenization excluded */
    uint64_t bytes;      /* file_bytes of the model */
} zq_eval_result;

/* Perplexity of a decoder on text: the ids (no special tokens added) are cut into consecutive windows, the last partial one
 * dropped, and every position but the first of a window is predicted from those before it in the window.
 * Returns ZQ_OK, ZQ_EUNSUPPORTED (no decoder, no tokenizer), ZQ_EINVAL (text shorter than a window, other vocabulary),
 * ZQ_ECANCELLED or errors of the session. */
ZQ_API zq_status zq_eval_text(const zq_model *model, const char *text, size_t n_bytes, const zq_eval_options *options,
                              zq_eval_result *out, zq_error *err);

/* A mean over sequences (windows of a text, or lines), and how sure it is. */
typedef struct zq_spread {
    double mean, min, max;
    double error; /* standard error of the mean: standard deviation over sequences / sqrt(sequences); NaN if there is only one */
} zq_spread;

/* How far the hidden states of one layer are apart: that of zq_session_hidden. */
typedef struct zq_layer_error {
    double relative; /* ||B - A|| / ||A|| over all tokens */
    double cosine;   /* mean over tokens of the cosine between A's state and B's */
} zq_layer_error;

typedef struct zq_compare_options {
    int n_threads;
    size_t window;  /* decoders: ids per window; 0: 256 or the models' limit, if smaller */
    size_t limit;   /* use the first `limit` ids of the text only (encoders: whole lines, until that many are reached); 0: all */
    bool (*progress)(void *user, size_t done, size_t total); /* windows, or bytes of lines; return false to cancel. May be NULL */
    void *user;
} zq_compare_options;

/* What zq_compare found. Values that a kind of model does not have are NaN. Zero-initialise; release with zq_comparison_free(). */
typedef struct zq_comparison {
    zq_model_kind kind;
    size_t n_sequences, n_tokens;  /* decoders: predicted positions; encoders: tokens of all lines */
    size_t n_layers;               /* as in zq_model_info */
    zq_layer_error *layers;        /* [n_layers + 1] */
    zq_spread nll[2];              /* decoders: A's and B's mean negative log-likelihood, nats per token; perplexity is exp of it */
    zq_spread nll_difference;      /* decoders: B's less A's, sequence by sequence: its error is far below that of nll itself */
    zq_spread kl;                  /* decoders, classifiers: KL(A || B), nats */
    zq_spread top1;                /* decoders, classifiers: share of positions where both find the same token (label) most likely */
    zq_spread cosine;              /* encoders: between A's and B's embedding of a line */
} zq_comparison;

/* Compares model B with model A, the original it was made from, on the same text. Decoders as in zq_eval_text; encoders line by line:
 * special tokens are added, lines above the models' limit are cut, empty lines left out. A's tokenizer is used.
 * Returns ZQ_OK, ZQ_EUNSUPPORTED (no tokenizer), ZQ_EINVAL (models of different kind, vocabulary or shape; too little text), ZQ_ELIMIT,
 * ZQ_ENOMEM or ZQ_ECANCELLED; *out is zero on failure. */
ZQ_API zq_status zq_compare(const zq_model *a, const zq_model *b, const char *text, size_t n_bytes, const zq_compare_options *options,
                            zq_comparison *out, zq_error *err);
ZQ_API void zq_comparison_free(zq_comparison *comparison); /* accepts NULL and zero */

typedef struct zq_ranges_options {
    int n_threads;
    const char *regex; /* linear maps of the blocks whose whole name matches; NULL: the attention output projections */
    size_t window, limit; /* as in zq_compare_options */
    bool (*progress)(void *user, size_t done, size_t total); /* as in zq_compare_options */
    void *user;
} zq_ranges_options;

/* One linear map: what it reads, and its weights. A range is max - min; ratios are infinite where the smallest range is 0. */
typedef struct zq_module_ranges {
    const char *name;     /* owned by the model */
    size_t layer, n_rows;
    float *tokens;        /* [n_tokens] range of the input of each token, ascending */
    float *rows;          /* [n_rows] range of the weights of each output channel, in the order of the file */
    uint8_t *codes;       /* [n_rows] different INT4 codes in each row, if one scale had to serve the whole matrix: 1 to 16 */
    double token_ratio, row_ratio; /* largest range over smallest */
} zq_module_ranges;

/* What zq_measure_ranges found. Zero-initialise; release with zq_ranges_free(). */
typedef struct zq_ranges {
    size_t n_tokens, n_modules;
    zq_module_ranges *modules; /* [n_modules], in the order of the forward pass */
} zq_ranges;

/* Ranges of activations, token by token, and of weights, row by row, over a text that is cut as in zq_compare: why one scale for a tensor
 * is not enough. Quantized models are measured as they run: INT8 inputs and coded weights, times their scales.
 * Returns ZQ_OK, ZQ_EINVAL (regex; nothing matches; too little text), ZQ_EUNSUPPORTED, ZQ_ELIMIT, ZQ_ENOMEM or ZQ_ECANCELLED; *out is zero
 * on failure. */
ZQ_API zq_status zq_measure_ranges(const zq_model *model, const char *text, size_t n_bytes, const zq_ranges_options *options, zq_ranges *out,
                                   zq_error *err);
/* Draws both as boxes over layers: least, quartiles, largest. An SVG file; it appears whole or not at all. */
ZQ_API zq_status zq_ranges_draw(const zq_ranges *ranges, const char *path, zq_error *err);
ZQ_API void zq_ranges_free(zq_ranges *ranges); /* accepts NULL and zero */

typedef struct zq_study_options {
    zq_open_options open;
    const char *text;   /* [n_bytes] calibration text for static scales; cut as in zq_compare. Never the text of the measurement */
    size_t n_bytes;
    size_t limit;       /* first `limit` ids of it; 0: 16384 */
} zq_study_options;

/* Opens a float model to run as a scheme would make it, for tables: codes are rounded to and turned back into floats at once, in memory.
 * spec is "SCHEME[,GROUP][,static:HOW]". SCHEME and GROUP as in zq_quantize_options, and what no kernel runs and no reader reads:
 * the scheme "w16a8" (weights kept), the group "tensor" (one scale for a matrix), and static activations, one scale for all tokens, found
 * on the text: static:minmax (largest value), static:ema (running average of the largest of each sequence, momentum 0.95),
 * static:percentile (99.99 % of all values lie below). Weights of the maps are held in memory as F32.
 * Returns what zq_model_open returns, ZQ_EINVAL (spec; static without a text) and ZQ_EUNSUPPORTED (quantized already; built without BLAS). */
ZQ_API zq_status zq_study_open(zq_model **out, const char *dir, const char *spec, const zq_study_options *options, zq_error *err);

/* Runs ids [n] through the model and writes a safetensors file: "logits" F32 [n, vocab] (classifier: [1, labels]; none for
 * ZQ_ENCODER) and, with hidden, "hidden.0" .. "hidden.<n_layers>" F32 [n, width]. types may be NULL. The file appears whole or not at all. */
ZQ_API zq_status zq_forward_save(const zq_model *model, const int32_t *ids, const uint8_t *types, size_t n, bool hidden,
                                 int n_threads, const char *path, zq_error *err);

/* ---- quantizing --------------------------------------------------------------------------------------------------- */

/* One --set: the regex must match the whole module name; of several that match, the last counts. */
typedef struct zq_rule {
    const char *regex;  /* PCRE2 syntax */
    const char *scheme; /* "w8a8", "w4a8", "w8a16", "w4a16" or "float", optionally ",GROUP" ("w4a8,k:128") */
} zq_rule;

typedef struct zq_quantize_progress {
    size_t tensors_done, n_tensors;
    uint64_t bytes_done, n_bytes; /* of the source */
    double seconds;               /* since the start of this run */
    const char *tensor;           /* in work; valid during the call */
} zq_quantize_progress;

typedef struct zq_quantize_options {
    const char *scheme;      /* "w8a8" (NULL), "w4a8", "w8a16", "w4a16", "w4/8a8", "w4/8a16", "w8a8/16"; w3 or w2 for w4: studies */
    const char *group;       /* "channel", "rows:N" or "k:N"; NULL: channel for 8 bit; k:64, else k:32, else channel for 4 bit */
    const zq_rule *rules;    /* [n_rules] */
    size_t n_rules;
    bool embeddings_int8;    /* token embedding and head: 8 bit, one scale per row, float activations */
    /* Layer-by-layer distillation: each block learns from its original, one at a time. */
    const char *lkd;         /* "off" (NULL); "paper": trained by AdamW from the original's inputs, as published; "fast": codes in closed form
                              * from statistics of the quantized inputs; "full": those, then trained */
    const char *method;      /* NULL; "gptq" or "awq": a known method alone, to compare with, on the same data; not with lkd */
    const char *data;        /* what on: "FILE[:WEIGHT]", "random" or "self", several with commas; "self" (NULL): the model's own text */
    size_t samples, length;  /* sequences and tokens of each, for an encoder of several texts (docs/zq.1); 0: the method's */
    size_t iterations, batch; /* steps of a block and samples of a step; 0: the method's */
    float rate;              /* learning rate; 0: the method's; below 0: the best of five, chosen for each block */
    const char *loss;        /* "mse" (NULL) or "kl" */
    float holdout;           /* share of the samples that only judge; 0: 0.1 */
    uint64_t seed;
    float time_budget;       /* minutes for this job: how many iterations of each block fit, at most `iterations`, is measured once and kept for
                              * resume; 0: no bound */
    const char *device;      /* where samples pass through blocks, are summed up, and "paper" and "full" train: as in zq_open_options. All
                              * else is computed here. The device that begins a job must also resume it: its float sums are its own */
    zq_math math;            /* of that training: ZQ_MATH_FAST lets its products read numbers as BF16, if this processor has units for that, or
                              * on a device as TF32. What judges a block here multiplies in F32 in any case */
    uint64_t memory_bytes;   /* bound on resident memory; 0: none given */
    int n_threads;
    bool dry_run;            /* plan only: nothing is written */
    bool force;              /* replace an existing output: an empty directory or one with a config.json */
    bool resume;             /* continue an interrupted run */
    bool (*progress)(void *user, const zq_quantize_progress *p); /* return false to cancel. May be NULL */
    zq_note_fn *note;        /* may be NULL */
    void *user;
} zq_quantize_options;

/* What becomes of one stored tensor. */
typedef struct zq_plan_entry {
    const char *name;      /* of the source tensor */
    const char *from;      /* dtype in the source */
    char to[48];           /* "w8a8 channel", "w4a8 k:64", or the dtype */
    uint64_t bytes_in, bytes_out;
    double relative_error; /* ||W - Wq|| / ||W|| once quantized; NaN before, and for tensors that are kept */
} zq_plan_entry;

typedef struct zq_quantize_report zq_quantize_report;

typedef struct zq_quantize_totals {
    size_t n_entries;
    uint64_t bytes_in, bytes_out;          /* all tensors */
    uint64_t block_values, block_bytes;    /* linear maps inside the blocks: weights, and bytes with scales */
    double block_ratio, file_ratio;        /* against two bytes per value: blocks alone, whole file */
    double bits_per_weight;                /* of the block's linear maps, scales included */
    uint64_t memory_bytes;                 /* dry run: estimate; else peak resident memory of the process */
    double seconds;                        /* dry run: estimate, without distillation: coding as timed on this processor, files read at
                                            * 1 GB/s and written at 0.3 GB/s; else measured */
    bool nothing_to_do;                    /* --resume on a finished output */
    bool resumed;                          /* some shards came from an earlier run */
} zq_quantize_totals;

/* Quantizes a model directory into a compressed-tensors directory, layer by layer. out_dir appears whole or not at all;
 * work in progress lives beside it in "<out_dir>.partial". *report (may be NULL) is released with zq_quantize_report_free().
 * Returns ZQ_OK; ZQ_EINVAL (scheme, group, regex; resume with other options, names the difference); ZQ_EEXIST;
 * ZQ_EUNSUPPORTED (what no reader could read, with the reason; a device that is not there); ZQ_ENOMEM (memory_bytes too small: says how much is
 * needed); ZQ_ENOSPC and ZQ_EIO (what this run wrote is removed, unless resume was asked for: then finished shards stay);
 * ZQ_ECANCELLED (finished shards stay for resume); and the errors of reading a model. */
ZQ_API zq_status zq_quantize(const char *model_dir, const char *out_dir, const zq_quantize_options *options,
                             zq_quantize_report **report, zq_error *err);
ZQ_API void zq_quantize_report_free(zq_quantize_report *report); /* accepts NULL */
ZQ_API const zq_quantize_totals *zq_quantize_report_totals(const zq_quantize_report *report);
ZQ_API const zq_plan_entry *zq_quantize_report_entry(const zq_quantize_report *report, size_t index); /* NULL past the end */
/* Sentences for the user (fallbacks, which readers can load the result), NULL past the end. */
ZQ_API const char *zq_quantize_report_remark(const zq_quantize_report *report, size_t index);
/* The text of zq-report.json (also written into out_dir). Owned by the report. */
ZQ_API const char *zq_quantize_report_json(const zq_quantize_report *report);

/* ---- measuring speed ---------------------------------------------------------------------------------------------- */

/* Names of shapes: published models without their weights ("bert-base", "gpt-350m", ...). NULL past the end. */
ZQ_API const char *zq_shape_name(size_t index);

typedef struct zq_shape_options {
    zq_open_options open;
    const char *scheme;   /* as in zq_quantize_options, or of float weights: "bf16" (also "float"), "f16", "f32" */
    const char *group;    /* as in zq_quantize_options, or "tensor" */
    bool embeddings_int8;
    size_t n_layers;      /* 0: all of the shape */
} zq_shape_options;

/* Opens a model of a shape with random weights, written straight into the kernels' tiles: no checkpoint is needed, and no float copy made.
 * Closed and used like any other; it has no tokenizer, and what it predicts means nothing. Returns ZQ_OK, ZQ_EINVAL (shape, scheme, group;
 * lists the names), ZQ_ENOMEM and what zq_model_open returns. */
ZQ_API zq_status zq_shape_open(zq_model **out, const char *shape, const zq_shape_options *options, zq_error *err);

/* One measured rate. Strings are valid during the call. */
typedef struct zq_bench_row {
    const char *name;     /* "encode.16x128", "prompt.1x512", "decode.1x512", "first32.1x128": batch x tokens */
    const char *unit;     /* "sequences/s", "tokens/s", "GB", ... */
    double median, best;
    double limit, share;  /* of this machine, and median / limit; NaN: unknown */
    const char *bound;    /* what the limit is: "int8 avx2", "memory", "cache" (the last level of it); NULL: unknown */
    double bytes;         /* that an operator of "ops" rows has to move; 0 in other rows */
    int threads;
    const char *level;    /* of the kernels: "avx2", ... */
    const char *math;     /* "exact" or "fast" */
    size_t batch, length; /* sequences, and tokens of each */
} zq_bench_row;

typedef void zq_bench_fn(void *user, const zq_bench_row *row);

/* What a granularity costs in accuracy: ||W - Wq|| / ||W|| over the linear maps of the blocks of a float model (header_only is enough), codes
 * rounded to nearest. scheme and group as in zq_quantize_options; group may be "tensor", one scale for a matrix. Returns ZQ_OK, ZQ_EINVAL,
 * ZQ_EUNSUPPORTED (quantized already), ZQ_EFORMAT (NaN) or ZQ_ENOMEM. */
ZQ_API zq_status zq_rounding_error(const zq_model *model, const char *scheme, const char *group, double *error, zq_error *err);

/* The limits of this machine, measured by loops that do nothing else: products by the instructions that each level's kernels use, and bytes read
 * from memory and from the last-level cache. About `seconds` each (0: 0.2). Returns ZQ_OK, ZQ_EINVAL (ZQ_ISA) or ZQ_ENOMEM. */
typedef struct zq_machine zq_machine;
ZQ_API zq_status zq_machine_measure(zq_machine **out, int n_threads, double seconds, zq_error *err);
ZQ_API void zq_machine_free(zq_machine *machine); /* accepts NULL */
/* Rows "machine.int8.avx2", "machine.f32.avx2", ..., "machine.memory", "machine.cache" in GOP/s and GB/s, and "machine.exchange": ns that a
 * line of cache takes to another core and back. */
ZQ_API void zq_machine_report(const zq_machine *machine, zq_bench_fn *row, void *user);

typedef struct zq_bench_options {
    int n_threads;
    size_t batch;         /* sequences at the same time; 0: 1 */
    size_t prompt;        /* tokens of a prompt, or of a sequence of an encoder; 0: 128 */
    size_t decode;        /* decoders: tokens of each sequence after the prompt; 0: none */
    double seconds;       /* measure at least this long; 0: 2 */
    const zq_machine *machine; /* limits to compare with; NULL: none. Must outlive the call */
    bool ops;             /* instead, where the time of a step goes: a row in ms for each fused operator, and one for all that is none */
    bool unfused;         /* the same step with a pass over memory for each quantization and dequantization: only to see what fusion pays.
                           * Names begin with "unfused." */
    bool together;        /* encoders: threads share every operator, as they do with unfused, instead of taking sequences of a batch apart */
    zq_bench_fn *row;
    void *user;
} zq_bench_options;

/* Runs a model on random ids and hands out rows. Encoders: "encode", sequences/s. Decoders: "prompt", tokens/s; with decode, "decode": tokens/s
 * of all sequences together at that context, and "first": new tokens/s including the prompt before them. Last, "memory": the peak of the process.
 * On a device the clock is this processor's, and there are no limits.
 * Limits: products of the maps over the peak of their kind, or bytes of weights and caches over the bandwidth of where they lie; the later counts.
 * Returns ZQ_OK or errors of sessions. */
ZQ_API zq_status zq_bench_model(const zq_model *model, const zq_bench_options *options, zq_error *err);

typedef struct zq_product_bench_options {
    int n_threads;
    const char *scheme, *group;       /* "w8a8" (NULL) or "w4a8"; as in zq_quantize_options */
    size_t n_tokens, n_cols, n_rows;  /* tokens, inputs and outputs of each */
    double seconds;                   /* as in zq_bench_options, and so are these: */
    const zq_machine *machine;
    zq_bench_fn *row;
    void *user;
} zq_product_bench_options;

/* A linear map of INT8 tokens by itself, on random weights far larger than the caches. Rows in GOP/s, two operations for each weight and token:
 * "product", of tokens as the operator before leaves them, and "quantized", with a pass that makes them from floats.
 * Returns ZQ_OK, ZQ_EINVAL, ZQ_EUNSUPPORTED (another scheme), ZQ_ELIMIT (a size) or ZQ_ENOMEM. */
ZQ_API zq_status zq_bench_product(const zq_product_bench_options *options, zq_error *err);

/* Times every kernel that a GPU has for this model's INT8 products, for 8, 16, 32, ... up to most_tokens tokens, and keeps the fastest in the
 * user's cache folder, $XDG_CACHE_HOME (or ~/.cache)/zeroquant, where models that are opened later find them. No session of the model may be open.
 * Results do not depend on it. Returns ZQ_OK, ZQ_EUNSUPPORTED (the model is on no GPU), ZQ_EIO or ZQ_ENOMEM. */
ZQ_API zq_status zq_model_tune(zq_model *model, size_t most_tokens, zq_error *err);

#ifdef __cplusplus
}
#endif
#endif
