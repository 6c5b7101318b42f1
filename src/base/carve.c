/* Sizes come from files and options by way of products: each is checked, and one that does not fit spoils the whole. */
#include "base/carve.h"

#include "base/alloc.h"

void *zq_carve(struct zq_carver *c, size_t n, size_t item_bytes)
{
    size_t n_bytes, end;
    if (c->overflow || !zq_mul(n, item_bytes, &n_bytes) || !zq_add(n_bytes, 63, &n_bytes) || !zq_add(c->used, n_bytes / 64 * 64, &end)) {
        c->overflow = true;
        return NULL;
    }
    void *p = c->base ? c->base + c->used : NULL;
    c->used = end;
    return p;
}

float *zq_carve_floats(struct zq_carver *c, size_t n_rows, size_t n_cols)
{
    size_t n;
    if (zq_mul(n_rows, n_cols, &n)) return zq_carve(c, n, sizeof(float));
    c->overflow = true;
    return NULL;
}
