/* zq quantize: a Hugging Face directory in, a compressed-tensors directory out. Plan, progress and report go to standard error;
 * standard output carries the report with --json, or the plan with --dry-run. */
#include "commands.h"

#include "progress.h"
#include "quantize_text.h"
#include "running.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 64 };

static struct {
    const char *model, *output, *scheme, *group, *embeddings;
    const char *lkd, *method, *data, *loss;
    size_t samples, length, iterations, batch;
    float rate, holdout, time_budget;
    uint64_t memory, seed;
    bool dry_run, force, resume, json;
    zq_rule rules[MAX_RULES];
    size_t n_rules;
} args;

static zq_status add_rule(const char *option, const char *regex, const char *scheme, zq_error *err)
{
    if (args.n_rules == MAX_RULES) return fail(err, ZQ_EINVAL, "%s: more than %d rules; one regex can name several modules: A|B", option, MAX_RULES);
    args.rules[args.n_rules++] = (zq_rule){regex, scheme};
    return ZQ_OK;
}

/* REGEX=SCHEME[,GROUP]: the regex may hold '=', the scheme does not. The target is unused: rules keep their order in args. */
static zq_status read_set(void *target, const char *option, const char *value, zq_error *err)
{
    (void)target;
    const char *equals = strrchr(value, '=');
    if (!equals || equals == value || !equals[1]) return fail(err, ZQ_EINVAL, "%s needs REGEX=SCHEME or REGEX=SCHEME,GROUP, not '%s'", option, value);
    char *regex = strndup(value, (size_t)(equals - value)); /* lives as long as the program */
    return regex ? add_rule(option, regex, equals + 1, err) : fail(err, ZQ_ENOMEM, "%s: out of memory", option);
}

static zq_status read_ignore(void *target, const char *option, const char *value, zq_error *err)
{
    (void)target;
    return add_rule(option, value, "float", err);
}

/* The sign of a rate is free: below 0 it stands for auto. */
static zq_status read_rate(void *target, const char *option, const char *value, zq_error *err)
{
    if (strcmp(value, "auto")) return read_real(target, option, value, err);
    *(float *)target = -1;
    return ZQ_OK;
}

/* 0 would stand for the default. */
static zq_status read_share(void *target, const char *option, const char *value, zq_error *err)
{
    const zq_status st = read_real(target, option, value, err);
    if (st || (*(float *)target > 0 && *(float *)target < 1)) return st;
    return fail(err, ZQ_EINVAL, "%s needs a share above 0 and below 1, not '%s'", option, value);
}

static bool show_progress(void *user, const zq_quantize_progress *p)
{
    return progress_show(user, (double)p->bytes_done, (double)p->n_bytes, p->tensor ? p->tensor : "");
}

static zq_status check_args(zq_error *err)
{
    if (!args.output) return fail(err, ZQ_EINVAL, "an output is needed: -o OUT");
    if (args.embeddings && strcmp(args.embeddings, "int8")) return fail(err, ZQ_EINVAL, "--embeddings is int8, not '%s'", args.embeddings);
    if (args.force && args.resume) return fail(err, ZQ_EINVAL, "--force starts anew and --resume continues: give one of them");
    return ZQ_OK;
}

static void print_json_report(const zq_quantize_report *report)
{
    const char *json = zq_quantize_report_json(report);
    const size_t n = strlen(json);
    printf(n && json[n - 1] == '\n' ? "%s" : "%s\n", json);
}

static bool distils(void) { return args.method || (args.lkd && strcmp(args.lkd, "off")); }

/* The plan, as a first pass that writes nothing. */
static zq_status plan(zq_quantize_options options, zq_error *err)
{
    zq_quantize_report *report;
    options.dry_run = true;
    if (!args.dry_run) options.note = NULL; /* the real run repeats them */
    zq_status st = zq_quantize(args.model, args.output, &options, &report, err);
    if (st) return st;
    if (!args.dry_run) {
        st = print_plan(report, distils(), false, stderr, err);
    } else if (args.json) {
        print_json_report(report);
    } else {
        st = print_plan(report, distils(), true, stdout, err);
    }
    zq_quantize_report_free(report);
    return st;
}

static zq_status work(zq_quantize_options options, zq_error *err)
{
    zq_quantize_report *report;
    struct progress progress;
    options.progress = show_progress;
    options.user = &progress;
    progress_begin(&progress, "quantizing");
    progress.uneven = distils(); /* each block that is done tells of the time left */
    const zq_status st = zq_quantize(args.model, args.output, &options, &report, err);
    progress_end(&progress);
    if (st == ZQ_ECANCELLED) return fail(err, st, "stopped; the same command with --resume continues");
    if (st) return st;
    if (args.json) print_json_report(report);
    else if (!settings.quiet) print_report(report, args.output, stderr);
    zq_quantize_report_free(report);
    return ZQ_OK;
}

