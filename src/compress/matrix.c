/* Strips and tiles. A strip is what is mapped in at a time; a tile is what one thread converts, codes and packs while it lies in
 * its cache. Tiles start at multiples of a height that follows from the row length alone, so that the sums for the relative
 * error have one order. A transposed matrix (Conv1D) is turned strip by strip before anything else sees it. */
#include "compress/matrix.h"

#include "base/carve.h"
#include "base/threads.h"
#include "quant/pack.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { TILE_VALUES = 1 << 16, TILE_ROWS = 64, TURN_ROWS = 64 };

struct matrix {
    const struct zq_item *item;
    const struct zq_means *means;
    size_t n_rows, n_cols, n_groups;
    size_t value_bytes;             /* of one weight */
    size_t code_bytes;              /* of one row as written */
    size_t tile_rows, strip_rows;   /* strips are whole tiles */
    bool turned;                    /* weights lie [n_cols, n_rows] */
    bool codes_turned;              /* and so will the codes */

    uint8_t *strip;                 /* turned: weights [strip_rows, n_cols] */
    uint8_t *codes;                 /* [strip_rows, code_bytes]; codes_turned: [n_cols, n_rows] of the whole matrix */
    uint8_t *scales;                /* [n_rows, n_groups] of scale_dtype */
    struct zq_deviation *deviations; /* [tiles] */
    struct zq_range *ranges;        /* [n_rows] */
    float *shared;                  /* [n_rows] scales, groups of rows only */
    uint8_t *scratch;               /* [n_threads][scratch_bytes] */
    size_t scratch_bytes;           /* floats, scales and codes of one tile */
    const uint8_t *rows;            /* weights of the strip in work, [.., n_cols] */
    size_t first;                   /* its first row */
    atomic_size_t bad_row;          /* smallest row that holds NaN or infinity; SIZE_MAX: none */
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t n_tiles(const struct matrix *m)
{
    return (m->n_rows + m->tile_rows - 1) / m->tile_rows;
}

/* Geometry. Sizes are bounded by config.json's limits (rows and columns below 2^24), so that products fit 64 bits. */
static void measure(struct matrix *m, const struct zq_item *item, const struct zq_means *means)
{
    const struct zq_spec spec = item->layout.spec;
    *m = (struct matrix){.item = item, .means = means, .n_rows = item->module->n_rows, .n_cols = item->module->n_cols};
    m->n_groups = zq_spec_n_groups(spec, m->n_cols);
    m->value_bytes = zq_dtype_bytes(item->tensor->dtype);
    m->turned = item->module->conv1d;
    m->codes_turned = m->turned && item->storage == ZQ_STORED_INT;
    m->code_bytes = item->storage == ZQ_STORED_INT ? m->n_cols : 4 * zq_packed_words(m->n_cols, spec.w_bits);
    m->tile_rows = TILE_VALUES / m->n_cols;
    m->tile_rows = m->tile_rows < 1 ? 1 : m->tile_rows > TILE_ROWS ? TILE_ROWS : m->tile_rows;
    m->strip_rows = means->strip_bytes / (m->n_cols * m->value_bytes) / m->tile_rows * m->tile_rows;
    if (m->strip_rows < m->tile_rows) m->strip_rows = m->tile_rows;
    if (m->strip_rows > m->n_rows) m->strip_rows = round_up(m->n_rows, m->tile_rows);
    m->scratch_bytes = round_up(m->tile_rows * (m->n_cols * (sizeof(float) + 1) + m->n_groups * sizeof(float)), 64);
}

/* Assigns the buffers, or only measures them. */
static void carve(struct matrix *m, struct zq_carver *c)
{
    const size_t grouped = m->item->layout.row_groups ? m->n_rows : 0;
    m->strip = zq_carve(c, m->turned ? m->strip_rows * m->n_cols : 0, m->value_bytes);
    m->codes = zq_carve(c, m->codes_turned ? m->n_rows : m->strip_rows, m->codes_turned ? m->n_cols : m->code_bytes);
    m->scales = zq_carve(c, m->n_rows * m->n_groups, zq_dtype_bytes(m->item->layout.scale_dtype));
    m->deviations = zq_carve(c, n_tiles(m), sizeof *m->deviations);
    m->ranges = zq_carve(c, m->n_rows, sizeof *m->ranges);
    m->shared = zq_carve(c, grouped, sizeof *m->shared);
    m->scratch = zq_carve(c, (size_t)m->means->n_threads, m->scratch_bytes);
}

uint64_t zq_item_buffers(const struct zq_item *item, const struct zq_means *means)
{
    if (item->storage == ZQ_STORED_FLOAT) return 0;
    struct matrix m;
    struct zq_carver c = {0};
    measure(&m, item, means);
    carve(&m, &c);
    return c.overflow ? UINT64_MAX / 2 : c.used;
}

uint64_t zq_item_mapped(const struct zq_item *item, const struct zq_means *means)
{
    uint64_t n = means->strip_bytes;
    if (item->storage != ZQ_STORED_FLOAT) {
        struct matrix m;
        measure(&m, item, means);
        const uint64_t least = (m.turned ? m.n_rows * TURN_ROWS : m.n_cols * m.strip_rows) * m.value_bytes;
        if (least > n) n = least;
    }
    return n < item->tensor->n_bytes ? n : item->tensor->n_bytes;
}

/* ---- loading a strip ---------------------------------------------------------------------------------------------- */

struct turn {
    const struct matrix *m;
    size_t n;     /* rows of the strip */
    size_t first; /* column that item 0 of the range stands for */
};

/* Turns columns [begin, end) of the strip: stored rows become columns. Blocks of 64 x 64 keep both sides in cache. */
static void turn_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct turn *t = work;
    const struct matrix *m = t->m;
    const size_t size = m->value_bytes;
    for (size_t r0 = 0; r0 < t->n; r0 += TURN_ROWS) {
        const size_t r1 = r0 + TURN_ROWS < t->n ? r0 + TURN_ROWS : t->n;
        for (size_t k = t->first + begin; k < t->first + end; k++) {
            const uint8_t *from = m->item->tensor->bytes + (k * m->n_rows + m->first) * size;
            if (size == 2) for (size_t r = r0; r < r1; r++) memcpy(m->strip + (r * m->n_cols + k) * 2, from + r * 2, 2);
            else for (size_t r = r0; r < r1; r++) memcpy(m->strip + (r * m->n_cols + k) * 4, from + r * 4, 4);
        }
    }
}

