/* The walk through nested components. */
#include "text/component.h"

#include "base/alloc.h"

enum { MAX_NESTING = 8 }; /* of Sequence in Sequence; files in use have one level */

static zq_status walk(const json_t *json, const char *what, const char *children, zq_component_fn *fn, void *list, int depth, const char *name,
                      zq_error *err)
{
    if (!json || json_is_null(json)) return ZQ_OK;
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type) return zq_fail(err, ZQ_EFORMAT, "%s: a %s without a type", name, what);
    if (strcmp(type, "Sequence")) return fn(list, json, type, name, err);

    if (depth == MAX_NESTING) return zq_fail(err, ZQ_EFORMAT, "%s: %s: more than %d Sequences inside each other", name, what, MAX_NESTING);
    const json_t *items = json_object_get(json, children);
    if (!json_is_array(items)) return zq_fail(err, ZQ_EFORMAT, "%s: %s: a Sequence without \"%s\"", name, what, children);
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < json_array_size(items) && !st; i++)
        st = walk(json_array_get(items, i), what, children, fn, list, depth + 1, name, err);
    return st;
}

zq_status zq_component_walk(const json_t *json, const char *what, const char *children, zq_component_fn *fn, void *list, const char *name,
                            zq_error *err)
{
    return walk(json, what, children, fn, list, 0, name, err);
}

zq_status zq_component_unknown(const char *what, const char *type, const char *name, zq_error *err)
{
    return zq_fail(err, ZQ_EUNSUPPORTED, "%s: the %s \"%.60s\" is not supported", name, what, type);
}

bool zq_span_copy(struct zq_span *copy, const char *s, size_t n)
{
    copy->at = zq_strndup(s, n);
    copy->n = copy->at ? n : 0;
    return copy->at != NULL;
}

zq_status zq_component_string(struct zq_span *copy, const json_t *json, const char *key, const char *name, zq_error *err)
{
    const json_t *v = json_object_get(json, key);
    if (!json_is_string(v)) return zq_fail(err, ZQ_EFORMAT, "%s: \"%s\" is not a string", name, key);
    if (!zq_span_copy(copy, json_string_value(v), json_string_length(v))) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for \"%s\"", name, key);
    return ZQ_OK;
}
