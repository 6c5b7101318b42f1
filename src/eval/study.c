/* Schemes of the paper's comparisons that are worth a row in a table but no kernel and no file format: static activations, one scale per
 * matrix, float weights with INT8 activations. They are simulated in a float model and never stored, so that no directory on disk can be
 * mistaken for one that runs in integers. */
#include "base/alloc.h"
#include "eval/sequences.h"
#include "model/simulate.h"
#include "quant/encode.h"

#include <math.h>
#include <string.h>

enum activations { TOKEN, STATIC_MINMAX, STATIC_EMA, STATIC_PERCENTILE };
static const char *const activation_names[] = {"token", "static:minmax", "static:ema", "static:percentile"};

/* Bins of |x| by its sign-free upper 16 bits: 128 to an octave. */
enum { N_BINS = 1 << 15, DEFAULT_CALIBRATION = 16384 };

struct study {
    struct zq_scheme scheme;
    struct zq_grouping group;
    enum activations activations;
};

/* ---- the words */

static zq_status parse_part(struct study *s, const char *part, zq_error *err)
{
    for (size_t i = 0; i < ZQ_LEN(activation_names); i++)
        if (!strcmp(part, activation_names[i])) {
            s->activations = (enum activations)i;
            return ZQ_OK;
        }
    if (!strncmp(part, "static", 6))
        return zq_fail(err, ZQ_EINVAL, "there is no \"%.40s\"; static activations are static:minmax, static:ema and static:percentile", part);
    if (strcmp(part, "tensor") != 0) return zq_grouping_parse(&s->group, part, err);
    s->group = (struct zq_grouping){ZQ_BY_ROWS, 1};
    return ZQ_OK;
}

static zq_status parse(struct study *s, const char *spec, zq_error *err)
{
    static const struct zq_scheme w16a8 = {"w16a8", {16, 8}, {16, 8}, {16, 8}};
    char words[80], *rest = words;
    if (strlen(spec) >= sizeof words) return zq_fail(err, ZQ_EINVAL, "\"%.80s\" is no scheme with a group and a kind of activations", spec);
    memcpy(words, spec, strlen(spec) + 1);
    const char *name = strsep(&rest, ",");
    const struct zq_scheme *scheme = &w16a8;
    zq_status st = strcmp(name, w16a8.name) != 0 ? zq_scheme_parse(&scheme, name, err) : ZQ_OK;
    *s = (struct study){.activations = TOKEN};
    if (!st) s->scheme = *scheme;
    while (!st && rest) st = parse_part(s, strsep(&rest, ","), err);
    return st;
}

static struct zq_bits bits_of(const struct study *s, enum zq_linear_role role)
{
    const enum zq_part part = zq_linear_part(role);
    return part == ZQ_PART_FFN ? s->scheme.ffn : part == ZQ_PART_QKV ? s->scheme.qkv : s->scheme.attention;
}

/* ---- activations */

/* What calibration saw of one map's input. */
struct seen {
    float largest, average, latest; /* of |x|: of all, running over sequences, of the sequence in work */
    uint32_t *bins;                 /* [N_BINS]; static:percentile only */
    uint64_t n;
};

struct calibration {
    const zq_model *model;
    struct seen *seen; /* [n_layers, ZQ_N_LINEARS] */
};

static void see(void *user, size_t layer, enum zq_linear_role role, const struct zq_rows *in, size_t n_tokens)
{
    struct calibration *c = user;
    struct seen *seen = &c->seen[layer * ZQ_N_LINEARS + (size_t)role];
    const size_t n = c->model->blocks[layer].linear[role].w.n_cols;
    seen->latest = 0;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < n; i++) {
            const float x = fabsf(in->f[t * in->ld + i]);
            if (x > seen->latest) seen->latest = x;
            if (!seen->bins) continue;
            uint32_t word;
            memcpy(&word, &x, sizeof word);
            seen->bins[word >> 16]++;
        }
    seen->average = seen->n ? 0.95f * seen->average + 0.05f * seen->latest : seen->latest;
    seen->largest = seen->latest > seen->largest ? seen->latest : seen->largest;
    seen->n += (uint64_t)n_tokens * n;
}

