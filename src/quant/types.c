/* The dtype table and conversions between float formats. */
#include "quant/types.h"

#include "base/half.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t n_bytes;
} dtypes[ZQ_N_DTYPES] = {
#define ROW(name, bytes) {#name, bytes},
    ZQ_DTYPE_TABLE(ROW)
#undef ROW
};

const char *zq_dtype_name(enum zq_dtype dtype) { return dtypes[dtype].name; }
size_t zq_dtype_bytes(enum zq_dtype dtype) { return dtypes[dtype].n_bytes; }
bool zq_dtype_is_float(enum zq_dtype dtype) { return dtype == ZQ_F32 || dtype == ZQ_F16 || dtype == ZQ_BF16; }

bool zq_dtype_parse(const char *name, enum zq_dtype *out)
{
    for (int i = 0; i < ZQ_N_DTYPES; i++) {
        if (strcmp(name, dtypes[i].name)) continue;
        *out = (enum zq_dtype)i;
        return true;
    }
    return false;
}

void zq_to_float(float *dst, const void *src, enum zq_dtype dtype, size_t n)
{
    const uint8_t *s = src;
    uint16_t h;
    switch (dtype) {
    case ZQ_F32: memcpy(dst, src, n * 4); break;
    case ZQ_F16:
        for (size_t i = 0; i < n; i++) { memcpy(&h, s + 2 * i, 2); dst[i] = zq_f16_to_float(h); }
        break;
    case ZQ_BF16:
        for (size_t i = 0; i < n; i++) { memcpy(&h, s + 2 * i, 2); dst[i] = zq_bf16_to_float(h); }
        break;
    default: memset(dst, 0, n * 4); /* callers check zq_dtype_is_float */
    }
}

void zq_from_float(void *dst, enum zq_dtype dtype, const float *src, size_t n)
{
    uint8_t *d = dst;
    uint16_t h;
    switch (dtype) {
    case ZQ_F32: memcpy(dst, src, n * 4); break;
    case ZQ_F16:
        for (size_t i = 0; i < n; i++) { h = zq_float_to_f16(src[i]); memcpy(d + 2 * i, &h, 2); }
        break;
    case ZQ_BF16:
        for (size_t i = 0; i < n; i++) { h = zq_float_to_bf16(src[i]); memcpy(d + 2 * i, &h, 2); }
        break;
    default: break; /* callers check zq_dtype_is_float */
    }
}

void zq_spec_scheme_text(struct zq_spec s, char *out)
{
    if (s.w_bits == 16) snprintf(out, 16, "float");
    else snprintf(out, 16, "w%da%d", s.w_bits, s.a_bits);
}

void zq_spec_group_text(struct zq_spec s, char *out)
{
    if (s.w_bits == 16) out[0] = '\0';
    else if (s.k_group) snprintf(out, 16, "k:%u", (unsigned)s.k_group);
    else snprintf(out, 16, "channel");
}
