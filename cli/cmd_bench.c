/* zq bench: how fast a model runs here, measured on a directory or on a shape with random weights. */
#include "commands.h"

#include "json.h"
#include "running.h"
#include "size.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 16 };

struct list {
    size_t items[MAX_LIST], n;
    bool given;
};

struct products {
    struct {
        size_t n_tokens, n_cols, n_rows;
    } items[MAX_LIST];
    size_t n;
};

static option_reader read_list, read_products;

static struct {
    const char *model, *shape, *scheme, *group, *embeddings, *weights;
    struct list batch, prompt;
    struct products products;
    size_t decode, n_layers;
    float seconds;
    bool machine, ops, unfused, granularity, json, tune;
} args = {.batch = {.items = {1}, .n = 1}, .prompt = {.items = {128}, .n = 1}, .decode = 32};

/* A number from 1 to 2^24; *at goes behind it. */
static bool take_number(const char **at, size_t *number)
{
    char *end;
    const unsigned long long n = strtoull(*at, &end, 10);
    const bool good = **at >= '0' && **at <= '9' && n && n <= 1u << 24;
    *number = (size_t)n;
    *at = end;
    return good;
}

/* "1,16,64" */
static zq_status read_list(void *target, const char *option, const char *value, zq_error *err)
{
    struct list *list = target;
    list->n = 0;
    list->given = true;
    for (const char *at = value;; at++) {
        size_t n;
        if (!take_number(&at, &n) || (*at && *at != ','))
            return fail(err, ZQ_EINVAL, "%s needs whole numbers with commas between them, such as 1,16, not '%s'", option, value);
        if (list->n == MAX_LIST) return fail(err, ZQ_EINVAL, "%s takes %d numbers at most", option, MAX_LIST);
        list->items[list->n++] = n;
        if (!*at) return ZQ_OK;
    }
}

/* "512x4096x4096,1x4096x32768" */
static zq_status read_products(void *target, const char *option, const char *value, zq_error *err)
{
    struct products *list = target;
    list->n = 0;
    for (const char *at = value;; at++) {
        size_t sizes[3];
        for (int i = 0; i < 3; i++) {
            if (!take_number(&at, &sizes[i]) || (i < 2 ? *at != 'x' : *at && *at != ','))
                return fail(err, ZQ_EINVAL, "%s needs TOKENSxINPUTSxOUTPUTS, such as 512x4096x4096, not '%s'", option, value);
            if (i < 2) at++;
        }
        if (list->n == MAX_LIST) return fail(err, ZQ_EINVAL, "%s takes %d products at most", option, MAX_LIST);
        list->items[list->n].n_tokens = sizes[0];
        list->items[list->n].n_cols = sizes[1];
        list->items[list->n++].n_rows = sizes[2];
        if (!*at) return ZQ_OK;
    }
}

struct output {
    zq_error *err;
    zq_status status; /* of the first row that could not be printed */
    bool titled;
    const char *prefix; /* of names */
};

static void print_json(struct output *out, const zq_bench_row *r)
{
    const char *model = args.shape ? args.shape : args.model, *scheme = !strcmp(out->prefix, "float.") ? "bf16" : args.scheme;
    json_t *o = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:s?, s:i, s:s, s:s, s:s?, s:s?, s:s?, s:I, s:I, s:o}", "name", r->name, "unit", r->unit,
                          "median", json_number(r->median), "best", json_number(r->best), "limit", json_number(r->limit), "share",
                          json_number(r->share), "bound", r->bound, "threads", r->threads, "level", r->level, "math", r->math, "model", model,
                          "scheme", scheme, "group", args.group, "batch", (json_int_t)r->batch,
                          "length", (json_int_t)r->length, "bytes", r->bytes > 0 ? json_integer((json_int_t)r->bytes) : json_null());
    out->status = json_print(o, 0, out->err);
}

