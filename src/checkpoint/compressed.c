/* Reading the quantization_config that the compressed-tensors library writes. Its keys default to other meanings than "none"
 * (symmetric true, 8 bits), and older and newer releases write different sets of them, so each key is either understood here,
 * known to be without effect, or refused by name. Storage follows `format`, never quantization_status: older directories
 * that hold integers say "frozen". */
#include "checkpoint/compressed.h"

#include "base/alloc.h"
#include "base/pattern.h"

#include <stdio.h>
#include <string.h>

struct group {
    struct zq_spec spec;
    enum zq_storage storage;
};

/* "re:..." (pattern), a module name, or a class name; which of the last two shows only when it is compared. */
struct target {
    char *text;
    struct zq_pattern *pattern; /* NULL for names */
    size_t group;               /* unused in the ignore list */
};

struct targets {
    struct target *items;
    size_t n, capacity;
};

struct zq_compressed {
    char *name; /* for error sentences */
    bool study; /* 2 and 3 bits may occur */
    struct group *groups;
    size_t n_groups;
    struct targets targets, ignored;
};

/* Weights or activations of a group, as far as several values can be meant. */
struct arguments {
    int64_t bits, group_size; /* group_size 0: null; -1: one scale per row */
    const char *strategy;
    bool dynamic;
};

/* null, missing, {} and [] say nothing. */
static bool is_empty(const json_t *v)
{
    return !v || json_is_null(v) || (json_is_object(v) && !json_object_size(v)) || (json_is_array(v) && !json_array_size(v));
}

static bool is_text(const json_t *v, const char *text)
{
    return json_is_string(v) && !strcmp(json_string_value(v), text);
}

static bool is_one_of(const char *text, const char *const *known, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(text, known[i])) return true;
    return false;
}

/* Refuses keys of obj that are not in known [n] and say something. */
static zq_status check_keys(json_t *obj, const char *const *known, size_t n, const char *where, zq_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(obj, key, value)
        if (!is_empty(value) && !is_one_of(key, known, n))
            return zq_fail(err, ZQ_EUNSUPPORTED, "%s: the key \"%s\" is not supported", where, key);
    return ZQ_OK;
}

/* Refuses what would make the codes mean something else: floats, zero points, permuted columns, blocks. */
static zq_status check_arguments(const json_t *obj, const char *where, zq_error *err)
{
    const char *type;
    bool symmetric;
    zq_status st = zq_json_string(obj, "type", "int", &type, where, err);
    if (!st && strcmp(type, "int")) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: type \"%s\" is not supported, only \"int\"", where, type);
    if (!st) st = zq_json_bool(obj, "symmetric", true, &symmetric, where, err);
    if (st) return st;
    if (!symmetric) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: zero points (\"symmetric\": false) are not supported", where);
    if (!is_empty(json_object_get(obj, "block_structure")))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: \"block_structure\" is not supported", where);
    const json_t *order = json_object_get(obj, "actorder");
    if (!is_empty(order) && !json_is_false(order) && !is_text(order, "weight") && !is_text(order, "static"))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: actorder \"%.32s\" permutes columns, which is not supported", where,
                       json_is_string(order) ? json_string_value(order) : "true");
    return ZQ_OK;
}

static zq_status read_arguments(struct arguments *a, json_t *obj, const char *where, zq_error *err)
{
    /* observers and dtypes tell how scales were found and stored; the tensors themselves show the rest */
    static const char *const known[] = {"num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "dynamic", "actorder",
                                        "observer", "observer_kwargs", "scale_dtype", "zp_dtype"};
    if (!json_is_object(obj)) return zq_fail(err, ZQ_EFORMAT, "%s is not an object", where);
    zq_status st = check_keys(obj, known, ZQ_LEN(known), where, err);
    if (!st) st = check_arguments(obj, where, err);
    if (!st) st = zq_json_int(obj, "num_bits", 1, 64, 8, &a->bits, where, err);
    if (!st) st = zq_json_int(obj, "group_size", -1, INT32_MAX, 0, &a->group_size, where, err);
    const char *inferred = a->group_size > 0 ? "group" : a->group_size < 0 ? "channel" : "tensor";
    if (!st) st = zq_json_string(obj, "strategy", inferred, &a->strategy, where, err);
    if (!st && is_text(json_object_get(obj, "dynamic"), "local"))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: dynamic \"local\" is not supported", where);
    if (!st) st = zq_json_bool(obj, "dynamic", false, &a->dynamic, where, err);
    if (!st && (a->group_size > 0) != !strcmp(a->strategy, "group"))
        return zq_fail(err, ZQ_EFORMAT, "%s: strategy \"%s\" with group_size %lld", where, a->strategy, (long long)a->group_size);
    return st;
}

