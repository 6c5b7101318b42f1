/* Making a plan. Items are ordered by block, whatever the order of the source files, so that a shard ends where a block ends
 * and a job that was stopped loses at most one shard. */
#include "compress/plan.h"

#include "base/alloc.h"
#include "compress/choose.h"
#include "compress/lesson.h"
#include "model/weights.h"
#include "quant/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static zq_status no_memory(const struct zq_plan *plan, zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a plan of %zu tensors", plan->ckpt->dir, plan->ckpt->n_tensors);
}

/* The block that a tensor belongs to by its name: prefix, "h.", number, "."; SIZE_MAX outside the blocks. */
static size_t layer_of(const struct zq_plan *plan, const char *name)
{
    const char *const *patterns = plan->config.arch->names.linear;
    const char *pattern = NULL;
    for (size_t r = 0; r < ZQ_N_LINEARS && !pattern; r++) pattern = patterns[r];
    const size_t n_prefix = strlen(plan->modules.prefix), n_stem = (size_t)(strstr(pattern, "%zu") - pattern);
    if (strncmp(name, plan->modules.prefix, n_prefix) || strncmp(name + n_prefix, pattern, n_stem)) return SIZE_MAX;
    char *end;
    const char *digits = name + n_prefix + n_stem;
    if (*digits < '0' || *digits > '9') return SIZE_MAX;
    const unsigned long long layer = strtoull(digits, &end, 10);
    return *end == '.' && layer < plan->config.n_layers ? (size_t)layer : SIZE_MAX;
}

/* Outside the blocks first, then block by block; within each as in the files. */
static zq_status list_items(struct zq_plan *plan, zq_error *err)
{
    const struct zq_checkpoint *ckpt = plan->ckpt;
    plan->items = zq_alloc_array(ckpt->n_tensors, sizeof *plan->items);
    if (!plan->items) return no_memory(plan, err);
    for (size_t part = 0; part <= plan->config.n_layers; part++) {
        for (size_t i = 0; i < ckpt->n_tensors; i++) {
            const size_t layer = layer_of(plan, ckpt->tensors[i]->name);
            if (layer + 1 != part) continue; /* SIZE_MAX + 1 is 0 */
            plan->items[plan->n_items++] = (struct zq_item){.tensor = ckpt->tensors[i], .layer = layer, .layout.spec = ZQ_SPEC_FLOAT};
        }
    }
    return ZQ_OK;
}

static struct zq_item *item_of(struct zq_plan *plan, const struct zq_tensor *tensor)
{
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].tensor == tensor) return &plan->items[i];
    return NULL;
}

const struct zq_item *zq_plan_item(const struct zq_plan *plan, const struct zq_module *module)
{
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].module == module) return &plan->items[i];
    return NULL;
}

/* Finds and checks every module's weight, also of those that stay float: a model that lacks one cannot run. */
static zq_status assign_modules(struct zq_plan *plan, const struct zq_recipe *recipes, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < plan->modules.n && !st; i++) {
        const struct zq_module *m = &plan->modules.items[i];
        struct zq_stored stored;
        st = zq_stored_find(&stored, m, plan->ckpt, NULL, err);
        if (st) break;
        struct zq_item *item = item_of(plan, stored.weight);
        item->module = m;
        item->layout = zq_recipe_layout(recipes[i], m->n_rows, m->n_cols, stored.weight->dtype);
        item->storage = zq_compressed_storage(item->layout.spec, m->class_name);
    }
    return st;
}

/* One remark for each row length that a K-group does not divide. */
static zq_status remark_fallbacks(struct zq_plan *plan, const struct zq_recipe *recipes, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < plan->n_items && !st; i++) {
        const struct zq_item *first = &plan->items[i];
        if (!first->layout.fell_back) continue;
        const struct zq_grouping group = recipes[first->module - plan->modules.items].group;
        size_t n = 0, earlier = 0;
        for (size_t j = 0; j < plan->n_items; j++) {
            const struct zq_item *item = &plan->items[j];
            if (!item->layout.fell_back || item->module->n_cols != first->module->n_cols) continue;
            if (recipes[item->module - plan->modules.items].group.n != group.n) continue;
            n++;
            earlier += j < i;
        }
        if (earlier) continue;
        char asked[48] = "No default group (64, 32)";
        if (group.kind == ZQ_BY_K) snprintf(asked, sizeof asked, "A group of %zu does not", group.n);
        st = zq_remark(&plan->remarks, err, "%s divide%s %zu input channels: one scale per row in %zu map%s, the first is %.200s.", asked,
                       group.kind == ZQ_BY_K ? "" : "s", first->module->n_cols, n, n == 1 ? "" : "s", first->module->name);
    }
    return st;
}

