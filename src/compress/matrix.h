/* One matrix from the source into a shard: in strips of rows, on several threads, within a bound on memory. What is written
 * depends neither on the strips nor on the threads. */
#ifndef ZQ_COMPRESS_MATRIX_H
#define ZQ_COMPRESS_MATRIX_H

#include "compress/record.h"
#include "quant/encode.h"

/* What an item becomes, settled before it is written. */
struct zq_given {
    const int8_t *codes;  /* [n_rows, n_cols], with scales [n_rows, n_groups] */
    const float *scales;
    const float *floats;  /* of a tensor that is copied: its values */
};

/* Means of a job. */
struct zq_means {
    int n_threads;
    size_t strip_bytes; /* of source that is mapped in at a time, about */
    void *buffers;      /* of the item in work: as large as the largest wants, see zq_item_buffers(). One block for all, because what
                         * allocators keep of freed ones counts as resident */
    zq_encode_fn *encode;
    void *method;
    const char *scratch_dir; /* where large arrays go that need not be resident; NULL: memory */
    const struct zq_given *given; /* of the item in work; NULL: encode() and the file say what it becomes */
    /* Told of source bytes as they are done; anything but ZQ_OK stops the job. May be NULL. */
    zq_status (*tick)(void *user, uint64_t n_bytes, zq_error *err);
    void *user;
};

/* Bytes that an item takes at its peak: in means->buffers, which is not read, and of mapped pages of the source. */
uint64_t zq_item_buffers(const struct zq_item *item, const struct zq_means *means);
uint64_t zq_item_mapped(const struct zq_item *item, const struct zq_means *means);

/* Writes the parts of an item, in their order, to a shard whose header announces them. ZQ_EFORMAT names a tensor with NaN or infinity. */
zq_status zq_item_write(const struct zq_item *item, const struct zq_means *means, struct zq_safetensors_writer *out,
                        struct zq_measured *measured, zq_error *err);

#endif
