/* safetensors: an 8-byte header length, a JSON header, then the bytes of all tensors without a gap. Everything is checked when the
 * file is opened, so that later code may trust shape, size and place of each tensor. Offsets in the header count from the
 * end of the header, not of the file, and tensors need not be aligned. */
#include "checkpoint/safetensors.h"

#include "base/alloc.h"
#include "base/cursor.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER_BYTES = 100000000 }; /* the limit of the reference implementation */

/* The part of a file behind the header. */
struct data {
    const uint8_t *bytes;
    size_t n_bytes;
};

/* Product of shape and dtype; false if it does not fit. */
static bool measure(struct zq_tensor *t)
{
    t->n_values = 1;
    for (size_t i = 0; i < t->n_dims; i++)
        if (!zq_mul(t->n_values, t->shape[i], &t->n_values)) return false;
    return zq_mul(t->n_values, zq_dtype_bytes(t->dtype), &t->n_bytes);
}

static zq_status read_dtype(struct zq_tensor *t, const json_t *entry, const char *path, zq_error *err)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text) return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\" has no dtype", path, t->name);
    if (zq_dtype_parse(text, &t->dtype)) return ZQ_OK;
    return zq_fail(err, ZQ_EUNSUPPORTED, "%s: tensor \"%s\" has the dtype \"%.32s\", which is not supported", path, t->name, text);
}

static zq_status read_shape(struct zq_tensor *t, const json_t *entry, const char *path, zq_error *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\" has no shape", path, t->name);
    t->n_dims = json_array_size(shape);
    if (t->n_dims > ZQ_MAX_DIMS)
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: tensor \"%s\" has %zu dimensions, the limit is %d", path, t->name, t->n_dims, ZQ_MAX_DIMS);
    for (size_t i = 0; i < t->n_dims; i++) {
        const json_t *v = json_array_get(shape, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\": dimension %zu is not a count", path, t->name, i);
        t->shape[i] = (size_t)json_integer_value(v);
    }
    return measure(t) ? ZQ_OK : zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\": its shape has too many values", path, t->name);
}

/* data_offsets [begin, end]: inside the data, and as long as the shape says. */
static zq_status read_place(struct zq_tensor *t, const json_t *entry, struct data data, const char *path, zq_error *err)
{
    const json_t *offsets = json_object_get(entry, "data_offsets"), *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to))
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\" has no data_offsets [begin, end]", path, t->name);
    const long long begin = json_integer_value(from), end = json_integer_value(to);
    if (begin < 0 || end < begin || (unsigned long long)end > data.n_bytes)
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\" lies at %lld .. %lld, outside the %zu bytes of data", path, t->name, begin, end,
                       data.n_bytes);
    if ((size_t)(end - begin) != t->n_bytes)
        return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\" has room for %lld bytes, but its shape needs %zu", path, t->name, end - begin,
                       t->n_bytes);
    t->bytes = data.bytes + begin;
    return ZQ_OK;
}

static zq_status read_tensor(struct zq_tensor *t, const char *name, const json_t *entry, struct data data, const char *path, zq_error *err)
{
    t->name = zq_strdup(name);
    if (!t->name) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the name of a tensor", path);
    if (!json_is_object(entry)) return zq_fail(err, ZQ_EFORMAT, "%s: the entry of tensor \"%s\" is not an object", path, name);
    zq_status st = read_dtype(t, entry, path, err);
    if (!st) st = read_shape(t, entry, path, err);
    if (!st) st = read_place(t, entry, data, path, err);
    return st;
}

static zq_status check_metadata(json_t *metadata, const char *path, zq_error *err)
{
    if (!json_is_object(metadata)) return zq_fail(err, ZQ_EFORMAT, "%s: __metadata__ is not an object", path);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
        if (!json_is_string(value)) return zq_fail(err, ZQ_EFORMAT, "%s: __metadata__: \"%s\" is not a string", path, key);
    return ZQ_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct zq_tensor *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes < y->n_bytes ? -1 : 1; /* empty ones stand before what begins there too */
    return strcmp(x->name, y->name);
}