static zq_status read_weights(struct zq_spec *spec, json_t *weights, bool study, const char *group, zq_error *err)
{
    char where[256];
    snprintf(where, sizeof where, "%s: weights", group);
    struct arguments a = {0};
    zq_status st = read_arguments(&a, weights, where, err);
    if (st) return st;
    if (a.bits != 4 && a.bits != 8 && !(study && (a.bits == 2 || a.bits == 3)))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: %lld bits are not supported, only %s4 and 8", where, (long long)a.bits, study ? "2, 3, " : "");
    if (a.dynamic) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: dynamic weights are not supported", where);
    if (strcmp(a.strategy, "channel") && strcmp(a.strategy, "group"))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: strategy \"%s\" is not supported, only \"channel\" and \"group\"", where, a.strategy);
    spec->w_bits = (int)a.bits;
    spec->k_group = a.group_size > 0 ? (size_t)a.group_size : 0;
    return ZQ_OK;
}

static zq_status read_activations(struct zq_spec *spec, json_t *activations, const char *group, zq_error *err)
{
    spec->a_bits = 16;
    if (!activations || json_is_null(activations)) return ZQ_OK;
    char where[256];
    snprintf(where, sizeof where, "%s: input_activations", group);
    struct arguments a = {0};
    zq_status st = read_arguments(&a, activations, where, err);
    if (st) return st;
    if (a.bits != 8 || !a.dynamic || strcmp(a.strategy, "token"))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: %lld bits, %s, by %s are not supported, only 8 bits, dynamic, by token", where, (long long)a.bits,
                       a.dynamic ? "dynamic" : "static", a.strategy);
    spec->a_bits = 8;
    return ZQ_OK;
}

static zq_status read_format(enum zq_storage *storage, const json_t *group, const char *global, const char *where, zq_error *err)
{
    const char *format;
    zq_status st = zq_json_string(group, "format", global, &format, where, err);
    if (st) return st;
    if (!format || !strcmp(format, "mixed-precision")) return zq_fail(err, ZQ_EFORMAT, "%s does not say its format", where);
    if (!strcmp(format, "pack-quantized")) *storage = ZQ_STORED_PACKED;
    else if (!strcmp(format, "int-quantized") || !strcmp(format, "naive-quantized")) *storage = ZQ_STORED_INT;
    else return zq_fail(err, ZQ_EUNSUPPORTED, "%s: format \"%s\" is not supported, only int-quantized and pack-quantized", where, format);
    return ZQ_OK;
}

static void free_targets(struct targets *list)
{
    for (size_t i = 0; i < list->n; i++) {
        zq_free(list->items[i].text);
        zq_pattern_free(list->items[i].pattern);
    }
    zq_free(list->items);
}

static zq_status add_target(struct targets *list, const char *text, size_t group, const char *where, zq_error *err)
{
    if (!zq_grow((void **)&list->items, list->n, &list->capacity, sizeof *list->items))
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its targets", where);
    struct target *t = &list->items[list->n++];
    *t = (struct target){.text = zq_strdup(text), .group = group};
    if (!t->text) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its targets", where);
    if (strncmp(text, "re:", 3)) return ZQ_OK;
    zq_error inner = {0};
    zq_status st = zq_pattern_compile(&t->pattern, text + 3, false, &inner);
    return st ? zq_fail(err, st == ZQ_EINVAL ? ZQ_EFORMAT : st, "%s: %.300s", where, inner.message) : ZQ_OK;
}

