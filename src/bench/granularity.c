/* The relative error of round-to-nearest, ||W - Wq|| / ||W|| over all linear maps of the blocks, row by row: nothing is kept. */
#include "bench/granularity.h"

#include "base/alloc.h"
#include "model/model.h"
#include "quant/encode.h"

#include <math.h>
#include <string.h>

zq_status zq_granularity_parse(struct zq_grouping *out, const char *text, zq_error *err)
{
    *out = (struct zq_grouping){ZQ_BY_ROWS, 1};
    return text && !strcmp(text, "tensor") ? ZQ_OK : zq_grouping_parse(out, text, err);
}

struct rounding {
    const struct zq_model *model;
    const struct zq_stored *w;
    struct zq_layout layout;
    float *row, *scales; /* [widest row] */
    int8_t *codes;       /* [widest row] */
    struct zq_deviation deviation;
};

/* The scale that rows [begin, end) share. false: NaN or infinity. */
static bool shared_scale(struct rounding *r, size_t begin, size_t end, float *scale)
{
    struct zq_range all = {0};
    for (size_t i = begin; i < end; i++) {
        struct zq_range range;
        zq_stored_row(r->w, &r->model->kernels, i, r->row, r->codes);
        if (!zq_range_of(&range, r->row, r->w->n_cols)) return false;
        all = i == begin ? range : zq_range_join(all, range);
    }
    *scale = zq_scale_nearest(r->layout.spec.w_bits, all, r->layout.scale_dtype);
    return true;
}

static bool round_matrix(struct rounding *r)
{
    const size_t n_rows = r->w->n_rows, groups = r->layout.row_groups;
    float shared = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const size_t g = groups ? zq_row_group(i, n_rows, groups) : 0;
        const bool begins = groups && i == zq_row_group_begin(g, n_rows, groups);
        if (begins && !shared_scale(r, i, zq_row_group_begin(g + 1, n_rows, groups), &shared)) return false;
        const struct zq_weight_rows row = {r->row, i, 1, r->w->n_cols, &r->layout, groups ? &shared : NULL};
        zq_stored_row(r->w, &r->model->kernels, i, r->row, r->codes);
        if (!zq_encode_nearest(NULL, &row, r->codes, r->scales)) return false;
        zq_weight_deviation(&r->deviation, &row, r->codes, r->scales);
    }
    return true;
}

static zq_status round_all(struct rounding *r, const struct zq_scheme *scheme, struct zq_grouping group, zq_error *err)
{
    const struct zq_model *m = r->model;
    for (size_t i = 0; i < m->modules.n; i++) {
        const struct zq_module *module = &m->modules.items[i];
        const struct zq_bits bits = module->part == ZQ_PART_FFN ? scheme->ffn : module->part == ZQ_PART_QKV ? scheme->qkv : scheme->attention;
        r->w = &m->stored[i];
        if (!module->in_block) continue;
        if (r->w->storage != ZQ_STORED_FLOAT) return zq_fail(err, ZQ_EUNSUPPORTED, "%s is quantized: only float weights can be rounded", m->dir);
        r->layout = zq_recipe_layout((struct zq_recipe){bits, group}, r->w->n_rows, r->w->n_cols, r->w->weight->dtype);
        if (!round_matrix(r)) return zq_fail(err, ZQ_EFORMAT, "module %s holds NaN or infinity", module->name);
    }
    return ZQ_OK;
}

zq_status zq_rounding_error(const zq_model *model, const char *scheme_name, const char *group_name, double *out, zq_error *err)
{
    const struct zq_scheme *scheme;
    struct zq_grouping group;
    struct rounding r = {.model = model};
    size_t widest = 1;
    *out = NAN;
    zq_status st = zq_scheme_parse(&scheme, scheme_name, err);
    if (!st) st = zq_granularity_parse(&group, group_name, err);
    if (st) return st;
    for (size_t i = 0; i < model->modules.n; i++) widest = model->stored[i].n_cols > widest ? model->stored[i].n_cols : widest;
    r.row = zq_alloc_array(widest, sizeof *r.row);
    r.scales = zq_alloc_array(widest, sizeof *r.scales);
    r.codes = zq_alloc(widest);
    st = r.row && r.scales && r.codes ? round_all(&r, scheme, group, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a row", model->dir);
    if (!st) *out = sqrt(r.deviation.error / r.deviation.norm);
    zq_free(r.row);
    zq_free(r.scales);
    zq_free(r.codes);
    return st;
}
