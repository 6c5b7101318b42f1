/* Writing a quantization_config. What must hold: a reader that knows nothing of us finds for each module exactly its scheme, and
 * for modules that we do not know (heads, poolers of other model classes) none. vLLM compares fused layers by their members'
 * names, so patterns end in the member's name; Python's re.match anchors only the start, so they carry a '$'. */
#include "checkpoint/compressed.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* A release whose keys all readers in use accept; what it would read is what is written here. */
#define CONFIG_VERSION "0.10.2"

enum zq_storage zq_compressed_storage(struct zq_spec spec, const char *class_name)
{
    if (spec.w_bits == 16) return ZQ_STORED_FLOAT;
    if (spec.w_bits == 8 && !strcmp(class_name, "Embedding")) return ZQ_STORED_INT; /* transformers loads no packed embedding */
    return spec.w_bits == 8 && spec.a_bits == 8 && !spec.k_group ? ZQ_STORED_INT : ZQ_STORED_PACKED;
}

/* Where a module goes: config_groups[group], the ignore list, or nowhere (no reader would touch it). */
enum { TO_IGNORE = -1, NOWHERE = -2 };

struct place {
    const char *name;
    char *pattern; /* "re:^..$" with "\d+" for each number between dots; equal for the same module of all layers */
    size_t index;  /* of the module */
    long group;
    const char *target; /* what is written for this module: name, pattern, or NULL if another module's target covers it */
};

struct group {
    struct zq_spec spec;
    bool embedding;
    json_t *targets;
};

struct plan {
    struct place *places;  /* [n_modules] */
    struct place **sorted; /* [n_modules], by pattern */
    struct group *groups;  /* [n_groups], room for n_modules */
    size_t n_modules, n_groups;
    json_t *ignore;
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80; }

/* The pattern of a module name; NULL if out of memory. */
static char *generalise(const char *name)
{
    const size_t n = strlen(name);
    char *pattern = zq_alloc(3 * n + 6); /* "7" becomes "\d+", "." becomes "\." */
    if (!pattern) return NULL;
    char *p = pattern;
    memcpy(p, "re:^", 4);
    p += 4;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (is_digit(name[end])) end++;
        if (end > i && (!i || name[i - 1] == '.') && (!name[end] || name[end] == '.')) {
            memcpy(p, "\\d+", 3);
            p += 3;
            i = end;
            continue;
        }
        if (!is_word(name[i])) *p++ = '\\';
        *p++ = name[i++];
    }
    memcpy(p, "$", 2);
    return pattern;
}

/* Assigns groups in order of first appearance, so that the same modules always give the same text. */
static void assign_groups(struct plan *plan, const struct zq_compressed_module *modules)
{
    for (size_t i = 0; i < plan->n_modules; i++) {
        const bool embedding = !strcmp(modules[i].class_name, "Embedding");
        struct place *place = &plan->places[i];
        place->group = embedding ? NOWHERE : TO_IGNORE;
        if (modules[i].spec.w_bits == 16) continue;
        size_t g = 0;
        while (g < plan->n_groups && !(zq_spec_equal(plan->groups[g].spec, modules[i].spec) && plan->groups[g].embedding == embedding)) g++;
        if (g == plan->n_groups) plan->groups[plan->n_groups++] = (struct group){.spec = modules[i].spec, .embedding = embedding};
        place->group = (long)g;
    }
}

static int by_pattern(const void *a, const void *b)
{
    const struct place *x = *(struct place *const *)a, *y = *(struct place *const *)b;
    const int order = strcmp(x->pattern, y->pattern);
    return order ? order : x->index < y->index ? -1 : x->index > y->index;
}

/* One pattern where all layers agree, else each module by its name. */
static void choose_targets(struct plan *plan)
{
    const size_t n = plan->n_modules;
    if (n) qsort(plan->sorted, n, sizeof *plan->sorted, by_pattern);
    for (size_t begin = 0, end; begin < n; begin = end) {
        bool agree = true;
        for (end = begin + 1; end < n && !strcmp(plan->sorted[begin]->pattern, plan->sorted[end]->pattern); end++)
            agree &= plan->sorted[end]->group == plan->sorted[begin]->group;
        if (agree && end - begin > 1) plan->sorted[begin]->target = plan->sorted[begin]->pattern;
        else
            for (size_t i = begin; i < end; i++) plan->sorted[i]->target = plan->sorted[i]->name;
    }
}

/* Fills the target lists; the Linear modules need no names when one group takes all that are not ignored. */
static bool fill_targets(struct plan *plan)
{
    size_t n_linear = 0;
    for (size_t g = 0; g < plan->n_groups; g++) {
        n_linear += !plan->groups[g].embedding;
        if (!(plan->groups[g].targets = json_array())) return false;
    }
    if (!(plan->ignore = json_array())) return false;
    for (size_t i = 0; i < plan->n_modules; i++) {
        const struct place *place = &plan->places[i];
        if (!place->target || place->group == NOWHERE) continue;
        json_t *list = plan->ignore;
        if (place->group >= 0) {
            const struct group *group = &plan->groups[place->group];
            if (!group->embedding && n_linear == 1) continue;
            list = group->targets;
        }
        if (json_array_append_new(list, json_string(place->target))) return false;
    }
    for (size_t g = 0; n_linear == 1 && g < plan->n_groups; g++)
        if (!plan->groups[g].embedding && json_array_append_new(plan->groups[g].targets, json_string("Linear"))) return false;
    return true;
}

