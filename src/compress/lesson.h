/* Distillation of a whole model, one block at a time: the samples, the two streams of activations (through the original blocks,
 * and through the quantized ones), and the block in work. What a block becomes goes to the shard writer; then it is forgotten. */
#ifndef ZQ_COMPRESS_LESSON_H
#define ZQ_COMPRESS_LESSON_H

#include "compress/matrix.h"
#include "compress/samples.h"
#include "cuda/load.h"
#include "distill/solve.h"

/* Everything about a model that must be there before block `layer` can be solved, made from the start or read back. */
struct zq_lesson;

/* Settles the defaults of the options. out->method NULL: no distillation. ZQ_EINVAL for what does not fit. */
zq_status zq_lesson_settle(struct zq_lesson_settings *out, const zq_quantize_options *options, const struct zq_config *config, zq_error *err);
/* Opens the device where distillation runs, if it is to run on one, and adds to the normalised options what it says of itself: another one has other
 * sums. *device is NULL if there is none; it outlives the plan's use. ZQ_EUNSUPPORTED where it is not there, or has no library of products. */
zq_status zq_lesson_device(struct zq_device **device, struct zq_plan *plan, zq_error *err);
/* Names options that were given and change nothing. */
zq_status zq_lesson_remark_unused(struct zq_remarks *remarks, const struct zq_lesson_settings *s, const zq_quantize_options *options, zq_error *err);
/* Adds them to the normalised options of a plan. */
zq_status zq_lesson_describe(json_t *options, const struct zq_lesson_settings *settings, zq_error *err);
/* Resident memory of a lesson beside what writing and the open model take; 0 without distillation. on_disk: the streams lie in a scratch file.
 * While samples are made and embedded, before the first block: */
zq_status zq_lesson_sample_bytes(uint64_t *n_bytes, const struct zq_plan *plan, int n_threads, bool on_disk, zq_error *err);
/* Of a block: while it is solved, and what stays while it is written. */
struct zq_lesson_bytes {
    uint64_t solving, waiting;
};
zq_status zq_lesson_bytes(struct zq_lesson_bytes *out, const struct zq_plan *plan, size_t layer, int n_threads, bool on_disk, zq_error *err);
/* Time that it takes on this processor, about. */
double zq_lesson_seconds(const struct zq_plan *plan, int n_threads);
/* Bytes of a file that zq_lesson_save() writes. */
uint64_t zq_lesson_stream_bytes(const struct zq_plan *plan);

/* Opens the model, and makes the samples and their embeddings, or reads the streams from a file that zq_lesson_save() wrote; NULL: from the
 * start. The plan outlives the lesson. tick may be NULL. *out is NULL unless ZQ_OK. */
zq_status zq_lesson_open(struct zq_lesson **out, const struct zq_plan *plan, const char *streams, const struct zq_means *means, zq_error *err);
void zq_lesson_close(struct zq_lesson *lesson); /* accepts NULL */

/* What came of a block. */
struct zq_lesson_block {
    double before, after; /* loss on the samples that judge: as round-to-nearest has it, and as solved */
    double drift_learned, drift_held; /* |student - teacher| / |teacher| of what leaves the block, for samples learned from and held out */
    struct zq_box tokens; /* range of what the original's attention output projection reads, token by token */
    bool fell_back;
};
/* How many iterations of each block fit into `seconds` for this block and those after it, at least 1 and at most what the options say: a few are
 * run and forgotten. For methods that have iterations. */
zq_status zq_lesson_fit(struct zq_lesson *lesson, size_t layer, double seconds, size_t *n_iterations, zq_error *err);
/* Solves block `layer`, the next one, and takes both streams through it. n_iterations 0: as the options say. */
zq_status zq_lesson_solve(struct zq_lesson *lesson, size_t layer, size_t n_iterations, struct zq_lesson_block *out, zq_error *err);
/* Makes *means give the solved values of an item of that block; others stay as they are. */
void zq_lesson_give(struct zq_lesson *lesson, const struct zq_item *item, struct zq_means *means);
/* Writes the streams as they enter the next block. */
zq_status zq_lesson_save(const struct zq_lesson *lesson, const char *path, zq_error *err);

/* ---- parts, for lesson.c -------------------------------------------------------------------------------------------- */

struct zq_student_options zq_lesson_student(const struct zq_plan *plan, size_t layer, int n_threads);
/* Whether maps that stay float are put back from the file when the block is solved: only the optimizer's training moves them. */
bool zq_lesson_puts_back(const struct zq_plan *plan, const struct zq_student *s);
/* Values of one stream. */
size_t zq_lesson_values(const struct zq_plan *plan);
zq_status zq_lesson_request(struct zq_sample_request *out, const struct zq_plan *plan, int n_threads, zq_error *err);

#endif
