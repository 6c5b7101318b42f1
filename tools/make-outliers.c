/* make-outliers: a model with the same function and outliers in its activations, as large models have them by themselves: a few
 * channels of every norm before linear maps are made FACTOR times as large, and the columns that read them as much smaller.
 *
 * Everything is written as F32: 1/20 of a 16-bit weight is no 16-bit number, and rounding it would change the function. */
#include "base/alloc.h"
#include "checkpoint/checkpoint.h"
#include "compress/sidefiles.h"
#include "model/config.h"
#include "model/modules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CHANNELS = 1024 };

struct job {
    struct zq_checkpoint *ckpt;
    struct zq_config config;
    struct zq_modules modules;
    const char *out;
    size_t channels[MAX_CHANNELS]; /* [n_channels] the same ones in every norm, as in real models */
    size_t n_channels;
    float factor;
};

/* ---- what becomes of a tensor */

/* Whether the norm `pattern` of some block has this tensor: its gain or its shift. */
static bool is_norm(const struct job *job, const char *pattern, const char *name)
{
    bool found = false;
    for (size_t layer = 0; layer < job->config.n_layers && pattern && !found; layer++) {
        for (int i = 0; i < 2 && !found; i++) {
            char *mine = zq_tensor_name(job->modules.prefix, pattern, layer, i ? ".bias" : ".weight");
            found = mine && !strcmp(mine, name);
            zq_free(mine);
        }
    }
    return found;
}

/* The map of a block that reads a norm and whose weight this is; NULL: none. */
static const struct zq_module *reader(const struct job *job, const char *name)
{
    for (size_t i = 0; i < job->modules.n; i++) {
        const struct zq_module *m = &job->modules.items[i];
        const size_t n = strlen(m->name);
        if (!m->in_block || m->role == ZQ_O || m->role == ZQ_DOWN) continue;
        if (!strncmp(name, m->name, n) && !strcmp(name + n, ".weight")) return m;
    }
    return NULL;
}

static void scale_channels(const struct job *job, const struct zq_tensor *t, float *values)
{
    const struct zq_tensor_names *names = &job->config.arch->names;
    const struct zq_module *m = reader(job, t->name);
    const bool norm = is_norm(job, names->norm1, t->name) || is_norm(job, names->norm2, t->name);
    for (size_t k = 0; k < job->n_channels; k++) {
        const size_t channel = job->channels[k];
        if (norm) values[channel] *= job->factor;
        for (size_t r = 0; m && r < m->n_rows; r++) values[m->conv1d ? channel * m->n_rows + r : r * m->n_cols + channel] /= job->factor;
    }
}

/* ---- files */

static zq_status write_weights(const struct job *job, zq_error *err)
{
    const struct zq_checkpoint *ckpt = job->ckpt;
    struct zq_tensor *parts = zq_alloc_array(ckpt->n_tensors, sizeof *parts);
    char *path = zq_path_join(job->out, "model.safetensors");
    zq_status st = parts && path ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a list of %zu tensors", job->out, ckpt->n_tensors);
    struct zq_safetensors_writer w = {0};
    for (size_t i = 0; i < ckpt->n_tensors && !st; i++) {
        parts[i] = *ckpt->tensors[i];
        if (!zq_dtype_is_float(parts[i].dtype)) st = zq_fail(err, ZQ_EUNSUPPORTED, "tensor %s is no float", parts[i].name);
        parts[i].dtype = ZQ_F32;
    }
    if (!st) st = zq_safetensors_begin(&w, path, parts, ckpt->n_tensors, err);
    for (size_t i = 0; i < ckpt->n_tensors && !st; i++) {
        const struct zq_tensor *t = ckpt->tensors[i];
        float *values = zq_alloc_array(t->n_values, sizeof *values);
        if (!values) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for %zu values", t->name, t->n_values);
        if (!st) zq_to_float(values, t->bytes, t->dtype, t->n_values);
        if (!st) scale_channels(job, t, values);
        if (!st) st = zq_safetensors_put(&w, values, t->n_values * sizeof *values, err);
        zq_free(values);
    }
    if (!st) st = zq_safetensors_end(&w, err);
    zq_safetensors_abandon(&w);
    zq_free(parts);
    zq_free(path);
    return st;
}

