/* zq embed: sentence embeddings, one JSON array per line of standard input. */
#include "commands.h"

#include "json.h"
#include "lines.h"
#include "running.h"

#include <stdlib.h>
#include <string.h>

static struct {
    const char *model, *pool;
    bool normalize;
} args;

struct embedder {
    zq_pooling pooling;
    size_t width;
    float *embedding; /* [width] */
};

static zq_status embed_line(void *user, zq_session *session, struct line line, zq_error *err)
{
    const struct embedder *e = user;
    const zq_status st = zq_session_embed(session, line.ids, line.types, line.n, e->pooling, args.normalize, e->embedding, err);
    return st ? st : json_print(json_floats(e->embedding, e->width), 0, err);
}

static zq_status read_pooling(zq_pooling *out, zq_error *err)
{
    *out = ZQ_POOL_AUTO;
    if (!args.pool) return ZQ_OK;
    if (!strcmp(args.pool, "mean")) *out = ZQ_POOL_MEAN;
    else if (!strcmp(args.pool, "cls")) *out = ZQ_POOL_CLS;
    else return fail(err, ZQ_EINVAL, "--pool is mean or cls, not '%s'", args.pool);
    return ZQ_OK;
}

static zq_status embed(zq_error *err)
{
    struct embedder e = {0};
    zq_model *model = NULL;
    const zq_open_options options = open_options();
    zq_status st = read_pooling(&e.pooling, err);
    if (!st) st = zq_model_open(&model, args.model, &options, err);
    if (st) return st;
    zq_model_info info;
    zq_model_info_get(model, &info);
    e.width = info.width;
    e.embedding = malloc(info.width * sizeof *e.embedding);
    st = e.embedding ? lines_answer(model, args.model, false, embed_line, &e, err) : fail(err, ZQ_ENOMEM, "out of memory for an embedding");
    free(e.embedding);
    zq_model_close(model);
    return st;
}

static const struct option options[] = {
    {"pool", 0, "HOW", read_text, &args.pool, "mean or cls (default: what modules.json of the model says, else mean)"},
    {"normalize", 0, NULL, read_flag, &args.normalize, "scale embeddings to length 1"},
    DEVICE_OPTION,
    MATH_OPTIONS,
    {0},
};

const struct command cmd_embed = {
    .name = "embed",
    .summary = "prints the embedding of each line of standard input",
    .usage = "MODEL [--pool mean|cls] [--normalize] < lines",
    .details = "Prints one JSON array of numbers per line. Lines longer than the limit of the tokenizer or the model are cut.",
    .example = "printf 'A happy dog\\nA sad cat\\n' | zq embed all-MiniLM-L6-v2",
    .options = options,
    .operand = &args.model,
    .operand_name = "MODEL",
    .run = embed,
};
