/* zq generate: continues a prompt, and prints the text as it comes. Tokens are not characters: bytes of one character may be
 * spread over several, and some tokenizers drop the space of the first word. So the new ids are decoded together with those
 * before them, and only what whole characters add is printed; the output is exactly the decoded text of all new ids. */
#include "commands.h"

#include "input.h"
#include "json.h"
#include "running.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *model, *prompt;
    size_t n;
    float temperature, top_p;
    int top_k;
    uint64_t seed;
    bool json;
} args = {.n = 128};

/* Prompt tokens of one step: what a session takes by default. */
enum { PROMPT_STEP = 512 };

struct generation {
    const zq_model *model;
    const zq_tokenizer *tokenizer;
    zq_session *session;
    zq_ids prompt;
    int32_t *ids;          /* [n], new ones, without the one that ends the text */
    size_t n;
    size_t context, shown; /* ids[shown, n) are not printed yet; ids[context, shown) are decoded with them */
    const char *stop;      /* why it ended: "end", "count", "length" */
    double prompt_s, decode_s;
    size_t n_steps;        /* of one token */
};

/* Prints what ids[shown, n) add to the text. Unless `all`, waits while the last character is incomplete. */
static zq_status show_text(struct generation *g, bool all, zq_error *err)
{
    static const char incomplete[] = "\xef\xbf\xbd"; /* U+FFFD: how decoders write bytes that are no character yet */
    const int32_t *from = g->ids + g->context;
    char *before, *text = NULL;
    size_t n_before, n;
    zq_status st = zq_tokenizer_decode(g->tokenizer, from, g->shown - g->context, true, &before, &n_before, err);
    if (!st) st = zq_tokenizer_decode(g->tokenizer, from, g->n - g->context, true, &text, &n, err);
    if (!st && (all || n < 3 || memcmp(text + n - 3, incomplete, 3))) {
        if (n > n_before) fwrite(text + n_before, 1, n - n_before, stdout);
        g->context = g->shown;
        g->shown = g->n;
        st = flush_output(err);
    }
    zq_free(before);
    zq_free(text);
    return st;
}

static zq_status encode_prompt(struct generation *g, const char *text, size_t n_bytes, size_t max_length, zq_error *err)
{
    const zq_status st = zq_tokenizer_encode(g->tokenizer, text, n_bytes, NULL, 0, true, &g->prompt, err);
    if (st) return st;
    if (!g->prompt.n) return fail(err, ZQ_EINVAL, "the prompt is empty, and the tokenizer of this model adds no token to begin with");
    if (g->prompt.n <= max_length) return ZQ_OK;
    return fail(err, ZQ_ELIMIT, "the prompt has %zu tokens, and the limit of the model is %zu", g->prompt.n, max_length);
}

static zq_status process_prompt(struct generation *g, zq_error *err)
{
    const double began = now();
    for (size_t at = 0; at < g->prompt.n;) {
        const size_t n = g->prompt.n - at < PROMPT_STEP ? g->prompt.n - at : PROMPT_STEP;
        const zq_input input = {.ids = g->prompt.ids + at, .n = n};
        const zq_status st = zq_session_step(g->session, &input, 1, err);
        if (st) return st;
        at += n;
    }
    g->prompt_s = now() - began;
    return ZQ_OK;
}

/* The model has just seen the last token: samples up to `most` new ones. */
static zq_status continue_text(struct generation *g, size_t most, zq_error *err)
{
    zq_sampler sampler = {.temperature = args.temperature, .top_k = args.top_k, .top_p = args.top_p, .state = args.seed};
    g->stop = most < args.n ? "length" : "count";
    while (g->n < most) {
        int32_t id;
        zq_status st = zq_session_sample(g->session, &sampler, 1, &id, err);
        if (st) return st;
        if (zq_model_is_end(g->model, id)) {
            g->stop = "end";
            return ZQ_OK;
        }
        g->ids[g->n++] = id;
        if (!args.json) st = show_text(g, false, err);
        if (st || g->n == most) return st;
        const double began = now();
        st = zq_session_step(g->session, &(zq_input){.ids = &id, .n = 1}, 1, err);
        if (st) return st;
        g->decode_s += now() - began;
        g->n_steps++;
    }
    return ZQ_OK;
}

static zq_status print_result(const struct generation *g, const char *prompt, size_t prompt_bytes, zq_error *err)
{
    char *text;
    size_t n_bytes;
    const zq_status st = zq_tokenizer_decode(g->tokenizer, g->ids, g->n, true, &text, &n_bytes, err);
    if (st) return st;
    json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:s, s:o, s:o}",
                          "prompt", json_text(prompt, prompt_bytes), "text", json_text(text, n_bytes),
                          "prompt_ids", json_ids(g->prompt.ids, g->prompt.n), "ids", json_ids(g->ids, g->n),
                          "prompt_tokens", (json_int_t)g->prompt.n, "new_tokens", (json_int_t)g->n, "stop", g->stop,
                          "prompt_tokens_per_s", json_number((double)g->prompt.n / g->prompt_s),
                          "decode_tokens_per_s", json_number((double)g->n_steps / g->decode_s));
    zq_free(text);
    return json_print(o, 0, err);
}

