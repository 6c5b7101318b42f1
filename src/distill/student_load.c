/* From the stored tensors of a layer to the parameters of a student. */
#include "distill/student.h"

#include "base/alloc.h"
#include "model/model.h"

#include <string.h>

static const struct zq_stored *find(const struct zq_model *m, size_t layer, int role)
{
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_module *module = &m->modules.items[i];
        if (module->in_block && module->layer == layer && (int)module->role == role) return &m->stored[i];
    }
    return NULL;
}

/* Reads w through `buffer`, which has room for n_floats >= n_cols: values of the file's dtype take no more. */
static void load_weights(struct zq_student_linear *l, const struct zq_stored *w, float *buffer, size_t n_floats)
{
    const size_t at_once = n_floats / l->n_cols;
    for (size_t r = 0; r < l->n_rows; r += at_once) {
        const size_t n = l->n_rows - r < at_once ? l->n_rows - r : at_once;
        zq_stored_values(w, r, n, buffer);
        zq_to_float(l->w + r * l->n_cols, buffer, w->weight->dtype, n * l->n_cols);
    }
    zq_map_drop(w->weight->map, w->weight->bytes, w->weight->n_bytes);
}

static void load_vector(float *to, const float *from, size_t n)
{
    if (to && from) memcpy(to, from, n * sizeof *to);
    else if (to) memset(to, 0, n * sizeof *to);
}

zq_status zq_student_load(struct zq_student *s, const zq_model *model, size_t layer, zq_error *err)
{
    const struct zq_block *b = &model->blocks[layer];
    const size_t n_floats = (size_t)s->n_threads * s->processor.thread_floats;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        struct zq_student_linear *l = &s->linear[r];
        if (!l->n_rows) continue;
        const struct zq_stored *w = find(model, layer, r);
        if (w->storage != ZQ_STORED_FLOAT)
            return zq_fail(err, ZQ_EUNSUPPORTED, "module %s is quantized already: training starts from float weights", w->name);
        load_weights(l, w, s->processor.scratch, n_floats);
        load_vector(l->bias, b->linear[r].bias, l->n_rows);
        l->has_bias = b->linear[r].bias != NULL;
    }
    const struct zq_norm_weights *const from[] = {&b->norm1, &b->norm2};
    struct zq_student_norm *const to[] = {&s->norm1, &s->norm2};
    for (size_t i = 0; i < ZQ_LEN(from); i++) {
        load_vector(to[i]->gamma, from[i]->gamma, s->config.width);
        load_vector(to[i]->beta, from[i]->beta, s->config.width);
    }
    return ZQ_OK;
}