/* Stored rows are longer than the strip needs, and the system maps neighbouring pages too: so as many of them at a time as the
 * bound allows, then their pages go back. */
static void turn_strip(struct matrix *m, size_t n)
{
    const struct zq_tensor *t = m->item->tensor;
    const size_t stored_row = m->n_rows * m->value_bytes;
    size_t step = m->means->strip_bytes / stored_row / TURN_ROWS * TURN_ROWS;
    if (!step) step = TURN_ROWS;
    for (size_t k = 0; k < m->n_cols; k += step) {
        const size_t n_k = m->n_cols - k < step ? m->n_cols - k : step;
        struct turn turn = {m, n, k};
        zq_parallel(m->means->n_threads, n_k, TURN_ROWS, turn_range, &turn);
        zq_map_drop(t->map, t->bytes + k * stored_row, n_k * stored_row);
    }
    m->rows = m->strip;
}

/* Makes rows [m->first, m->first + n) available at m->rows. */
static void load_strip(struct matrix *m, size_t n)
{
    const struct zq_tensor *t = m->item->tensor;
    const size_t row_bytes = m->n_cols * m->value_bytes, done = (m->first + n) * row_bytes;
    if (m->turned) {
        turn_strip(m, n);
        return;
    }
    m->rows = t->bytes + m->first * row_bytes;
    const size_t ahead = t->n_bytes - done < n * row_bytes ? t->n_bytes - done : n * row_bytes;
    zq_map_prefetch(t->map, t->bytes + done, ahead);
}

