/* zq compare: what quantizing did to a model, in one table. Every value is measured on both models in the same run, so that it can be
 * given with its spread over the sequences of the text. */
#include "commands.h"

#include "input.h"
#include "json.h"
#include "progress.h"
#include "running.h"
#include "size.h"
#include "study.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *models[2], *text;
    struct study_args study;
    size_t window, limit;
    bool json;
} args;

/* ---- JSON */

static json_t *spread_json(const zq_spread *s)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "mean", json_number(s->mean), "error", json_number(s->error), "min", json_number(s->min), "max",
                     json_number(s->max));
}

static json_t *model_json(const zq_comparison *c, const zq_model *model, int index)
{
    zq_model_info info;
    zq_model_info_get(model, &info);
    json_t *o = json_pack("{s:o, s:I, s:o}", "model", json_text(args.models[index], strlen(args.models[index])), "bytes",
                          (json_int_t)info.file_bytes, "bits_per_weight", json_number(info.bits_per_weight));
    if (o && c->kind == ZQ_DECODER)
        json_object_update_new(o, json_pack("{s:o, s:o}", "nll", spread_json(&c->nll[index]), "ppl", json_number(exp(c->nll[index].mean))));
    return o;
}

static json_t *layers_json(const zq_comparison *c)
{
    json_t *layers = json_array();
    for (size_t l = 0; layers && l <= c->n_layers; l++) {
        json_t *o = json_pack("{s:I, s:o, s:o}", "layer", (json_int_t)l, "relative_error", json_number(c->layers[l].relative), "cosine",
                              json_number(c->layers[l].cosine));
        if (!json_array_append_new(layers, o)) continue;
        json_decref(layers);
        layers = NULL;
    }
    return layers;
}

static zq_status print_as_json(const zq_comparison *c, const zq_model *const *models, zq_error *err)
{
    json_t *o = json_pack("{s:o, s:o, s:I, s:I}", "original", model_json(c, models[0], 0), "quantized", model_json(c, models[1], 1), "sequences",
                          (json_int_t)c->n_sequences, "tokens", (json_int_t)c->n_tokens);
    if (o && c->kind == ZQ_DECODER) json_object_set_new(o, "nll_difference", spread_json(&c->nll_difference));
    if (o && !isnan(c->kl.mean))
        json_object_update_new(o, json_pack("{s:o, s:o}", "kl", spread_json(&c->kl), "top1", spread_json(&c->top1)));
    if (o && c->kind != ZQ_DECODER)
        json_object_update_new(o, json_pack("{s:o, s:o}", "cosine", spread_json(&c->cosine), "distance", json_number(1 - c->cosine.mean)));
    if (o && json_object_set_new(o, "layers", layers_json(c))) {
        json_decref(o);
        o = NULL;
    }
    return json_print(o, 1, err);
}

/* ---- text */

static const char row_format[] = "%-18s%-22s%-22s%s\n";

/* "0.00123 +- 0.00004"; out has room for 64 characters. */
static const char *spread_text(const zq_spread *s, double unit, const char *format, char *out)
{
    char mean[24], error[24];
    snprintf(mean, sizeof mean, format, unit * s->mean);
    snprintf(error, sizeof error, format, unit * s->error);
    snprintf(out, 64, isnan(s->error) ? "%s" : "%s +- %s", mean, error + (error[0] == '+'));
    return out;
}

static void print_models(const zq_comparison *c, const zq_model *const *models)
{
    zq_model_info info[2];
    char cell[2][64], size[SIZE_TEXT], difference[128] = "", error[64] = "";
    for (int i = 0; i < 2; i++) {
        zq_model_info_get(models[i], &info[i]);
        snprintf(cell[i], sizeof cell[i], "%s", size_text(info[i].file_bytes, size));
    }
    printf(row_format, "", "original", "quantized", "difference");
    snprintf(difference, sizeof difference, "%.2fx smaller", (double)info[0].file_bytes / (double)(info[1].file_bytes ? info[1].file_bytes : 1));
    printf(row_format, "tensors", cell[0], cell[1], difference);
    for (int i = 0; i < 2; i++) snprintf(cell[i], sizeof cell[i], "%.3f", info[i].bits_per_weight);
    printf(row_format, "bits per weight", cell[0], cell[1], "");
    if (c->kind != ZQ_DECODER) return;
    printf(row_format, "nll", spread_text(&c->nll[0], 1, "%.4f", cell[0]), spread_text(&c->nll[1], 1, "%.4f", cell[1]),
           spread_text(&c->nll_difference, 1, "%+.5f", difference));
    for (int i = 0; i < 2; i++) snprintf(cell[i], sizeof cell[i], "%.3f", exp(c->nll[i].mean));
    /* d exp(x) = exp(x) dx carries the error of the difference over to the ratio */
    const double ratio = exp(c->nll_difference.mean);
    if (!isnan(c->nll_difference.error)) snprintf(error, sizeof error, " +- %.3g", 100 * ratio * c->nll_difference.error);
    snprintf(difference, sizeof difference, "%+.3g%s %%", 100 * (ratio - 1), error);
    printf(row_format, "perplexity", cell[0], cell[1], difference);
}