/* list: an array of strings; null is empty. */
static zq_status add_targets(struct targets *to, const json_t *list, size_t group, const char *where, zq_error *err)
{
    if (list && !json_is_null(list) && !json_is_array(list)) return zq_fail(err, ZQ_EFORMAT, "%s is not a list", where);
    zq_status st = ZQ_OK;
    for (size_t i = 0; !st && i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        st = text ? add_target(to, text, group, where, err) : zq_fail(err, ZQ_EFORMAT, "%s: entry %zu is not a string", where, i);
    }
    return st;
}

static zq_status read_group(struct zq_compressed *c, const char *key, json_t *obj, const char *format, zq_error *err)
{
    static const char *const known[] = {"targets", "weights", "input_activations", "output_activations", "format"};
    char where[160];
    snprintf(where, sizeof where, "%.100s: %.40s", c->name, key);
    if (!json_is_object(obj)) return zq_fail(err, ZQ_EUNSUPPORTED, "%s is not an object (named preset schemes are not supported)", where);
    zq_status st = check_keys(obj, known, ZQ_LEN(known), where, err);
    if (!st && !is_empty(json_object_get(obj, "output_activations")))
        st = zq_fail(err, ZQ_EUNSUPPORTED, "%s: output_activations are not supported", where);
    json_t *weights = json_object_get(obj, "weights");
    if (!st && (!weights || json_is_null(weights))) st = zq_fail(err, ZQ_EUNSUPPORTED, "%s has no weights", where);
    struct group *g = &c->groups[c->n_groups];
    if (!st) st = read_weights(&g->spec, weights, c->study, where, err);
    if (!st) st = read_activations(&g->spec, json_object_get(obj, "input_activations"), where, err);
    if (!st) st = read_format(&g->storage, obj, format, where, err);
    if (!st) st = add_targets(&c->targets, json_object_get(obj, "targets"), c->n_groups, where, err);
    if (!st) c->n_groups++;
    return st;
}

/* Some releases describe the absence of sparsity at length, and that of transforms as an object without groups. */
static bool says_nothing(const char *key, const json_t *v)
{
    if (is_empty(v)) return true;
    if (!strcmp(key, "sparsity_config") || !strcmp(key, "moe_sparsity_config")) return is_text(json_object_get(v, "format"), "dense");
    const json_t *groups = json_object_get(v, "config_groups");
    return !strcmp(key, "transform_config") && groups && json_object_size(v) == 1 && is_empty(groups);
}

static zq_status check_top(const struct zq_compressed *c, const json_t *q, zq_error *err)
{
    const char *method, *status;
    zq_status st = zq_json_string(q, "quant_method", NULL, &method, c->name, err);
    if (!st) st = zq_json_string(q, "quantization_status", "compressed", &status, c->name, err);
    if (st) return st;
    if (!method) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: quantization_config has no quant_method", c->name);
    if (strcmp(method, "compressed-tensors") && strcmp(method, "compressed_tensors") && strcmp(method, ZQ_STUDY_METHOD))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: quant_method \"%s\" is not supported, only \"compressed-tensors\"", c->name, method);
    if (strcmp(status, "compressed") && strcmp(status, "frozen"))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: quantization_status \"%s\" is not supported, only \"compressed\"", c->name, status);
    static const char *const refused[] = {"kv_cache_scheme", "sparsity_config", "moe_sparsity_config", "transform_config"};
    for (size_t i = 0; i < ZQ_LEN(refused); i++)
        if (!says_nothing(refused[i], json_object_get(q, refused[i])))
            return zq_fail(err, ZQ_EUNSUPPORTED, "%s: \"%s\" is not supported", c->name, refused[i]);
    return ZQ_OK;
}

