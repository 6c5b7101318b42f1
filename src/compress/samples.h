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
};

/* What tells two lists of sources apart: kinds, weights, and the SHA-256 of each file. A new reference; ZQ_EINVAL for a malformed
 * list, ZQ_EIO for a file that cannot be read. */
zq_status zq_samples_identity(json_t **out, const char *sources, zq_error *err);

/* Fills ids [n, length]; the same for any number of threads. Encoders get their special tokens at both ends. ZQ_EINVAL for a text
 * of fewer ids than one sample; ZQ_EUNSUPPORTED for a text without a tokenizer. */
zq_status zq_samples_make(int32_t *ids, const struct zq_sample_request *request, const zq_model *model, zq_error *err);

#endif
