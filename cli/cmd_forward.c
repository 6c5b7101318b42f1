/* zq forward: logits and hidden states of one sequence, as a safetensors file. */
#include "commands.h"

#include "input.h"
#include "running.h"

#include <stdlib.h>
#include <string.h>

static struct {
    const char *model, *ids, *text, *types, *output;
    bool hidden;
} args;

/* The input as the library wants it; ids and types are malloc'd. */
struct sequence {
    int32_t *ids;   /* [n] */
    uint8_t *types; /* [n] or NULL */
    size_t n;
};

static zq_status tokenize_text(struct sequence *s, const zq_model *model, zq_error *err)
{
    const zq_tokenizer *tokenizer = zq_model_tokenizer(model);
    if (!tokenizer) return fail(err, ZQ_EUNSUPPORTED, "%s: there is no tokenizer in this directory; give --ids", args.model);
    zq_ids ids = {0};
    zq_status st = zq_tokenizer_encode(tokenizer, args.text, strlen(args.text), NULL, 0, true, &ids, err);
    if (!st && !ids.n) st = fail(err, ZQ_EINVAL, "--text gives no ids");
    if (!st && !(s->ids = malloc(ids.n * sizeof *s->ids))) st = fail(err, ZQ_ENOMEM, "out of memory for %zu ids", ids.n);
    if (!st) {
        memcpy(s->ids, ids.ids, ids.n * sizeof *s->ids);
        s->n = ids.n;
    }
    zq_ids_free(&ids);
    return st;
}

static zq_status read_types(struct sequence *s, zq_error *err)
{
    int32_t *types;
    size_t n;
    zq_status st = ids_parse(args.types, "--types", UINT8_MAX, &types, &n, err);
    if (!st && n != s->n) st = fail(err, ZQ_EINVAL, "--types has %zu values, but the sequence has %zu tokens", n, s->n);
    if (!st && !(s->types = malloc(n))) st = fail(err, ZQ_ENOMEM, "out of memory for %zu types", n);
    for (size_t i = 0; !st && i < n; i++) s->types[i] = (uint8_t)types[i];
    free(types);
    return st;
}

static zq_status read_sequence(struct sequence *s, const zq_model *model, zq_error *err)
{
    zq_status st = args.ids ? ids_parse(args.ids, "--ids", INT32_MAX, &s->ids, &s->n, err) : tokenize_text(s, model, err);
    if (!st && !s->n) st = fail(err, ZQ_EINVAL, "--ids is empty");
    if (!st && args.types) st = read_types(s, err);
    return st;
}

static zq_status forward(zq_error *err)
{
    if (!args.ids == !args.text) return fail(err, ZQ_EINVAL, "exactly one of --ids and --text is needed");
    if (!args.output) return fail(err, ZQ_EINVAL, "an output is needed: -o FILE.safetensors");
    zq_model *model;
    struct sequence s = {0};
    const zq_open_options options = open_options();
    zq_status st = zq_model_open(&model, args.model, &options, err);
    if (st) return st;
    st = read_sequence(&s, model, err);
    if (!st) st = zq_forward_save(model, s.ids, s.types, s.n, args.hidden, settings.n_threads, args.output, err);
    if (!st) say("%zu tokens -> %s", s.n, args.output);
    free(s.ids);
    free(s.types);
    zq_model_close(model);
    return st;
}

static const struct option options[] = {
    {"ids", 0, "1,2,3", read_text, &args.ids, "the sequence as ids, used as given"},
    {"text", 't', "T", read_text, &args.text, "the sequence as text; special tokens are added"},
    {"types", 0, "0,0,1", read_text, &args.types, "token types, one per token (BERT; default: all 0)"},
    {"hidden", 0, NULL, read_flag, &args.hidden, "also write hidden.0 (embeddings) .. hidden.N (what the head receives)"},
    {"output", 'o', "FILE", read_text, &args.output, "safetensors file to write"},
    DEVICE_OPTION,
    MATH_OPTIONS,
    {0},
};

const struct command cmd_forward = {
    .name = "forward",
    .summary = "writes logits and hidden states of one sequence",
    .usage = "MODEL --ids 1,2,3|--text T [--types 0,0,1] [--hidden] -o OUT.safetensors",
    .details = "The file holds logits, F32 [tokens, vocabulary] (classifiers: [1, labels]; sentence encoders have none), and with --hidden\n"
               "hidden.N, F32 [tokens, width].",
    .example = "zq forward models/novels --text 'It was a dark night' --hidden -o night.safetensors",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = forward,
};
