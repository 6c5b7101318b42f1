/* The files of a model directory that are neither weights nor config.json: tokenizer, generation settings, pooling. They go
 * into the output byte for byte. */
#ifndef ZQ_COMPRESS_SIDEFILES_H
#define ZQ_COMPRESS_SIDEFILES_H

#include "base/status.h"

struct zq_sidefiles {
    char **paths; /* [n] relative to the model directory, sorted; at most one directory deep */
    size_t n, capacity;
};
/* *files needs no initialisation; free accepts zero. */
zq_status zq_sidefiles_list(struct zq_sidefiles *files, const char *dir, zq_error *err);
void zq_sidefiles_free(struct zq_sidefiles *files);
/* Copies them all, creating directories, and makes them durable. */
zq_status zq_sidefiles_copy(const struct zq_sidefiles *files, const char *from_dir, const char *to_dir, zq_error *err);

#endif