static void print_row(void *user, const zq_bench_row *r)
{
    struct output *out = user;
    zq_bench_row row = *r;
    char bytes[SIZE_TEXT], name[96];
    if (out->status || ((args.unfused || args.granularity) && !strcmp(r->name, "memory"))) return; /* of several models it would mean nothing */
    snprintf(name, sizeof name, "%s%s", out->prefix, r->name);
    row.name = name;
    if (args.json) {
        print_json(out, &row);
        return;
    }
    if (!out->titled) printf("%-32s %10s %10s  %-12s %10s %7s\n", "", "median", "best", "unit", "limit", "share");
    out->titled = true;
    printf("%-32s %10.5g %10.5g  %-12s", name, r->median, r->best, r->unit);
    if (isfinite(r->limit)) printf(" %10.5g %5.1f %%  %-11s", r->limit, 100 * r->share, r->bound ? r->bound : "");
    if (r->bytes > 0) printf(" %10s", size_text((uint64_t)r->bytes, bytes));
    putchar('\n');
    out->status = flush_output(out->err);
}

static zq_status open_model(zq_model **model, const char *scheme, zq_error *err)
{
    const zq_open_options open = open_options();
    if (!args.shape) return zq_model_open(model, args.model, &open, err);
    if (args.embeddings && strcmp(args.embeddings, "int8")) return fail(err, ZQ_EINVAL, "--embeddings is int8, not '%s'", args.embeddings);
    const zq_shape_options shape = {.open = open, .scheme = scheme, .group = args.group, .embeddings_int8 = args.embeddings != NULL,
                                    .n_layers = args.n_layers};
    return zq_shape_open(model, args.shape, &shape, err);
}

struct run {
    const zq_model *model;
    const zq_model *plain; /* --unfused of a shape: the same with float weights; NULL: none */
    const zq_machine *machine;
    struct output out;
};

/* Rows of one batch and length. */
static zq_status bench_one(struct run *run, size_t batch, size_t prompt, zq_error *err)
{
    zq_bench_options o = {.n_threads = settings.n_threads, .batch = batch, .prompt = prompt, .decode = args.decode, .seconds = (double)args.seconds,
                          .machine = run->machine, .ops = args.ops, .together = args.unfused, .row = print_row, .user = &run->out};
    zq_status st = ZQ_OK;
    if (run->plain) {
        run->out.prefix = "float.";
        st = zq_bench_model(run->plain, &o, err);
        run->out.prefix = "";
    }
    o.unfused = args.unfused;
    if (!st && o.unfused) st = zq_bench_model(run->model, &o, err);
    o.unfused = false;
    if (!st) st = zq_bench_model(run->model, &o, err);
    return st ? st : run->out.status;
}

/* Rows of every batch and length. */
static zq_status bench_all(struct run *run, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t b = 0; b < args.batch.n && !st; b++)
        for (size_t p = 0; p < args.prompt.n && !st; p++) st = bench_one(run, args.batch.items[b], args.prompt.items[p], err);
    return st;
}

/* A row "error" in percent. */
static zq_status print_error_of(const zq_model *weights, const char *group, struct output *out, zq_error *err)
{
    double error;
    const zq_status st = zq_rounding_error(weights, args.scheme, group, &error, err);
    const zq_bench_row row = {.name = "error", .unit = "%", .median = 100 * error, .best = 100 * error, .limit = NAN, .share = NAN, .level = "c",
                              .math = "exact", .threads = 1};
    if (!st) print_row(out, &row);
    return st;
}