/* Sorts into file order; each tensor must begin where the one before it ends, the first at 0 and the last up to the end. */
static zq_status check_tiling(struct zq_safetensors *file, struct data data, const char *path, zq_error *err)
{
    if (file->n_tensors) qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_place);
    const uint8_t *at = data.bytes;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct zq_tensor *t = &file->tensors[i];
        if (t->bytes != at)
            return zq_fail(err, ZQ_EFORMAT, "%s: tensor \"%s\" begins at byte %zu of the data, but %zu bytes come before it", path, t->name,
                           (size_t)(t->bytes - data.bytes), (size_t)(at - data.bytes));
        at += t->n_bytes;
    }
    const size_t used = (size_t)(at - data.bytes);
    if (used != data.n_bytes)
        return zq_fail(err, ZQ_EFORMAT, "%s: the tensors have %zu bytes, but the file has %zu bytes of data", path, used, data.n_bytes);
    return ZQ_OK;
}

static zq_status read_header(struct zq_safetensors *file, json_t *header, struct data data, const char *path, zq_error *err)
{
    if (!json_is_object(header)) return zq_fail(err, ZQ_EFORMAT, "%s: the header is not a JSON object", path);
    file->tensors = zq_alloc_array(json_object_size(header), sizeof *file->tensors);
    if (!file->tensors) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for %zu tensors", path, json_object_size(header));
    const char *key;
    json_t *value;
    zq_status st = ZQ_OK;
    json_object_foreach(header, key, value) {
        if (!strcmp(key, "__metadata__")) {
            st = check_metadata(value, path, err);
        } else {
            struct zq_tensor *t = &file->tensors[file->n_tensors++];
            t->map = &file->map;
            st = read_tensor(t, key, value, data, path, err);
        }
        if (st) return st;
    }
    return check_tiling(file, data, path, err);
}

static zq_status read_bytes(struct zq_safetensors *file, const uint8_t *bytes, size_t n_bytes, const char *path, zq_error *err)
{
    struct zq_cursor c = {.bytes = bytes, .n_bytes = n_bytes};
    const uint64_t header_bytes = zq_cursor_u64(&c);
    if (c.bad) return zq_fail(err, ZQ_EFORMAT, "%s has %zu bytes, too few for a safetensors file", path, n_bytes);
    if (header_bytes > MAX_HEADER_BYTES)
        return zq_fail(err, ZQ_EFORMAT, "%s: a header of %llu bytes, the limit is %d (not a safetensors file?)", path,
                       (unsigned long long)header_bytes, MAX_HEADER_BYTES);
    const char *text = (const char *)zq_cursor_take(&c, (size_t)header_bytes);
    if (!text)
        return zq_fail(err, ZQ_EFORMAT, "%s: the header has %llu bytes, but only %zu follow", path, (unsigned long long)header_bytes,
                       n_bytes - 8);
    if (!header_bytes || text[0] != '{') return zq_fail(err, ZQ_EFORMAT, "%s: the header does not begin with '{'", path);
    json_t *header;
    zq_status st = zq_json_parse(&header, text, (size_t)header_bytes, path, err);
    if (!st) st = read_header(file, header, (struct data){bytes + c.at, n_bytes - c.at}, path, err);
    json_decref(header);
    return st;
}

zq_status zq_safetensors_view(struct zq_safetensors *file, const void *bytes, size_t n_bytes, const char *name, zq_error *err)
{
    *file = (struct zq_safetensors){0};
    zq_status st = read_bytes(file, bytes, n_bytes, name, err);
    if (st) zq_safetensors_close(file);
    return st;
}

zq_status zq_safetensors_open(struct zq_safetensors *file, const char *path, zq_error *err)
{
    *file = (struct zq_safetensors){0};
    zq_status st = zq_map_open(&file->map, path, err);
    if (!st) st = read_bytes(file, file->map.bytes, file->map.n_bytes, path, err);
    if (st) zq_safetensors_close(file);
    return st;
}

