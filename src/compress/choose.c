/* Rules address modules by their whole name, and only modules: a rule that matches nothing is an error rather than silence,
 * because a mistyped name would otherwise show only as a model that is larger than expected. */
#include "compress/choose.h"

#include "base/alloc.h"
#include "base/pattern.h"

#include <string.h>

struct chooser {
    struct zq_recipe *recipes; /* [modules->n] */
    const struct zq_modules *modules;
    const struct zq_config *config;
    const struct zq_checkpoint *ckpt;
    struct zq_grouping group; /* of rules that name none */
    struct zq_remarks *remarks;
};

const char *zq_head_name(const struct zq_config *config)
{
    return config->kind == ZQ_DECODER ? config->arch->head : config->kind == ZQ_ENCODER_MLM ? "cls.predictions.decoder" : NULL;
}

static struct zq_recipe recipe_by_scheme(const struct zq_module *m, const struct zq_scheme *scheme, struct zq_grouping group, bool embeddings)
{
    if ((m->part == ZQ_PART_TOKENS || m->part == ZQ_PART_HEAD) && embeddings)
        return (struct zq_recipe){{8, 16}, {ZQ_BY_CHANNEL, 0}};
    if (!m->in_block) return (struct zq_recipe){{16, 16}, group};
    const struct zq_bits bits = m->part == ZQ_PART_FFN ? scheme->ffn : m->part == ZQ_PART_QKV ? scheme->qkv : scheme->attention;
    return (struct zq_recipe){bits, group};
}

/* The length of a tensor's name without ".weight". */
static size_t stem_length(const char *name)
{
    const size_t n = strlen(name), suffix = strlen(".weight");
    return n > suffix && !strcmp(name + n - suffix, ".weight") ? n - suffix : n;
}

static bool is_module(const struct zq_modules *modules, const char *name, size_t n)
{
    for (size_t i = 0; i < modules->n; i++)
        if (!strncmp(modules->items[i].name, name, n) && !modules->items[i].name[n]) return true;
    return false;
}

/* A tensor of at least `min_dims` dimensions that the pattern matches and that is no module's weight; *out NULL if there is none. */
static zq_status find_other(const struct zq_tensor **out, const struct chooser *c, const struct zq_pattern *pattern, size_t min_dims, zq_error *err)
{
    *out = NULL;
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < c->ckpt->n_tensors && !st && !*out; i++) {
        const struct zq_tensor *t = c->ckpt->tensors[i];
        const size_t n = stem_length(t->name);
        if (t->n_dims < min_dims || is_module(c->modules, t->name, n)) continue;
        char *stem = zq_strndup(t->name, n);
        bool matched = false;
        st = stem ? zq_pattern_match(pattern, stem, &matched, err) : zq_fail(err, ZQ_ENOMEM, "no memory for a tensor name");
        zq_free(stem);
        if (matched) *out = t;
    }
    return st;
}

/* What to say of a rule that matches no module. */
static zq_status refuse_unmatched(const struct chooser *c, const char *regex, const struct zq_pattern *pattern, bool is_float, zq_error *err)
{
    if (is_float) return zq_remark(c->remarks, err, "The rule \"%.200s\" leaves modules in float, but matches none.", regex);
    const struct zq_modules *modules = c->modules;
    const char *head = zq_head_name(c->config);
    bool matches_head = false;
    zq_status st = head ? zq_pattern_match(pattern, head, &matches_head, err) : ZQ_OK;
    if (st) return st;
    if (matches_head && c->config->tied)
        return zq_fail(err, ZQ_EINVAL, "the rule \"%.200s\" matches only %s, which is the token embedding of this model: name %s instead", regex,
                       head, modules->items[0].name);
    const struct zq_tensor *other;
    st = find_other(&other, c, pattern, 0, err);
    if (st) return st;
    if (other)
        return zq_fail(err, ZQ_EUNSUPPORTED, "the rule \"%.150s\" matches %.150s, which is neither a linear map nor the token embedding: "
                       "no reader could load it quantized", regex, other->name);
    return zq_fail(err, ZQ_EINVAL, "the rule \"%.200s\" matches no module; names are like %s", regex, modules->items[modules->n - 1].name);
}

static zq_status apply_rule(const struct chooser *c, const zq_rule *rule, zq_error *err)
{
    struct zq_recipe recipe;
    struct zq_pattern *pattern = NULL;
    if (!rule->regex || !rule->scheme) return zq_fail(err, ZQ_EINVAL, "a rule has no regex or no scheme");
    zq_status st = zq_recipe_parse(&recipe, rule->scheme, c->group, err);
    if (!st) st = zq_pattern_compile(&pattern, rule->regex, true, err);
    bool any = false;
    for (size_t i = 0; i < c->modules->n && !st; i++) {
        bool matched;
        st = zq_pattern_match(pattern, c->modules->items[i].name, &matched, err);
        if (matched) c->recipes[i] = recipe;
        any |= matched;
    }
    const bool is_float = recipe.bits.w == 16;
    const struct zq_tensor *other = NULL;
    if (!st && !any) st = refuse_unmatched(c, rule->regex, pattern, is_float, err);
    else if (!st && !is_float) st = find_other(&other, c, pattern, 2, err);
    if (other)
        st = zq_remark(c->remarks, err, "The rule \"%.150s\" also matches %.200s, which readers load only as it is: it stays %s.", rule->regex,
                       other->name, zq_dtype_name(other->dtype));
    zq_pattern_free(pattern);
    return st;
}

/* A lookup has no activations that could be quantized. */
static zq_status settle_embedding(struct zq_recipe *recipe, const struct zq_module *m, struct zq_remarks *remarks, zq_error *err)
{
    if (strcmp(m->class_name, "Embedding") || recipe->bits.w == 16 || recipe->bits.a == 16) return ZQ_OK;
    recipe->bits.a = 16;
    return zq_remark(remarks, err, "%.200s is an embedding, which looks rows up and multiplies nothing: it becomes w%da16.", m->name, recipe->bits.w);
}

zq_status zq_choose_recipes(struct zq_recipe *recipes, const zq_quantize_options *options, const struct zq_modules *modules,
                            const struct zq_config *config, const struct zq_checkpoint *ckpt, struct zq_remarks *remarks, zq_error *err)
{
    struct chooser c = {.recipes = recipes, .modules = modules, .config = config, .ckpt = ckpt, .remarks = remarks};
    const struct zq_scheme *scheme;
    zq_status st = zq_scheme_parse(&scheme, options->scheme, err);
    if (!st) st = zq_grouping_parse(&c.group, options->group, err);
    for (size_t i = 0; i < modules->n && !st; i++) recipes[i] = recipe_by_scheme(&modules->items[i], scheme, c.group, options->embeddings_int8);
    for (size_t r = 0; r < options->n_rules && !st; r++) st = apply_rule(&c, &options->rules[r], err);
    bool any = false;
    for (size_t i = 0; i < modules->n && !st; i++) {
        st = settle_embedding(&recipes[i], &modules->items[i], remarks, err);
        any |= recipes[i].bits.w != 16;
    }
    if (!st && !any) st = zq_fail(err, ZQ_EINVAL, "%s: the rules leave every module in float, so there is nothing to quantize", ckpt->dir);
    return st;
}
