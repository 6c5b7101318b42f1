/* On disk the arrays are a map of a file; what has been read or written is dropped by whoever is done with it. */
#include "compress/streams.h"

#include "base/file.h"

#include <string.h>

enum { AT_ONCE = 1 << 20 }; /* values that a save has resident */

zq_status zq_streams_open(struct zq_streams *out, size_t n_values, const char *dir, zq_error *err)
{
    *out = (struct zq_streams){.n_values = n_values};
    zq_status st = zq_scratch_open(&out->scratch, 3 * n_values * sizeof(float), dir, err);
    if (st) return st;
    out->teacher = out->scratch.bytes;
    out->student = out->teacher + n_values;
    out->target = out->student + n_values;
    return ZQ_OK;
}

void zq_streams_close(struct zq_streams *streams)
{
    zq_scratch_close(&streams->scratch);
    *streams = (struct zq_streams){0};
}

void zq_streams_turn(struct zq_streams *s, float **inputs)
{
    float *free_array = s->teacher;
    *inputs = s->student;
    s->teacher = s->target;
    s->target = s->student;
    s->student = free_array;
}

void zq_streams_drop(const struct zq_streams *s, const float *from, size_t n) { zq_scratch_drop(&s->scratch, from, n * sizeof *from); }

static zq_status save_array(const struct zq_streams *s, struct zq_output *out, const float *values, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t at = 0, n; at < s->n_values && !st; at += n) {
        n = s->n_values - at < AT_ONCE ? s->n_values - at : AT_ONCE;
        st = zq_output_write(out, values + at, n * sizeof *values, err);
        zq_streams_drop(s, values + at, n);
    }
    return st;
}

zq_status zq_streams_save(const struct zq_streams *s, const char *path, zq_error *err)
{
    struct zq_output out = {0};
    zq_status st = zq_output_open(&out, path, err);
    if (!st) st = save_array(s, &out, s->teacher, err);
    if (!st) st = save_array(s, &out, s->student, err);
    if (!st) return zq_output_commit(&out, err);
    zq_output_abandon(&out);
    return st;
}

static void load_array(const struct zq_streams *s, const struct zq_map *map, size_t first, float *values)
{
    for (size_t at = 0, n; at < s->n_values; at += n) {
        n = s->n_values - at < AT_ONCE ? s->n_values - at : AT_ONCE;
        const uint8_t *from = map->bytes + (first + at) * sizeof *values;
        memcpy(values + at, from, n * sizeof *values);
        zq_map_drop(map, from, n * sizeof *values);
        zq_streams_drop(s, values + at, n);
    }
}

zq_status zq_streams_load(struct zq_streams *s, const char *path, zq_error *err)
{
    struct zq_map map = {0};
    const size_t n_bytes = 2 * s->n_values * sizeof(float);
    zq_status st = zq_map_open(&map, path, err);
    if (st) return st;
    if (map.n_bytes == n_bytes) {
        load_array(s, &map, 0, s->teacher);
        load_array(s, &map, s->n_values, s->student);
    } else {
        st = zq_fail(err, ZQ_EFORMAT, "%s has %zu bytes, expected %zu: remove its directory to start anew", path, map.n_bytes, n_bytes);
    }
    zq_map_close(&map);
    return st;
}
