/* zq eval: perplexity of a decoder on a text, and how far its predictions are from another model's. */
#include "commands.h"

#include "input.h"
#include "json.h"
#include "progress.h"
#include "running.h"
#include "size.h"
#include "study.h"

#include <stdio.h>
#include <stdlib.h>

static struct {
    const char *model, *text, *against;
    struct study_args study;
    size_t window, limit;
    bool json;
} args;

static bool show_windows(void *user, size_t done, size_t total)
{
    char detail[64];
    snprintf(detail, sizeof detail, "window %zu of %zu", done, total);
    return progress_show(user, (double)done, (double)total, detail);
}

static zq_status print_result(const zq_eval_result *r, zq_error *err)
{
    if (args.json) {
        json_t *o = json_pack("{s:I, s:o, s:o}", "tokens", (json_int_t)r->n_tokens, "nll", json_number(r->nll), "ppl", json_number(r->ppl));
        if (o && args.against) json_object_update_new(o, json_pack("{s:o, s:o}", "kl", json_number(r->kl), "top1", json_number(r->top1)));
        if (o) json_object_update_new(o, json_pack("{s:o, s:I}", "tokens_per_s", json_number(r->tokens_per_s), "bytes", (json_int_t)r->bytes));
        return json_print(o, 0, err);
    }
    char bytes[SIZE_TEXT];
    printf("tokens predicted  %zu\n", r->n_tokens);
    printf("nll               %.5f nats per token\n", r->nll);
    printf("perplexity        %.3f\n", r->ppl);
    if (args.against) {
        printf("KL divergence     %.6f nats from %s\n", r->kl, args.against);
        printf("same best token   %.2f %%\n", 100 * r->top1);
    }
    printf("speed             %.0f tokens/s\n", r->tokens_per_s);
    printf("tensors           %s\n", size_text(r->bytes, bytes));
    return flush_output(err);
}

static zq_status evaluate(const zq_model *model, const zq_model *against, const char *text, size_t n_bytes, zq_error *err)
{
    struct progress progress;
    zq_eval_result result;
    const zq_eval_options options = {.n_threads = settings.n_threads, .window = args.window, .limit = args.limit, .against = against,
                                     .progress = show_windows, .user = &progress};
    progress_begin(&progress, "evaluating");
    const zq_status st = zq_eval_text(model, text, n_bytes, &options, &result, err);
    progress_end(&progress);
    return st ? st : print_result(&result, err);
}

static zq_status eval(zq_error *err)
{
    if (!args.text) return fail(err, ZQ_EINVAL, "a text is needed: --text FILE");
    zq_model *model = NULL, *against = NULL;
    char *text;
    size_t n_bytes;
    const zq_open_options yardstick = yardstick_options();
    zq_status st = input_read(args.text, &text, &n_bytes, err);
    if (!st) st = study_open(&model, args.model, &args.study, err);
    if (!st && args.against) st = zq_model_open(&against, args.against, &yardstick, err);
    if (!st) st = evaluate(model, against, text, n_bytes, err);
    zq_model_close(against);
    zq_model_close(model);
    free(text);
    return st;
}

static const struct option options[] = {
    {"text", 't', "FILE", read_text, &args.text, "UTF-8 text; - is standard input"},
    {"window", 0, "N", read_count, &args.window, "ids per window (default: 256, or the model's limit if smaller)"},
    {"limit", 0, "IDS", read_count, &args.limit, "use the first IDS ids of the text only"},
    {"against", 0, "MODEL2", read_text, &args.against, "also print KL(MODEL2 || MODEL), and how often the best token is the same"},
    STUDY_OPTIONS(args.study, "MODEL"),
    {"json", 0, NULL, read_flag, &args.json, "print one JSON object"},
    DEVICE_OPTION,
    MATH_OPTIONS,
    {0},
};

const struct command cmd_eval = {
    .name = "eval",
    .summary = "measures perplexity on a text, and the distance to another model",
    .usage = "MODEL --text FILE [--window N] [--limit IDS] [--against MODEL2] [--json]",
    .details = "The ids of the text are cut into windows, an unfinished last one is dropped; in each window every token but the first is\n"
               "predicted from those before it. nll is the mean negative log-likelihood, kl the mean KL divergence, both in nats.",
    .example = "zq eval novels-w8a8 --text models/novels/heldout.txt --against models/novels",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = eval,
};
