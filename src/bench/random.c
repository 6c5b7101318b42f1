/* Names and layouts come from the architecture table, storage and scales from the same functions that the quantizer uses. What a
 * newcomer would get wrong: values repeat, but no row of a matrix is the same as its neighbours, and tensors begin at different places. */
#include "bench/random.h"

#include "base/alloc.h"
#include "base/repeat.h"
#include "base/rng.h"
#include "checkpoint/compressed.h"
#include "model/modules.h"
#include "quant/pack.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

/* What a tensor is filled with. One "file" of the checkpoint holds all tensors of a kind. */
enum fill {
    FILL_CODES,   /* INT8 codes of a row with one scale: N(0, 35^2), as 127 is 3.6 sigma, the largest of some thousand normal values */
    FILL_WORDS8,  /* the same, packed */
    FILL_WORDS4,  /* INT4 codes of groups of 64: N(0, 2.9^2), as 7 is 2.4 sigma */
    FILL_SCALES8, /* F32: such that weights are N(0, 0.02^2) */
    FILL_GROUPS8, /* the same in the dtype of the float weights */
    FILL_GROUPS4,
    FILL_VALUES,  /* float weights N(0, 0.02^2), the usual initialisation */
    FILL_GAMMAS,  /* 1 + N(0, 0.02^2) */
    N_FILLS
};
static const float sigma = 0.02f, sigma8 = 35, sigma4 = 2.9f;

/* Bytes after which values repeat: a multiple of every page size in use, but not of rows. */
enum { PERIOD = (1 << 20) + (64 << 10) };

struct maker {
    const struct zq_shape *shape;
    const struct zq_random_options *options;
    struct zq_config config;
    bool own;                             /* float matrices have memory of their own */
    struct zq_safetensors files[N_FILLS];
    size_t capacity[N_FILLS];
    struct zq_compressed_module *modules; /* [n_modules] */
    size_t n_modules, modules_capacity;
    zq_error *err;
    zq_status status; /* of the first failure; later calls do nothing */
};

static void no_memory(struct maker *m)
{
    if (!m->status) m->status = zq_fail(m->err, ZQ_ENOMEM, "%s: no memory for the list of tensors", m->shape->name);
}

/* A tensor [rows, cols], or [rows] if cols is 0. */
static void add(struct maker *m, enum fill fill, const char *prefix, const char *pattern, size_t layer, const char *suffix, enum zq_dtype dtype,
                size_t rows, size_t cols)
{
    struct zq_safetensors *f = &m->files[fill];
    if (m->status || !zq_grow((void **)&f->tensors, f->n_tensors, &m->capacity[fill], sizeof *f->tensors)) {
        no_memory(m);
        return;
    }
    struct zq_tensor t = {.name = zq_tensor_name(prefix, pattern, layer, suffix), .dtype = dtype, .n_dims = cols ? 2 : 1, .shape = {rows, cols}};
    t.n_values = rows * (cols ? cols : 1); /* sizes were bounded by zq_config_read */
    t.n_bytes = t.n_values * zq_dtype_bytes(dtype);
    t.map = &f->map;
    if (t.name) f->tensors[f->n_tensors++] = t;
    else no_memory(m);
}

static void add_vector(struct maker *m, enum fill fill, const char *prefix, const char *pattern, size_t layer, const char *suffix, size_t n)
{
    add(m, fill, prefix, pattern, layer, suffix, m->options->dtype, n, 0);
}

static void add_norm(struct maker *m, const char *prefix, const char *pattern, size_t layer)
{
    if (!pattern) return;
    add_vector(m, FILL_GAMMAS, prefix, pattern, layer, ".weight", m->config.width);
    if (!m->config.arch->rms) add_vector(m, FILL_VALUES, prefix, pattern, layer, ".bias", m->config.width);
}

