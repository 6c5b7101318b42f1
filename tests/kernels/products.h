/* What the checks of products share: drawing weights, packing and running in pieces. */
#ifndef ZQ_CHECK_PRODUCTS_H
#define ZQ_CHECK_PRODUCTS_H

#include "check.h"

/* Value i of float weights. */
float product_weight(const struct zq_matrix *w, const void *values, size_t i);
/* n values of a float dtype. */
void *product_weights(struct check *c, size_t n, enum zq_dtype dtype, enum check_values kind);
/* n codes, all of them or mostly small. */
int8_t *product_codes(struct check *c, size_t n, int bits);
size_t product_divisor(struct check *c, size_t n);

/* Packs into a buffer, and runs, in pieces cut at random multiples of row_tile. */
void product_pack(struct check *c, const struct zq_gemm *g, struct zq_matrix *w, const void *values, size_t value_bytes, const float *scales);
void product_run(struct check *c, const struct zq_gemm *g, const struct zq_product *p);

#endif
