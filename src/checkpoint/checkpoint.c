/* Finding and opening what belongs to a model directory. The index decides which shard a tensor is taken from; shards in the
 * wild hold copies and leftovers that it does not name, so tensors are chosen here once and nobody else looks into files. */
#include "checkpoint/checkpoint.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_INDEX_BYTES = 256 << 20 };

#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"

static zq_status no_memory(const struct zq_checkpoint *ckpt, zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the list of tensors", ckpt->dir);
}

/* *found tells whether dir has a file of that name. */
static zq_status has_file(const struct zq_checkpoint *ckpt, const char *name, bool *found, zq_error *err)
{
    char *path = zq_path_join(ckpt->dir, name);
    if (!path) return no_memory(ckpt, err);
    *found = zq_file_exists(path);
    zq_free(path);
    return ZQ_OK;
}

static zq_status read_object(json_t **out, const struct zq_checkpoint *ckpt, const char *name, size_t max_bytes, zq_error *err)
{
    char *path = zq_path_join(ckpt->dir, name);
    if (!path) return no_memory(ckpt, err);
    zq_status st = zq_json_read(out, path, max_bytes, err);
    if (!st && !json_is_object(*out)) {
        st = zq_fail(err, ZQ_EFORMAT, "%s is not a JSON object", path);
        json_decref(*out);
        *out = NULL;
    }
    zq_free(path);
    return st;
}

/* A name that stays inside the directory. */
static bool is_plain_file_name(const json_t *value)
{
    const char *s = json_string_value(value);
    return s && strlen(s) == json_string_length(value) && *s && !strchr(s, '/') && strcmp(s, ".") && strcmp(s, "..");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Fills file_names with the distinct shards of weight_map, sorted: as writers number them. */
static zq_status list_shards(struct zq_checkpoint *ckpt, json_t *weight_map, zq_error *err)
{
    const size_t n = json_object_size(weight_map);
    const char **names = zq_alloc_array(n, sizeof *names); /* borrowed from the JSON */
    if (!names) return no_memory(ckpt, err);
    const char *tensor;
    json_t *value;
    zq_status st = ZQ_OK;
    size_t i = 0;
    json_object_foreach(weight_map, tensor, value) {
        if (!is_plain_file_name(value)) {
            st = zq_fail(err, ZQ_EFORMAT, "%s/" INDEX_NAME ": the shard of tensor \"%s\" is not a plain file name", ckpt->dir, tensor);
            break;
        }
        names[i++] = json_string_value(value);
    }
    if (!st) {
        if (n) qsort(names, n, sizeof *names, by_text);
        ckpt->file_names = zq_alloc_array(n, sizeof *ckpt->file_names);
        if (!ckpt->file_names) st = no_memory(ckpt, err);
    }
    for (i = 0; !st && i < n; i++) {
        if (i && !strcmp(names[i - 1], names[i])) continue;
        char *copy = zq_strdup(names[i]);
        if (copy) ckpt->file_names[ckpt->n_files++] = copy;
        else st = no_memory(ckpt, err);
    }
    zq_free(names);
    return st;
}

/* Fills file_names. *weight_map is borrowed from *index, and NULL without an index. */
static zq_status list_files(struct zq_checkpoint *ckpt, json_t **index, json_t **weight_map, zq_error *err)
{
    bool found = false;
    zq_status st = has_file(ckpt, INDEX_NAME, &found, err);
    if (st) return st;
    if (found) {
        st = read_object(index, ckpt, INDEX_NAME, MAX_INDEX_BYTES, err);
        if (st) return st;
        *weight_map = json_object_get(*index, "weight_map");
        if (!json_is_object(*weight_map)) return zq_fail(err, ZQ_EFORMAT, "%s/" INDEX_NAME " has no object \"weight_map\"", ckpt->dir);
        return list_shards(ckpt, *weight_map, err);
    }
    st = has_file(ckpt, SINGLE_NAME, &found, err);
    if (!st && found) {
        ckpt->file_names = zq_alloc_array(1, sizeof *ckpt->file_names);
        if (ckpt->file_names) ckpt->file_names[0] = zq_strdup(SINGLE_NAME);
        if (!ckpt->file_names || !ckpt->file_names[0]) return no_memory(ckpt, err);
        ckpt->n_files = 1;
        return ZQ_OK;
    }
    bool pickled = false, pickled_shards = false;
    if (!st) st = has_file(ckpt, "pytorch_model.bin", &pickled, err);
    if (!st) st = has_file(ckpt, "pytorch_model.bin.index.json", &pickled_shards, err);
    if (st) return st;
    if (pickled || pickled_shards)
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s has its weights only as pytorch_model.bin: load it with transformers and save it again with "
                       "save_pretrained(dir, safe_serialization=True) to get safetensors", ckpt->dir);
    return zq_fail(err, ZQ_EIO, "%s has neither " SINGLE_NAME " nor " INDEX_NAME, ckpt->dir);
}

static zq_status open_files(struct zq_checkpoint *ckpt, zq_error *err)
{
    ckpt->files = zq_alloc_array(ckpt->n_files, sizeof *ckpt->files);
    if (!ckpt->files) return no_memory(ckpt, err);
    zq_status st = ZQ_OK;
    for (size_t i = 0; !st && i < ckpt->n_files; i++) {
        char *path = zq_path_join(ckpt->dir, ckpt->file_names[i]);
        st = path ? zq_safetensors_open(&ckpt->files[i], path, err) : no_memory(ckpt, err);
        zq_free(path);
    }
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct zq_tensor *const *)a)->name, (*(const struct zq_tensor *const *)b)->name);
}