/* The upper edge of the bin below which 99.99 % of the values lie. */
static float percentile(const struct seen *s)
{
    uint64_t left = s->n / 10000;
    size_t bin = N_BINS;
    for (uint64_t above = 0; bin > 0 && above <= left;) above += s->bins[--bin];
    const uint32_t word = (uint32_t)(bin + 1) << 16;
    float edge;
    memcpy(&edge, &word, sizeof edge);
    return edge < s->largest ? edge : s->largest;
}

static zq_status run_calibration(struct calibration *c, const zq_study_options *o, zq_error *err)
{
    const struct zq_sequences_options so = {.limit = o->limit ? o->limit : DEFAULT_CALIBRATION, .max_length = c->model->config.max_length};
    struct zq_sequences sequences = {0};
    zq_session *session = NULL;
    zq_input in = {0};
    zq_status st = zq_sequences_begin(&sequences, c->model, o->text, o->n_bytes, &so, err);
    const zq_session_options options = {.n_threads = o->open.n_threads, .max_length = sequences.max_tokens, .max_batch_tokens = sequences.max_tokens};
    if (!st) st = zq_session_create(&session, c->model, &options, err);
    if (!st) session->tap = (struct zq_tap){see, c};
    if (!st) st = zq_sequences_next(&sequences, &in, err);
    if (!st && !in.n) st = zq_fail(err, ZQ_EINVAL, "the calibration text has no line");
    while (!st && in.n) {
        st = zq_session_rewind(session, 0, 0, err);
        if (!st) st = zq_session_step(session, &in, 1, err);
        if (!st) st = zq_sequences_next(&sequences, &in, err);
    }
    zq_session_close(session);
    zq_sequences_end(&sequences);
    return st;
}

static float static_scale(const struct seen *s, enum activations how)
{
    const float largest = how == STATIC_MINMAX ? s->largest : how == STATIC_EMA ? s->average : percentile(s);
    return largest > 0 ? largest / 127 : 1;
}

/* Fills the scales of maps with 8-bit inputs. */
static zq_status calibrate(const zq_model *m, const struct study *s, const zq_study_options *o, float *scales, zq_error *err)
{
    const size_t n = m->config.n_layers * ZQ_N_LINEARS;
    struct calibration c = {m, zq_alloc_array(n, sizeof *c.seen)};
    zq_status st = c.seen ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory to calibrate", m->dir);
    for (size_t i = 0; !st && s->activations == STATIC_PERCENTILE && i < n; i++) {
        if (!zq_linear_exists(&m->blocks[i / ZQ_N_LINEARS].linear[i % ZQ_N_LINEARS])) continue;
        c.seen[i].bins = zq_alloc_array(N_BINS, sizeof *c.seen[i].bins);
        if (!c.seen[i].bins) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory to calibrate", m->dir);
    }
    if (!st) st = run_calibration(&c, o, err);
    for (size_t i = 0; c.seen && i < n; i++) {
        if (!st && c.seen[i].n && !isnan(scales[i])) scales[i] = static_scale(&c.seen[i], s->activations);
        zq_free(c.seen[i].bins);
    }
    zq_free(c.seen);
    return st;
}

/* ---- weights */

/* Rounds rows [n_rows, n_cols] to codes and back, in place. */
static bool round_weights(float *w, size_t n_rows, size_t n_cols, const struct zq_layout *layout, int8_t *codes, float *scales)
{
    const size_t n_groups = zq_spec_n_groups(layout->spec, n_cols), length = n_cols / n_groups, per_group = layout->row_groups;
    struct zq_range range;
    float shared = 0;
    for (size_t r = 0; r < n_rows; r++) {
        const size_t g = per_group ? zq_row_group(r, n_rows, per_group) : 0;
        if (per_group && r == zq_row_group_begin(g, n_rows, per_group)) { /* before its first row changes */
            if (!zq_range_of(&range, w + r * n_cols, (zq_row_group_begin(g + 1, n_rows, per_group) - r) * n_cols)) return false;
            shared = zq_scale_nearest(layout->spec.w_bits, range, layout->scale_dtype);
        }
        const struct zq_weight_rows row = {w + r * n_cols, r, 1, n_cols, layout, per_group ? &shared : NULL};
        if (!zq_encode_nearest(NULL, &row, codes, scales)) return false;
        for (size_t k = 0; k < n_cols; k++) w[r * n_cols + k] = (float)codes[k] * scales[k / length];
    }
    return true;
}