static json_t *print_weights(struct zq_spec spec)
{
    json_t *size = spec.k_group ? json_integer((json_int_t)spec.k_group) : json_null();
    if (!size) return NULL;
    return json_pack("{s:i, s:s, s:b, s:s, s:o, s:n, s:b, s:n, s:s, s:{}}", "num_bits", spec.w_bits, "type", "int", "symmetric", 1, "strategy",
                     spec.k_group ? "group" : "channel", "group_size", size, "block_structure", "dynamic", 0, "actorder", "observer", "minmax",
                     "observer_kwargs");
}

static json_t *print_activations(struct zq_spec spec)
{
    if (spec.a_bits != 8) return json_null();
    return json_pack("{s:i, s:s, s:b, s:s, s:n, s:n, s:b, s:n, s:n, s:{}}", "num_bits", 8, "type", "int", "symmetric", 1, "strategy", "token",
                     "group_size", "block_structure", "dynamic", 1, "actorder", "observer", "observer_kwargs");
}

static const char *format_of(const struct group *group)
{
    return zq_compressed_storage(group->spec, group->embedding ? "Embedding" : "Linear") == ZQ_STORED_INT ? "int-quantized" : "pack-quantized";
}

/* Every group names its format: without it the compressed-tensors library infers one from the bits, "int-quantized" for 4-bit
 * weights with INT8 activations, and does not find the packed words. false if out of memory; jansson's setters take a NULL
 * value as a failure. */
static bool add_group(json_t *groups, size_t index, struct group *group)
{
    char *key = zq_format("group_%zu", index);
    json_t *obj = json_object();
    json_t *targets = group->targets;
    group->targets = NULL;
    bool ok = !json_object_set_new(obj, "targets", targets);
    ok = ok && !json_object_set_new(obj, "weights", print_weights(group->spec));
    ok = ok && !json_object_set_new(obj, "input_activations", print_activations(group->spec));
    ok = ok && !json_object_set_new(obj, "output_activations", json_null());
    ok = ok && !json_object_set_new(obj, "format", json_string(format_of(group)));
    if (ok && key) ok = !json_object_set(groups, key, obj);
    json_decref(obj);
    zq_free(key);
    return ok && key;
}

static json_t *print_config(struct plan *plan)
{
    bool mixed = false, study = false;
    for (size_t g = 0; g < plan->n_groups; g++) study |= plan->groups[g].spec.w_bits < 4;
    for (size_t g = 1; g < plan->n_groups; g++) mixed |= strcmp(format_of(&plan->groups[g]), format_of(&plan->groups[0])) != 0;
    json_t *groups = json_object();
    bool ok = groups != NULL;
    for (size_t g = 0; ok && g < plan->n_groups; g++) ok = add_group(groups, g, &plan->groups[g]);
    if (!ok) {
        json_decref(groups);
        return NULL;
    }
    json_t *ignore = plan->ignore;
    plan->ignore = NULL;
    const char *method = study ? ZQ_STUDY_METHOD : "compressed-tensors", *format = mixed ? "mixed-precision" : format_of(&plan->groups[0]);
    return json_pack("{s:s, s:s, s:s, s:n, s:n, s:o, s:o, s:s}", "quant_method", method, "format", format, "quantization_status", "compressed",
                     "global_compression_ratio", "kv_cache_scheme", "ignore", ignore, "config_groups", groups, "version", CONFIG_VERSION);
}

static bool make_plan(struct plan *plan, const struct zq_compressed_module *modules, size_t n)
{
    plan->places = zq_alloc_array(n, sizeof *plan->places);
    plan->sorted = zq_alloc_array(n, sizeof *plan->sorted);
    plan->groups = zq_alloc_array(n, sizeof *plan->groups);
    if (!plan->places || !plan->sorted || !plan->groups) return false;
    for (; plan->n_modules < n; plan->n_modules++) {
        struct place *place = &plan->places[plan->n_modules];
        *place = (struct place){.name = modules[plan->n_modules].name, .index = plan->n_modules};
        if (!(place->pattern = generalise(place->name))) return false;
        plan->sorted[plan->n_modules] = place;
    }
    assign_groups(plan, modules);
    choose_targets(plan);
    return true;
}

static void free_plan(struct plan *plan)
{
    for (size_t i = 0; i < plan->n_modules; i++) zq_free(plan->places[i].pattern);
    for (size_t g = 0; g < plan->n_groups; g++) json_decref(plan->groups[g].targets);
    json_decref(plan->ignore);
    zq_free(plan->places);
    zq_free(plan->sorted);
    zq_free(plan->groups);
}

zq_status zq_compressed_config(json_t **out, const struct zq_compressed_module *modules, size_t n, zq_error *err)
{
    *out = NULL;
    struct plan plan = {0};
    bool ok = make_plan(&plan, modules, n);
    if (ok && plan.n_groups) {
        ok = fill_targets(&plan);
        if (ok) ok = (*out = print_config(&plan)) != NULL;
    }
    free_plan(&plan);
    return ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for the quantization_config of %zu modules", n);
}
