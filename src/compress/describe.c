/* From the plan to quantization_config. The hard part is what the file does not show: transformers builds maps of its own (a tied
 * head, a pooler), and a target "Linear" would take them in if they were not excepted by name. */
#include "compress/plan.h"

#include "base/alloc.h"
#include "compress/choose.h"

#include <string.h>

/* A list of the modules as config.json must describe them. */
struct description {
    struct zq_compressed_module *items;
    size_t n, capacity;
    char **names; /* [n_names] those that are no module of the list */
    size_t n_names, names_capacity;
};

static bool describe(struct description *d, const char *name, const char *class_name, struct zq_spec spec)
{
    if (!zq_grow((void **)&d->items, d->n, &d->capacity, sizeof *d->items)) return false;
    d->items[d->n++] = (struct zq_compressed_module){name, class_name, spec};
    return true;
}

/* A linear map that stays float and that config.json must except from "all linear maps", unless it is described already.
 * Takes `name`; NULL is out of memory. */
static bool describe_other(struct description *d, char *name)
{
    for (size_t i = 0; name && i < d->n; i++) {
        if (strcmp(d->items[i].name, name)) continue;
        zq_free(name);
        return true;
    }
    if (name && zq_grow((void **)&d->names, d->n_names, &d->names_capacity, sizeof *d->names)) {
        d->names[d->n_names++] = name;
        return describe(d, name, "Linear", ZQ_SPEC_FLOAT);
    }
    zq_free(name);
    return false;
}

static struct zq_spec spec_of(const struct description *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (!strcmp(d->items[i].name, name)) return d->items[i].spec;
    return ZQ_SPEC_FLOAT;
}

/* Maps that transformers builds for this model although the quantizer does not know them as modules: a tied head, a pooler that
 * the file lacks, heads of other tasks; and lm_head, as transformers 5 renames the head of every decoder while it loads. */
static bool describe_others(struct description *d, const struct zq_plan *plan)
{
    const struct zq_tensor_names *names = &plan->config.arch->names;
    const char *head = zq_head_name(&plan->config), *prefix = plan->modules.prefix;
    const struct zq_item *tokens = zq_plan_item(plan, &plan->modules.items[0]);
    bool ok = true;
    if (head && plan->config.tied && tokens->storage == ZQ_STORED_INT) ok = describe(d, head, "Embedding", tokens->layout.spec);
    else if (head) ok = describe_other(d, zq_strdup(head));
    if (ok && head && plan->config.kind == ZQ_DECODER && strcmp(head, "lm_head")) ok = describe(d, "lm_head", "Linear", spec_of(d, head));
    if (ok && plan->config.kind == ZQ_ENCODER) ok = describe_other(d, zq_format("%spooler.dense", prefix));
    for (size_t i = 0; i < plan->n_items && ok; i++) {
        const struct zq_tensor *t = plan->items[i].tensor;
        const size_t n = strlen(t->name), n_prefix = strlen(prefix), suffix = strlen(".weight");
        if (plan->items[i].layer != SIZE_MAX || t->n_dims != 2 || n <= suffix || strcmp(t->name + n - suffix, ".weight")) continue;
        char *name = zq_strndup(t->name, n - suffix);
        const char *below = name && !strncmp(name, prefix, n_prefix) ? name + n_prefix : "";
        const bool table = (names->positions && !strcmp(below, names->positions)) || (names->types && !strcmp(below, names->types));
        if (table) zq_free(name);
        else ok = describe_other(d, name);
    }
    return ok;
}

static bool describe_modules(struct description *d, const struct zq_plan *plan)
{
    bool ok = true;
    for (size_t i = 0; i < plan->modules.n && ok; i++) {
        const struct zq_module *m = &plan->modules.items[i];
        ok = describe(d, m->name, m->class_name, zq_plan_item(plan, m)->layout.spec);
    }
    return ok && describe_others(d, plan);
}

static zq_status no_memory(const struct zq_plan *plan, zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the description of %zu modules", plan->ckpt->dir, plan->modules.n);
}

/* What we write must mean to our own reader what was planned. */
static zq_status check_readable(const struct zq_plan *plan, const struct description *d, zq_error *err)
{
    json_t *config = json_pack("{s:O}", "quantization_config", plan->quantization_config);
    if (!config) return no_memory(plan, err);
    struct zq_compressed *c;
    zq_status st = zq_compressed_parse(&c, config, "the planned config.json", err);
    for (size_t i = 0; i < d->n && !st; i++) {
        struct zq_spec spec;
        enum zq_storage storage;
        st = zq_compressed_find(c, d->items[i].name, d->items[i].class_name, &spec, &storage, err);
        if (!st && (!zq_spec_equal(spec, d->items[i].spec) || storage != zq_compressed_storage(spec, d->items[i].class_name)))
            st = zq_fail(err, ZQ_EUNSUPPORTED, "%s: the scheme of module %s cannot be described in config.json", plan->ckpt->dir, d->items[i].name);
    }
    zq_compressed_free(c);
    json_decref(config);
    return st;
}

zq_status zq_plan_describe(struct zq_plan *plan, zq_error *err)
{
    struct description d = {0};
    zq_status st = describe_modules(&d, plan) ? ZQ_OK : no_memory(plan, err);
    if (!st) st = zq_compressed_config(&plan->quantization_config, d.items, d.n, err);
    if (!st) st = check_readable(plan, &d, err);
    for (size_t i = 0; i < d.n_names; i++) zq_free(d.names[i]);
    zq_free(d.names);
    zq_free(d.items);
    return st;
}
