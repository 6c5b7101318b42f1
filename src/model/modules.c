/* Walks the names of an architecture row for every layer. Which prefix a file uses shows in the name of its token embedding,
 * as a float weight or in any of the compressed layouts. */
#include "model/modules.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

char *zq_tensor_name(const char *prefix, const char *pattern, size_t layer, const char *suffix)
{
    const char *at = strstr(pattern, "%zu");
    if (!at) return zq_format("%s%s%s", prefix, pattern, suffix);
    return zq_format("%s%.*s%zu%s%s", prefix, (int)(at - pattern), pattern, layer, at + 3, suffix);
}

/* Whether the file holds the weight of a module, float or compressed. */
static zq_status has_weight(bool *found, const struct zq_checkpoint *ckpt, const char *prefix, const char *pattern, zq_error *err)
{
    static const char *const suffixes[] = {".weight", ".weight_packed"};
    *found = false;
    for (size_t i = 0; i < ZQ_LEN(suffixes) && !*found; i++) {
        char *name = zq_tensor_name(prefix, pattern, 0, suffixes[i]);
        if (!name) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for tensor names", ckpt->dir);
        *found = zq_checkpoint_find(ckpt, name) != NULL;
        zq_free(name);
    }
    return ZQ_OK;
}

static zq_status find_prefix(struct zq_modules *m, const struct zq_arch *arch, const struct zq_checkpoint *ckpt, zq_error *err)
{
    for (size_t i = 0; i < ZQ_LEN(arch->prefixes) && arch->prefixes[i]; i++) {
        bool found;
        zq_status st = has_weight(&found, ckpt, arch->prefixes[i], arch->names.tokens, err);
        if (st) return st;
        if (!found) continue;
        m->prefix = zq_strdup(arch->prefixes[i]);
        return m->prefix ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for tensor names", ckpt->dir);
    }
    return zq_fail(err, ZQ_EFORMAT, "%s: there is no tensor \"%s%s.weight\", with or without its prefix", ckpt->dir, arch->prefixes[0],
                   arch->names.tokens);
}

/* Appends a copy of `item` whose name is made from the parts. */
static zq_status add(struct zq_modules *m, size_t *capacity, struct zq_module item, const char *prefix, const char *pattern, zq_error *err)
{
    if (zq_grow((void **)&m->items, m->n, capacity, sizeof *m->items) && (item.name = zq_tensor_name(prefix, pattern, item.layer, ""))) {
        m->items[m->n++] = item;
        return ZQ_OK;
    }
    return zq_fail(err, ZQ_ENOMEM, "no memory for the list of modules");
}

size_t zq_linear_rows(const struct zq_config *c, enum zq_linear_role role)
{
    const size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    switch (role) {
    case ZQ_QKV: return q + 2 * kv;
    case ZQ_Q: return q;
    case ZQ_K: case ZQ_V: return kv;
    case ZQ_GATE: case ZQ_UP: return c->ffn_width;
    default: return c->width;
    }
}

size_t zq_linear_cols(const struct zq_config *c, enum zq_linear_role role)
{
    return role == ZQ_O ? c->n_heads * c->head_dim : role == ZQ_DOWN ? c->ffn_width : c->width;
}

static zq_status add_blocks(struct zq_modules *m, size_t *capacity, const struct zq_config *c, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t layer = 0; layer < c->n_layers; layer++) {
        for (enum zq_linear_role role = 0; role < ZQ_N_LINEARS && !st; role++) {
            if (!c->arch->names.linear[role]) continue;
            const struct zq_module item = {
                .class_name = "Linear", .part = zq_linear_part(role), .layer = layer, .role = role,
                .n_rows = zq_linear_rows(c, role), .n_cols = zq_linear_cols(c, role), .in_block = true, .conv1d = c->arch->conv1d,
            };
            st = add(m, capacity, item, m->prefix, c->arch->names.linear[role], err);
        }
    }
    return st;
}

/* A module outside the blocks, if the file has it. */
static zq_status add_present(struct zq_modules *m, size_t *capacity, const struct zq_checkpoint *ckpt, enum zq_part part,
                             const char *prefix, const char *name, size_t n_rows, size_t n_cols, zq_error *err)
{
    bool found;
    zq_status st = name ? has_weight(&found, ckpt, prefix, name, err) : ZQ_OK;
    if (st || !name || !found) return st;
    const struct zq_module item = {.class_name = "Linear", .part = part, .layer = SIZE_MAX, .n_rows = n_rows, .n_cols = n_cols};
    return add(m, capacity, item, prefix, name, err);
}

zq_status zq_modules_list(struct zq_modules *out, const struct zq_config *c, const struct zq_checkpoint *ckpt, zq_error *err)
{
    *out = (struct zq_modules){0};
    struct zq_modules m = {0};
    size_t capacity = 0;
    const struct zq_tensor_names *names = &c->arch->names;
    zq_status st = find_prefix(&m, c->arch, ckpt, err);
    const struct zq_module tokens = {
        .class_name = "Embedding", .part = ZQ_PART_TOKENS, .layer = SIZE_MAX, .n_rows = c->vocab, .n_cols = c->embed_width};
    if (!st) st = add(&m, &capacity, tokens, m.prefix, names->tokens, err);
    if (!st) st = add_present(&m, &capacity, ckpt, ZQ_PART_OTHER, m.prefix, names->project_in, c->width, c->embed_width, err);
    if (!st) st = add_blocks(&m, &capacity, c, err);
    if (!st) st = add_present(&m, &capacity, ckpt, ZQ_PART_OTHER, m.prefix, names->project_out, c->embed_width, c->width, err);
    if (!st && (c->kind == ZQ_ENCODER || c->kind == ZQ_ENCODER_CLASSIFY))
        st = add_present(&m, &capacity, ckpt, ZQ_PART_OTHER, m.prefix, "pooler.dense", c->width, c->width, err);
    if (!st && c->kind == ZQ_ENCODER_CLASSIFY)
        st = add_present(&m, &capacity, ckpt, ZQ_PART_OTHER, "", "classifier", c->n_labels, c->width, err);
    if (!st && c->kind == ZQ_ENCODER_MLM) {
        st = add_present(&m, &capacity, ckpt, ZQ_PART_OTHER, "", "cls.predictions.transform.dense", c->width, c->width, err);
        if (!st && !c->tied) st = add_present(&m, &capacity, ckpt, ZQ_PART_HEAD, "", "cls.predictions.decoder", c->vocab, c->width, err);
    }
    if (!st && c->kind == ZQ_DECODER && !c->tied)
        st = add_present(&m, &capacity, ckpt, ZQ_PART_HEAD, "", c->arch->head, c->vocab, c->embed_width, err);
    if (st) zq_modules_free(&m);
    else *out = m;
    return st;
}

void zq_modules_free(struct zq_modules *modules)
{
    for (size_t i = 0; i < modules->n; i++) zq_free(modules->items[i].name);
    zq_free(modules->items);
    zq_free(modules->prefix);
    *modules = (struct zq_modules){0};
}
