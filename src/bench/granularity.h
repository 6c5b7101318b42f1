/* How finely scales are shared, and what it costs in accuracy of the weights. */
#ifndef ZQ_BENCH_GRANULARITY_H
#define ZQ_BENCH_GRANULARITY_H

#include "quant/scheme.h"

/* "tensor", one scale for a matrix; or what zq_grouping_parse reads. */
zq_status zq_granularity_parse(struct zq_grouping *out, const char *text, zq_error *err);

#endif
