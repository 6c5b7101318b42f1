/* zq inspect: what a model directory holds. Reads headers only, so it answers at once for models of any size; --ranges runs the model. */
#include "commands.h"

#include "json.h"
#include "ranges_text.h"
#include "size.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

static struct {
    const char *model;
    bool json, ranges;
    struct ranges_request request; /* with ranges */
} args;

static const char *kind_text(zq_model_kind kind)
{
    switch (kind) {
    case ZQ_DECODER: return "decoder";
    case ZQ_ENCODER: return "encoder";
    case ZQ_ENCODER_MLM: return "encoder with language-model head";
    case ZQ_ENCODER_CLASSIFY: return "classifier";
    }
    return "unknown";
}

static json_t *module_json(const zq_module_info *m)
{
    return json_pack("{s:o, s:I, s:I, s:s, s:s, s:s, s:I, s:b}", "name", json_text(m->name, strlen(m->name)), "rows", (json_int_t)m->n_rows, "cols",
                     (json_int_t)m->n_cols, "dtype", m->dtype, "scheme", m->scheme, "group", m->group, "bytes", (json_int_t)m->bytes, "in_block",
                     (int)m->in_block);
}

static zq_status print_as_json(const zq_model *model, const zq_model_info *info, zq_error *err)
{
    json_t *modules = json_array();
    for (size_t i = 0; modules && i < info->n_modules; i++) {
        zq_module_info m;
        const zq_status st = zq_model_module(model, i, &m, err);
        if (st) {
            json_decref(modules);
            return st;
        }
        if (json_array_append_new(modules, module_json(&m))) {
            json_decref(modules);
            modules = NULL;
        }
    }
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:o, s:o}", "architecture", info->arch, "kind",
                          kind_text(info->kind), "layers", (json_int_t)info->n_layers, "width", (json_int_t)info->width, "heads",
                          (json_int_t)info->n_heads, "kv_heads", (json_int_t)info->n_kv_heads, "head_dim", (json_int_t)info->head_dim, "ffn_width",
                          (json_int_t)info->ffn_width, "vocab", (json_int_t)info->vocab, "max_length", (json_int_t)info->max_length, "outputs",
                          (json_int_t)info->n_outputs, "quantized", (int)info->quantized, "parameters", (json_int_t)info->n_parameters, "file_bytes",
                          (json_int_t)info->file_bytes, "fp16_bytes", (json_int_t)info->fp16_bytes, "bits_per_weight",
                          json_number(info->bits_per_weight), "modules", modules);
    return json_print(o, 1, err);
}

static void print_summary(const zq_model *model, const zq_model_info *info)
{
    char file[SIZE_TEXT], fp16[SIZE_TEXT];
    printf("%s: %s, %s%s\n", args.model, info->arch, kind_text(info->kind), info->quantized ? ", quantized" : "");
    printf("  layers            %zu, width %zu, feed-forward %zu\n", info->n_layers, info->width, info->ffn_width);
    printf("  heads             %zu of %zu dimensions", info->n_heads, info->head_dim);
    printf(info->n_kv_heads == info->n_heads ? "\n" : ", %zu for keys and values\n", info->n_kv_heads);
    printf("  vocabulary        %zu, tokenizer %s\n", info->vocab, zq_model_tokenizer(model) ? "present" : "absent");
    printf("  length limit      %zu tokens\n", info->max_length);
    if (info->kind == ZQ_ENCODER_CLASSIFY) printf("  labels            %zu\n", info->n_outputs);
    printf("  parameters        %.4g million\n", (double)info->n_parameters * 1e-6);
    printf("  tensors           %s, %.2fx smaller than FP16 (%s)\n", size_text(info->file_bytes, file),
           info->file_bytes ? (double)info->fp16_bytes / (double)info->file_bytes : 1.0, size_text(info->fp16_bytes, fp16));
    printf("  bits per weight   %.3f in the blocks\n\n", info->bits_per_weight);
}

