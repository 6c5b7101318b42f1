/* config.json is not parsed and printed again, which would turn 1e-05 into 1.0000000000000001e-05: its text is kept to the byte
 * and one key is added before the closing brace. */
#include "compress/metadata.h"

#include "base/alloc.h"
#include "base/file.h"

#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20 };

static zq_status write_text(const char *dir, const char *name, const char *text, zq_error *err)
{
    char *path = zq_path_join(dir, name);
    zq_status st = path ? zq_file_write(path, text, strlen(text), err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
    zq_free(path);
    return st;
}

json_t *zq_json_copy(const json_t *object)
{
    json_t *copy = json_object(), *value;
    const char *key;
    bool ok = copy != NULL;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) ok = ok && !json_object_set(copy, key, value);
    if (ok) return copy;
    json_decref(copy);
    return NULL;
}

zq_status zq_json_write(const char *dir, const char *name, const json_t *value, zq_error *err)
{
    char *text, *line = NULL;
    zq_status st = zq_json_print(&text, NULL, value, JSON_INDENT(2), err);
    if (!st && !(line = zq_format("%s\n", text))) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for %s", dir, name);
    if (!st) st = write_text(dir, name, line, err);
    zq_free(text);
    zq_free(line);
    return st;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* `value` as printed at the top level, moved in by two spaces. NULL if out of memory. */
static char *indent(const char *value)
{
    size_t n_lines = 0;
    for (const char *p = value; *p; p++) n_lines += *p == '\n';
    char *out = zq_alloc(strlen(value) + 2 * n_lines + 1), *to = out;
    for (const char *p = value; out && *p; p++) {
        *to++ = *p;
        if (*p != '\n') continue;
        *to++ = ' ';
        *to++ = ' ';
    }
    if (out) *to = '\0';
    return out;
}

/* The text of an object with one more key at its end. NULL if out of memory. */
static char *append_key(const char *object, const char *key, const char *value)
{
    const char *end = strrchr(object, '}');
    while (end > object && is_space(end[-1])) end--;
    return zq_format("%.*s%s\n  \"%s\": %s\n}\n", (int)(end - object), object, end[-1] == '{' ? "" : ",", key, value);
}

static zq_status write_appended(const char *dir, const struct zq_plan *plan, const char *source, zq_error *err)
{
    char *value, *indented = NULL, *text = NULL;
    zq_status st = zq_json_print(&value, NULL, plan->quantization_config, JSON_INDENT(2), err);
    if (!st && (!(indented = indent(value)) || !(text = append_key(source, "quantization_config", indented))))
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for config.json", dir);
    if (!st) st = write_text(dir, "config.json", text, err);
    zq_free(value);
    zq_free(indented);
    zq_free(text);
    return st;
}

/* The source has the key already, as null. */
static zq_status write_replaced(const char *dir, const struct zq_plan *plan, zq_error *err)
{
    json_t *config = zq_json_copy(plan->ckpt->config);
    zq_status st = ZQ_OK;
    if (!config || json_object_set(config, "quantization_config", plan->quantization_config))
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for config.json", dir);
    if (!st) st = zq_json_write(dir, "config.json", config, err);
    json_decref(config);
    return st;
}

zq_status zq_config_write(const char *dir, const struct zq_plan *plan, zq_error *err)
{
    if (json_object_get(plan->ckpt->config, "quantization_config")) return write_replaced(dir, plan, err);
    char *path = zq_path_join(plan->ckpt->dir, "config.json"), *source = NULL;
    zq_status st = path ? zq_file_read(&source, NULL, path, MAX_CONFIG_BYTES, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
    if (!st) st = write_appended(dir, plan, source, err);
    zq_free(path);
    zq_free(source);
    return st;
}

static bool fill_index(json_t *index, const struct zq_plan *plan)
{
    json_t *map = json_object();
    bool ok = map != NULL;
    uint64_t total = 0;
    for (size_t s = 0; s < plan->n_shards && ok; s++) {
        const struct zq_shard *shard = &plan->shards[s];
        total += shard->bytes_out;
        for (size_t i = shard->first; i < shard->first + shard->n && ok; i++)
            for (size_t p = 0; p < plan->items[i].n_parts && ok; p++)
                ok = !json_object_set_new(map, plan->items[i].parts[p].name, json_string(shard->name));
    }
    ok = ok && !json_object_set_new(index, "metadata", json_pack("{s:I}", "total_size", (json_int_t)total));
    ok = ok && !json_object_set(index, "weight_map", map);
    json_decref(map);
    return ok;
}

zq_status zq_index_write(const char *dir, const struct zq_plan *plan, zq_error *err)
{
    json_t *index = json_object();
    zq_status st = index && fill_index(index, plan) ? zq_json_write(dir, "model.safetensors.index.json", index, err)
                                                    : zq_fail(err, ZQ_ENOMEM, "%s: no memory for the index", dir);
    json_decref(index);
    return st;
}
