/* How much memory and time a job takes, before it starts. */
#ifndef ZQ_COMPRESS_BUDGET_H
#define ZQ_COMPRESS_BUDGET_H

#include "compress/matrix.h"

/* Chooses means->strip_bytes, the other means being given, and estimates the peak of resident memory. bound 0: none. ZQ_ENOMEM
 * says how much is needed. lesson_bytes: of distillation. */
zq_status zq_budget_fit(struct zq_means *means, const struct zq_plan *plan, uint64_t lesson_bytes, uint64_t bound, uint64_t *memory_bytes,
                        zq_error *err);
double zq_budget_seconds(const struct zq_plan *plan, int n_threads);
/* Largest resident memory of this process so far. */
uint64_t zq_budget_peak(void);

#endif