void zq_safetensors_close(struct zq_safetensors *file)
{
    for (size_t i = 0; i < file->n_tensors; i++) zq_free(file->tensors[i].name);
    zq_free(file->tensors);
    zq_map_close(&file->map);
    *file = (struct zq_safetensors){0};
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* Adds one entry; *end is where the previous tensor ended, and then where this one does. */
static zq_status describe(json_t *header, const struct zq_tensor *given, uint64_t *end, const char *path, zq_error *err)
{
    struct zq_tensor t = *given;
    if (t.n_dims > ZQ_MAX_DIMS || !measure(&t) || t.n_bytes > (uint64_t)INT64_MAX - *end)
        return zq_fail(err, ZQ_EINVAL, "%s: tensor \"%s\" is too large", path, t.name);
    if (!strcmp(t.name, "__metadata__") || json_object_get(header, t.name))
        return zq_fail(err, ZQ_EINVAL, "%s: two entries with the name \"%s\"", path, t.name);
    const uint64_t begin = *end;
    *end += t.n_bytes;
    json_t *shape = json_array();
    for (size_t i = 0; shape && i < t.n_dims; i++) {
        if (!json_array_append_new(shape, json_integer((json_int_t)t.shape[i]))) continue;
        json_decref(shape);
        shape = NULL;
    }
    json_t *entry = !shape ? NULL : json_pack("{s:s, s:o, s:[I,I]}", "dtype", zq_dtype_name(t.dtype), "shape", shape, "data_offsets",
                                              (json_int_t)begin, (json_int_t)*end);
    if (json_object_set_new(header, t.name, entry)) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the header", path);
    return ZQ_OK;
}

/* Opens the file and writes length and header, padded with spaces so that the data begins at a multiple of 8. */
static zq_status write_header(struct zq_safetensors_writer *w, const json_t *header, uint64_t n_data, const char *path, zq_error *err)
{
    char *text;
    size_t n;
    zq_status st = zq_json_print(&text, &n, header, JSON_COMPACT, err);
    if (st) return st;
    const size_t padding = (8 - n % 8) % 8;
    if (n + padding > MAX_HEADER_BYTES)
        st = zq_fail(err, ZQ_ELIMIT, "%s: a header of %zu bytes, the limit is %d", path, n + padding, MAX_HEADER_BYTES);
    if (!st) st = zq_output_open(&w->out, path, err);
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)(n + padding) >> 8 * i);
    if (!st) st = zq_output_write(&w->out, length, 8, err);
    if (!st) st = zq_output_write(&w->out, text, n, err);
    if (!st) st = zq_output_write(&w->out, "       ", padding, err);
    w->expected = 8 + n + padding + n_data;
    zq_free(text);
    return st;
}

zq_status zq_safetensors_begin(struct zq_safetensors_writer *w, const char *path, const struct zq_tensor *tensors, size_t n, zq_error *err)
{
    *w = (struct zq_safetensors_writer){0};
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    zq_status st = header ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for the header", path);
    uint64_t n_data = 0;
    for (size_t i = 0; !st && i < n; i++) st = describe(header, &tensors[i], &n_data, path, err);
    if (!st) st = write_header(w, header, n_data, path, err);
    json_decref(header);
    if (st) zq_safetensors_abandon(w);
    return st;
}

zq_status zq_safetensors_put(struct zq_safetensors_writer *w, const void *bytes, size_t n_bytes, zq_error *err)
{
    if (n_bytes > w->expected - w->out.written)
        return zq_fail(err, ZQ_EINVAL, "%s: %zu bytes where only %llu are left of what the header says", w->out.path, n_bytes,
                       (unsigned long long)(w->expected - w->out.written));
    return zq_output_write(&w->out, bytes, n_bytes, err);
}

zq_status zq_safetensors_end(struct zq_safetensors_writer *w, zq_error *err)
{
    if (w->out.written == w->expected) return zq_output_commit(&w->out, err);
    zq_status st = zq_fail(err, ZQ_EINVAL, "%s: %llu bytes are missing of what the header says", w->out.path,
                           (unsigned long long)(w->expected - w->out.written));
    zq_safetensors_abandon(w);
    return st;
}

void zq_safetensors_abandon(struct zq_safetensors_writer *w)
{
    zq_output_abandon(&w->out);
}
