/* Ranges of activations and weights: Figure 1 of the paper. The activations are those that the maps read in the engine itself, seen
 * through the session's tap; a map with INT8 input is measured by codes and scale, because its floats need not exist. */
#include "base/alloc.h"
#include "base/file.h"
#include "base/pattern.h"
#include "base/threads.h"
#include "eval/plot.h"
#include "eval/sequences.h"
#include "model/session.h"
#include "quant/codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct measuring {
    const zq_model *model;
    zq_ranges *out;
    size_t capacity;  /* tokens that every module has room for */
    size_t *found;    /* [n_layers * ZQ_N_LINEARS] 1 + index into out->modules; 0: not measured */
};

/* ---- activations */

static float token_range(const struct zq_rows *in, bool coded, size_t t, size_t n)
{
    float min, max;
    if (coded) {
        const int8_t *q = in->q + t * in->ld;
        int low = q[0], high = q[0];
        for (size_t i = 1; i < n; i++) {
            low = q[i] < low ? q[i] : low;
            high = q[i] > high ? q[i] : high;
        }
        return (float)(high - low) * in->scale[t];
    }
    const float *x = in->f + t * in->ld;
    min = max = x[0];
    for (size_t i = 1; i < n; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    return max - min;
}

static void see(void *user, size_t layer, enum zq_linear_role role, const struct zq_rows *in, size_t n_tokens)
{
    struct measuring *m = user;
    const size_t found = m->found[layer * ZQ_N_LINEARS + role];
    if (!found) return;
    const struct zq_linear *l = &m->model->blocks[layer].linear[role];
    float *tokens = m->out->modules[found - 1].tokens + m->out->n_tokens;
    for (size_t t = 0; t < n_tokens; t++) tokens[t] = token_range(in, l->spec.a_bits == 8, t, l->w.n_cols);
}

/* Room for n tokens more, before the step that brings them: steps allocate nothing. */
static zq_status make_room(struct measuring *m, size_t n, zq_error *err)
{
    if (m->out->n_tokens + n <= m->capacity) return ZQ_OK;
    const size_t capacity = 2 * (m->out->n_tokens + n);
    for (size_t i = 0; i < m->out->n_modules; i++) {
        zq_module_ranges *r = &m->out->modules[i];
        float *larger = zq_realloc(r->tokens, m->out->n_tokens * sizeof *larger, capacity * sizeof *larger);
        if (!larger) return zq_fail(err, ZQ_ENOMEM, "no memory for the ranges of %zu tokens", capacity);
        r->tokens = larger;
    }
    m->capacity = capacity;
    return ZQ_OK;
}

static zq_status run_text(struct measuring *m, struct zq_sequences *sequences, const zq_ranges_options *o, zq_error *err)
{
    zq_session *session;
    const size_t longest = sequences->max_tokens;
    const zq_session_options so = {.n_threads = o->n_threads, .max_length = longest, .max_batch_tokens = longest};
    zq_status st = zq_session_create(&session, m->model, &so, err);
    if (st) return st;
    session->tap = (struct zq_tap){see, m};
    zq_input in = {0};
    st = zq_sequences_next(sequences, &in, err);
    while (!st && in.n) {
        st = make_room(m, in.n, err);
        if (!st) st = zq_session_rewind(session, 0, 0, err);
        if (!st) st = zq_session_step(session, &in, 1, err);
        if (!st) m->out->n_tokens += in.n;
        if (!st && o->progress && !o->progress(o->user, sequences->done, sequences->total))
            st = zq_fail(err, ZQ_ECANCELLED, "cancelled after %zu tokens", m->out->n_tokens);
        if (!st) st = zq_sequences_next(sequences, &in, err);
    }
    if (!st && !m->out->n_tokens) st = zq_fail(err, ZQ_EINVAL, "the text has no line to measure");
    zq_session_close(session);
    return st;
}

/* ---- weights */

struct row_scratch {
    float *row;    /* [n_cols] */
    int8_t *codes; /* [n_cols] */
};

static size_t count_codes(const int8_t *codes, size_t n)
{
    unsigned used = 0;
    for (size_t i = 0; i < n; i++) used |= 1u << (codes[i] + 8);
    size_t count = 0;
    for (; used; used &= used - 1) count++;
    return count;
}

/* Twice over the rows: the range of all gives the scale that the codes need. */
static zq_status measure_rows(const zq_model *m, const struct zq_stored *w, zq_module_ranges *out, struct row_scratch s, zq_error *err)
{
    struct zq_range all = {0};
    for (size_t r = 0; r < w->n_rows; r++) {
        struct zq_range range;
        zq_stored_row(w, &m->kernels, r, s.row, s.codes);
        if (!zq_range_of(&range, s.row, w->n_cols)) return zq_fail(err, ZQ_EFORMAT, "module %s: row %zu holds NaN or infinity", w->name, r);
        out->rows[r] = range.max - range.min;
        all = r ? zq_range_join(all, range) : range;
    }
    const float scale = zq_scale_nearest(4, all, ZQ_F32);
    for (size_t r = 0; r < w->n_rows; r++) {
        zq_stored_row(w, &m->kernels, r, s.row, s.codes);
        zq_codes(s.codes, s.row, w->n_cols, scale, 4);
        out->codes[r] = (uint8_t)count_codes(s.codes, w->n_cols);
    }
    return ZQ_OK;
}

static zq_status measure_weights(const zq_model *m, size_t module, zq_module_ranges *out, zq_error *err)
{
    const struct zq_stored *w = &m->stored[module];
    struct row_scratch s = {zq_alloc_array(w->n_cols, sizeof(float)), zq_alloc(w->n_cols)};
    out->name = w->name;
    out->n_rows = w->n_rows;
    out->rows = zq_alloc_array(w->n_rows, sizeof *out->rows);
    out->codes = zq_alloc(w->n_rows);
    const bool ok = s.row && s.codes && out->rows && out->codes;
    zq_status st = ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for the ranges of %zu rows", w->name, w->n_rows);
    if (!st) st = measure_rows(m, w, out, s, err);
    zq_free(s.row);
    zq_free(s.codes);
    return st;
}

/* ---- all of it */

static zq_status choose(struct measuring *m, size_t *chosen, const char *regex, zq_error *err)
{
    struct zq_pattern *pattern = NULL;
    zq_status st = regex ? zq_pattern_compile(&pattern, regex, true, err) : ZQ_OK;
    size_t n = 0;
    for (size_t i = 0; !st && i < m->model->modules.n; i++) {
        const struct zq_module *module = &m->model->modules.items[i];
        bool matches = module->role == ZQ_O;
        if (!module->in_block) continue;
        if (pattern) st = zq_pattern_match(pattern, module->name, &matches, err);
        if (!matches) continue;
        chosen[n++] = i;
        m->found[module->layer * ZQ_N_LINEARS + module->role] = n;
    }
    zq_pattern_free(pattern);
    if (!st && !n) st = zq_fail(err, ZQ_EINVAL, "no linear map inside the blocks has a name that matches %s", regex ? regex : "the default");
    m->out->n_modules = st ? 0 : n;
    return st;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void finish(zq_ranges *out)
{
    for (size_t i = 0; i < out->n_modules; i++) {
        zq_module_ranges *r = &out->modules[i];
        float least = r->rows[0], largest = r->rows[0];
        qsort(r->tokens, out->n_tokens, sizeof *r->tokens, by_value);
        for (size_t k = 1; k < r->n_rows; k++) {
            least = r->rows[k] < least ? r->rows[k] : least;
            largest = r->rows[k] > largest ? r->rows[k] : largest;
        }
        r->token_ratio = r->tokens[0] > 0 ? (double)r->tokens[out->n_tokens - 1] / r->tokens[0] : INFINITY;
        r->row_ratio = least > 0 ? (double)largest / least : INFINITY;
    }
}

zq_status zq_measure_ranges(const zq_model *model, const char *text, size_t n_bytes, const zq_ranges_options *options, zq_ranges *out, zq_error *err)
{
    static const zq_ranges_options defaults = {0};
    const zq_ranges_options *o = options ? options : &defaults;
    const struct zq_sequences_options so = {.window = o->window, .limit = o->limit, .max_length = model->config.max_length};
    struct measuring m = {.model = model, .out = out};
    struct zq_sequences sequences = {0};
    *out = (zq_ranges){0};
    if (model->device) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: ranges are measured on the CPU", model->dir);
    size_t *chosen = zq_alloc_array(model->modules.n, sizeof *chosen);
    m.found = zq_alloc_array(model->config.n_layers * ZQ_N_LINEARS, sizeof *m.found);
    out->modules = zq_alloc_array(model->modules.n, sizeof *out->modules);
    zq_status st = chosen && m.found && out->modules ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for the ranges of %zu modules", model->modules.n);
    if (!st) st = choose(&m, chosen, o->regex, err);
    for (size_t i = 0; !st && i < out->n_modules; i++) {
        out->modules[i].layer = model->modules.items[chosen[i]].layer;
        st = measure_weights(model, chosen[i], &out->modules[i], err);
    }
    if (!st) st = zq_sequences_begin(&sequences, model, text, n_bytes, &so, err);
    if (!st) st = run_text(&m, &sequences, o, err);
    zq_sequences_end(&sequences);
    zq_free(chosen);
    zq_free(m.found);
    if (st) zq_ranges_free(out);
    else finish(out);
    return st;
}

void zq_ranges_free(zq_ranges *ranges)
{
    if (!ranges) return;
    for (size_t i = 0; i < ranges->n_modules; i++) {
        zq_free(ranges->modules[i].tokens);
        zq_free(ranges->modules[i].rows);
        zq_free(ranges->modules[i].codes);
    }
    zq_free(ranges->modules);
    *ranges = (zq_ranges){0};
}

static zq_status draw(const zq_ranges *ranges, struct zq_box *tokens, struct zq_box *rows, const char *path, zq_error *err)
{
    for (size_t i = 0; i < ranges->n_modules; i++) {
        const zq_module_ranges *r = &ranges->modules[i];
        float *sorted = zq_alloc_array(r->n_rows, sizeof *sorted);
        if (!sorted) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a picture", path);
        memcpy(sorted, r->rows, r->n_rows * sizeof *sorted);
        qsort(sorted, r->n_rows, sizeof *sorted, by_value);
        tokens[i] = zq_box_of(r->tokens, ranges->n_tokens);
        rows[i] = zq_box_of(sorted, r->n_rows);
        zq_free(sorted);
    }
    const struct zq_series of_tokens = {.kind = ZQ_PLOT_BOXES, .boxes = tokens}, of_rows = {.kind = ZQ_PLOT_BOXES, .boxes = rows};
    const bool by_layer = ranges->n_modules < 2 || ranges->modules[1].layer != ranges->modules[0].layer;
    const char *x_title = by_layer ? "layer" : "linear map";
    const struct zq_panel panels[] = {
        {"Activation range of each token", x_title, "max - min of a token", NULL, 0, ranges->n_modules, &of_tokens, 1},
        {"Weight range of each row", x_title, "max - min of a row", NULL, 0, ranges->n_modules, &of_rows, 1},
    };
    char *svg;
    zq_status st = zq_plot_svg(&svg, panels, ZQ_LEN(panels), err);
    if (!st) st = zq_file_write(path, svg, strlen(svg), err);
    zq_free(svg);
    return st;
}

zq_status zq_ranges_draw(const zq_ranges *ranges, const char *path, zq_error *err)
{
    struct zq_box *tokens = zq_alloc_array(ranges->n_modules, sizeof *tokens), *rows = zq_alloc_array(ranges->n_modules, sizeof *rows);
    const zq_status st = tokens && rows ? draw(ranges, tokens, rows, path, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a picture", path);
    zq_free(tokens);
    zq_free(rows);
    return st;
}
