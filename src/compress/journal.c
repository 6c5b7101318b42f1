/* The journal is written whole after each shard, in one step, when the shard itself is durable: a shard that it does not count
 * is written again. Relative errors are kept in it with all digits, so that a resumed run ends in the same report. */
#include "compress/journal.h"

#include "base/alloc.h"
#include "base/file.h"
#include "compress/metadata.h"

#include <math.h>
#include <string.h>

enum { MAX_RECORD_BYTES = 256 << 20 };

/* What is compared, in this order. */
static const char *const identity_keys[] = {"program", "source", "options"};

json_t *zq_run_identity(const struct zq_plan *plan, const char *fingerprint)
{
    json_t *program = json_sprintf("zeroquant %s", zq_version());
    if (!program) return NULL;
    json_t *identity = json_pack("{s:O, s:s, s:O}", "program", program, "source", fingerprint, "options", plan->options);
    json_decref(program);
    return identity;
}

/* A value in an error sentence: strings bare, the rest as JSON. NULL if out of memory. */
static char *show(const json_t *value)
{
    if (!value) return zq_strdup("missing");
    if (json_is_string(value)) return zq_strdup(json_string_value(value));
    char *text;
    zq_json_print(&text, NULL, value, JSON_COMPACT, NULL);
    return text;
}

static zq_status refuse(const char *key, const json_t *there, const json_t *here, const char *path, zq_error *err)
{
    char *a = show(there), *b = show(here);
    zq_status st = a && b ? zq_fail(err, ZQ_EINVAL, "%s cannot be resumed: %s is %.150s there, %.150s here", path, key, a, b)
                          : zq_fail(err, ZQ_ENOMEM, "%s: no memory to compare it", path);
    zq_free(a);
    zq_free(b);
    return st;
}

zq_status zq_run_compare(const json_t *there, const json_t *here, const char *path, zq_error *err)
{
    for (size_t i = 0; i < ZQ_LEN(identity_keys); i++) {
        const json_t *a = json_object_get(there, identity_keys[i]), *b = json_object_get(here, identity_keys[i]);
        if (a && json_equal(a, b)) continue;
        if (!strcmp(identity_keys[i], "source")) return zq_fail(err, ZQ_EINVAL, "%s cannot be resumed: it was made from another model", path);
        if (!json_is_object(a) || !json_is_object(b)) return refuse(identity_keys[i], a, b, path, err);
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)b, key, value) {
            const json_t *old = json_object_get(a, key);
            if (!old || !json_equal(old, value)) return refuse(key, old, value, path, err);
        }
        return refuse(identity_keys[i], a, b, path, err);
    }
    return ZQ_OK;
}

zq_status zq_journal_read(json_t **out, const char *dir, const char *name, zq_error *err)
{
    *out = NULL;
    char *path = zq_path_join(dir, name);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
    zq_status st = zq_file_exists(path) ? zq_json_read(out, path, MAX_RECORD_BYTES, err) : ZQ_OK;
    zq_free(path);
    return st;
}

zq_status zq_journal_load(const json_t *record, const struct zq_plan *plan, size_t *n_shards, double *relative_errors, json_t *blocks,
                          const char *path, zq_error *err)
{
    /* a report has them in its list of tensors */
    const json_t *errors = json_object_get(record, "relative_errors"), *tensors = json_object_get(record, "tensors");
    int64_t n;
    zq_status st = zq_json_int(record, "shards", 0, (int64_t)plan->n_shards, -1, &n, path, err);
    if (st) return st;
    size_t n_items = 0;
    for (size_t s = 0; n > 0 && s < (size_t)n; s++) n_items += plan->shards[s].n;
    if (n < 0 || json_array_size(errors ? errors : tensors) != n_items)
        return zq_fail(err, ZQ_EFORMAT, "%s does not fit its model: remove it to start anew", path);
    for (size_t i = 0; i < n_items; i++) {
        const json_t *e = errors ? json_array_get(errors, i) : json_object_get(json_array_get(tensors, i), "relative_error");
        relative_errors[i] = json_is_number(e) ? json_number_value(e) : (double)NAN;
    }
    const json_t *seen = json_object_get(record, "blocks");
    for (size_t i = 0; blocks && i < json_array_size(seen); i++)
        if (json_array_append(blocks, json_array_get(seen, i))) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its list of blocks", path);
    *n_shards = (size_t)n;
    return ZQ_OK;
}

json_t *zq_json_error(double relative_error)
{
    return isnan(relative_error) ? json_null() : json_real(relative_error);
}

static json_t *make_record(const json_t *identity, const struct zq_plan *plan, size_t n_shards, const double *relative_errors,
                           const json_t *blocks)
{
    json_t *record = zq_json_copy(identity), *errors = json_array();
    size_t n_items = 0;
    for (size_t s = 0; s < n_shards; s++) n_items += plan->shards[s].n;
    bool ok = record && errors;
    for (size_t i = 0; i < n_items && ok; i++) ok = !json_array_append_new(errors, zq_json_error(relative_errors[i]));
    ok = ok && !json_object_set_new(record, "shards", json_integer((json_int_t)n_shards)) && !json_object_set(record, "relative_errors", errors);
    if (ok && json_array_size(blocks)) ok = !json_object_set_new(record, "blocks", json_copy((json_t *)(uintptr_t)blocks));
    json_decref(errors);
    if (ok) return record;
    json_decref(record);
    return NULL;
}

zq_status zq_journal_write(const char *dir, const json_t *identity, const struct zq_plan *plan, size_t n_shards, const double *relative_errors,
                           const json_t *blocks, zq_error *err)
{
    json_t *record = make_record(identity, plan, n_shards, relative_errors, blocks);
    zq_status st = record ? zq_json_write(dir, ZQ_JOURNAL_NAME, record, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for the journal", dir);
    json_decref(record);
    return st;
}
