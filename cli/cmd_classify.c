/* zq classify: class and probability of each line of standard input, as one JSON object per line. */
#include "commands.h"

#include "json.h"
#include "lines.h"
#include "running.h"

#include <math.h>
#include <string.h>

static struct {
    const char *model;
} args;

/* Softmax of the winner: 1 / sum of exp(x - max). */
static double probability(const float *logits, size_t n, size_t best)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)logits[best]);
    return 1 / sum;
}

static json_t *describe(const zq_model *model, const float *logits, size_t n)
{
    if (n == 1) return json_pack("{s:o}", "score", json_number((double)logits[0]));
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    const char *label = zq_model_label(model, best);
    return json_pack("{s:o, s:o, s:o}", "label", json_text(label, strlen(label)), "score", json_number(probability(logits, n, best)), "logits",
                     json_floats(logits, n));
}

static zq_status classify_line(void *user, zq_session *session, struct line line, zq_error *err)
{
    const zq_model *model = user;
    zq_model_info info;
    zq_model_info_get(model, &info);
    const zq_input input = {.ids = line.ids, .types = line.types, .n = line.n};
    const zq_status st = zq_session_step(session, &input, 1, err);
    return st ? st : json_print(describe(model, zq_session_logits(session, NULL), info.n_outputs), 0, err);
}

static zq_status classify(zq_error *err)
{
    zq_model *model;
    const zq_open_options options = open_options();
    zq_status st = zq_model_open(&model, args.model, &options, err);
    if (st) return st;
    zq_model_info info;
    zq_model_info_get(model, &info);
    if (info.kind == ZQ_ENCODER_CLASSIFY) st = lines_answer(model, args.model, true, classify_line, model, err);
    else st = fail(err, ZQ_EUNSUPPORTED, "%s is no classifier: it has no sequence-classification head", args.model);
    zq_model_close(model);
    return st;
}

static const struct option options[] = {
    DEVICE_OPTION,
    MATH_OPTIONS,
    {0},
};

const struct command cmd_classify = {
    .name = "classify",
    .summary = "prints the class of each line of standard input",
    .usage = "MODEL < lines",
    .details = "Prints one JSON object per line: {\"label\", \"score\", \"logits\"}, score being the probability of the label; models with one\n"
               "output (regression) give {\"score\"}. A TAB in a line separates a pair of texts.",
    .example = "echo 'a thoroughly delightful film' | zq classify sentiment-model",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = classify,
};