/* Appends a tensor to write; false if out of memory. */
static bool add_part(struct zq_item *item, const char *module, const char *suffix, enum zq_dtype dtype, size_t n_dims, const size_t *shape)
{
    struct zq_tensor *t = &item->parts[item->n_parts];
    *t = (struct zq_tensor){.name = zq_format("%s%s", module, suffix), .dtype = dtype, .n_dims = n_dims, .n_values = 1};
    if (!t->name) return false;
    item->n_parts++;
    for (size_t d = 0; d < n_dims; d++) t->n_values *= t->shape[d] = shape[d];
    t->n_bytes = t->n_values * zq_dtype_bytes(dtype);
    item->bytes_out += t->n_bytes;
    return true;
}

static bool add_parts(struct zq_item *item)
{
    const struct zq_tensor *t = item->tensor;
    const struct zq_module *m = item->module;
    if (item->storage == ZQ_STORED_FLOAT) return add_part(item, t->name, "", t->dtype, t->n_dims, t->shape);
    const size_t rows = m->n_rows, cols = m->n_cols;
    const struct zq_spec spec = item->layout.spec;
    bool ok;
    if (item->storage == ZQ_STORED_INT) /* in the orientation of the float weight: vLLM transposes what is named ".weight" */
        ok = add_part(item, m->name, ".weight", ZQ_I8, 2, m->conv1d ? (size_t[]){cols, rows} : (size_t[]){rows, cols});
    else
        ok = add_part(item, m->name, ".weight_packed", ZQ_I32, 2, (size_t[]){rows, zq_packed_words(cols, spec.w_bits)});
    ok = ok && add_part(item, m->name, ".weight_scale", item->layout.scale_dtype, 2, (size_t[]){rows, zq_spec_n_groups(spec, cols)});
    if (item->storage == ZQ_STORED_PACKED) ok = ok && add_part(item, m->name, ".weight_shape", ZQ_I64, 1, (size_t[]){2});
    return ok;
}

/* A file may hold the tied head once more. Beside a quantized embedding that copy would be most of the bytes, and no reader
 * looks at it. */
static zq_status leave_out_tied_head(struct zq_plan *plan, zq_error *err)
{
    const char *head = zq_head_name(&plan->config);
    const struct zq_item *tokens = zq_plan_item(plan, &plan->modules.items[0]);
    if (!head || !plan->config.tied || tokens->storage == ZQ_STORED_FLOAT) return ZQ_OK;
    char *name = zq_format("%s.weight", head);
    if (!name) return no_memory(plan, err);
    struct zq_item *copy = item_of(plan, zq_checkpoint_find(plan->ckpt, name));
    zq_free(name);
    if (!copy) return ZQ_OK;
    zq_free(copy->parts[0].name);
    copy->n_parts = 0;
    copy->bytes_out = 0;
    return zq_remark(&plan->remarks, err, "%s is left out: this model's head is its token embedding, which is stored once.", copy->tensor->name);
}

/* transformers ties the codes of embedding and head, but looks up the scales of each under its own name. */
static bool repeat_tied_scale(struct zq_plan *plan)
{
    const char *head = zq_head_name(&plan->config);
    struct zq_item *tokens = item_of(plan, zq_plan_item(plan, &plan->modules.items[0])->tensor);
    if (!head || !plan->config.tied || tokens->storage != ZQ_STORED_INT) return true;
    const struct zq_tensor *scale = &tokens->parts[1];
    return add_part(tokens, head, ".weight_scale", scale->dtype, scale->n_dims, scale->shape);
}

static zq_status describe_output(struct zq_plan *plan, zq_error *err)
{
    bool ok = true;
    for (size_t i = 0; i < plan->n_items && ok; i++) ok = add_parts(&plan->items[i]);
    return ok && repeat_tied_scale(plan) ? leave_out_tied_head(plan, err) : no_memory(plan, err);
}

static zq_status normalise_options(struct zq_plan *plan, const zq_quantize_options *options, zq_error *err)
{
    json_t *rules = json_array();
    bool ok = rules != NULL;
    for (size_t i = 0; i < options->n_rules && ok; i++)
        ok = !json_array_append_new(rules, json_sprintf("%s=%s", options->rules[i].regex, options->rules[i].scheme));
    if (ok) {
        plan->options = json_pack("{s:s, s:s, s:O, s:s}", "scheme", options->scheme ? options->scheme : "w8a8", "group",
                                  options->group ? options->group : "default", "rules", rules, "embeddings",
                                  options->embeddings_int8 ? "int8" : "source");
    }
    json_decref(rules);
    return plan->options ? ZQ_OK : no_memory(plan, err);
}

