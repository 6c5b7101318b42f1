/* Cutting a text for a model. Decoders read on and on, so their text is one run of ids cut at equal distances; encoders have learned
 * sentences between special tokens, so theirs is taken line by line. */
#include "eval/sequences.h"

#include <string.h>

static zq_status begin_windows(struct zq_sequences *s, const struct zq_sequences_options *o, zq_error *err)
{
    enum { DEFAULT_WINDOW = 256 };
    const size_t window = o->window ? o->window : o->max_length < DEFAULT_WINDOW ? o->max_length : DEFAULT_WINDOW;
    if (window < 2) return zq_fail(err, ZQ_EINVAL, "a window of %zu ids predicts nothing, it needs 2", window);
    if (window > o->max_length) return zq_fail(err, ZQ_ELIMIT, "a window of %zu ids is above the limit of %zu", window, o->max_length);
    zq_status st = zq_tokenizer_encode(s->tokenizer, s->text, s->n_bytes, NULL, 0, false, &s->ids, err);
    s->max_tokens = window;
    s->total = (s->limit && s->limit < s->ids.n ? s->limit : s->ids.n) / window;
    if (!st && !s->total) st = zq_fail(err, ZQ_EINVAL, "the text has %zu ids, fewer than one window of %zu", s->ids.n, window);
    return st;
}

static zq_status begin_lines(struct zq_sequences *s, const struct zq_sequences_options *o, zq_error *err)
{
    const size_t of_tokenizer = zq_tokenizer_max_length(s->tokenizer);
    s->lines = true;
    s->total = s->n_bytes;
    s->max_tokens = of_tokenizer && of_tokenizer < o->max_length ? of_tokenizer : o->max_length;
    const zq_status st = zq_tokenizer_encode(s->tokenizer, "", 0, NULL, 0, true, &s->ids, err);
    s->ends_special = s->ids.n > 1; /* [CLS] [SEP]; a lone special token begins texts */
    return st;
}

zq_status zq_sequences_begin(struct zq_sequences *s, const zq_model *model, const char *text, size_t n_bytes,
                             const struct zq_sequences_options *options, zq_error *err)
{
    zq_model_info info;
    zq_model_info_get(model, &info);
    *s = (struct zq_sequences){.tokenizer = zq_model_tokenizer(model), .text = text, .n_bytes = n_bytes, .limit = options->limit};
    if (!s->tokenizer) return zq_fail(err, ZQ_EUNSUPPORTED, "the model's directory holds no tokenizer");
    const zq_status st = (info.kind == ZQ_DECODER ? begin_windows : begin_lines)(s, options, err);
    if (st) zq_sequences_end(s);
    return st;
}

static zq_status next_line(struct zq_sequences *s, zq_input *in, zq_error *err)
{
    while (s->done < s->n_bytes && !(s->limit && s->n_tokens >= s->limit)) {
        const char *line = s->text + s->done, *newline = memchr(line, '\n', s->n_bytes - s->done);
        const size_t length = newline ? (size_t)(newline - line) : s->n_bytes - s->done;
        s->done += length + (newline != NULL);
        if (!length) continue;
        s->ids.n = 0;
        const zq_status st = zq_tokenizer_encode(s->tokenizer, line, length, NULL, 0, true, &s->ids, err);
        if (st) return st;
        if (!s->ids.n) continue;
        if (s->ids.n > s->max_tokens) {
            if (s->ends_special) s->ids.ids[s->max_tokens - 1] = s->ids.ids[s->ids.n - 1];
            s->ids.n = s->max_tokens;
        }
        s->n_tokens += s->ids.n;
        *in = (zq_input){.ids = s->ids.ids, .types = s->ids.types, .n = s->ids.n};
        return ZQ_OK;
    }
    return ZQ_OK;
}

zq_status zq_sequences_next(struct zq_sequences *s, zq_input *in, zq_error *err)
{
    *in = (zq_input){0};
    if (s->lines) return next_line(s, in, err);
    if (s->done < s->total) *in = (zq_input){.ids = s->ids.ids + s->done++ * s->max_tokens, .n = s->max_tokens};
    return ZQ_OK;
}

void zq_sequences_end(struct zq_sequences *s)
{
    zq_ids_free(&s->ids);
    *s = (struct zq_sequences){0};
}
