/* Maps larger than what they hold. */
#ifndef ZQ_BASE_REPEAT_H
#define ZQ_BASE_REPEAT_H

#include "base/file.h"

/* A map of n_bytes > 0 that repeats bytes [period] again and again. Pages are shared, so that it takes no more memory than the period;
 * with `own` each page has memory of its own, as pages of a file have. period is a multiple of the page size. Closed by zq_map_close. */
zq_status zq_map_repeat(struct zq_map *map, const void *bytes, size_t period, size_t n_bytes, bool own, zq_error *err);

#endif
