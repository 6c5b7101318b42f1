/* How packed weights lie on a device. Packing is plain C on the host, with the signature of the other kernels' packers; the kernels
 * read the same sizes through these inline functions.
 *
 * INT8 products (w8a8, w4a8): rows of codes, each K-group padded with zeros to a multiple of 32 columns. w4: 16 bytes hold 32
 * columns as two's complement nibbles, column c in the low half of byte c and column 16 + c in its high half: one mask, or one shift
 * and mask, yields four signed bytes of 16 times the code. After the codes, from a multiple of 64 bytes: scales [n_groups][n_rows],
 * for w4 divided by 16.
 * Float-input products: [n_cols][width] values with neighbouring rows side by side, width = n_rows rounded up to 64; w4: two rows
 * per byte as code + 8, the even row in the low half. Then scales [n_groups][n_rows]. */
#ifndef ZQ_CUDA_LAYOUT_H
#define ZQ_CUDA_LAYOUT_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

static inline size_t zq_layout_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static inline size_t zq_layout_groups(const struct zq_matrix *w) { return w->k_group ? w->n_cols / w->k_group : 1; }
static inline size_t zq_layout_group(const struct zq_matrix *w) { return w->k_group ? w->k_group : w->n_cols; }
/* Columns of a padded group, and of a row. */
static inline size_t zq_layout_step(const struct zq_matrix *w) { return zq_layout_up(zq_layout_group(w), 32); }
static inline size_t zq_layout_cols(const struct zq_matrix *w) { return zq_layout_groups(w) * zq_layout_step(w); }
/* Bytes before the scales. */
static inline size_t zq_layout_codes(const struct zq_matrix *w, int bits)
{
    return zq_layout_up(w->n_rows * (zq_layout_cols(w) * (size_t)bits / 8), 64);
}
static inline size_t zq_layout_width(const struct zq_matrix *w) { return zq_layout_up(w->n_rows, 64); }

/* Overwrites the products of a table with packers for a device; their run is NULL. */
void zq_device_layouts(struct zq_kernels *k);

#ifdef __cplusplus
}
#endif
#endif
