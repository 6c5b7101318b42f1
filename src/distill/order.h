/* In which order samples are trained on: round after round, each sample once in a round, in an order that is new in each. It follows
 * from seed and position alone, so that a run can go on from any step. */
#ifndef ZQ_DISTILL_ORDER_H
#define ZQ_DISTILL_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* The sample at a position, < n; n >= 1. */
size_t zq_order_at(size_t n, uint64_t seed, uint64_t position);

#endif
