/* safetensors files: a checked read-only view of one file, and a writer that streams tensors in a fixed order. */
#ifndef ZQ_CHECKPOINT_SAFETENSORS_H
#define ZQ_CHECKPOINT_SAFETENSORS_H

#include "base/file.h"
#include "quant/types.h"

enum { ZQ_MAX_DIMS = 8 };

struct zq_tensor {
    char *name;
    enum zq_dtype dtype;
    size_t n_dims;
    size_t shape[ZQ_MAX_DIMS];
    size_t n_values;      /* product of shape; 1 for rank 0 */
    size_t n_bytes;
    const uint8_t *bytes; /* in the map, any alignment; NULL in a description for the writer */
    const struct zq_map *map; /* the file it lies in, for zq_map_drop; an empty map if the file is a view of memory */
};

/* Must stay where it was opened: its tensors point at `map`. */
struct zq_safetensors {
    struct zq_map map;
    struct zq_tensor *tensors; /* in file order */
    size_t n_tensors;
};
/* Checks everything the format demands: header length and JSON, dtypes, shape * dtype = bytes, no hole, overlap or duplicate,
 * data ends at the end of the file. A dtype that is not in ZQ_DTYPE_TABLE (F8_E4M3, ...) is ZQ_EUNSUPPORTED. *file needs no
 * initialisation and is zero after a failure; close accepts zero. */
zq_status zq_safetensors_open(struct zq_safetensors *file, const char *path, zq_error *err);
/* The same for a file in memory, which must outlive *file. `name` is for error sentences. */
zq_status zq_safetensors_view(struct zq_safetensors *file, const void *bytes, size_t n_bytes, const char *name, zq_error *err);
void zq_safetensors_close(struct zq_safetensors *file);

/* Streams a file: all names, dtypes and shapes are known first, then the bytes follow in the same order. */
struct zq_safetensors_writer {
    struct zq_output out;
    uint64_t expected; /* file size when all tensors are written */
};
/* tensors [n]: name (UTF-8), dtype, n_dims, shape are used. Writes the header ("__metadata__": {"format": "pt"}, keys in the
 * given order, padded to 8 bytes). Nothing stands between tensors: give wider dtypes first where alignment matters; readers
 * accept any. *w needs no initialisation. ZQ_EINVAL for a name that occurs twice or a size that overflows. */
zq_status zq_safetensors_begin(struct zq_safetensors_writer *w, const char *path, const struct zq_tensor *tensors, size_t n, zq_error *err);
zq_status zq_safetensors_put(struct zq_safetensors_writer *w, const void *bytes, size_t n_bytes, zq_error *err);
/* The file appears under its name. ZQ_EINVAL if fewer bytes were put than announced; more are refused by put. After end the
 * writer is finished, whatever it returned; a failed put is followed by abandon. */
zq_status zq_safetensors_end(struct zq_safetensors_writer *w, zq_error *err);
/* Removes an unfinished file. Accepts zero and a finished writer. */
void zq_safetensors_abandon(struct zq_safetensors_writer *w);

#endif
