/* Number formats of stored tensors, and how one matrix is quantized. */
#ifndef ZQ_QUANT_TYPES_H
#define ZQ_QUANT_TYPES_H

#include "base/status.h"

/* name in safetensors, bytes per value; F32 is the zero value */
#define ZQ_DTYPE_TABLE(X) \
    X(F32, 4) X(F16, 2) X(BF16, 2) X(F64, 8) X(I64, 8) X(I32, 4) X(I16, 2) X(I8, 1) X(U64, 8) X(U32, 4) X(U16, 2) X(U8, 1) X(BOOL, 1)

enum zq_dtype {
#define ZQ_DTYPE_ENUM(name, bytes) ZQ_##name,
    ZQ_DTYPE_TABLE(ZQ_DTYPE_ENUM)
#undef ZQ_DTYPE_ENUM
    ZQ_N_DTYPES
};

const char *zq_dtype_name(enum zq_dtype dtype);
size_t zq_dtype_bytes(enum zq_dtype dtype);
/* false if the name is unknown. */
bool zq_dtype_parse(const char *name, enum zq_dtype *out);
/* F32, F16 or BF16: what weights may be stored in. */
bool zq_dtype_is_float(enum zq_dtype dtype);

/* dst[i] = src[i] for n values of a float dtype; src need not be aligned. */
void zq_to_float(float *dst, const void *src, enum zq_dtype dtype, size_t n);
/* Rounds to nearest even into a float dtype. */
void zq_from_float(void *dst, enum zq_dtype dtype, const float *src, size_t n);

/* How a matrix [n_rows, n_cols] is stored and fed: the form in which it runs and lies on disk. */
struct zq_spec {
    int w_bits;     /* 8 or 4: integer codes; 3 or 2: the same, for studies; 16: kept in its float dtype */
    int a_bits;     /* 8: its input is quantized to INT8, one scale per token; 16: float input */
    size_t k_group; /* input channels that share a scale; 0: one scale per row */
};
#define ZQ_SPEC_FLOAT ((struct zq_spec){16, 16, 0})

static inline bool zq_spec_equal(struct zq_spec a, struct zq_spec b)
{
    return a.w_bits == b.w_bits && a.a_bits == b.a_bits && a.k_group == b.k_group;
}
/* Scales in one row of n_cols weights; k_group divides n_cols. */
static inline size_t zq_spec_n_groups(struct zq_spec s, size_t n_cols)
{
    return s.k_group ? n_cols / s.k_group : 1;
}
/* "float", "w8a8", "w4a16"; "channel", "k:64", "" for float. `out` has room for 16 characters. */
void zq_spec_scheme_text(struct zq_spec s, char *out);
void zq_spec_group_text(struct zq_spec s, char *out);

#endif
