/* Reading the components of a tokenizer.json (normalizer, pre_tokenizer, post_processor, decoder). They share one shape: an
 * object with a "type", where a Sequence holds a list of the same. Every kind of component has one table of types; a new type
 * is a row there with its functions. */
#ifndef ZQ_TEXT_COMPONENT_H
#define ZQ_TEXT_COMPONENT_H

#include "base/json.h"
#include "text/bytes.h"

/* Called for each component that is no Sequence, in order, with its type. */
typedef zq_status zq_component_fn(void *list, const json_t *json, const char *type, const char *name, zq_error *err);

/* Walks a component (NULL and null: nothing). `what` names the kind for error sentences, `children` is the key of a Sequence's
 * list. ZQ_EFORMAT for what is no object with a type, and for Sequences nested deeper than any real file's. */
zq_status zq_component_walk(const json_t *json, const char *what, const char *children, zq_component_fn *fn, void *list, const char *name,
                            zq_error *err);

/* Fails with ZQ_EUNSUPPORTED and the sentence that names the component. */
zq_status zq_component_unknown(const char *what, const char *type, const char *name, zq_error *err);

/* A string member as a copy of known length; a missing one is ZQ_EFORMAT. Release copy->at with zq_free. */
zq_status zq_component_string(struct zq_span *copy, const json_t *json, const char *key, const char *name, zq_error *err);

/* A copy of s in memory of its own; NUL-terminated. false: out of memory. */
bool zq_span_copy(struct zq_span *copy, const char *s, size_t n);

#endif