static zq_status run_generation(struct generation *g, const char *prompt, size_t prompt_bytes, zq_error *err)
{
    zq_model_info info;
    zq_model_info_get(g->model, &info);
    g->tokenizer = zq_model_tokenizer(g->model);
    if (info.kind != ZQ_DECODER) return fail(err, ZQ_EUNSUPPORTED, "%s is an encoder (%s): it cannot generate text", args.model, info.arch);
    if (!g->tokenizer) return fail(err, ZQ_EUNSUPPORTED, "%s: there is no tokenizer in this directory", args.model);
    zq_status st = encode_prompt(g, prompt, prompt_bytes, info.max_length, err);
    if (st) return st;

    /* the last new token is never fed back, so there may be one more than there is room for */
    const size_t room = info.max_length - g->prompt.n + 1, most = args.n < room ? args.n : room;
    const zq_session_options options = {.n_threads = settings.n_threads, .max_length = most > 1 ? g->prompt.n + most - 1 : g->prompt.n};
    g->ids = calloc(most + 1, sizeof *g->ids);
    if (!g->ids) return fail(err, ZQ_ENOMEM, "out of memory for %zu ids", most);
    st = zq_session_create(&g->session, g->model, &options, err);
    if (!st) st = process_prompt(g, err);
    if (!st) st = continue_text(g, most, err);
    if (st) return st;
    if (args.json) return print_result(g, prompt, prompt_bytes, err);

    st = show_text(g, true, err);
    putchar('\n');
    if (!st) st = flush_output(err);
    if (!st && !strcmp(g->stop, "length")) say("note: stopped at the model's limit of %zu tokens", info.max_length);
    if (!st) say("prompt: %zu tokens, %.1f tokens/s; new: %zu tokens, %.1f tokens/s", g->prompt.n, (double)g->prompt.n / g->prompt_s, g->n,
                 g->n_steps ? (double)g->n_steps / g->decode_s : 0.0);
    return st;
}

static zq_status generate(zq_error *err)
{
    char *from_stdin = NULL;
    size_t n_bytes = args.prompt ? strlen(args.prompt) : 0;
    zq_status st = ZQ_OK;
    if (args.temperature <= 0 && (args.top_k > 0 || args.top_p > 0)) say("note: --top-k and --top-p change nothing without --temperature");
    if (!args.prompt && isatty(STDIN_FILENO)) return fail(err, ZQ_EINVAL, "a prompt is needed: -p TEXT, or text on standard input");
    if (!args.prompt) st = input_read("-", &from_stdin, &n_bytes, err);
    if (st) return st;

    struct generation g = {0};
    zq_model *model = NULL;
    const zq_open_options options = open_options();
    st = zq_model_open(&model, args.model, &options, err);
    g.model = model;
    if (!st) st = run_generation(&g, args.prompt ? args.prompt : from_stdin, n_bytes, err);
    zq_session_close(g.session);
    zq_model_close(model);
    zq_ids_free(&g.prompt);
    free(g.ids);
    free(from_stdin);
    return st;
}

static const struct option options[] = {
    {"prompt", 'p', "TEXT", read_text, &args.prompt, "what to continue (default: standard input)"},
    {"count", 'n', "N", read_count, &args.n, "new tokens at most (default: 128)"},
    {"temperature", 0, "T", read_real, &args.temperature, "sample from softmax(logits / T) (default: 0, the most likely token)"},
    {"top-k", 0, "K", read_int, &args.top_k, "sample from the K most likely tokens only (default: all)"},
    {"top-p", 0, "P", read_real, &args.top_p, "sample from the most likely tokens that together reach P (default: all)"},
    {"seed", 0, "S", read_seed, &args.seed, "start of the random numbers: the same seed gives the same text (default: 0)"},
    {"json", 0, NULL, read_flag, &args.json, "print one JSON object with text, ids, counts and speeds at the end"},
    DEVICE_OPTION,
    MATH_OPTIONS,
    {0},
};

const struct command cmd_generate = {
    .name = "generate",
    .summary = "continues a text",
    .usage = "MODEL -p TEXT [-n N] [--temperature T] [--top-k K] [--top-p P] [--seed S] [--json]",
    .details = "Prints the continuation as it is made, and stops at the model's end token, after N tokens, or at the model's limit.",
    .example = "zq generate novels-w8a8 -p 'It was a dark night, and the' -n 60 --temperature 0.8 --seed 7",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = generate,
};
