/* What a session keeps on a device beside its activations, and how a step runs there. */
#ifndef ZQ_MODEL_DEVICE_STEP_H
#define ZQ_MODEL_DEVICE_STEP_H

#include "cuda/device.h"
#include "zeroquant.h"

struct zq_session;

/* Decode steps are padded to a power of two sequences, each with a graph of its own: number i serves 2^i. */
enum { ZQ_N_GRAPHS = 17 };

struct zq_device_step {
    struct zq_device_cache cache;
    uint32_t *arrived;              /* [max_batch_tokens] for attention: zeros between launches */
    uint32_t *joined;               /* [ZQ_DEVICE_SPLIT_BLOCKS] likewise, behind those */
    float *parts;                   /* scratch of decoding with --math fast, else NULL */
    uint8_t *step, *host_step;      /* of the step in work: struct zq_device_token [n_rows], then int32_t [n_logit_rows] */
    const struct zq_device_token *tokens; /* within step */
    const int32_t *rows;                  /* within step: of the activations, those that the head reads */
    struct zq_device_choice *choices, *host_choices; /* [n_sequences] */
    double *weights;                /* [n_sequences, vocab] */
    int32_t *ids;                   /* [n_sequences] */
    struct zq_graph *graphs[ZQ_N_GRAPHS];
    bool ran[ZQ_N_GRAPHS];          /* once without a graph: kernels are loaded by their first launch, which must not be recorded */
    bool refused[ZQ_N_GRAPHS];      /* could not be recorded: launched one by one */
    bool logits_fetched;
};

/* Writes what the kernels read about this step's tokens and sends it. */
void zq_device_step_send(struct zq_session *s, const zq_input *inputs, size_t n_inputs);
/* Embeddings, blocks and head of the step: launched, recorded or replayed. */
void zq_device_step_run(struct zq_session *s, const zq_input *inputs, size_t n_inputs);
void zq_device_step_close(struct zq_session *s);

#endif
