/* Weights as they lie in the file, float or compressed, behind one view: rows of codes, scales or floats. */
#ifndef ZQ_MODEL_WEIGHTS_H
#define ZQ_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/compressed.h"
#include "model/modules.h"
#include "ops/ops.h"

/* The stored weight of one module, shapes checked. */
struct zq_stored {
    const char *name;               /* of the module */
    struct zq_spec spec;
    enum zq_storage storage;
    size_t n_rows, n_cols;
    bool transposed;                /* values lie [n_cols, n_rows]: Conv1D, float or I8 */
    const struct zq_tensor *weight; /* float values, I8 codes or packed I32 words */
    const struct zq_tensor *scale;  /* [n_rows, n_groups]; NULL for float */
};
/* Finds the tensors of a module and checks dtypes and shapes. ZQ_EFORMAT names what is missing or misshaped. */
zq_status zq_stored_find(struct zq_stored *out, const struct zq_module *module, const struct zq_checkpoint *ckpt,
                         const struct zq_compressed *compressed, zq_error *err);
/* Rows [row, row + n) as codes [n, n_cols]; integer storage only. */
void zq_stored_codes(const struct zq_stored *w, size_t row, size_t n, int8_t *codes);
/* Their scales as F32 [n, n_groups]. */
void zq_stored_scales(const struct zq_stored *w, size_t row, size_t n, float *scales);
/* Rows as values of the stored float dtype, [n, n_cols]; float storage only. */
void zq_stored_values(const struct zq_stored *w, size_t row, size_t n, void *values);
/* The matrix as a table whose rows are looked up; not of one that lies transposed. */
struct zq_lookup zq_stored_lookup(const struct zq_stored *w);
/* One row as floats, dequantized if need be: what measurements read. `codes` is scratch for n_cols codes. */
void zq_stored_row(const struct zq_stored *w, const struct zq_kernels *kernels, size_t row, float *out, int8_t *codes);

/* Makes a linear map of a stored weight: packed for its kernel, or left in the file for BLAS. Source pages are dropped as
 * tiles are made. Packed weights belong to the arena. Nothing of *out must be released on failure. pack false: binds without packing. */
struct zq_packing {
    const struct zq_kernels *kernels;
    int n_threads;
    bool pack;
    const struct zq_device *device; /* where packed weights go; NULL: they stay here */
    struct zq_arena *arena;         /* what they are cut from if they stay */
    bool blas; /* float maps go through BLAS: the model has no integer codes */
};
zq_status zq_linear_make(struct zq_linear *out, const struct zq_stored *w, const struct zq_packing *packing, zq_error *err);
void zq_linear_free(struct zq_linear *l); /* accepts zero */

#endif
