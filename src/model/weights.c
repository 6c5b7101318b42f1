/* Reading stored weights and repacking them for the kernels. A repack goes through a block of rows per thread: a few MiB,
 * never a copy of the matrix; the mapped pages it has read are handed back to the system. */
#include "model/weights.h"

#include "base/alloc.h"
#include "quant/pack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct zq_tensor *find(const struct zq_checkpoint *ckpt, const char *module, const char *suffix)
{
    char name[512];
    const int n = snprintf(name, sizeof name, "%s%s", module, suffix);
    return n < 0 || (size_t)n >= sizeof name ? NULL : zq_checkpoint_find(ckpt, name);
}

static zq_status expect_shape(const struct zq_checkpoint *ckpt, const struct zq_tensor *t, size_t rows, size_t cols, zq_error *err)
{
    if (t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols) return ZQ_OK;
    char got[96] = "";
    for (size_t i = 0, used = 0; i < t->n_dims && used < sizeof got - 24; i++)
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%zu", i ? ", " : "", t->shape[i]);
    return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s has shape [%s], expected [%zu, %zu]", ckpt->dir, t->name, got, rows, cols);
}

static zq_status find_scale(struct zq_stored *w, const struct zq_checkpoint *ckpt, zq_error *err)
{
    w->scale = find(ckpt, w->name, ".weight_scale");
    if (!w->scale) return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s.weight_scale is missing", ckpt->dir, w->name);
    if (!zq_dtype_is_float(w->scale->dtype))
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s is %s, expected a float type", ckpt->dir, w->scale->name, zq_dtype_name(w->scale->dtype));
    if (w->spec.k_group && w->n_cols % w->spec.k_group)
        return zq_fail(err, ZQ_EFORMAT, "%s: module %s: groups of %zu do not divide %zu input channels", ckpt->dir, w->name, w->spec.k_group,
                       w->n_cols);
    return expect_shape(ckpt, w->scale, w->n_rows, zq_spec_n_groups(w->spec, w->n_cols), err);
}

static zq_status check_scales(const struct zq_stored *w, const struct zq_checkpoint *ckpt, zq_error *err)
{
    float row[256];
    const size_t n = w->scale->n_values, value = zq_dtype_bytes(w->scale->dtype);
    for (size_t i = 0; i < n; i += ZQ_LEN(row)) {
        const size_t m = n - i < ZQ_LEN(row) ? n - i : ZQ_LEN(row);
        zq_to_float(row, w->scale->bytes + i * value, w->scale->dtype, m);
        for (size_t j = 0; j < m; j++)
            if (!isfinite(row[j]))
                return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s: scale %zu is no finite number", ckpt->dir, w->scale->name, i + j);
    }
    return ZQ_OK;
}

static zq_status find_packed(struct zq_stored *w, const struct zq_checkpoint *ckpt, zq_error *err)
{
    w->weight = find(ckpt, w->name, ".weight_packed");
    if (!w->weight) return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s.weight_packed is missing", ckpt->dir, w->name);
    if (w->weight->dtype != ZQ_I32)
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s is %s, expected I32", ckpt->dir, w->weight->name, zq_dtype_name(w->weight->dtype));
    zq_status st = expect_shape(ckpt, w->weight, w->n_rows, zq_packed_words(w->n_cols, w->spec.w_bits), err);
    const struct zq_tensor *shape = find(ckpt, w->name, ".weight_shape");
    if (st || !shape) return st;
    int64_t dims[2];
    if (shape->dtype != ZQ_I64 || shape->n_bytes != sizeof dims)
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s is not I64 [2]", ckpt->dir, shape->name);
    memcpy(dims, shape->bytes, sizeof dims);
    if (dims[0] != (int64_t)w->n_rows || dims[1] != (int64_t)w->n_cols)
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s says [%lld, %lld], expected [%zu, %zu]", ckpt->dir, shape->name, (long long)dims[0],
                       (long long)dims[1], w->n_rows, w->n_cols);
    return ZQ_OK;
}