static zq_status round_module(zq_model *m, size_t module, const struct study *s, zq_error *err)
{
    const struct zq_module *where = &m->modules.items[module];
    const struct zq_stored *w = &m->stored[module];
    struct zq_linear *l = &m->blocks[where->layer].linear[where->role];
    const struct zq_recipe recipe = {bits_of(s, where->role), s->group};
    const struct zq_layout layout = zq_recipe_layout(recipe, w->n_rows, w->n_cols, w->weight->dtype);
    if (recipe.bits.w == 16) return ZQ_OK;
    float *values = zq_arena_alloc(&m->arena, w->n_rows * w->n_cols * sizeof *values);
    float *scales = zq_alloc_array(w->n_cols, sizeof *scales);
    int8_t *codes = zq_alloc(w->n_cols);
    zq_status st = values && scales && codes ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its weights as floats", w->name);
    for (size_t r = 0; !st && r < w->n_rows; r++) zq_stored_row(w, &m->kernels, r, values + r * w->n_cols, codes);
    if (!st && !round_weights(values, w->n_rows, w->n_cols, &layout, codes, scales))
        st = zq_fail(err, ZQ_EFORMAT, "module %s holds NaN or infinity", w->name);
    zq_free(scales);
    zq_free(codes);
    if (st) return st;
    l->w.packed = values;
    l->w.dtype = ZQ_F32;
    l->stored = (const uint8_t *)values;
    l->transposed = false;
    return ZQ_OK;
}

/* ---- the model */

static zq_status simulate(zq_model *m, const struct study *s, const zq_study_options *o, zq_error *err)
{
    const size_t n = m->config.n_layers * ZQ_N_LINEARS;
    struct zq_simulation *simulation = zq_alloc_zero(sizeof *simulation);
    float *scales = zq_alloc_array(n, sizeof *scales);
    zq_status st = simulation && scales ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for a study", m->dir);
    for (size_t i = 0; !st && i < n; i++) {
        const struct zq_linear *l = &m->blocks[i / ZQ_N_LINEARS].linear[i % ZQ_N_LINEARS];
        if (l->w.n_cols > simulation->widest) simulation->widest = l->w.n_cols;
        scales[i] = bits_of(s, (enum zq_linear_role)(i % ZQ_N_LINEARS)).a == 8 ? 0 : NAN;
    }
    /* on the original: a quantizer that calibrates does so before it changes anything */
    if (!st && s->activations != TOKEN) st = calibrate(m, s, o, scales, err);
    for (size_t i = 0; !st && i < m->modules.n; i++)
        if (m->modules.items[i].in_block) st = round_module(m, i, s, err);
    if (st) {
        zq_free(simulation);
        zq_free(scales);
        return st;
    }
    simulation->scales = scales;
    m->simulation = simulation;
    return ZQ_OK;
}

zq_status zq_study_open(zq_model **out, const char *dir, const char *spec, const zq_study_options *options, zq_error *err)
{
    static const zq_study_options defaults = {0};
    const zq_study_options *o = options ? options : &defaults;
    struct study study;
    zq_model *m = NULL;
    *out = NULL;
    zq_status st = parse(&study, spec, err);
    if (!st && study.activations != TOKEN && !o->text) st = zq_fail(err, ZQ_EINVAL, "%s needs a text to calibrate on", spec);
    if (!st) st = zq_model_open(&m, dir, &o->open, err);
    if (!st && m->compressed) st = zq_fail(err, ZQ_EUNSUPPORTED, "%s is quantized already: a study starts from float weights", dir);
    if (!st && !m->blas) st = zq_fail(err, ZQ_EUNSUPPORTED, "%s: studies run on the CPU, in a build with BLAS", dir);
    if (!st) st = simulate(m, &study, o, err);
    if (st) {
        zq_model_close(m);
        return st;
    }
    *out = m;
    return ZQ_OK;
}
