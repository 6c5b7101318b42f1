/* Normalizers: the rewriting of text before it is cut into words. */
#ifndef ZQ_TEXT_NORMALIZE_H
#define ZQ_TEXT_NORMALIZE_H

#include "base/json.h"
#include "text/regex.h"

struct zq_normalizer; /* one step */

struct zq_normalizers {
    struct zq_normalizer *steps; /* [n], a Sequence is flattened */
    size_t n, capacity;
};

/* Buffers of one thread. Zero-initialise. */
struct zq_normalize_scratch {
    struct zq_bytes text[2], cleaned, decomposed;
    int32_t *chars; /* [capacity] decomposed characters */
    size_t capacity;
};

/* Reads the "normalizer" value of a tokenizer.json (NULL and null: none). ZQ_EUNSUPPORTED names an unknown type. */
zq_status zq_normalizers_read(struct zq_normalizers *list, const json_t *json, const char *name, zq_error *err);
void zq_normalizers_free(struct zq_normalizers *list);

/* *out is the normalized text: `text` itself if nothing changes, else it lies in s->text until the next call. */
zq_status zq_normalize(const struct zq_normalizers *list, struct zq_normalize_scratch *s, struct zq_regex_scratch *rs, struct zq_span text,
                       struct zq_span *out, zq_error *err);
void zq_normalize_scratch_free(struct zq_normalize_scratch *s);

#endif