static zq_status refuse_quantized(const struct zq_checkpoint *ckpt, zq_error *err)
{
    static const char *const keys[] = {"quantization_config", "compression_config"};
    for (size_t i = 0; i < ZQ_LEN(keys); i++) {
        const json_t *q = json_object_get(ckpt->config, keys[i]);
        const char *method = json_string_value(json_object_get(q, "quant_method"));
        if (q && !json_is_null(q))
            return zq_fail(err, ZQ_EUNSUPPORTED, "%s is quantized already (%s): quantize the original float model instead", ckpt->dir,
                           method ? method : keys[i]);
    }
    return ZQ_OK;
}

static zq_status open_source(struct zq_plan *plan, const char *model_dir, zq_error *err)
{
    zq_status st = zq_checkpoint_open(&plan->ckpt, model_dir, err);
    if (st) return st;
    char *name = zq_path_join(model_dir, "config.json");
    if (!name) return no_memory(plan, err);
    st = refuse_quantized(plan->ckpt, err);
    if (!st) st = zq_config_read(&plan->config, plan->ckpt->config, name, err);
    if (!st) st = zq_modules_list(&plan->modules, &plan->config, plan->ckpt, err);
    zq_free(name);
    return st;
}

zq_status zq_plan_make(struct zq_plan *plan, const char *model_dir, const zq_quantize_options *options, zq_error *err)
{
    *plan = (struct zq_plan){0};
    struct zq_recipe *recipes = NULL;
    zq_status st = open_source(plan, model_dir, err);
    if (!st && !(recipes = zq_alloc_array(plan->modules.n, sizeof *recipes))) st = no_memory(plan, err);
    if (!st) st = zq_choose_recipes(recipes, options, &plan->modules, &plan->config, plan->ckpt, &plan->remarks, err);
    if (!st) st = zq_lesson_settle(&plan->lesson, options, &plan->config, err);
    if (!st) st = zq_lesson_remark_unused(&plan->remarks, &plan->lesson, options, err);
    if (!st) st = normalise_options(plan, options, err);
    if (!st) st = zq_lesson_describe(plan->options, &plan->lesson, err);
    if (!st) st = list_items(plan, err);
    if (!st) st = assign_modules(plan, recipes, err);
    if (!st) st = remark_fallbacks(plan, recipes, err);
    if (!st) st = describe_output(plan, err);
    if (!st) st = zq_plan_describe(plan, err);
    if (!st) st = zq_plan_cut_shards(plan, err);
    if (!st) st = zq_plan_remark_readers(plan, err);
    zq_free(recipes);
    if (st) zq_plan_free(plan);
    return st;
}

void zq_plan_free(struct zq_plan *plan)
{
    for (size_t i = 0; i < plan->n_items; i++)
        for (size_t p = 0; p < plan->items[i].n_parts; p++) zq_free(plan->items[i].parts[p].name);
    for (size_t s = 0; s < plan->n_shards; s++) zq_free(plan->shards[s].name);
    zq_free(plan->items);
    zq_free(plan->shards);
    zq_remarks_free(&plan->remarks);
    json_decref(plan->options);
    json_decref(plan->quantization_config);
    zq_modules_free(&plan->modules);
    zq_checkpoint_close(plan->ckpt);
    *plan = (struct zq_plan){0};
}

/* Bytes of a tensor with two bytes per value; buffers of integers have no FP16 form and count as they are. */
static uint64_t fp16_bytes(const struct zq_item *item)
{
    if (!item->n_parts) return 0;
    return zq_dtype_is_float(item->tensor->dtype) ? 2 * (uint64_t)item->tensor->n_values : item->tensor->n_bytes;
}

void zq_plan_totals(const struct zq_plan *plan, zq_quantize_totals *out)
{
    *out = (zq_quantize_totals){.n_entries = plan->n_items};
    uint64_t fp16 = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        out->bytes_in += item->tensor->n_bytes;
        out->bytes_out += item->bytes_out;
        fp16 += fp16_bytes(item);
        if (!item->module || !item->module->in_block) continue;
        out->block_values += item->tensor->n_values;
        out->block_bytes += item->bytes_out;
    }
    out->file_ratio = out->bytes_out ? (double)fp16 / (double)out->bytes_out : 0;
    out->block_ratio = out->block_bytes ? 2 * (double)out->block_values / (double)out->block_bytes : 0;
    out->bits_per_weight = out->block_values ? 8 * (double)out->block_bytes / (double)out->block_values : 0;
}
