/* Decoders: from the contents of tokens back to text. */
#ifndef ZQ_TEXT_DECODE_H
#define ZQ_TEXT_DECODE_H

#include "base/json.h"
#include "text/regex.h"

struct zq_decoder; /* one step */

struct zq_decoders {
    struct zq_decoder *steps; /* [n], a Sequence is flattened */
    size_t n, capacity;
    bool set; /* the file has a decoder, be it an empty Sequence */
};

/* A list of strings, back to back. */
struct zq_pieces {
    struct zq_bytes text;
    size_t *ends; /* [n] in text */
    size_t n, capacity;
};
bool zq_pieces_put(struct zq_pieces *p, const char *s, size_t n);
void zq_pieces_free(struct zq_pieces *p);

/* Reads the "decoder" value of a tokenizer.json (NULL and null: none). ZQ_EUNSUPPORTED names an unknown type. */
zq_status zq_decoders_read(struct zq_decoders *list, const json_t *json, const char *name, zq_error *err);
void zq_decoders_free(struct zq_decoders *list);

/* Turns the contents of tokens into the pieces of the text, in place. */
zq_status zq_decode(const struct zq_decoders *list, struct zq_pieces *pieces, zq_error *err);

#endif
