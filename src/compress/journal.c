/* The journal is written whole after each shard, in one step, when the shard itself is durable: a shard that it does not count
 * is written again. */
#include "compress/journal.h"

#include "base/alloc.h"
#include "base/file.h"
#include "compress/metadata.h"

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
        json_object_foreach((json_t *)(uintptr_t)a, key, value) {
            if (!json_object_get(b, key)) return refuse(key, value, NULL, path, err);
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

static zq_status load_blocks(struct zq_record *record, const json_t *there, const char *path, zq_error *err)
{
    const json_t *seen = json_object_get(there, "blocks");
    for (size_t i = 0; i < json_array_size(seen); i++)
        if (json_array_append(record->blocks, json_array_get(seen, i))) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its list of blocks", path);
    return ZQ_OK;
}

zq_status zq_journal_load(struct zq_record *record, const json_t *there, const struct zq_plan *plan, const char *path, zq_error *err)
{
    const json_t *tensors = json_object_get(there, "tensors"), *run = json_object_get(there, "run");
    int64_t n, n_iterations, n_runs, memory_bytes;
    zq_status st = zq_json_int(there, "shards", 0, (int64_t)plan->n_shards, -1, &n, path, err);
    if (!st) st = zq_json_int(there, "fitted_iterations", 0, INT32_MAX, 0, &n_iterations, path, err);
    if (!st) st = zq_json_int(run, "runs", 0, INT32_MAX, 0, &n_runs, path, err);
    if (!st) st = zq_json_int(run, "memory_bytes", 0, INT64_MAX, 0, &memory_bytes, path, err);
    if (!st) st = zq_json_real(run, "seconds", 0, &record->seconds, path, err);
    if (st) return st;
    size_t n_items = 0;
    for (size_t s = 0; n > 0 && s < (size_t)n; s++) n_items += plan->shards[s].n;
    if (n < 0 || json_array_size(tensors) != n_items) return zq_fail(err, ZQ_EFORMAT, "%s does not fit its model: remove it to start anew", path);
    for (size_t i = 0; i < n_items; i++) {
        const json_t *t = json_array_get(tensors, i);
        record->items[i] = (struct zq_measured){zq_number_of(json_object_get(t, "relative_error")), zq_box_of_json(json_object_get(t, "row_ranges"))};
    }
    record->n_shards = (size_t)n;
    record->n_iterations = (size_t)n_iterations;
    record->n_runs = (size_t)n_runs;
    record->memory_bytes = (uint64_t)memory_bytes;
    return load_blocks(record, there, path, err);
}

static json_t *make_tensors(const struct zq_plan *plan, const struct zq_record *record)
{
    json_t *tensors = json_array();
    size_t n_items = 0;
    for (size_t s = 0; s < record->n_shards; s++) n_items += plan->shards[s].n;
    for (size_t i = 0; i < n_items && tensors; i++) {
        const struct zq_measured *m = &record->items[i];
        json_t *t = json_pack("{s:o, s:o}", "relative_error", zq_number_json(m->relative_error), "row_ranges", zq_box_json(&m->rows));
        if (!json_array_append_new(tensors, t)) continue;
        json_decref(tensors);
        tensors = NULL;
    }
    return tensors;
}

static json_t *make_journal(const json_t *identity, const struct zq_plan *plan, const struct zq_record *record)
{
    json_t *journal = zq_json_copy(identity), *tensors = make_tensors(plan, record);
    json_t *run = json_pack("{s:I, s:f, s:I}", "runs", (json_int_t)record->n_runs, "seconds", record->seconds, "memory_bytes",
                            (json_int_t)record->memory_bytes);
    bool ok = journal && tensors && run && !json_object_set_new(journal, "shards", json_integer((json_int_t)record->n_shards));
    ok = ok && !json_object_set(journal, "tensors", tensors) && !json_object_set(journal, "run", run);
    if (ok && record->n_iterations) ok = !json_object_set_new(journal, "fitted_iterations", json_integer((json_int_t)record->n_iterations));
    if (ok && json_array_size(record->blocks)) ok = !json_object_set_new(journal, "blocks", json_copy(record->blocks));
    json_decref(tensors);
    json_decref(run);
    if (ok) return journal;
    json_decref(journal);
    return NULL;
}

zq_status zq_journal_write(const char *dir, const json_t *identity, const struct zq_plan *plan, const struct zq_record *record, zq_error *err)
{
    json_t *journal = make_journal(identity, plan, record);
    zq_status st = journal ? zq_json_write(dir, ZQ_JOURNAL_NAME, journal, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for the journal", dir);
    json_decref(journal);
    return st;
}
