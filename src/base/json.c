/* Typed access to JSON trees, and printing. A missing key and null mean the same: the fallback. */
#include "base/json.h"

#include "base/alloc.h"
#include "base/file.h"

#include <string.h>

zq_status zq_json_read(json_t **out, const char *path, size_t max_bytes, zq_error *err)
{
    *out = NULL;
    char *text;
    size_t n;
    zq_status st = zq_file_read(&text, &n, path, max_bytes, err);
    if (st) return st;
    st = zq_json_parse(out, text, n, path, err);
    zq_free(text);
    return st;
}

/* The value of a key, or NULL if it is missing or null. */
static const json_t *value_of(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_null(v) ? NULL : v;
}

zq_status zq_json_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t fallback, int64_t *out, const char *name, zq_error *err)
{
    const json_t *v = value_of(obj, key);
    *out = fallback;
    if (!v) return ZQ_OK;
    if (!json_is_integer(v)) return zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" is not an integer", name, key);
    const int64_t i = json_integer_value(v);
    if (i < min || i > max)
        return zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" is %lld, outside %lld .. %lld", name, key, (long long)i, (long long)min, (long long)max);
    *out = i;
    return ZQ_OK;
}

zq_status zq_json_real(const json_t *obj, const char *key, double fallback, double *out, const char *name, zq_error *err)
{
    const json_t *v = value_of(obj, key);
    *out = v ? json_number_value(v) : fallback;
    return !v || json_is_number(v) ? ZQ_OK : zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" is not a number", name, key);
}

zq_status zq_json_bool(const json_t *obj, const char *key, bool fallback, bool *out, const char *name, zq_error *err)
{
    const json_t *v = value_of(obj, key);
    *out = v ? json_is_true(v) : fallback;
    return !v || json_is_boolean(v) ? ZQ_OK : zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" is neither true nor false", name, key);
}

zq_status zq_json_string(const json_t *obj, const char *key, const char *fallback, const char **out, const char *name, zq_error *err)
{
    const json_t *v = value_of(obj, key);
    *out = v ? json_string_value(v) : fallback;
    return !v || json_is_string(v) ? ZQ_OK : zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" is not a string", name, key);
}

struct text {
    char *bytes; /* [n], room for capacity */
    size_t n, capacity;
    bool failed; /* jansson does not look at every result of its callback */
};

static int append(const char *bytes, size_t n, void *to)
{
    struct text *t = to;
    if (t->failed) return -1;
    if (n >= t->capacity - t->n) {
        const size_t capacity = 2 * t->capacity + n + 64;
        char *more = zq_realloc(t->bytes, t->n, capacity);
        t->failed = !more;
        if (!more) return -1;
        t->bytes = more;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
    t->bytes[t->n] = '\0';
    return 0;
}

zq_status zq_json_print(char **text, size_t *n_bytes, const json_t *value, size_t flags, zq_error *err)
{
    struct text t = {0};
    const bool ok = !json_dump_callback(value, append, &t, flags | JSON_ENCODE_ANY) && !t.failed;
    if (!ok) zq_free(t.bytes);
    *text = ok ? t.bytes : NULL;
    if (n_bytes) *n_bytes = ok ? t.n : 0;
    return ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory to print JSON");
}