static zq_status quantize(zq_error *err)
{
    zq_status st = check_args(err);
    if (st) return st;
    const zq_quantize_options options = {
        .scheme = args.scheme,
        .group = args.group,
        .rules = args.rules,
        .n_rules = args.n_rules,
        .embeddings_int8 = args.embeddings != NULL,
        .lkd = args.lkd,
        .method = args.method,
        .data = args.data,
        .samples = args.samples,
        .length = args.length,
        .iterations = args.iterations,
        .batch = args.batch,
        .rate = args.rate,
        .loss = args.loss,
        .holdout = args.holdout,
        .seed = args.seed,
        .time_budget = args.time_budget,
        .device = settings.device,
        .math = running.math,
        .memory_bytes = args.memory,
        .n_threads = settings.n_threads,
        .force = args.force,
        .resume = args.resume,
        .note = print_note,
    };
    if (args.dry_run || !(settings.quiet || args.json)) st = plan(options, err);
    if (!st && !args.dry_run) st = work(options, err);
    return st ? st : flush_output(err);
}

static const struct option options[] = {
    {"output", 'o', "OUT", read_text, &args.output, "directory to write; it appears whole or not at all"},
    {"scheme", 0, "NAME", read_text, &args.scheme, "w8a8 (default), w4a8, w8a16, w4a16, w4/8a8, w4/8a16, w8a8/16; or w3.., w2.. for studies"},
    {"group", 0, "HOW", read_text, &args.group, "channel, rows:N or k:N: weights that share a scale (default: see above)"},
    {"set", 0, "RULE", read_set, NULL, "REGEX=SCHEME[,GROUP] for modules whose whole name matches; the last match wins"},
    {"ignore", 0, "REGEX", read_ignore, NULL, "leave these modules as they are: --set REGEX=float"},
    {"embeddings", 0, "int8", read_text, &args.embeddings, "quantize token embedding and head, one scale per row"},
    {"lkd", 0, "METHOD", read_text, &args.lkd, "off (default), paper, fast or full: let each block learn from its original"},
    {"method", 0, "NAME", read_text, &args.method, "gptq or awq instead: codes by a known method alone, to compare with"},
    {"data", 0, "SOURCES", read_text, &args.data, "self (default), random or FILE, each with :WEIGHT; commas between several"},
    {"samples", 0, "N", read_count, &args.samples, "sequences to learn from"},
    {"length", 0, "T", read_count, &args.length, "tokens of each; for an encoder, of several texts"},
    {"iters", 0, "N", read_count, &args.iterations, "steps of each block"},
    {"batch", 0, "N", read_count, &args.batch, "sequences of a step"},
    {"lr", 0, "X|auto", read_rate, &args.rate, "learning rate; auto tries five on each block"},
    {"loss", 0, "mse|kl", read_text, &args.loss, "distance between the outputs of a block and its original; kl: paper alone"},
    {"holdout", 0, "SHARE", read_share, &args.holdout, "share of the samples that only judge (default 0.1)"},
    {"seed", 0, "S", read_seed, &args.seed, "of samples and their order"},
    {"time-budget", 0, "MIN", read_real, &args.time_budget, "minutes to spend: steps of a block, at most --iters, are measured once to fit"},
    {"device", 0, "D", read_text, &settings.device, "where blocks are distilled: cpu (default), cuda, cuda:N, or cuda-host, a simulated GPU"},
    {"math", 0, "M", read_math, &running.math, "of training: exact (default), or fast: products in BF16, where there are units"},
    {"memory", 0, "SIZE", read_bytes, &args.memory, "bound on resident memory: 512M, 2G, 1.5GiB"},
    {"dry-run", 0, NULL, read_flag, &args.dry_run, "print the plan and stop"},
    {"force", 0, NULL, read_flag, &args.force, "replace an existing OUT: a model, or an empty directory"},
    {"resume", 0, NULL, read_flag, &args.resume, "continue an interrupted run of the same command"},
    {"json", 0, NULL, read_flag, &args.json, "print the report as JSON (also in OUT/zq-report.json)"},
    {0},
};

const struct command cmd_quantize = {
    .name = "quantize",
    .summary = "turns a Hugging Face checkpoint into a quantized one",
    .usage = "MODEL -o OUT [--scheme NAME] [--group HOW] [--set RULE]... [--ignore REGEX]... [options]",
    .details = "A scheme names the bits of weights and activations of all linear maps inside the blocks: w4/8a8 has 4-bit weights in the\n"
               "feed-forward part and 8-bit ones in attention; w8a8/16 leaves the input of Q, K and V in float. 8-bit weights have one scale\n"
               "per output channel, others one for 64 inputs (32 or a whole row where 64 does not divide), unless --group says otherwise.\n"
               "OUT is a compressed-tensors directory with config, tokenizer, zq-report.json, and zq-report.html for people.",
    .example = "zq quantize models/novels -o novels-w4 --scheme w4/8a8 --ignore 'h\\.0\\..*'",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = quantize,
};