zq_status zq_stored_find(struct zq_stored *out, const struct zq_module *module, const struct zq_checkpoint *ckpt,
                         const struct zq_compressed *compressed, zq_error *err)
{
    struct zq_stored w = {.name = module->name, .n_rows = module->n_rows, .n_cols = module->n_cols};
    *out = (struct zq_stored){0};
    zq_status st = zq_compressed_find(compressed, module->name, module->class_name, &w.spec, &w.storage, err);
    if (!st && w.storage == ZQ_STORED_PACKED) {
        st = find_packed(&w, ckpt, err);
    } else if (!st) {
        w.transposed = module->conv1d;
        w.weight = find(ckpt, w.name, ".weight");
        if (!w.weight) return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s.weight is missing", ckpt->dir, w.name);
        const bool right = w.storage == ZQ_STORED_INT ? w.weight->dtype == ZQ_I8 : zq_dtype_is_float(w.weight->dtype);
        if (!right)
            return zq_fail(err, ZQ_EFORMAT, "%s: tensor %s is %s, expected %s", ckpt->dir, w.weight->name, zq_dtype_name(w.weight->dtype),
                           w.storage == ZQ_STORED_INT ? "I8" : "F32, F16 or BF16");
        st = w.transposed ? expect_shape(ckpt, w.weight, w.n_cols, w.n_rows, err) : expect_shape(ckpt, w.weight, w.n_rows, w.n_cols, err);
    }
    if (!st && w.storage != ZQ_STORED_FLOAT) st = find_scale(&w, ckpt, err);
    if (!st && w.storage != ZQ_STORED_FLOAT) st = check_scales(&w, ckpt, err);
    if (!st) *out = w;
    return st;
}

/* Rows [row, row + n) of a matrix that lies transposed, [n_cols, n_rows] values of `size` bytes. */
static void gather_rows(const struct zq_stored *w, size_t row, size_t n, size_t size, uint8_t *out)
{
    for (size_t k = 0; k < w->n_cols; k++) {
        const uint8_t *from = w->weight->bytes + (k * w->n_rows + row) * size;
        for (size_t r = 0; r < n; r++) memcpy(out + (r * w->n_cols + k) * size, from + r * size, size);
    }
}

void zq_stored_codes(const struct zq_stored *w, size_t row, size_t n, int8_t *codes)
{
    if (w->storage == ZQ_STORED_PACKED) {
        const size_t row_bytes = 4 * zq_packed_words(w->n_cols, w->spec.w_bits);
        for (size_t r = 0; r < n; r++) zq_unpack_codes(codes + r * w->n_cols, w->weight->bytes + (row + r) * row_bytes, w->spec.w_bits, w->n_cols);
    } else if (w->transposed) {
        gather_rows(w, row, n, 1, (uint8_t *)codes);
    } else {
        memcpy(codes, w->weight->bytes + row * w->n_cols, n * w->n_cols);
    }
}

void zq_stored_scales(const struct zq_stored *w, size_t row, size_t n, float *scales)
{
    const size_t groups = zq_spec_n_groups(w->spec, w->n_cols);
    zq_to_float(scales, w->scale->bytes + row * groups * zq_dtype_bytes(w->scale->dtype), w->scale->dtype, n * groups);
}

void zq_stored_values(const struct zq_stored *w, size_t row, size_t n, void *values)
{
    const size_t size = zq_dtype_bytes(w->weight->dtype);
    if (w->transposed) gather_rows(w, row, n, size, values);
    else memcpy(values, w->weight->bytes + row * w->n_cols * size, n * w->n_cols * size);
}

struct zq_lookup zq_stored_lookup(const struct zq_stored *w)
{
    struct zq_lookup t = {.values = w->weight->bytes, .dtype = w->weight->dtype};
    if (w->storage == ZQ_STORED_FLOAT) return t;
    t.bits = w->spec.w_bits;
    t.scales = w->scale->bytes;
    t.scale_dtype = w->scale->dtype;
    t.k_group = w->spec.k_group;
    return t;
}

void zq_stored_row(const struct zq_stored *w, const struct zq_kernels *kernels, size_t row, float *out, int8_t *codes)
{
    if (w->storage == ZQ_STORED_FLOAT) {
        const size_t size = zq_dtype_bytes(w->weight->dtype);
        if (!w->transposed) kernels->to_float(out, w->weight->bytes + row * w->n_cols * size, w->weight->dtype, w->n_cols);
        else
            for (size_t k = 0; k < w->n_cols; k++) zq_to_float(out + k, w->weight->bytes + (k * w->n_rows + row) * size, w->weight->dtype, 1);
        return;
    }
    const size_t groups = zq_spec_n_groups(w->spec, w->n_cols), group = w->n_cols / groups;
    zq_stored_codes(w, row, 1, codes);
    for (size_t g = 0; g < groups; g++) {
        float scale;
        zq_to_float(&scale, w->scale->bytes + (row * groups + g) * zq_dtype_bytes(w->scale->dtype), w->scale->dtype, 1);
        for (size_t k = g * group; k < (g + 1) * group; k++) out[k] = (float)codes[k] * scale;
    }
}

/* Codes of 3 and 2 bits are codes of 4 bits that stay in the middle of their range, and run as such. */
static const struct zq_gemm *choose_kernel(const struct zq_kernels *k, struct zq_spec s)
{
    if (s.w_bits == 16) return &k->f32_a16;
    if (s.a_bits == 8) return s.w_bits == 8 ? &k->w8_a8 : &k->w4_a8;
    return s.w_bits == 8 ? &k->w8_a16 : &k->w4_a16;
}