/* The same shape with scales shared by ever fewer weights: time, and the error of rounding beside it. */
static zq_status bench_granularities(struct run *run, zq_error *err)
{
    static const char *const groups[] = {"tensor", "rows:48", "channel", "k:128", "k:64", "k:32"};
    const zq_open_options open = {.n_threads = settings.n_threads, .header_only = true, .note = print_note};
    zq_model *weights = NULL;
    zq_status st = args.weights ? zq_model_open(&weights, args.weights, &open, err) : ZQ_OK;
    for (size_t g = 0; g < sizeof groups / sizeof *groups && !st; g++) {
        zq_model *model = NULL;
        char prefix[24];
        snprintf(prefix, sizeof prefix, "%s.", groups[g]);
        args.group = groups[g];
        run->out.prefix = prefix;
        if (weights) st = print_error_of(weights, groups[g], &run->out, err);
        if (!st) st = open_model(&model, args.scheme, err);
        run->model = model;
        if (!st) st = bench_all(run, err);
        zq_model_close(model);
    }
    zq_model_close(weights);
    return st;
}

static zq_status bench_products(struct run *run, zq_error *err)
{
    zq_product_bench_options o = {.n_threads = settings.n_threads, .scheme = args.scheme, .group = args.group, .seconds = (double)args.seconds,
                                  .machine = run->machine, .row = print_row, .user = &run->out};
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < args.products.n && !st; i++) {
        o.n_tokens = args.products.items[i].n_tokens;
        o.n_cols = args.products.items[i].n_cols;
        o.n_rows = args.products.items[i].n_rows;
        st = zq_bench_product(&o, err);
        if (!st) st = run->out.status;
    }
    return st;
}

static bool on_this_processor(void)
{
    return !settings.device || !strcmp(settings.device, "cpu");
}

static zq_status check_args(zq_error *err)
{
    if (!args.model && !args.shape && !args.machine && !args.products.n)
        return fail(err, ZQ_EINVAL, "MODEL is missing: zq bench MODEL, or --shape NAME, or --machine");
    const bool of_models = args.embeddings || args.n_layers || args.granularity || args.unfused || args.ops || args.weights || args.tune ||
                           args.batch.given || args.prompt.given;
    if (args.products.n && (args.model || args.shape || of_models || !on_this_processor()))
        return fail(err, ZQ_EINVAL, "--product is measured by itself, on this processor: it goes with --scheme, --group and --machine");
    if (args.products.n) return ZQ_OK;
    if (args.model && args.shape) return fail(err, ZQ_EINVAL, "--shape %s needs no model, but '%s' is given", args.shape, args.model);
    if (!args.shape && (args.scheme || args.group || args.embeddings || args.n_layers || args.granularity))
        return fail(err, ZQ_EINVAL, "--scheme, --group, --embeddings, --layers and --granularity go with --shape");
    if (args.granularity && (args.group || args.unfused || args.ops))
        return fail(err, ZQ_EINVAL, "--granularity chooses groups itself, and cannot be combined with --group, --unfused or --ops");
    if (args.weights && !args.granularity) return fail(err, ZQ_EINVAL, "--weights goes with --granularity");
    if (args.unfused && args.ops) return fail(err, ZQ_EINVAL, "--ops lists the operators of the fused step: it cannot be combined with --unfused");
    return ZQ_OK;
}

/* Of a step of the largest batch and length. */
static size_t most_tokens(void)
{
    enum { ENOUGH = 16384 };
    size_t most = 1;
    for (size_t b = 0; b < args.batch.n; b++)
        for (size_t p = 0; p < args.prompt.n; p++)
            if (args.batch.items[b] * args.prompt.items[p] > most) most = args.batch.items[b] * args.prompt.items[p];
    return most < ENOUGH ? most : ENOUGH;
}