static zq_status print_table(const zq_comparison *c, const zq_model *const *models, zq_error *err)
{
    char text[64];
    const char *unit = c->kind == ZQ_DECODER ? "windows" : "lines";
    print_models(c, models);
    printf("\nover %zu %s (%zu tokens), +- the standard error of the mean:\n", c->n_sequences, unit, c->n_tokens);
    if (!isnan(c->kl.mean)) {
        printf("%-18s%s nats, %.6f to %.6f\n", "KL divergence", spread_text(&c->kl, 1, "%.6f", text), c->kl.min, c->kl.max);
        printf("%-18s%s %%\n", c->kind == ZQ_DECODER ? "same best token" : "same label", spread_text(&c->top1, 100, "%.2f", text));
    }
    if (c->kind != ZQ_DECODER) {
        printf("%-18s%s, least %.6f\n", "cosine", spread_text(&c->cosine, 1, "%.6f", text), c->cosine.min);
        printf("%-18s%.6f\n", "1 - cosine", 1 - c->cosine.mean);
    }
    printf("\n%-18s%-22s%s\n", "hidden states", "relative error", "cosine");
    for (size_t l = 0; l <= c->n_layers; l++) {
        char name[40];
        snprintf(name, sizeof name, l ? "layer %zu" : "embeddings", l);
        printf("%-18s%-22.6f%.6f\n", name, c->layers[l].relative, c->layers[l].cosine);
    }
    return flush_output(err);
}

/* ---- the command */

static bool show_share(void *user, size_t done, size_t total)
{
    return progress_show(user, (double)done, (double)total, "");
}

static zq_status measure(const zq_model *const *models, const char *text, size_t n_bytes, zq_error *err)
{
    struct progress progress;
    zq_comparison c = {0};
    const zq_compare_options options = {.n_threads = settings.n_threads, .window = args.window, .limit = args.limit, .progress = show_share,
                                        .user = &progress};
    progress_begin(&progress, "comparing");
    zq_status st = zq_compare(models[0], models[1], text, n_bytes, &options, &c, err);
    progress_end(&progress);
    if (!st) st = (args.json ? print_as_json : print_table)(&c, models, err);
    zq_comparison_free(&c);
    return st;
}

static zq_status compare(zq_error *err)
{
    if (!args.text) return fail(err, ZQ_EINVAL, "a text is needed: --text FILE");
    zq_model *models[2] = {NULL, NULL};
    char *text;
    size_t n_bytes;
    const zq_open_options yardstick = yardstick_options();
    zq_status st = input_read(args.text, &text, &n_bytes, err);
    if (!st) st = zq_model_open(&models[0], args.models[0], &yardstick, err);
    if (!st) st = study_open(&models[1], args.models[1], &args.study, err);
    if (!st) st = measure((const zq_model *const[]){models[0], models[1]}, text, n_bytes, err);
    for (int i = 0; i < 2; i++) zq_model_close(models[i]);
    free(text);
    return st;
}

static const struct option options[] = {
    {"text", 't', "FILE", read_text, &args.text, "UTF-8 text; - is standard input"},
    {"window", 0, "N", read_count, &args.window, "decoders: ids per window (default: 256, or the models' limit if smaller)"},
    {"limit", 0, "IDS", read_count, &args.limit, "use the first IDS ids of the text only (encoders: whole lines)"},
    STUDY_OPTIONS(args.study, "QUANTIZED"),
    {"json", 0, NULL, read_flag, &args.json, "print one JSON object"},
    MATH_OPTIONS,
    {0},
};

const struct command cmd_compare = {
    .name = "compare",
    .summary = "measures what quantizing did to a model, layer by layer and at its output",
    .usage = "ORIGINAL QUANTIZED --text FILE [--window N] [--limit IDS] [--json]",
    .details = "Decoders: perplexity of both, KL(ORIGINAL || QUANTIZED), how often both find the same token most likely. Encoders: cosine between\n"
               "the embeddings of each line of the text. All: relative error and cosine of the hidden states after each layer.",
    .example = "zq compare models/novels novels-w8a8 --text models/novels/heldout.txt",
    .options = options,
    .operand = &args.models[0],
    .operand_name = "ORIGINAL",
    .operand2 = &args.models[1],
    .operand2_name = "QUANTIZED",
    .run = compare,
};