static zq_status print_modules(const zq_model *model, const zq_model_info *info, zq_error *err)
{
    struct table table = {.name_title = "module", .text_title = {"rows", "cols", "stored", "scheme", "group"}, .bytes_title = {"size"}};
    zq_status st = ZQ_OK;
    for (size_t i = 0; !st && i < info->n_modules; i++) {
        zq_module_info m;
        st = zq_model_module(model, i, &m, err);
        struct table_row *row = st ? NULL : table_add(&table, m.name);
        if (!row) {
            st = st ? st : fail(err, ZQ_ENOMEM, "out of memory for a table of %zu modules", info->n_modules);
            break;
        }
        snprintf(row->text[0], TABLE_CELL, "%zu", m.n_rows);
        snprintf(row->text[1], TABLE_CELL, "%zu", m.n_cols);
        snprintf(row->text[2], TABLE_CELL, "%s", m.dtype);
        snprintf(row->text[3], TABLE_CELL, "%s", m.scheme);
        snprintf(row->text[4], TABLE_CELL, "%s", m.group);
        row->bytes[0] = m.bytes;
    }
    if (!st && !table_print(&table, stdout)) st = fail(err, ZQ_ENOMEM, "out of memory for a table of %zu modules", info->n_modules);
    table_free(&table);
    return st;
}

static zq_status check_args(zq_error *err)
{
    const struct ranges_request *r = &args.request;
    const bool used = r->text || r->picture || r->regex || r->window || r->limit;
    if (args.ranges && !r->text) return fail(err, ZQ_EINVAL, "--ranges needs a text: --text FILE");
    if (!args.ranges && used) return fail(err, ZQ_EINVAL, "--text, --output, --module, --window and --limit belong to --ranges");
    args.request.json = args.json;
    return ZQ_OK;
}

static zq_status inspect(zq_error *err)
{
    zq_model *model = NULL;
    const zq_open_options options = {.n_threads = settings.n_threads, .header_only = !args.ranges, .note = print_note};
    zq_status st = check_args(err);
    if (!st) st = zq_model_open(&model, args.model, &options, err);
    if (st) return st;
    zq_model_info info;
    zq_model_info_get(model, &info);
    if (args.ranges) {
        st = ranges_show(model, &args.request, err);
    } else if (args.json) {
        st = print_as_json(model, &info, err);
    } else {
        print_summary(model, &info);
        st = print_modules(model, &info, err);
    }
    zq_model_close(model);
    return st ? st : flush_output(err);
}

static const struct option options[] = {
    {"json", 0, NULL, read_flag, &args.json, "print one JSON object, every module by itself"},
    {"ranges", 0, NULL, read_flag, &args.ranges, "run the model: ranges of activations by token and of weights by row"},
    {"text", 't', "FILE", read_text, &args.request.text, "with --ranges: UTF-8 text; - is standard input"},
    {"output", 'o', "FILE", read_text, &args.request.picture, "with --ranges: also draw them, an SVG file"},
    {"module", 0, "REGEX", read_text, &args.request.regex, "with --ranges: of these linear maps (default: attention output projections)"},
    {"window", 0, "N", read_count, &args.request.window, "with --ranges: ids per window (default: 256, or the model's limit if smaller)"},
    {"limit", 0, "IDS", read_count, &args.request.limit, "with --ranges: use the first IDS ids of the text only"},
    {0},
};

const struct command cmd_inspect = {
    .name = "inspect",
    .summary = "shows architecture, modules, schemes and sizes of a model",
    .usage = "MODEL [--json] [--ranges --text FILE [-o SVG] [--module REGEX]]",
    .details = "Sizes are those of tensors as stored. Layers that agree in everything are shown as one row.\n"
               "--ranges shows why weights need a scale for each row and activations one for each token: how far the largest range of either is\n"
               "above the smallest, and how many of the 16 codes of INT4 a row is left with when the whole matrix has one scale.",
    .example = "zq inspect novels-w8a8",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = inspect,
};