static void drop_strip(const struct matrix *m, size_t n)
{
    if (!m->turned) zq_map_drop(m->item->tensor->map, m->rows, n * m->n_cols * m->value_bytes);
}

/* ---- tiles -------------------------------------------------------------------------------------------------------- */

static void note_bad_row(struct matrix *m, const float *w, size_t first, size_t n)
{
    struct zq_range unused;
    size_t r = 0;
    while (r + 1 < n && zq_range_of(&unused, w + r * m->n_cols, m->n_cols)) r++;
    size_t seen = atomic_load(&m->bad_row);
    while (first + r < seen && !atomic_compare_exchange_weak(&m->bad_row, &seen, first + r)) {}
}

/* Codes of rows [r, r + n) of the strip to their place in m->codes. */
static void store_codes(struct matrix *m, const int8_t *codes, size_t r, size_t n)
{
    if (m->codes_turned) {
        uint8_t *to = m->codes + m->first + r;
        for (size_t k = 0; k < m->n_cols; k++)
            for (size_t i = 0; i < n; i++) to[k * m->n_rows + i] = (uint8_t)codes[i * m->n_cols + k];
    } else if (m->item->storage == ZQ_STORED_INT) {
        memcpy(m->codes + r * m->code_bytes, codes, n * m->n_cols);
    } else {
        for (size_t i = 0; i < n; i++)
            zq_pack_codes(m->codes + (r + i) * m->code_bytes, codes + i * m->n_cols, m->item->layout.spec.w_bits, m->n_cols);
    }
}

struct tiles {
    struct matrix *m;
    size_t n; /* rows of the strip */
};

/* What was given takes the place of encode(). */
static bool encode(const struct matrix *m, const struct zq_weight_rows *rows, int8_t *codes, float *scales)
{
    const struct zq_given *given = m->means->given;
    if (!given) return m->means->encode(m->means->method, rows, codes, scales);
    memcpy(codes, given->codes + rows->first * m->n_cols, rows->n * m->n_cols);
    memcpy(scales, given->scales + rows->first * m->n_groups, rows->n * m->n_groups * sizeof *scales);
    return true;
}

/* The floats of tile i of the strip in this thread's scratch; *n rows. */
static float *load_tile(const struct tiles *t, size_t i, int thread, size_t *n)
{
    const struct matrix *m = t->m;
    float *w = (float *)(void *)(m->scratch + (size_t)thread * m->scratch_bytes);
    const size_t r = i * m->tile_rows;
    *n = t->n - r < m->tile_rows ? t->n - r : m->tile_rows;
    zq_to_float(w, m->rows + r * m->n_cols * m->value_bytes, m->item->tensor->dtype, *n * m->n_cols);
    return w;
}

static void range_tiles(void *work, size_t begin, size_t end, int thread)
{
    const struct tiles *t = work;
    struct matrix *m = t->m;
    for (size_t i = begin; i < end; i++) {
        size_t n;
        const float *w = load_tile(t, i, thread, &n);
        const size_t row = m->first + i * m->tile_rows;
        for (size_t r = 0; r < n; r++)
            if (!zq_range_of(&m->ranges[row + r], w + r * m->n_cols, m->n_cols)) note_bad_row(m, w + r * m->n_cols, row + r, 1);
    }
}