static void add_table(struct maker *m, const char *prefix, const char *pattern, size_t n_rows)
{
    if (pattern) add(m, FILL_VALUES, prefix, pattern, 0, ".weight", m->options->dtype, n_rows, m->config.width);
}

static void note_module(struct maker *m, const char *prefix, const char *pattern, size_t layer, const char *class_name, struct zq_spec spec)
{
    if (m->status || !zq_grow((void **)&m->modules, m->n_modules, &m->modules_capacity, sizeof *m->modules)) {
        no_memory(m);
        return;
    }
    char *name = zq_tensor_name(prefix, pattern, layer, "");
    if (name) m->modules[m->n_modules++] = (struct zq_compressed_module){name, class_name, spec};
    else no_memory(m);
}

/* The weight of a module as its recipe stores it: compare describe_output() of compress/plan.c. */
static void add_matrix(struct maker *m, const char *prefix, const char *pattern, size_t layer, const char *class_name, size_t rows, size_t cols,
                       bool conv1d, struct zq_recipe recipe)
{
    const struct zq_layout layout = zq_recipe_layout(recipe, rows, cols, m->options->dtype);
    const enum zq_storage storage = zq_compressed_storage(layout.spec, class_name);
    const size_t n_groups = zq_spec_n_groups(layout.spec, cols), first = conv1d ? cols : rows, second = conv1d ? rows : cols;
    note_module(m, prefix, pattern, layer, class_name, layout.spec);
    if (layout.spec.w_bits == 16) {
        add(m, FILL_VALUES, prefix, pattern, layer, ".weight", m->options->dtype, first, second);
        return;
    }
    if (storage == ZQ_STORED_INT) {
        add(m, FILL_CODES, prefix, pattern, layer, ".weight", ZQ_I8, first, second);
    } else {
        const enum fill fill = layout.spec.w_bits == 8 ? FILL_WORDS8 : FILL_WORDS4;
        add(m, fill, prefix, pattern, layer, ".weight_packed", ZQ_I32, rows, zq_packed_words(cols, layout.spec.w_bits));
    }
    const enum fill scales = layout.spec.w_bits == 4 ? FILL_GROUPS4 : layout.spec.k_group ? FILL_GROUPS8 : FILL_SCALES8;
    add(m, scales, prefix, pattern, layer, ".weight_scale", layout.scale_dtype, rows, n_groups);
}

static void add_block(struct maker *m, const char *prefix, size_t layer)
{
    const struct zq_config *c = &m->config;
    const struct zq_tensor_names *names = &c->arch->names;
    add_norm(m, prefix, names->norm1, layer);
    for (enum zq_linear_role role = 0; role < ZQ_N_LINEARS; role++) {
        const enum zq_part part = zq_linear_part(role);
        const struct zq_scheme *s = &m->options->scheme;
        const struct zq_recipe recipe = {part == ZQ_PART_FFN ? s->ffn : part == ZQ_PART_QKV ? s->qkv : s->attention, m->options->group};
        const size_t rows = zq_linear_rows(c, role);
        if (!names->linear[role]) continue;
        add_matrix(m, prefix, names->linear[role], layer, "Linear", rows, zq_linear_cols(c, role), c->arch->conv1d, recipe);
        if (m->shape->biased & 1u << role) add_vector(m, FILL_VALUES, prefix, names->linear[role], layer, ".bias", rows);
    }
    add_norm(m, prefix, names->norm2, layer);
}