static zq_status bench(zq_error *err)
{
    zq_machine *machine = NULL;
    zq_model *model = NULL, *plain = NULL;
    struct run run = {.out = {.err = err, .prefix = ""}};
    zq_status st = check_args(err);
    const bool one = (args.model || args.shape) && !args.granularity;
    const bool here = on_this_processor();
    /* first: its memory is not a model's */
    if (!st && (here || args.machine)) st = zq_machine_measure(&machine, settings.n_threads, (double)args.seconds / 10, err);
    if (!st && one) st = open_model(&model, args.scheme, err);
    if (!st && args.tune && model) st = zq_model_tune(model, most_tokens(), err);
    if (!st && args.unfused && args.shape) st = open_model(&plain, "bf16", err);
    run.model = model;
    run.plain = plain;
    run.machine = machine;
    if (!st && args.machine) zq_machine_report(machine, print_row, &run.out);
    if (!st) st = run.out.status;
    if (!st && one) st = bench_all(&run, err);
    if (!st) st = bench_products(&run, err);
    if (!st && args.granularity) st = bench_granularities(&run, err);
    zq_machine_free(machine);
    zq_model_close(plain);
    zq_model_close(model);
    return st;
}

static const struct option options[] = {
    {"shape", 0, "NAME", read_text, &args.shape, "a model of this size with random weights: bert-base, bert-large, minilm, gpt-350m, gpt-1.3b,\n"
                                                 "                               gpt-j-6b, gpt-neox-20b or tinyllama-1.1b"},
    {"scheme", 0, "S", read_text, &args.scheme, "of the shape: w8a8 (default), w4a8, w4/8a8, ..., or float weights: bf16, f16, f32"},
    {"group", 0, "G", read_text, &args.group, "of the shape: channel, rows:N or k:N, as for quantize"},
    {"embeddings", 0, "int8", read_text, &args.embeddings, "token embedding and head of the shape in INT8"},
    {"layers", 0, "N", read_count, &args.n_layers, "only N layers of the shape"},
    {"batch", 'b', "N,..", read_list, &args.batch, "sequences at the same time (default: 1); a row for each of several"},
    {"prompt", 'p', "N,..", read_list, &args.prompt, "tokens of a prompt, or of a sequence of an encoder (default: 128)"},
    {"decode", 'n', "N", read_count, &args.decode, "tokens after the prompt (default: 32)"},
    {"seconds", 0, "S", read_real, &args.seconds, "measure each row at least this long (default: 2)"},
    {"ops", 0, NULL, read_flag, &args.ops, "instead: time, bytes and share of the limit of each fused operator of a step"},
    {"unfused", 0, NULL, read_flag, &args.unfused, "compare float weights, a step with separate quantize and dequantize passes, and the fused one"},
    {"tune", 0, NULL, read_flag, &args.tune, "first find the fastest kernels of the GPU for these products; they are kept for later runs"},
    {"product", 0, "TxKxN,..", read_products, &args.products, "instead of a model: maps of T tokens, K inputs and N outputs"},
    {"granularity", 0, NULL, read_flag, &args.granularity, "compare scales for a tensor, 48 groups of rows, each row, 128, 64 and 32 input channels"},
    {"weights", 0, "MODEL", read_text, &args.weights, "with --granularity: also the rounding error of this float model's weights"},
    DEVICE_OPTION,
    MATH_OPTIONS,
    {"machine", 0, NULL, read_flag, &args.machine, "first, or alone: the limits of this machine"},
    {"json", 0, NULL, read_flag, &args.json, "print one JSON object a line"},
    {0},
};

const struct command cmd_bench = {
    .name = "bench",
    .summary = "measures how fast a model runs on this machine",
    .usage = "MODEL | --shape NAME | --product TxKxN,.. | --machine [--scheme S] [--group G] [--batch N,..] [--prompt N,..] [--decode N]\n"
             "                [--ops] [--json]",
    .details = "Rows: encode (encoders), prompt, decode (at that context) and firstN (N new tokens, the prompt before them included); median and\n"
               "best of repeated runs on random ids; last the peak of resident memory, on a GPU what lies there, too. The limit is what this\n"
               "machine, measured in the same run, could do at best: integer products at their peak, or weights and caches at the bandwidth of the\n"
               "memory they lie in.",
    .example = "zq bench --shape gpt-350m --scheme w4a8 --prompt 512 --decode 32",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .operand_optional = true,
    .run = bench,
};