static void encode_tiles(void *work, size_t begin, size_t end, int thread)
{
    const struct tiles *t = work;
    struct matrix *m = t->m;
    const struct zq_layout *layout = &m->item->layout;
    for (size_t i = begin; i < end; i++) {
        size_t n;
        float *w = load_tile(t, i, thread, &n);
        float *scales = w + m->tile_rows * m->n_cols;
        int8_t *codes = (int8_t *)(scales + m->tile_rows * m->n_groups);
        const size_t row = m->first + i * m->tile_rows;
        const struct zq_weight_rows rows = {w, row, n, m->n_cols, layout, layout->row_groups ? m->shared + row : NULL};
        for (size_t r = 0; r < n; r++) zq_range_of(&m->ranges[row + r], w + r * m->n_cols, m->n_cols); /* encode() refuses what is not finite */
        if (!encode(m, &rows, codes, scales)) {
            note_bad_row(m, w, row, n);
            continue;
        }
        zq_weight_deviation(&m->deviations[row / m->tile_rows], &rows, codes, scales);
        zq_from_float(m->scales + row * m->n_groups * zq_dtype_bytes(layout->scale_dtype), layout->scale_dtype, scales, n * m->n_groups);
        store_codes(m, codes, i * m->tile_rows, n);
    }
}

static zq_status check_finite(struct matrix *m, zq_error *err)
{
    const size_t row = atomic_load(&m->bad_row);
    if (row == SIZE_MAX) return ZQ_OK;
    return zq_fail(err, ZQ_EFORMAT, "tensor %s holds NaN or infinity in output channel %zu, which has no integer code", m->item->tensor->name, row);
}

/* ---- passes ------------------------------------------------------------------------------------------------------- */

/* The scales of groups of rows, from a pass over the whole matrix. */
static zq_status settle_shared_scales(struct matrix *m, zq_error *err)
{
    const size_t n_groups = m->item->layout.row_groups;
    zq_status st = ZQ_OK;
    for (m->first = 0; m->first < m->n_rows && !st; m->first += m->strip_rows) {
        const size_t n = m->n_rows - m->first < m->strip_rows ? m->n_rows - m->first : m->strip_rows;
        struct tiles tiles = {m, n};
        load_strip(m, n);
        zq_parallel(m->means->n_threads, (n + m->tile_rows - 1) / m->tile_rows, 1, range_tiles, &tiles);
        drop_strip(m, n);
        if (m->means->tick) st = m->means->tick(m->means->user, 0, err);
    }
    if (!st) st = check_finite(m, err);
    for (size_t g = 0; g < n_groups && !st; g++) {
        const size_t begin = zq_row_group_begin(g, m->n_rows, n_groups), end = zq_row_group_begin(g + 1, m->n_rows, n_groups);
        struct zq_range range = m->ranges[begin];
        for (size_t r = begin + 1; r < end; r++) range = zq_range_join(range, m->ranges[r]);
        const float scale = zq_scale_nearest(m->item->layout.spec.w_bits, range, m->item->layout.scale_dtype);
        for (size_t r = begin; r < end; r++) m->shared[r] = scale;
    }
    return st;
}

static zq_status write_codes(struct matrix *m, struct zq_safetensors_writer *out, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (m->first = 0; m->first < m->n_rows && !st; m->first += m->strip_rows) {
        const size_t n = m->n_rows - m->first < m->strip_rows ? m->n_rows - m->first : m->strip_rows;
        struct tiles tiles = {m, n};
        load_strip(m, n);
        zq_parallel(m->means->n_threads, (n + m->tile_rows - 1) / m->tile_rows, 1, encode_tiles, &tiles);
        drop_strip(m, n);
        st = check_finite(m, err);
        if (!st && !m->codes_turned) st = zq_safetensors_put(out, m->codes, n * m->code_bytes, err);
        if (!st && m->means->tick) st = m->means->tick(m->means->user, (uint64_t)n * m->n_cols * m->value_bytes, err);
    }
    if (!st && m->codes_turned) st = zq_safetensors_put(out, m->codes, m->n_rows * m->n_cols, err);
    return st;
}