static zq_status write_config(const struct job *job, zq_error *err)
{
    char *path = zq_path_join(job->out, "config.json"), *text = NULL;
    size_t n_bytes = 0;
    static const char *const keys[] = {"dtype", "torch_dtype"};
    for (size_t i = 0; i < ZQ_LEN(keys); i++)
        if (json_object_get(job->ckpt->config, keys[i])) json_object_set_new(job->ckpt->config, keys[i], json_string("float32"));
    zq_status st = path ? zq_json_print(&text, &n_bytes, job->ckpt->config, JSON_INDENT(2), err) : zq_fail(err, ZQ_ENOMEM, "no memory for a path");
    if (!st) st = zq_file_write(path, text, n_bytes, err);
    zq_free(text);
    zq_free(path);
    return st;
}

static zq_status write_model(const struct job *job, const char *dir, zq_error *err)
{
    struct zq_sidefiles sidefiles;
    if (mkdir(job->out, 0777))
        return errno == EEXIST ? zq_fail(err, ZQ_EEXIST, "%s exists already", job->out) : zq_fail_errno(err, "cannot create %s", job->out);
    zq_status st = zq_sidefiles_list(&sidefiles, dir, err);
    if (!st) st = zq_sidefiles_copy(&sidefiles, dir, job->out, err);
    if (!st) st = write_weights(job, err);
    if (!st) st = write_config(job, err);
    zq_sidefiles_free(&sidefiles);
    if (st) zq_remove_tree(job->out, NULL);
    return st;
}

/* ---- the command line */

static const char usage[] =
    "usage: make-outliers MODEL OUT [CHANNELS [FACTOR]]\n"
    "\n"
    "Copies a decoder whose blocks begin with norms, with CHANNELS (default 8) channels of each norm made FACTOR (default 20) times\n"
    "as large and the weights that read them as much smaller. The function of the model stays the same.\n";

static zq_status run(struct job *job, int argc, char **argv, zq_error *err)
{
    if (argc < 3 || argc > 5) return zq_fail(err, ZQ_EINVAL, "MODEL and OUT are wanted");
    job->out = argv[2];
    job->n_channels = argc > 3 ? strtoul(argv[3], NULL, 10) : 8;
    job->factor = argc > 4 ? strtof(argv[4], NULL) : 20;
    zq_status st = zq_checkpoint_open(&job->ckpt, argv[1], err);
    if (!st) st = zq_config_read(&job->config, job->ckpt->config, argv[1], err);
    if (!st) st = zq_modules_list(&job->modules, &job->config, job->ckpt, err);
    if (st) return st;
    const size_t width = job->config.width, n = job->n_channels;
    if (job->config.norm == ZQ_NORM_POST) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: its norms are not read by linear maps alone", argv[1]);
    if (!n || n > MAX_CHANNELS || n > width || !(job->factor > 0))
        return zq_fail(err, ZQ_EINVAL, "%zu channels by a factor of %g do not fit a width of %zu", n, (double)job->factor, width);
    for (size_t i = 0; i < n; i++) job->channels[i] = (2 * i + 1) * width / (2 * n);
    return write_model(job, argv[1], err);
}

int main(int argc, char **argv)
{
    zq_error err = {0};
    struct job job = {0};
    const zq_status st = run(&job, argc, argv, &err);
    if (st) fprintf(stderr, "make-outliers: %s\n%s", err.message, st == ZQ_EINVAL ? usage : "");
    zq_modules_free(&job.modules);
    zq_checkpoint_close(job.ckpt);
    return (int)st;
}
