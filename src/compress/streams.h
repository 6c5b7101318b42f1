/* The activations that are on their way through a model: between two blocks the teacher's and the student's, and in a block the
 * teacher's outputs. Three arrays of all samples, in memory or on disk. */
#ifndef ZQ_COMPRESS_STREAMS_H
#define ZQ_COMPRESS_STREAMS_H

#include "base/scratch.h"

struct zq_streams {
    struct zq_scratch scratch;
    float *teacher, *student, *target; /* [n_values] slices of it */
    size_t n_values;
};
/* dir: of a file to hold them; NULL: memory. *out is zero unless ZQ_OK is returned; close accepts zero. */
zq_status zq_streams_open(struct zq_streams *out, size_t n_values, const char *dir, zq_error *err);
void zq_streams_close(struct zq_streams *streams);
/* After a block: target is the next teacher's input. The array that becomes free is the student's, for its outputs; what it was is the
 * next target: *inputs, the student's inputs that are still to be read, is the new target array. */
void zq_streams_turn(struct zq_streams *streams, float **inputs);
/* n values at `from` are not needed for now. */
void zq_streams_drop(const struct zq_streams *streams, const float *from, size_t n);

/* Writes teacher and student as a file, and reads them back. ZQ_EFORMAT for a file of another size. */
zq_status zq_streams_save(const struct zq_streams *streams, const char *path, zq_error *err);
zq_status zq_streams_load(struct zq_streams *streams, const char *path, zq_error *err);

#endif
