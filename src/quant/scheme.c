/* Parsing of schemes and groups. A scheme is a row of a table: to add one, add a row. */
#include "quant/scheme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* name, then bits of weights and activations in: Q, K, V maps; attention output; feed-forward (as golden values define them) */
static const struct zq_scheme schemes[] = {
    {"w8a8", {8, 8}, {8, 8}, {8, 8}},
    {"w4a8", {4, 8}, {4, 8}, {4, 8}},
    {"w8a16", {8, 16}, {8, 16}, {8, 16}},
    {"w4a16", {4, 16}, {4, 16}, {4, 16}},
    {"w4/8a8", {8, 8}, {8, 8}, {4, 8}},
    {"w4/8a16", {8, 16}, {8, 16}, {4, 16}},
    {"w8a8/16", {8, 16}, {8, 8}, {8, 8}},
    {"w3a8", {3, 8}, {3, 8}, {3, 8}},
    {"w2a8", {2, 8}, {2, 8}, {2, 8}},
    {"w3a16", {3, 16}, {3, 16}, {3, 16}},
    {"w2a16", {2, 16}, {2, 16}, {2, 16}},
    {"w3/8a8", {8, 8}, {8, 8}, {3, 8}},
    {"w2/8a8", {8, 8}, {8, 8}, {2, 8}},
    {"w3/8a16", {8, 16}, {8, 16}, {3, 16}},
    {"w2/8a16", {8, 16}, {8, 16}, {2, 16}},
};

/* K-groups of weights of 4 bits and fewer without --group, in the order tried. */
static const size_t default_k_groups[] = {64, 32};

static bool is_uniform(const struct zq_scheme *s)
{
    return s->qkv.w == s->ffn.w && s->qkv.a == s->ffn.a;
}

zq_status zq_scheme_parse(const struct zq_scheme **out, const char *text, zq_error *err)
{
    *out = NULL;
    for (size_t i = 0; i < ZQ_LEN(schemes) && !*out; i++)
        if (!text || !strcmp(schemes[i].name, text)) *out = &schemes[i];
    if (*out) return ZQ_OK;
    if (!strcmp(text, "w16a8"))
        return zq_fail(err, ZQ_EINVAL, "w16a8 keeps the weights, so there is nothing to write: zq eval and zq compare have it as --study w16a8");
    return zq_fail(err, ZQ_EINVAL, "there is no scheme \"%.40s\"; schemes are w8a8, w4a8, w8a16, w4a16, w4/8a8, w4/8a16, w8a8/16, and with "
                   "w3 or w2 for w4 for studies", text);
}

/* A whole positive decimal number without sign; 0 if it is none or above 2^31. */
static size_t parse_count(const char *text)
{
    size_t n = 0;
    for (; *text >= '0' && *text <= '9' && n < (size_t)1 << 31; text++) n = 10 * n + (size_t)(*text - '0');
    return *text || n > (size_t)1 << 31 ? 0 : n;
}

zq_status zq_grouping_parse(struct zq_grouping *out, const char *text, zq_error *err)
{
    *out = (struct zq_grouping){ZQ_BY_DEFAULT, 0};
    if (!text) return ZQ_OK;
    if (!strcmp(text, "channel")) {
        out->kind = ZQ_BY_CHANNEL;
        return ZQ_OK;
    }
    struct zq_grouping g = {0};
    if (!strncmp(text, "rows:", 5)) g = (struct zq_grouping){ZQ_BY_ROWS, parse_count(text + 5)};
    else if (!strncmp(text, "k:", 2)) g = (struct zq_grouping){ZQ_BY_K, parse_count(text + 2)};
    if (!g.n) return zq_fail(err, ZQ_EINVAL, "\"%.40s\" is no group; groups are channel, rows:N and k:N with N >= 1", text);
    *out = g;
    return ZQ_OK;
}

zq_status zq_recipe_parse(struct zq_recipe *out, const char *text, struct zq_grouping fallback, zq_error *err)
{
    *out = (struct zq_recipe){{16, 16}, fallback};
    if (!strcmp(text, "float")) return ZQ_OK;
    char name[16] = "";
    const size_t n = strcspn(text, ",");
    if (n < sizeof name) memcpy(name, text, n);
    const struct zq_scheme *scheme;
    if (zq_scheme_parse(&scheme, name, NULL) || !is_uniform(scheme))
        return zq_fail(err, ZQ_EINVAL, "\"%.60s\" is no scheme for a single module: w8a8, w4a8, w8a16, w4a16 or float (w3 and w2 for studies), "
                       "with a group as in w4a8,k:128 if need be", text);
    out->bits = scheme->ffn;
    return text[n] ? zq_grouping_parse(&out->group, text + n + 1, err) : ZQ_OK;
}

static size_t default_k_group(int w_bits, size_t n_cols)
{
    for (size_t i = 0; w_bits < 8 && i < ZQ_LEN(default_k_groups); i++)
        if (n_cols % default_k_groups[i] == 0) return default_k_groups[i];
    return 0;
}

struct zq_layout zq_recipe_layout(struct zq_recipe recipe, size_t n_rows, size_t n_cols, enum zq_dtype weights)
{
    struct zq_layout layout = {.spec = {recipe.bits.w, recipe.bits.a, 0}, .scale_dtype = weights};
    if (recipe.bits.w == 16) {
        layout.spec = ZQ_SPEC_FLOAT;
        return layout;
    }
    switch (recipe.group.kind) {
    case ZQ_BY_DEFAULT:
        layout.spec.k_group = default_k_group(recipe.bits.w, n_cols);
        layout.fell_back = recipe.bits.w < 8 && !layout.spec.k_group;
        break;
    case ZQ_BY_CHANNEL: break;
    case ZQ_BY_ROWS: layout.row_groups = recipe.group.n < n_rows ? recipe.group.n : 0; break;
    case ZQ_BY_K:
        layout.fell_back = n_cols % recipe.group.n != 0;
        if (!layout.fell_back) layout.spec.k_group = recipe.group.n;
    }
    if (recipe.bits.w == 8 && !layout.spec.k_group) layout.scale_dtype = ZQ_F32;
    return layout;
}

void zq_layout_group_text(const struct zq_layout *layout, char *out)
{
    if (layout->row_groups) snprintf(out, 32, "rows:%zu", layout->row_groups);
    else zq_spec_group_text(layout->spec, out);
}

size_t zq_row_group(size_t r, size_t n_rows, size_t n_groups)
{
    return (size_t)((uint64_t)r * n_groups / n_rows);
}

size_t zq_row_group_begin(size_t g, size_t n_rows, size_t n_groups)
{
    /* the smallest r with floor(r * n_groups / n_rows) >= g */
    return (size_t)(((uint64_t)g * n_rows + n_groups - 1) / n_groups);
}
