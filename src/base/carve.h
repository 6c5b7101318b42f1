/* Carving the arrays of a long-lived object out of one block. The code that carves runs twice: with base NULL it only measures, so that the
 * size announced is the size taken; with a block of `used` bytes it assigns. Every array begins on a cache line, if the block does. */
#ifndef ZQ_BASE_CARVE_H
#define ZQ_BASE_CARVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zq_carver {
    uint8_t *base; /* aligned to 64; NULL: measure */
    size_t used;   /* bytes carved so far, a multiple of 64 */
    bool overflow; /* some size is no size_t: `used` means nothing */
};

/* n items. NULL while measuring and after an overflow. */
void *zq_carve(struct zq_carver *c, size_t n, size_t item_bytes);
float *zq_carve_floats(struct zq_carver *c, size_t n_rows, size_t n_cols); /* [n_rows, n_cols] */

#endif