/* Fills tensors: those that the index places in the file they lie in, and those that it does not know at all. A copy in another
 * shard than the named one is left out. */
static zq_status choose_tensors(struct zq_checkpoint *ckpt, const json_t *weight_map, zq_error *err)
{
    size_t n = 0;
    for (size_t f = 0; f < ckpt->n_files; f++) n += ckpt->files[f].n_tensors;
    ckpt->tensors = zq_alloc_array(n, sizeof *ckpt->tensors);
    ckpt->sorted = zq_alloc_array(n, sizeof *ckpt->sorted);
    if (!ckpt->tensors || !ckpt->sorted) return no_memory(ckpt, err);
    for (size_t f = 0; f < ckpt->n_files; f++) {
        for (size_t i = 0; i < ckpt->files[f].n_tensors; i++) {
            const struct zq_tensor *t = &ckpt->files[f].tensors[i];
            const char *shard = json_string_value(json_object_get(weight_map, t->name));
            if (shard && strcmp(shard, ckpt->file_names[f])) continue;
            ckpt->sorted[ckpt->n_tensors] = ckpt->tensors[ckpt->n_tensors] = t;
            ckpt->n_tensors++;
            ckpt->n_bytes += t->n_bytes;
        }
    }
    if (ckpt->n_tensors) qsort(ckpt->sorted, ckpt->n_tensors, sizeof *ckpt->sorted, by_name);
    return ZQ_OK;
}

/* Each name once, and everything that the index promises. */
static zq_status check_tensors(const struct zq_checkpoint *ckpt, json_t *weight_map, zq_error *err)
{
    for (size_t i = 1; i < ckpt->n_tensors; i++)
        if (!by_name(&ckpt->sorted[i - 1], &ckpt->sorted[i]))
            return zq_fail(err, ZQ_EFORMAT, "%s: two shards hold a tensor \"%s\", and the index names neither", ckpt->dir, ckpt->sorted[i]->name);
    const char *name;
    json_t *shard;
    json_object_foreach(weight_map, name, shard)
        if (!zq_checkpoint_find(ckpt, name))
            return zq_fail(err, ZQ_EFORMAT, "%s/%s has no tensor \"%s\", which the index places there", ckpt->dir, json_string_value(shard), name);
    return ZQ_OK;
}

static zq_status open_directory(struct zq_checkpoint *ckpt, zq_error *err)
{
    if (!zq_is_directory(ckpt->dir))
        return zq_fail(err, ZQ_EIO, zq_file_exists(ckpt->dir) ? "%s is not a directory: a model is a directory with config.json and safetensors files"
                                                              : "there is no directory %s", ckpt->dir);
    zq_status st = read_object(&ckpt->config, ckpt, "config.json", MAX_CONFIG_BYTES, err);
    json_t *index = NULL, *weight_map = NULL;
    if (!st) st = list_files(ckpt, &index, &weight_map, err);
    if (!st) st = open_files(ckpt, err);
    if (!st) st = choose_tensors(ckpt, weight_map, err);
    if (!st) st = check_tensors(ckpt, weight_map, err);
    json_decref(index);
    return st;
}

zq_status zq_checkpoint_open(struct zq_checkpoint **out, const char *dir, zq_error *err)
{
    *out = NULL;
    struct zq_checkpoint *ckpt = zq_alloc_zero(sizeof *ckpt);
    if (ckpt) ckpt->dir = zq_strdup(dir);
    zq_status st = ckpt && ckpt->dir ? open_directory(ckpt, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory to open it", dir);
    if (st) {
        zq_checkpoint_close(ckpt);
        return st;
    }
    *out = ckpt;
    return ZQ_OK;
}

zq_status zq_checkpoint_view(struct zq_checkpoint **out, const char *name, json_t *config, struct zq_safetensors *files, size_t n_files,
                             zq_error *err)
{
    *out = NULL;
    struct zq_checkpoint *ckpt = zq_alloc_zero(sizeof *ckpt);
    char *dir = zq_strdup(name);
    if (!ckpt || !dir) {
        for (size_t i = 0; i < n_files; i++) zq_safetensors_close(&files[i]);
        zq_free(files);
        json_decref(config);
        zq_free(ckpt);
        zq_free(dir);
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a checkpoint", name);
    }
    *ckpt = (struct zq_checkpoint){.dir = dir, .config = config, .files = files, .n_files = n_files};
    const zq_status st = choose_tensors(ckpt, NULL, err);
    if (st) zq_checkpoint_close(ckpt);
    else *out = ckpt;
    return st;
}

void zq_checkpoint_close(struct zq_checkpoint *ckpt)
{
    if (!ckpt) return;
    for (size_t i = 0; ckpt->files && i < ckpt->n_files; i++) zq_safetensors_close(&ckpt->files[i]);
    for (size_t i = 0; ckpt->file_names && i < ckpt->n_files; i++) zq_free(ckpt->file_names[i]);
    zq_free(ckpt->files);
    zq_free(ckpt->file_names);
    zq_free(ckpt->tensors);
    zq_free(ckpt->sorted);
    json_decref(ckpt->config);
    zq_free(ckpt->dir);
    zq_free(ckpt);
}

const struct zq_tensor *zq_checkpoint_find(const struct zq_checkpoint *ckpt, const char *name)
{
    size_t low = 0, high = ckpt->n_tensors;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(name, ckpt->sorted[middle]->name);
        if (!order) return ckpt->sorted[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