static zq_status read_config(struct zq_compressed *c, const json_t *q, zq_error *err)
{
    if (!json_is_object(q)) return zq_fail(err, ZQ_EFORMAT, "%s: quantization_config is not an object", c->name);
    zq_status st = check_top(c, q, err);
    if (st) return st;
    c->study = is_text(json_object_get(q, "quant_method"), ZQ_STUDY_METHOD);
    json_t *groups = json_object_get(q, "config_groups");
    if (!json_is_object(groups)) return zq_fail(err, ZQ_EFORMAT, "%s: quantization_config has no config_groups", c->name);
    const char *format, *key;
    st = zq_json_string(q, "format", NULL, &format, c->name, err);
    if (st) return st;
    c->groups = zq_alloc_array(json_object_size(groups), sizeof *c->groups);
    if (!c->groups) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its groups", c->name);
    json_t *value;
    json_object_foreach(groups, key, value) {
        st = read_group(c, key, value, format, err);
        if (st) return st;
    }
    char where[160];
    snprintf(where, sizeof where, "%.100s: ignore", c->name);
    return add_targets(&c->ignored, json_object_get(q, "ignore"), 0, where, err);
}

zq_status zq_compressed_parse(struct zq_compressed **out, const json_t *config, const char *name, zq_error *err)
{
    *out = NULL;
    const json_t *q = json_object_get(config, "quantization_config");
    if (!q || json_is_null(q)) q = json_object_get(config, "compression_config"); /* its name before 2024-09 */
    if (!q || json_is_null(q)) return ZQ_OK;
    struct zq_compressed *c = zq_alloc_zero(sizeof *c);
    if (c) c->name = zq_strdup(name);
    zq_status st = c && c->name ? read_config(c, q, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for quantization_config", name);
    if (st) {
        zq_compressed_free(c);
        return st;
    }
    *out = c;
    return ZQ_OK;
}

void zq_compressed_free(struct zq_compressed *c)
{
    if (!c) return;
    free_targets(&c->targets);
    free_targets(&c->ignored);
    zq_free(c->groups);
    zq_free(c->name);
    zq_free(c);
}

/* How a target applies to a module, in rising order of precedence. */
enum fit { NO_FIT, BY_CLASS, BY_PATTERN, BY_NAME };

static zq_status compare(const struct target *t, const char *module, const char *class_name, enum fit *fit, zq_error *err)
{
    *fit = NO_FIT;
    if (t->pattern) {
        bool matched;
        zq_status st = zq_pattern_match(t->pattern, module, &matched, err);
        if (matched) *fit = BY_PATTERN;
        return st;
    }
    if (!strcmp(t->text, module)) *fit = BY_NAME;
    else if (!strcmp(t->text, class_name)) *fit = BY_CLASS;
    return ZQ_OK;
}

static bool same_group(const struct group *a, const struct group *b)
{
    return zq_spec_equal(a->spec, b->spec) && a->storage == b->storage;
}

zq_status zq_compressed_find(const struct zq_compressed *c, const char *module, const char *class_name, struct zq_spec *spec,
                             enum zq_storage *storage, zq_error *err)
{
    *spec = ZQ_SPEC_FLOAT;
    *storage = ZQ_STORED_FLOAT;
    if (!c) return ZQ_OK;
    enum fit fit;
    for (size_t i = 0; i < c->ignored.n; i++) {
        zq_status st = compare(&c->ignored.items[i], module, class_name, &fit, err);
        if (st || fit) return st;
    }
    enum fit best_fit = NO_FIT;
    const struct target *best = NULL, *rival = NULL;
    for (size_t i = 0; i < c->targets.n; i++) {
        const struct target *t = &c->targets.items[i];
        zq_status st = compare(t, module, class_name, &fit, err);
        if (st) return st;
        if (fit > best_fit) {
            best_fit = fit;
            best = t;
            rival = NULL;
        } else if (fit && fit == best_fit && !same_group(&c->groups[t->group], &c->groups[best->group])) {
            rival = t; /* readers disagree on which of the two counts */
        }
    }
    if (rival)
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: module \"%s\" matches \"%.100s\" and \"%.100s\", which say different things", c->name, module,
                       best->text, rival->text);
    if (best) {
        *spec = c->groups[best->group].spec;
        *storage = c->groups[best->group].storage;
    }
    return ZQ_OK;
}
