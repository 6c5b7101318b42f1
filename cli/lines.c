/* Line by line: read, tokenize, cut, answer. Cutting follows the reference tokenizers ("longest first"): of a pair, the longer
 * sequence gives up tokens until both are equal, then both do. */
#include "lines.h"

#include "input.h"

#include <string.h>

struct lines {
    const zq_model *model;
    const zq_tokenizer *tokenizer;
    zq_session *session;
    size_t capacity;  /* tokens that the session has room for */
    size_t limit;     /* tokens of a line */
    int32_t last;     /* special token that ends a single sequence; -1: none */
    bool pairs, noted;
    zq_ids ids;
};

/* Ends a sequence ids[begin, end) after n tokens, of which the last n_special (0 or 1) is the one that ended it before. The
 * tokens behind it move up. */
static void cut(zq_ids *ids, size_t begin, size_t end, size_t n, size_t n_special)
{
    const size_t from = end - n_special, to = begin + n - n_special;
    memmove(ids->ids + to, ids->ids + from, (ids->n - from) * sizeof *ids->ids);
    memmove(ids->types + to, ids->types + from, (ids->n - from) * sizeof *ids->types);
    ids->n -= from - to;
}

/* Lengths that two sequences of a and b tokens have within `room`, the longer one shortened first. */
static void share_room(size_t *a, size_t *b, size_t room)
{
    size_t *shorter = *a <= *b ? a : b, *longer = *a <= *b ? b : a;
    if (*shorter + *longer <= room) return;
    if (2 * *shorter <= room) {
        *longer = room - *shorter;
    } else {
        *shorter = room / 2;
        *longer = room - room / 2;
    }
}

static void truncate_line(struct lines *l)
{
    zq_ids *ids = &l->ids;
    size_t n_first = 0;
    while (n_first < ids->n && !ids->types[n_first]) n_first++;
    if (n_first == ids->n || n_first < 2 || l->last < 0) { /* one sequence, or no telling where the second begins */
        cut(ids, 0, ids->n, l->limit, l->last >= 0 && ids->ids[ids->n - 1] == l->last);
        return;
    }
    /* [CLS] A [SEP] B [SEP]: special tokens take two and one of the room */
    size_t content_a = n_first - 2, content_b = ids->n - n_first - 1;
    share_room(&content_a, &content_b, l->limit - 3);
    cut(ids, n_first, ids->n, content_b + 1, 1);
    cut(ids, 0, n_first, content_a + 2, 1);
}

static zq_status tokenize_line(struct lines *l, const struct records *r, zq_error *err)
{
    const char *tab = l->pairs ? memchr(r->text, '\t', r->n_bytes) : NULL;
    const size_t n_first = tab ? (size_t)(tab - r->text) : r->n_bytes, n_second = tab ? r->n_bytes - n_first - 1 : 0;
    l->ids.n = 0;
    const zq_status st = zq_tokenizer_encode(l->tokenizer, r->text, n_first, tab ? tab + 1 : NULL, n_second, true, &l->ids, err);
    if (st) return st;
    if (!l->ids.n) return fail(err, ZQ_EINVAL, "line %zu is empty, and the tokenizer adds no special tokens", r->number);
    if (l->ids.n <= l->limit) return ZQ_OK;
    if (!l->noted) say("note: line %zu has %zu tokens; such lines are cut to %zu", r->number, l->ids.n, l->limit);
    l->noted = true;
    truncate_line(l);
    return ZQ_OK;
}

/* A model's limit may be a hundred times what lines need: room grows with the longest line so far. */
static zq_status make_room(struct lines *l, zq_error *err)
{
    if (l->ids.n <= l->capacity) return ZQ_OK;
    size_t capacity = l->capacity ? l->capacity : 256;
    while (capacity < l->ids.n) capacity *= 2;
    if (capacity > l->limit) capacity = l->limit;
    zq_session_close(l->session);
    l->capacity = 0;
    const zq_session_options options = {.n_threads = settings.n_threads, .max_length = capacity, .max_batch_tokens = capacity};
    const zq_status st = zq_session_create(&l->session, l->model, &options, err);
    if (!st) l->capacity = capacity;
    return st;
}

static zq_status prepare(struct lines *l, const char *name, zq_error *err)
{
    zq_model_info info;
    zq_model_info_get(l->model, &info);
    l->tokenizer = zq_model_tokenizer(l->model);
    if (!l->tokenizer) return fail(err, ZQ_EUNSUPPORTED, "%s: there is no tokenizer in this directory", name);
    const size_t of_tokenizer = zq_tokenizer_max_length(l->tokenizer);
    l->limit = of_tokenizer && of_tokenizer < info.max_length ? of_tokenizer : info.max_length;
    if (l->limit < 4) return fail(err, ZQ_EUNSUPPORTED, "%s: a limit of %zu tokens leaves no room for text", name, l->limit);
    const zq_status st = zq_tokenizer_encode(l->tokenizer, "", 0, NULL, 0, true, &l->ids, err);
    /* [CLS] [SEP]: two special tokens or more, of which the last stays the last; a lone one (<s>) begins texts */
    l->last = !st && l->ids.n > 1 ? l->ids.ids[l->ids.n - 1] : -1;
    return st;
}

zq_status lines_answer(const zq_model *model, const char *name, bool pairs, line_fn *answer, void *user, zq_error *err)
{
    struct lines l = {.model = model, .pairs = pairs};
    struct records r = {0};
    bool more = false;
    zq_status st = prepare(&l, name, err);
    if (!st) st = records_next(&r, '\n', &more, err);
    while (!st && more) {
        st = tokenize_line(&l, &r, err);
        if (!st) st = make_room(&l, err);
        if (!st) st = answer(user, l.session, (struct line){l.ids.ids, l.ids.types, l.ids.n}, err);
        if (!st) st = flush_output(err);
        if (!st) st = records_next(&r, '\n', &more, err);
    }
    records_free(&r);
    zq_ids_free(&l.ids);
    zq_session_close(l.session);
    return st;
}