static zq_status write_shape(const struct matrix *m, struct zq_safetensors_writer *out, zq_error *err)
{
    uint8_t shape[16];
    for (size_t i = 0; i < 8; i++) {
        shape[i] = (uint8_t)((uint64_t)m->n_rows >> 8 * i);
        shape[8 + i] = (uint8_t)((uint64_t)m->n_cols >> 8 * i);
    }
    return zq_safetensors_put(out, shape, sizeof shape, err);
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The ranges are overwritten by their widths. */
static struct zq_box rows_of(struct matrix *m)
{
    float *widths = (float *)(void *)m->ranges;
    for (size_t r = 0; r < m->n_rows; r++) {
        const struct zq_range range = m->ranges[r];
        widths[r] = range.max - range.min;
    }
    qsort(widths, m->n_rows, sizeof *widths, by_value);
    return zq_box_of(widths, m->n_rows);
}

static double relative_error_of(const struct matrix *m)
{
    struct zq_deviation all = {0};
    for (size_t i = 0; i < n_tiles(m); i++) {
        all.error += m->deviations[i].error;
        all.norm += m->deviations[i].norm;
    }
    return all.norm > 0 ? sqrt(all.error / all.norm) : 0;
}

static zq_status copy_tensor(const struct zq_tensor *t, const struct zq_means *means, struct zq_safetensors_writer *out, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t at = 0, n; at < t->n_bytes && !st; at += n) {
        n = t->n_bytes - at < means->strip_bytes ? t->n_bytes - at : means->strip_bytes;
        st = zq_safetensors_put(out, t->bytes + at, n, err);
        zq_map_drop(t->map, t->bytes + at, n);
        if (!st && means->tick) st = means->tick(means->user, n, err);
    }
    return st;
}

static zq_status write_floats(const struct zq_tensor *t, const struct zq_means *means, struct zq_safetensors_writer *out, zq_error *err)
{
    enum { AT_ONCE = 1024 };
    uint8_t stored[AT_ONCE * sizeof(float)];
    zq_status st = ZQ_OK;
    for (size_t at = 0, n; at < t->n_values && !st; at += n) {
        n = t->n_values - at < AT_ONCE ? t->n_values - at : AT_ONCE;
        zq_from_float(stored, t->dtype, means->given->floats + at, n);
        st = zq_safetensors_put(out, stored, n * zq_dtype_bytes(t->dtype), err);
    }
    return !st && means->tick ? means->tick(means->user, t->n_bytes, err) : st;
}

static zq_status quantize_matrix(const struct zq_item *item, const struct zq_means *means, struct zq_safetensors_writer *out,
                                 struct zq_measured *measured, zq_error *err)
{
    struct matrix m;
    struct zq_carver c = {.base = means->buffers};
    measure(&m, item, means);
    carve(&m, &c);
    memset(m.deviations, 0, n_tiles(&m) * sizeof *m.deviations);
    atomic_init(&m.bad_row, SIZE_MAX);
    zq_status st = ZQ_OK;
    if (item->layout.row_groups && !means->given) st = settle_shared_scales(&m, err);
    if (!st) st = write_codes(&m, out, err);
    for (size_t p = 1; p < item->n_parts && !st; p++)
        st = item->parts[p].dtype == ZQ_I64 ? write_shape(&m, out, err) : zq_safetensors_put(out, m.scales, item->parts[p].n_bytes, err);
    if (!st) *measured = (struct zq_measured){relative_error_of(&m), rows_of(&m)};
    return st;
}

zq_status zq_item_write(const struct zq_item *item, const struct zq_means *means, struct zq_safetensors_writer *out,
                        struct zq_measured *measured, zq_error *err)
{
    const struct zq_tensor *t = item->tensor;
    *measured = (struct zq_measured){NAN, {NAN, NAN, NAN, NAN, NAN}};
    if (!item->n_parts) return means->tick ? means->tick(means->user, t->n_bytes, err) : ZQ_OK;
    zq_status st;
    if (item->storage != ZQ_STORED_FLOAT) st = quantize_matrix(item, means, out, measured, err);
    else st = means->given ? write_floats(t, means, out, err) : copy_tensor(t, means, out, err);
    /* the system maps pages around those that are read, and so some of the tensors beside this one */
    zq_map_drop(t->map, t->map->bytes, t->map->n_bytes);
    return st;
}