static void list_tensors(struct maker *m)
{
    const struct zq_config *c = &m->config;
    const struct zq_tensor_names *names = &c->arch->names;
    const char *prefix = c->kind == ZQ_ENCODER ? "" : c->arch->prefixes[0]; /* a bare encoder is saved without prefix */
    const struct zq_recipe embedding = {m->options->embeddings_int8 ? (struct zq_bits){8, 16} : (struct zq_bits){16, 16}, {ZQ_BY_CHANNEL, 0}};
    const struct zq_recipe kept = {{16, 16}, {ZQ_BY_CHANNEL, 0}};
    add_matrix(m, prefix, names->tokens, 0, "Embedding", c->vocab, c->width, false, embedding);
    add_table(m, prefix, names->positions, c->max_length + (size_t)c->arch->position_offset);
    add_table(m, prefix, names->types, c->n_types);
    add_norm(m, prefix, names->embed_norm, 0);
    for (size_t layer = 0; layer < c->n_layers; layer++) add_block(m, prefix, layer);
    add_norm(m, prefix, names->final_norm, 0);
    if (c->kind != ZQ_DECODER) return;
    if (c->tied) note_module(m, "", c->arch->head, 0, "Linear", zq_recipe_layout(kept, c->vocab, c->width, m->options->dtype).spec);
    else add_matrix(m, "", c->arch->head, 0, "Linear", c->vocab, c->width, false, embedding);
    if (m->shape->head_bias) add_vector(m, FILL_VALUES, "", c->arch->head, 0, ".bias", c->vocab);
}

/* ---- values */

/* n numbers N(0, 1), n even. */
static void fill_normal(float *x, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i += 2) {
        const float radius = sqrtf(-2 * logf(1 - zq_rng_float(state))), angle = 6.28318531f * zq_rng_float(state);
        x[i] = radius * cosf(angle);
        x[i + 1] = radius * sinf(angle);
    }
}

/* Values of a tile that come from one call of fill_normal. */
enum { BATCH = 8192 };

static void round_codes(int8_t *codes, const float *x, size_t n, int bits)
{
    const int lowest = bits == 4 ? -8 : -127, largest = bits == 4 ? 7 : 127;
    for (size_t i = 0; i < n; i++) {
        const float code = rintf(x[i] * (bits == 4 ? sigma4 : sigma8));
        codes[i] = (int8_t)(code > (float)largest ? largest : code < (float)lowest ? lowest : (int)code);
    }
}

void zq_random_codes(int8_t *codes, size_t n, int bits)
{
    enum { DRAWN = 8 * BATCH };
    float x[BATCH];
    uint64_t state = 1;
    for (size_t i = 0; i < n; i += BATCH) {
        const size_t m = n - i < BATCH ? n - i : BATCH;
        if (i < DRAWN) fill_normal(x, BATCH, &state), round_codes(codes + i, x, m, bits);
        else memcpy(codes + i, codes + i - DRAWN, m);
    }
}

static void put_codes(uint8_t *to, const float *x, enum fill fill)
{
    const int bits = fill == FILL_WORDS4 ? 4 : 8;
    int8_t codes[BATCH];
    round_codes(codes, x, BATCH, bits);
    if (fill == FILL_CODES) memcpy(to, codes, sizeof codes);
    else zq_pack_codes(to, codes, bits, BATCH);
}

static void put_floats(uint8_t *to, float *x, enum fill fill, enum zq_dtype dtype)
{
    for (size_t i = 0; i < BATCH; i++) {
        if (fill == FILL_VALUES) x[i] = sigma * x[i];
        else if (fill == FILL_GAMMAS) x[i] = 1 + sigma * x[i];
        else x[i] = sigma / (fill == FILL_GROUPS4 ? sigma4 : sigma8) * (1 + 0.1f * fabsf(x[i]));
    }
    zq_from_float(to, dtype, x, BATCH);
}

static void fill_tile(uint8_t *tile, float *x, enum fill fill, enum zq_dtype dtype)
{
    const bool codes = fill <= FILL_WORDS4;
    const size_t step = codes ? fill == FILL_WORDS4 ? BATCH / 2 : BATCH : BATCH * zq_dtype_bytes(dtype);
    uint64_t state = (uint64_t)fill + 1;
    for (size_t at = 0; at + step <= PERIOD; at += step) {
        fill_normal(x, BATCH, &state);
        if (codes) put_codes(tile + at, x, fill);
        else put_floats(tile + at, x, fill, dtype);
    }
}

