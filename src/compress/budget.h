/* How much memory and time a job takes, before it starts. */
#ifndef ZQ_COMPRESS_BUDGET_H
#define ZQ_COMPRESS_BUDGET_H

#include "compress/matrix.h"

struct zq_budget {
    uint64_t memory_bytes; /* estimated peak of resident memory */
    uint64_t buffer_bytes; /* of means->buffers, part of it */
};

/* Chooses means->strip_bytes, threads and method being given, and estimates what that takes. bound 0: none. ZQ_ENOMEM says how much is
 * needed. on_disk: the streams of distillation lie in a scratch file. */
zq_status zq_budget_fit(struct zq_means *means, const struct zq_plan *plan, bool on_disk, uint64_t bound, struct zq_budget *out, zq_error *err);
/* Coding as a tile of it is timed here and now; files at rates that are assumed, because finding out would mean writing some. Without
 * distillation. */
zq_status zq_budget_seconds(double *out, const struct zq_plan *plan, int n_threads, zq_error *err);
/* Largest resident memory of this process so far. */
uint64_t zq_budget_peak(void);

#endif
