/* Distillation of a whole model, one block at a time: the samples, the two streams of activations (through the original blocks,
 * and through the quantized ones), and the block in work. What a block becomes goes to the shard writer; then it is forgotten. */
#ifndef ZQ_COMPRESS_LESSON_H
#define ZQ_COMPRESS_LESSON_H

#include "compress/matrix.h"
#include "distill/solve.h"

/* Everything about a model that must be there before block `layer` can be solved, made from the start or read back. */
struct zq_lesson;

/* Settles the defaults of the options. out->method NULL: no distillation. ZQ_EINVAL for what does not fit. */
zq_status zq_lesson_settle(struct zq_lesson_settings *out, const zq_quantize_options *options, const struct zq_config *config, zq_error *err);
/* Adds them to the normalised options of a plan. */
zq_status zq_lesson_describe(json_t *options, const struct zq_lesson_settings *settings, zq_error *err);
/* Memory that a lesson over the plan takes at its peak, beside what writing takes; 0 without distillation. */
zq_status zq_lesson_bytes(uint64_t *n_bytes, const struct zq_plan *plan, int n_threads, zq_error *err);
/* Bytes of a file that zq_lesson_save() writes. */
uint64_t zq_lesson_stream_bytes(const struct zq_plan *plan);

/* Opens the model, and makes the samples and their embeddings, or reads the streams from a file that zq_lesson_save() wrote; NULL: from the
 * start. The plan outlives the lesson. tick may be NULL. *out is NULL unless ZQ_OK. */
zq_status zq_lesson_open(struct zq_lesson **out, const struct zq_plan *plan, const char *streams, const struct zq_means *means, zq_error *err);
void zq_lesson_close(struct zq_lesson *lesson); /* accepts NULL */

/* What came of a block. */
struct zq_lesson_block {
    double before, after;
    bool fell_back;
};
/* Solves block `layer`, the next one, and takes both streams through it. */
zq_status zq_lesson_solve(struct zq_lesson *lesson, size_t layer, struct zq_lesson_block *out, zq_error *err);
/* Makes *means give the solved values of an item of that block; others stay as they are. */
void zq_lesson_give(struct zq_lesson *lesson, const struct zq_item *item, struct zq_means *means);
/* Writes the streams as they enter the next block. */
zq_status zq_lesson_save(const struct zq_lesson *lesson, const char *path, zq_error *err);

#endif
