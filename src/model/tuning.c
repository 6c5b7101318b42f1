/* Finding the fastest kernels of a device for a model's products. */
#include "model/model.h"

#include "base/alloc.h"
#include "cuda/tune.h"

static bool same_shape(const struct zq_linear *a, const struct zq_linear *b)
{
    return a->w.n_rows == b->w.n_rows && a->w.n_cols == b->w.n_cols && a->w.k_group == b->w.k_group && a->spec.w_bits == b->spec.w_bits;
}

zq_status zq_model_tune(zq_model *m, size_t most_tokens, zq_error *err)
{
    char name[256];
    zq_status st = ZQ_OK;
    struct zq_device *d = m->device;
    if (!d || d->plugin->simulated)
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: there is nothing to tune, which takes a model on an NVIDIA GPU (a simulated one has no time)",
                       m->dir);
    for (size_t l = 0; l < m->config.n_layers && !st; l++) {
        for (int r = 0; r < ZQ_N_LINEARS && !st; r++) {
            const struct zq_linear *map = &m->blocks[l].linear[r];
            if (!zq_linear_exists(map) || map->spec.a_bits != 8) continue;
            bool known = false; /* blocks are alike */
            for (size_t b = 0; b < l && !known; b++) known = zq_linear_exists(&m->blocks[b].linear[r]) && same_shape(map, &m->blocks[b].linear[r]);
            if (!known) st = zq_tune_matrix(&d->tuning, d->plugin, d->queue, &map->w, zq_device_format(map->spec), most_tokens, err);
        }
    }
    if (!st) st = zq_device_wait(d, err);
    if (st) return st;
    d->plugin->describe(d->queue, name, sizeof name);
    char *path = zq_tuning_path(name, true);
    st = path ? zq_tuning_write(&d->tuning, path, err) : zq_fail(err, ZQ_EIO, "no folder for caches: neither XDG_CACHE_HOME nor HOME is set");
    zq_free(path);
    return st;
}