/* Gives every tensor of a kind its place. */
static void place_tensors(struct zq_safetensors *f, bool own)
{
    size_t used = 0;
    uint64_t state = 1;
    for (size_t i = 0; i < f->n_tensors; i++) {
        struct zq_tensor *t = &f->tensors[i];
        if (own) t->bytes = f->map.bytes + used;
        else t->bytes = f->map.bytes + zq_rng_next(&state) % (PERIOD / 64) * 64;
        used += (t->n_bytes + 63) / 64 * 64;
    }
}

static void make_values(struct maker *m, enum fill fill, uint8_t *tile, float *x)
{
    struct zq_safetensors *f = &m->files[fill];
    if (m->status || !f->n_tensors) return;
    const bool own = fill == FILL_VALUES && m->own;
    size_t total = 0, largest = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        total += (f->tensors[i].n_bytes + 63) / 64 * 64;
        if (f->tensors[i].n_bytes > largest) largest = f->tensors[i].n_bytes;
    }
    const size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (own && total > machine / 10 * 9) {
        m->status = zq_fail(m->err, ZQ_ENOMEM, "%s as floats takes %.1f GB, and this machine has %.1f GB", m->shape->name, 1e-9 * (double)total,
                            1e-9 * (double)machine);
        return;
    }
    fill_tile(tile, x, fill, f->tensors[0].dtype);
    m->status = zq_map_repeat(&f->map, tile, PERIOD, own ? total : largest + PERIOD, own, m->err);
    if (!m->status) place_tensors(f, own);
}

/* ---- the checkpoint */

static zq_status describe(struct maker *m, json_t *config, zq_error *err)
{
    json_t *quantization;
    zq_status st = zq_compressed_config(&quantization, m->modules, m->n_modules, err);
    if (!st && quantization && json_object_set_new(config, "quantization_config", quantization)) no_memory(m);
    return st ? st : m->status;
}

/* Tensors point at the map of the file that they are in. */
static struct zq_safetensors *move_files(struct maker *m)
{
    struct zq_safetensors *files = zq_alloc_array(N_FILLS, sizeof *files);
    for (size_t f = 0; files && f < N_FILLS; f++) {
        files[f] = m->files[f];
        for (size_t i = 0; i < files[f].n_tensors; i++) files[f].tensors[i].map = &files[f].map;
        m->files[f] = (struct zq_safetensors){0};
    }
    if (!files) no_memory(m);
    return files;
}

zq_status zq_random_checkpoint(struct zq_checkpoint **out, const struct zq_shape *shape, const struct zq_random_options *options, zq_error *err)
{
    *out = NULL;
    struct maker m = {.shape = shape, .options = options, .err = err};
    uint8_t *tile = zq_alloc_zero(PERIOD);
    float *x = zq_alloc_array(BATCH, sizeof *x);
    json_t *config = zq_shape_config(shape, options->n_layers, options->dtype);
    struct zq_safetensors *files = NULL;
    if (!tile || !x || !config) no_memory(&m);
    if (!m.status) m.status = zq_config_read(&m.config, config, shape->name, err);
    if (!m.status) list_tensors(&m);
    if (!m.status) m.status = describe(&m, config, err);
    m.own = !json_object_get(config, "quantization_config");
    for (enum fill f = 0; f < N_FILLS && !m.status; f++) make_values(&m, f, tile, x);
    if (!m.status) files = move_files(&m);
    if (!m.status) m.status = zq_checkpoint_view(out, shape->name, config, files, N_FILLS, err);
    else json_decref(config);
    for (size_t f = 0; f < N_FILLS; f++) zq_safetensors_close(&m.files[f]);
    for (size_t i = 0; i < m.n_modules; i++) zq_free((char *)(uintptr_t)m.modules[i].name);
    zq_free(m.modules);
    zq_free(x);
    zq_free(tile);
    return m.status;
}
