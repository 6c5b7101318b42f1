/* What a model is distilled on: token ids from texts, from chance, or from the model itself. No labels, no training data. */
#ifndef ZQ_COMPRESS_SAMPLES_H
#define ZQ_COMPRESS_SAMPLES_H

#include "base/json.h"
#include "model/model.h"

/* sources: "FILE[:WEIGHT]", "random[:WEIGHT]", "self[:WEIGHT]", separated by commas. Weights are shares of the samples, 1 unless given. */
struct zq_sample_request {
    const char *sources;
    size_t n, length; /* samples, and ids of each */
    uint64_t seed;
    int n_threads;
    size_t cache_bytes; /* that `self` may take for keys and values; 64 MiB are granted anyway */
    zq_status (*tick)(void *user, uint64_t n_bytes, zq_error *err); /* told now and then, with 0; may be NULL */
    void *user;
};

/* Samples that a decoder writes side by side. It follows from configuration, samples and cache_bytes alone: in float models a
 * product's last bits depend on the rows that share it. */
size_t zq_samples_at_once(const struct zq_config *config, const struct zq_sample_request *request);

/* What of the model's file is read while samples are made. */
struct zq_sample_file {
    uint64_t n_bytes, n_block_bytes, n_outside_bytes; /* all, the largest block, outside the blocks */
};
/* Resident memory that making samples takes at its peak. Texts are looked at: ZQ_EIO where one cannot be read. */
zq_status zq_samples_bytes(uint64_t *n_bytes, const struct zq_config *config, const struct zq_sample_request *request,
                           const struct zq_sample_file *file, zq_error *err);

/* What tells two lists of sources apart: kinds, weights, and the SHA-256 of each file. A new reference; ZQ_EINVAL for a malformed
 * list, ZQ_EIO for a file that cannot be read. */
zq_status zq_samples_identity(json_t **out, const char *sources, zq_error *err);

/* The share of samples that are random ids, those that `self` gives of an encoder without a head for masks among them. 0 for a malformed list. */
double zq_samples_chance(const char *sources, enum zq_model_kind kind);

/* Fills ids [n, length]; the same for any number of threads. Encoders get their special tokens at both ends. ZQ_EINVAL for a text
 * of fewer ids than one sample; ZQ_EUNSUPPORTED for a text without a tokenizer. */
zq_status zq_samples_make(int32_t *ids, const struct zq_sample_request *request, const zq_model *model, zq_error *err);

#endif
