/* Reading JSON from outside: limits on size and depth, and typed getters whose errors name the file and the key; and printing it.
 * The tree is jansson's (json_t); release it with json_decref. */
#ifndef ZQ_BASE_JSON_H
#define ZQ_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>

/* Parses text as one JSON value (RFC 8259). ZQ_EFORMAT names line and column: also for duplicate keys, keys with \u0000, text
 * that is not UTF-8, numbers beyond double precision, more than 2048 levels. Integers beyond 64 bits become reals. `name` is for the error sentence.
 * *out is NULL on failure. */
zq_status zq_json_parse(json_t **out, const char *text, size_t n_bytes, const char *name, zq_error *err);
/* Reads and parses a file of at most max_bytes. */
zq_status zq_json_read(json_t **out, const char *path, size_t max_bytes, zq_error *err);

/* The tree as text with jansson's dump flags, NUL-terminated; release with zq_free. n_bytes (may be NULL) without the NUL.
 * Use it instead of json_dumps, which may cut the text silently when memory runs out. ZQ_ENOMEM. */
zq_status zq_json_print(char **text, size_t *n_bytes, const json_t *value, size_t flags, zq_error *err);

/* obj[key] as an integer in [min, max]; `fallback` if the key is missing or null. ZQ_EFORMAT otherwise. */
zq_status zq_json_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t fallback, int64_t *out, const char *name, zq_error *err);
zq_status zq_json_real(const json_t *obj, const char *key, double fallback, double *out, const char *name, zq_error *err);
zq_status zq_json_bool(const json_t *obj, const char *key, bool fallback, bool *out, const char *name, zq_error *err);
/* Borrowed from obj. */
zq_status zq_json_string(const json_t *obj, const char *key, const char *fallback, const char **out, const char *name, zq_error *err);

#endif
