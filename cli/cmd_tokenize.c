/* zq tokenize: text to ids and back. All of standard input is one text, line ends included, unless --nul separates several. */
#include "commands.h"

#include "input.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *model;
    bool decode, no_special, keep_special, nul, json;
} args;

static zq_status print_ids(const zq_ids *ids, zq_error *err)
{
    if (args.json) return json_print(json_ids(ids->ids, ids->n), 0, err);
    for (size_t i = 0; i < ids->n; i++) printf(i ? " %d" : "%d", (int)ids->ids[i]);
    putchar('\n');
    return flush_output(err);
}

static zq_status encode_text(const zq_tokenizer *tokenizer, const char *text, size_t n_bytes, zq_error *err)
{
    zq_ids ids = {0};
    zq_status st = zq_tokenizer_encode(tokenizer, text, n_bytes, NULL, 0, !args.no_special, &ids, err);
    if (!st) st = print_ids(&ids, err);
    zq_ids_free(&ids);
    return st;
}

static zq_status decode_line(const zq_tokenizer *tokenizer, const struct records *r, zq_error *err)
{
    char what[40], *text = NULL;
    int32_t *ids;
    size_t n, n_bytes;
    snprintf(what, sizeof what, "line %zu", r->number);
    if (strlen(r->text) != r->n_bytes) return fail(err, ZQ_EINVAL, "%s: a NUL byte among the ids", what);
    zq_status st = ids_parse(r->text, what, INT32_MAX, &ids, &n, err);
    if (!st) st = zq_tokenizer_decode(tokenizer, ids, n, !args.keep_special, &text, &n_bytes, err);
    if (!st && args.json) {
        st = json_print(json_text(text, n_bytes), 0, err);
    } else if (!st) {
        fwrite(text, 1, n_bytes, stdout);
        putchar(args.nul ? 0 : '\n');
        st = flush_output(err);
    }
    zq_free(text);
    free(ids);
    return st;
}

static zq_status each_record(const zq_tokenizer *tokenizer, zq_error *err)
{
    struct records r = {0};
    /* lines of ids end with a newline even where texts end with NUL */
    const int delimiter = args.decode ? '\n' : 0;
    bool more;
    zq_status st = records_next(&r, delimiter, &more, err);
    while (!st && more) {
        st = args.decode ? decode_line(tokenizer, &r, err) : encode_text(tokenizer, r.text, r.n_bytes, err);
        if (!st) st = records_next(&r, delimiter, &more, err);
    }
    records_free(&r);
    return st;
}

static zq_status tokenize(zq_error *err)
{
    zq_tokenizer *tokenizer;
    zq_status st = zq_tokenizer_open(&tokenizer, args.model, err);
    if (st) return st;
    if (args.decode || args.nul) {
        st = each_record(tokenizer, err);
    } else {
        char *text;
        size_t n_bytes;
        st = input_read("-", &text, &n_bytes, err);
        if (!st) st = encode_text(tokenizer, text, n_bytes, err);
        free(text);
    }
    zq_tokenizer_close(tokenizer);
    return st;
}

static const struct option options[] = {
    {"decode", 'd', NULL, read_flag, &args.decode, "lines of ids in, texts out"},
    {"no-special", 0, NULL, read_flag, &args.no_special, "do not add special tokens such as [CLS] and <s>"},
    {"keep-special", 0, NULL, read_flag, &args.keep_special, "keep special tokens in decoded text"},
    {"nul", '0', NULL, read_flag, &args.nul, "texts are ended by NUL: several may be given, line ends belong to them"},
    {"json", 0, NULL, read_flag, &args.json, "print a JSON array (decoding: string) for each text"},
    {0},
};

const struct command cmd_tokenize = {
    .name = "tokenize",
    .summary = "turns text into ids, or ids into text",
    .usage = "MODEL [--decode] < text",
    .details = "MODEL is a model directory, a folder that holds only tokenizer files, or one tokenizer file. Without --nul all of standard\n"
               "input is one text, line ends included; its ids are printed on one line. --decode reads one list of ids per line.",
    .example = "printf 'Hello, world!' | zq tokenize models/novels | zq tokenize models/novels --decode",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = tokenize,
};