struct pack_work {
    struct zq_linear *l;
    const struct zq_stored *w;
    size_t block;         /* rows packed at a time */
    size_t values_bytes;  /* of one thread's buffer, rounded up to 64 */
    size_t scales_bytes;
    uint8_t *buffers;     /* [n_threads][values_bytes + scales_bytes] */
};

static void drop_rows(const struct zq_stored *w, size_t begin, size_t end)
{
    if (w->transposed) return; /* strips share pages: dropped once, after the whole matrix */
    const size_t row_bytes = w->weight->n_bytes / w->n_rows;
    zq_map_drop(w->weight->map, w->weight->bytes + begin * row_bytes, (end - begin) * row_bytes);
}

static void pack_range(void *work, size_t begin, size_t end, int thread)
{
    const struct pack_work *p = work;
    uint8_t *values = p->buffers + (size_t)thread * (p->values_bytes + p->scales_bytes);
    float *scales = (float *)(void *)(values + p->values_bytes);
    for (size_t r = begin; r < end; r += p->block) {
        const size_t n = end - r < p->block ? end - r : p->block;
        if (p->w->storage == ZQ_STORED_FLOAT) {
            zq_stored_values(p->w, r, n, values);
        } else {
            zq_stored_codes(p->w, r, n, (int8_t *)values);
            zq_stored_scales(p->w, r, n, scales);
        }
        p->l->gemm->pack(&p->l->w, r, n, values, p->w->storage == ZQ_STORED_FLOAT ? NULL : scales);
        drop_rows(p->w, r, r + n);
    }
}

static zq_status pack(struct zq_linear *l, const struct zq_stored *w, const struct zq_packing *packing, zq_error *err)
{
    enum { BLOCK_BYTES = 1 << 20 };
    const size_t value = w->storage == ZQ_STORED_FLOAT ? zq_dtype_bytes(w->weight->dtype) : 1, tile = l->gemm->row_tile;
    struct pack_work work = {.l = l, .w = w};
    work.block = (BLOCK_BYTES / (w->n_cols * value) + tile) / tile * tile;
    work.values_bytes = (work.block * w->n_cols * value + 63) / 64 * 64;
    work.scales_bytes = (work.block * zq_spec_n_groups(w->spec, w->n_cols) * sizeof(float) + 63) / 64 * 64;
    const size_t n_bytes = l->gemm->packed_bytes(&l->w);
    l->w.packed = !n_bytes ? NULL : packing->device ? zq_alloc(n_bytes) : zq_arena_alloc(packing->arena, n_bytes);
    work.buffers = zq_alloc_array((size_t)packing->n_threads, work.values_bytes + work.scales_bytes);
    zq_status st = ZQ_OK;
    if (!l->w.packed || !work.buffers) st = zq_fail(err, ZQ_ENOMEM, "no memory to pack %s: %zu bytes", w->name, n_bytes);
    else zq_parallel(packing->n_threads, w->n_rows, work.block, pack_range, &work);
    zq_map_drop(w->weight->map, w->weight->bytes, w->weight->n_bytes);
    zq_free(work.buffers);
    return st;
}

zq_status zq_linear_make(struct zq_linear *out, const struct zq_stored *w, const struct zq_packing *packing, zq_error *err)
{
    enum { MAX_COLS = 131072 }; /* int32 sums of 127 * 128 products stay exact, see kernels.h */
    struct zq_linear l = {
        .device = NULL, .spec = w->spec, .transposed = w->transposed,
        .w = {.n_rows = w->n_rows, .n_cols = w->n_cols, .k_group = w->spec.k_group, .dtype = w->weight->dtype},
    };
    zq_status st = ZQ_OK;
    if (w->n_cols > MAX_COLS)
        st = zq_fail(err, ZQ_EUNSUPPORTED, "module %s has %zu input channels, the limit is %d", w->name, w->n_cols, (int)MAX_COLS);
    if (!st && packing->blas) l.stored = w->weight->bytes;
    else if (!st) l.gemm = choose_kernel(packing->kernels, w->spec);
    if (!st && l.gemm && packing->pack) st = pack(&l, w, packing, err);
    if (!st && l.w.packed) st = zq_device_take(packing->device, &l.w.packed, l.gemm->packed_bytes(&l.w), err);
    if (!st) l.device = packing->device;
    if (st && packing->device) zq_free(l.w.packed);
    if (st) l = (struct zq_linear){0};
    *out = l;
    return st;
}

void zq_linear_free(struct zq_linear *l)
{
    if (l->device) zq_device_free(l->device, l->w.packed);
    zq_device_free(l->device, l->bias);
    *l = (struct zq_linear){0};
}
