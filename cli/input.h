/* Text and ids that a command is given. */
#ifndef ZQ_CLI_INPUT_H
#define ZQ_CLI_INPUT_H

#include "console.h"

/* All of a file ("-": standard input), NUL-terminated; free() *text. */
zq_status input_read(const char *path, char **text, size_t *n_bytes, zq_error *err);

/* Records of standard input, each ended by a delimiter ('\n' or 0) or by the end. Zero-initialise. */
struct records {
    char *text; /* of the latest record, without the delimiter, NUL-terminated */
    size_t n_bytes;
    size_t capacity, number; /* number: of the latest record, from 1 */
};
/* Reads the next record; *more is false when there is none. */
zq_status records_next(struct records *r, int delimiter, bool *more, zq_error *err);
void records_free(struct records *r);

/* "1,2,3" or "1 2 3" as numbers in [0, max]; free() *ids. what: names the source in error sentences. */
zq_status ids_parse(const char *text, const char *what, int32_t max, int32_t **ids, size_t *n, zq_error *err);

#endif
