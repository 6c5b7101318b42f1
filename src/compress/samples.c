/* Samples of texts are windows spread evenly over the file, which is tokenized passage by passage. `self` lets a decoder write: from its
 * start token on, each next id drawn from its own distribution. An encoder with a masked-language head fills masks, a part of the positions
 * in each of a few rounds; one without has no opinion on words, and gets random ids. */
#include "compress/samples.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/threads.h"
#include "base/trim.h"
#include "distill/texts.h"
#include "model/session.h"
#include "text/forget.h"
#include "text/kinds.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SOURCES = 16,
    MAX_TEXT = 1 << 30,
    PASSAGE = 32 << 10, /* bytes of a text that are tokenized at once: of odd texts each may take a hundred */
    REMEMBERED = 512 << 10, /* bytes of a text after which the tokenizer forgets its words */
    MOST_AT_ONCE = 64,
    ROUNDS = 4,
    CACHE_BYTES = 64 << 20,
    RESIDENT_FILE = 512 << 20,
};

enum kind { FROM_FILE, FROM_CHANCE, FROM_SELF };

struct source {
    enum kind kind;
    const char *path; /* [n_path] not terminated */
    size_t n_path;
    double weight;
};

struct sources {
    struct source items[MAX_SOURCES]; /* [n] */
    size_t n;
    double weight; /* of all */
};

static bool is_word(const struct source *s, const char *word) { return s->n_path == strlen(word) && !strncmp(s->path, word, s->n_path); }

/* A colon belongs to the path unless a number follows it to the end. */
static zq_status parse_source(struct source *s, const char *text, size_t n, zq_error *err)
{
    *s = (struct source){FROM_FILE, text, n, 1};
    const char *colon = text + n;
    while (colon > text && *colon != ':') colon--;
    if (*colon == ':' && colon + 1 < text + n) {
        char *end;
        const double weight = strtod(colon + 1, &end);
        if (end == text + n) {
            s->weight = weight;
            s->n_path = (size_t)(colon - text);
        }
    }
    if (is_word(s, "random")) s->kind = FROM_CHANCE;
    if (is_word(s, "self")) s->kind = FROM_SELF;
    if (!s->n_path || !(s->weight > 0) || isinf(s->weight))
        return zq_fail(err, ZQ_EINVAL, "'%.*s' is no source of samples: FILE, random or self, perhaps with :WEIGHT above 0", (int)n, text);
    return ZQ_OK;
}

static zq_status parse(struct sources *out, const char *text, zq_error *err)
{
    *out = (struct sources){0};
    zq_status st = ZQ_OK;
    for (const char *at = text; !st; at++) {
        const size_t n = strcspn(at, ",");
        if (out->n == MAX_SOURCES) return zq_fail(err, ZQ_EINVAL, "more than %d sources of samples in '%.200s'", (int)MAX_SOURCES, text);
        st = parse_source(&out->items[out->n], at, n, err);
        if (!st) out->weight += out->items[out->n++].weight;
        at += n;
        if (!*at) break;
    }
    return st;
}

static zq_status open_source(struct zq_map *text, const struct source *s, zq_error *err)
{
    *text = (struct zq_map){0};
    char *path = zq_strndup(s->path, s->n_path);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "no memory for a path");
    zq_status st = zq_map_open(text, path, err);
    if (!st && text->n_bytes > MAX_TEXT) {
        st = zq_fail(err, ZQ_ELIMIT, "%s has %zu bytes, the limit for a text is %d", path, text->n_bytes, (int)MAX_TEXT);
        zq_map_close(text);
    }
    zq_free(path);
    return st;
}

/* Drops a text up to `end`, with pages before that, which the system may have mapped again as neighbours of those that were read. */
static void drop_read(const struct zq_map *text, size_t end)
{
    enum { NEIGHBOURS = 2 << 20 };
    const size_t n = end < NEIGHBOURS ? end : NEIGHBOURS;
    zq_map_drop(text, text->bytes + end - n, n);
}

/* The SHA-256 of a text, which need not be in memory as a whole. */
static bool digest_of(uint8_t digest[EVP_MAX_MD_SIZE], const struct zq_map *text)
{
    enum { AT_ONCE = 1 << 20 };
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL);
    for (size_t at = 0, n; at < text->n_bytes && ok; at += n) {
        n = text->n_bytes - at < AT_ONCE ? text->n_bytes - at : AT_ONCE;
        ok = EVP_DigestUpdate(c, text->bytes + at, n);
        drop_read(text, at + n);
    }
    ok = ok && EVP_DigestFinal_ex(c, digest, NULL);
    EVP_MD_CTX_free(c);
    return ok;
}

static zq_status identify(json_t *list, const struct source *s, zq_error *err)
{
    char what[80];
    snprintf(what, sizeof what, "%s", s->kind == FROM_SELF ? "self" : "random");
    if (s->kind == FROM_FILE) {
        struct zq_map text;
        uint8_t digest[EVP_MAX_MD_SIZE];
        zq_status st = open_source(&text, s, err);
        if (st) return st;
        const bool ok = digest_of(digest, &text);
        zq_map_close(&text);
        if (!ok) return zq_fail(err, ZQ_ENOMEM, "no memory for a digest");
        memcpy(what, "sha256:", 8);
        for (size_t i = 0; i < 32; i++) snprintf(what + 7 + 2 * i, 3, "%02x", digest[i]);
    }
    if (json_array_append_new(list, json_sprintf("%s:%g", what, s->weight))) return zq_fail(err, ZQ_ENOMEM, "no memory for a list of sources");
    return ZQ_OK;
}

zq_status zq_samples_identity(json_t **out, const char *text, zq_error *err)
{
    struct sources sources;
    *out = NULL;
    zq_status st = parse(&sources, text, err);
    json_t *list = st ? NULL : json_array();
    if (!st && !list) st = zq_fail(err, ZQ_ENOMEM, "no memory for a list of sources");
    for (size_t i = 0; i < sources.n && !st; i++) st = identify(list, &sources.items[i], err);
    if (!st) *out = list;
    else json_decref(list);
    return st;
}

static bool is_speechless(enum zq_model_kind kind) { return kind != ZQ_DECODER && kind != ZQ_ENCODER_MLM; }

double zq_samples_chance(const char *text, enum zq_model_kind kind)
{
    struct sources sources;
    const bool speechless = is_speechless(kind);
    double chance = 0;
    if (parse(&sources, text, NULL)) return 0;
    for (size_t i = 0; i < sources.n; i++) {
        const struct source *s = &sources.items[i];
        if (s->kind == FROM_CHANCE || (s->kind == FROM_SELF && speechless)) chance += s->weight / sources.weight;
    }
    return chance;
}

/* ---- what writing costs ------------------------------------------------------------------------------------------- */

/* Keys and values of one sequence. */
static size_t cache_bytes(const struct zq_config *c, size_t length)
{
    return (length + 15) / 16 * 16 * c->n_layers * 2 * c->n_kv_heads * c->head_dim * sizeof(float);
}

/* Not more than there are: every sequence at once shares the reading of all weights, which is most of a step. */
size_t zq_samples_at_once(const struct zq_config *c, const struct zq_sample_request *request)
{
    const size_t room = request->cache_bytes > CACHE_BYTES ? request->cache_bytes : CACHE_BYTES, each = cache_bytes(c, request->length);
    size_t n = room / (each ? each : 1);
    n = n > MOST_AT_ONCE ? MOST_AT_ONCE : n ? n : 1;
    n = n > request->n ? request->n : n;
    const size_t rounds = (request->n + n - 1) / n;
    return (request->n + rounds - 1) / rounds;
}

static uint64_t writing_bytes(const struct zq_config *c, const struct zq_sample_request *request, const struct zq_sample_file *file)
{
    const size_t token = (c->vocab + 6 * c->width + 2 * c->ffn_width) * sizeof(float); /* of a step: logits and activations */
    const uint64_t resident = file->n_bytes > RESIDENT_FILE ? file->n_block_bytes + file->n_outside_bytes : file->n_bytes;
    if (c->kind != ZQ_DECODER) return resident + request->length * token;
    return resident + zq_samples_at_once(c, request) * (cache_bytes(c, request->length) + token);
}

/* Of a passage: itself, its normalized copies, its ids, and the tokenizer's cache of words, which grows with those that differ. */
static zq_status text_bytes(uint64_t *n_bytes, const struct source *s, zq_error *err)
{
    enum { FOR_EACH = 48, CACHE = 3 << 20, WORDS = 4 };
    struct zq_map text;
    const zq_status st = open_source(&text, s, err);
    const uint64_t passage = text.n_bytes < PASSAGE ? text.n_bytes : PASSAGE, words = WORDS * (uint64_t)text.n_bytes;
    *n_bytes = FOR_EACH * passage + (words < CACHE ? words : CACHE);
    zq_map_close(&text);
    return st;
}

zq_status zq_samples_bytes(uint64_t *n_bytes, const struct zq_config *c, const struct zq_sample_request *request,
                           const struct zq_sample_file *file, zq_error *err)
{
    struct sources sources;
    uint64_t most = 0;
    zq_status st = parse(&sources, request->sources, err);
    for (size_t i = 0; !st && i < sources.n; i++) {
        uint64_t one = 0;
        if (sources.items[i].kind == FROM_FILE) st = text_bytes(&one, &sources.items[i], err);
        if (sources.items[i].kind == FROM_SELF && !is_speechless(c->kind)) one = writing_bytes(c, request, file);
        if (one > most) most = one;
    }
    *n_bytes = (request->n * request->length + c->vocab) * sizeof(int32_t) + most;
    return st;
}

/* ---- making them -------------------------------------------------------------------------------------------------- */

struct maker {
    const struct zq_sample_request *request;
    const zq_model *model;
    zq_model_info info;
    int32_t first, last; /* of every sample of an encoder; -1: none. first of a decoder: what it starts writing from */
    bool encoder;
    size_t lengths[ZQ_MAX_TEXTS], n_parts; /* of the texts in a sample */
    int32_t *texts;      /* [n_texts] ids that texts are made of */
    size_t n_texts;
};

/* All ids where there is no tokenizer. No model has learned what the others mean, which are half of a small vocabulary. */
static zq_status find_texts(struct maker *m, zq_error *err)
{
    const zq_tokenizer *tokenizer = zq_model_tokenizer(m->model);
    m->texts = zq_alloc_array(m->info.vocab, sizeof *m->texts);
    if (!m->texts) return zq_fail(err, ZQ_ENOMEM, "no memory for %zu ids", m->info.vocab);
    for (size_t i = 0; tokenizer && i < m->info.vocab; i++)
        if (zq_tokenizer_is_text(tokenizer, (int32_t)i)) m->texts[m->n_texts++] = (int32_t)i;
    if (m->n_texts) return ZQ_OK;
    for (size_t i = 0; i < m->info.vocab; i++) m->texts[i] = (int32_t)i;
    m->n_texts = m->info.vocab;
    return ZQ_OK;
}

static zq_status find_frame(struct maker *m, zq_error *err)
{
    zq_ids ids = {0};
    const zq_tokenizer *tokenizer = zq_model_tokenizer(m->model);
    m->encoder = m->info.kind != ZQ_DECODER;
    m->n_parts = zq_texts(m->lengths, &m->model->config, m->request->length);
    m->first = m->last = -1;
    zq_status st = tokenizer ? zq_tokenizer_encode(tokenizer, "", 0, NULL, 0, true, &ids, err) : ZQ_OK;
    if (!st && ids.n && (size_t)ids.ids[0] < m->info.vocab) m->first = ids.ids[0];
    if (!st && ids.n > 1 && m->encoder && (size_t)ids.ids[ids.n - 1] < m->info.vocab) m->last = ids.ids[ids.n - 1];
    if (!m->encoder && m->first < 0 && m->model->n_end_ids) m->first = m->model->end_ids[0];
    zq_ids_free(&ids);
    return st;
}

/* Whether a text of an encoder stands between its special tokens. */
static bool is_framed(const struct maker *m, size_t length) { return m->encoder && length > 2 && m->first >= 0; }

/* Puts an encoder's special tokens over the ends of a text. */
static void frame(const struct maker *m, int32_t *ids, size_t length)
{
    if (!m->encoder || length < 3) return;
    if (m->first >= 0) ids[0] = m->first;
    if (m->last >= 0) ids[length - 1] = m->last;
}

/* The same for each text of a sample. */
static void frame_all(const struct maker *m, int32_t *ids)
{
    for (size_t k = 0; k < m->n_parts; ids += m->lengths[k++]) frame(m, ids, m->lengths[k]);
}

static int32_t random_id(const struct maker *m, uint64_t *rng) { return m->texts[zq_rng_next(rng) % m->n_texts]; }

static void from_chance(const struct maker *m, int32_t *ids, size_t n, uint64_t *rng)
{
    const size_t length = m->request->length;
    for (size_t i = 0; i < n * length; i++) ids[i] = random_id(m, rng);
    for (size_t i = 0; i < n; i++) frame_all(m, ids + i * length);
}

/* A text's ids are counted first, and those that belong to samples are kept in a second pass: memory does not grow with the text. */
struct windows {
    const struct maker *m;
    const struct source *source;
    int32_t *ids;     /* [n, length]; NULL: they are only counted */
    size_t n, n_used; /* samples, and ids of the text in each */
    size_t n_all, at; /* ids of the text, and how many have been seen */
};

/* Ids of a text that a sample holds. */
static size_t n_used(const struct maker *m)
{
    size_t n = 0;
    for (size_t k = 0; k < m->n_parts; k++) n += m->lengths[k] - 2 * is_framed(m, m->lengths[k]);
    return n;
}

/* Puts ids [at, at + n) of those that a sample takes in their places. */
static void place(const struct maker *m, int32_t *sample, size_t at, const int32_t *ids, size_t n)
{
    for (size_t k = 0, before = 0; k < m->n_parts; sample += m->lengths[k++]) {
        const size_t framed = is_framed(m, m->lengths[k]), n_part = m->lengths[k] - 2 * framed;
        for (size_t i = at > before ? at - before : 0; i < n_part && before + i < at + n; i++) sample[framed + i] = ids[before + i - at];
        before += n_part;
    }
}

/* Windows are spread evenly, the first at the beginning and the last at the end. */
static zq_status take_ids(struct windows *w, const int32_t *ids, size_t n, zq_error *err)
{
    const size_t length = w->m->request->length, end = w->at + n;
    for (size_t i = 0; i < n; i++)
        if ((size_t)ids[i] >= w->m->info.vocab)
            return zq_fail(err, ZQ_EINVAL, "%.*s: id %d is outside the vocabulary of %zu", (int)w->source->n_path, w->source->path, ids[i],
                           w->m->info.vocab);
    for (size_t i = 0; w->ids && i < w->n; i++) {
        const size_t begin = w->n > 1 ? (size_t)((double)(w->n_all - w->n_used) * (double)i / (double)(w->n - 1)) : 0;
        const size_t from = begin > w->at ? begin : w->at, to = begin + w->n_used < end ? begin + w->n_used : end;
        if (from < to) place(w->m, w->ids + i * length, from - begin, ids + (from - w->at), to - from);
    }
    w->at = end;
    return ZQ_OK;
}

static bool is_letter(uint8_t byte) { return (byte | 32) >= 'a' && (byte | 32) <= 'z'; }

/* Where the passage from `at` on ends: before its last space between two letters, so that its ids are those that it has in the whole; else behind
 * its last line feed, else between two characters. */
static size_t passage_end(const struct zq_map *text, size_t at)
{
    if (text->n_bytes - at <= PASSAGE) return text->n_bytes;
    const uint8_t *bytes = text->bytes;
    size_t end = at + PASSAGE - 1;
    while (end > at && !(bytes[end] == ' ' && is_letter(bytes[end - 1]) && is_letter(bytes[end + 1]))) end--;
    if (end > at) return end;
    end = at + PASSAGE;
    while (end > at && bytes[end - 1] != '\n') end--;
    if (end > at) return end;
    end = at + PASSAGE;
    while (end > at + PASSAGE - 3 && (bytes[end] & 0xc0) == 0x80) end--;
    return end;
}

/* Spaces left out where two passages meet: 1 if the tokenizer puts one before a text, or makes nothing of it. */
static zq_status find_gap(size_t *gap, const zq_tokenizer *tokenizer, zq_error *err)
{
    zq_ids one = {0}, two = {0};
    zq_status st = zq_tokenizer_encode(tokenizer, "a", 1, NULL, 0, false, &one, err);
    if (!st) st = zq_tokenizer_encode(tokenizer, "a a", 3, NULL, 0, false, &two, err);
    const size_t n = one.n * sizeof *one.ids;
    *gap = !st && n && two.n == 2 * one.n && !memcmp(two.ids, one.ids, n) && !memcmp(two.ids + one.n, one.ids, n);
    zq_ids_free(&one);
    zq_ids_free(&two);
    return st;
}

static void forget_words(const zq_model *model)
{
    zq_tokenizer_forget(zq_model_tokenizer(model));
    zq_trim();
}

static zq_status read_text(struct windows *w, const struct zq_map *text, zq_error *err)
{
    size_t gap;
    zq_status st = find_gap(&gap, zq_model_tokenizer(w->m->model), err);
    w->at = 0;
    for (size_t at = 0, end; at < text->n_bytes && !st; at = end + (end < text->n_bytes && text->bytes[end] == ' ' ? gap : 0)) {
        zq_ids ids = {0};
        end = passage_end(text, at);
        st = zq_tokenizer_encode(zq_model_tokenizer(w->m->model), (const char *)text->bytes + at, end - at, NULL, 0, false, &ids, err);
        if (!st) st = take_ids(w, ids.ids, ids.n, err);
        zq_ids_free(&ids);
        drop_read(text, end);
        if (end / REMEMBERED != at / REMEMBERED || end == text->n_bytes) forget_words(w->m->model);
    }
    return st;
}

static zq_status from_text(const struct maker *m, const struct source *s, int32_t *ids, size_t n, zq_error *err)
{
    struct windows w = {.m = m, .source = s, .n = n, .n_used = n_used(m)};
    struct zq_map text;
    if (!zq_model_tokenizer(m->model))
        return zq_fail(err, ZQ_EUNSUPPORTED, "samples from a text need a tokenizer, and the model's directory holds none");
    zq_status st = open_source(&text, s, err);
    if (!st) st = read_text(&w, &text, err);
    if (!st && w.at < w.n_used)
        st = zq_fail(err, ZQ_EINVAL, "%.*s has %zu ids, fewer than one sample of %zu", (int)s->n_path, s->path, w.at, w.n_used);
    w.n_all = w.at;
    w.ids = ids;
    if (!st) st = read_text(&w, &text, err);
    for (size_t i = 0; i < n && !st; i++) frame_all(m, ids + i * m->request->length);
    zq_map_close(&text);
    return st;
}

/* ---- ids drawn from logits */

struct draw_work {
    const float *logits; /* [n_rows, n_outputs] */
    size_t n_outputs, vocab, stride;
    uint64_t *states;    /* [n_rows] */
    int32_t *ids;        /* row i goes to ids[i * stride] */
};

/* The id at which the running sum of the softmax passes a random share of it. No sorting: that would take longer than the model. */
static int32_t draw_one(const float *logits, size_t n, uint64_t *state)
{
    double sum = 0;
    float largest = logits[0];
    for (size_t i = 1; i < n; i++) largest = logits[i] > largest ? logits[i] : largest;
    for (size_t i = 0; i < n; i++) sum += exp((double)(logits[i] - largest));
    double left = (double)zq_rng_float(state) * sum;
    for (size_t i = 0; i + 1 < n; i++) {
        left -= exp((double)(logits[i] - largest));
        if (left < 0) return (int32_t)i;
    }
    return (int32_t)(n - 1);
}

static void draw_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct draw_work *w = work;
    for (size_t i = begin; i < end; i++) w->ids[i * w->stride] = draw_one(w->logits + i * w->n_outputs, w->vocab, &w->states[i]);
}

static void draw(const struct maker *m, const float *logits, size_t n_rows, uint64_t *states, int32_t *ids, size_t stride)
{
    struct draw_work work = {logits, m->info.n_outputs, m->info.vocab, stride, states, ids};
    if (n_rows == 1) draw_range(&work, 0, 1, 0);
    else zq_parallel(m->request->n_threads, n_rows, 1, draw_range, &work);
}

/* ---- a model's own text */

/* n samples side by side, each with a generator of its own. */
static zq_status write_some(const struct maker *m, zq_session *s, int32_t *ids, size_t n, uint64_t *rng, zq_error *err)
{
    const size_t length = m->request->length;
    zq_status st = ZQ_OK;
    int32_t latest[MOST_AT_ONCE];
    uint64_t states[MOST_AT_ONCE];
    for (size_t i = 0; i < n; i++) {
        states[i] = zq_rng_next(rng);
        latest[i] = m->first >= 0 ? m->first : random_id(m, &states[i]);
    }
    for (size_t i = 0; i < n && !st; i++) st = zq_session_rewind(s, i, 0, err);
    for (size_t t = 0; t < length && !st; t++) {
        zq_input inputs[MOST_AT_ONCE];
        if (t)
            for (size_t i = 0; i < n; i++) latest[i] = ids[i * length + t - 1];
        for (size_t i = 0; i < n; i++) inputs[i] = (zq_input){.sequence = i, .ids = &latest[i], .n = 1};
        st = zq_session_step(s, inputs, n, err);
        if (!st) draw(m, zq_session_logits(s, NULL), n, states, ids + t, length);
        if (!st && m->request->tick) st = m->request->tick(m->request->user, 0, err);
    }
    return st;
}

/* Drops what is resident of a large file when the step has come to another block: only one lies in memory at a time. */
struct dropping {
    const struct zq_checkpoint *ckpt;
    size_t layer;
};

static void drop_others(void *user, size_t layer, enum zq_linear_role role, const struct zq_rows *in, size_t n_tokens)
{
    (void)role;
    (void)in;
    (void)n_tokens;
    struct dropping *d = user;
    if (layer == d->layer) return;
    d->layer = layer;
    for (size_t i = 0; i < d->ckpt->n_files; i++) zq_map_drop(&d->ckpt->files[i].map, d->ckpt->files[i].map.bytes, d->ckpt->files[i].map.n_bytes);
}

static zq_status write_samples(const struct maker *m, int32_t *ids, size_t n, uint64_t *rng, zq_error *err)
{
    zq_session *s;
    const size_t at_once = zq_samples_at_once(&m->model->config, m->request);
    const zq_session_options so = {.n_threads = m->request->n_threads, .n_sequences = at_once, .max_length = m->request->length,
                                   .max_batch_tokens = at_once};
    struct dropping dropping = {.ckpt = m->model->ckpt};
    zq_status st = zq_session_create(&s, m->model, &so, err);
    if (!st && m->model->ckpt->n_bytes > RESIDENT_FILE) s->tap = (struct zq_tap){drop_others, &dropping};
    for (size_t i = 0; i < n && !st; i += at_once)
        st = write_some(m, s, ids + i * m->request->length, n - i < at_once ? n - i : at_once, rng, err);
    zq_session_close(s);
    return st;
}

/* Position t is filled in round t mod ROUNDS, seen from a place that differs from text to text. */
static zq_status fill_masks(const struct maker *m, zq_session *s, int32_t mask, int32_t *ids, size_t length, uint64_t *rng, zq_error *err)
{
    const size_t shift = zq_rng_next(rng) % ROUNDS;
    zq_status st = ZQ_OK;
    for (size_t t = 0; t < length; t++) ids[t] = mask;
    /* something to begin with: of masks alone every encoder makes the same sentence */
    for (size_t t = 1 + shift; t < length; t += 8) ids[t] = random_id(m, rng);
    frame(m, ids, length);
    for (size_t round = 0; round < ROUNDS && !st; round++) {
        const zq_input input = {.ids = ids, .n = length, .all_logits = true};
        st = zq_session_rewind(s, 0, 0, err);
        if (!st) st = zq_session_step(s, &input, 1, err);
        const float *logits = zq_session_logits(s, NULL);
        for (size_t t = (round + shift) % ROUNDS; t < length && !st; t += ROUNDS)
            if (ids[t] == mask) draw(m, logits + t * m->info.n_outputs, 1, rng, ids + t, 1);
    }
    return st;
}

static zq_status write_masked(const struct maker *m, int32_t mask, int32_t *ids, size_t n, uint64_t *rng, zq_error *err)
{
    const size_t length = m->request->length;
    zq_session *s;
    const zq_session_options so = {.n_threads = m->request->n_threads, .max_length = length, .max_batch_tokens = length, .max_logit_rows = length};
    zq_status st = zq_session_create(&s, m->model, &so, err);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m->n_parts && !st; ids += m->lengths[k++]) st = fill_masks(m, s, mask, ids, m->lengths[k], rng, err);
    zq_session_close(s);
    return st;
}

static zq_status from_self(const struct maker *m, int32_t *ids, size_t n, uint64_t *rng, zq_error *err)
{
    if (!m->encoder) return write_samples(m, ids, n, rng, err);
    const zq_tokenizer *tokenizer = zq_model_tokenizer(m->model);
    const int32_t mask = tokenizer ? zq_tokenizer_find(tokenizer, "[MASK]") : -1;
    if (m->info.kind == ZQ_ENCODER_MLM && mask >= 0 && (size_t)mask < m->info.vocab) return write_masked(m, mask, ids, n, rng, err);
    from_chance(m, ids, n, rng);
    return ZQ_OK;
}

zq_status zq_samples_make(int32_t *ids, const struct zq_sample_request *request, const zq_model *model, zq_error *err)
{
    struct sources sources;
    struct maker m = {.request = request, .model = model};
    uint64_t rng = request->seed;
    zq_model_info_get(model, &m.info);
    zq_status st = parse(&sources, request->sources, err);
    if (!st) st = find_frame(&m, err);
    if (!st) st = find_texts(&m, err);
    double before = 0;
    for (size_t i = 0, done = 0; i < sources.n && !st; i++) {
        before += sources.items[i].weight;
        const size_t end = i + 1 == sources.n ? request->n : (size_t)rint((double)request->n * before / sources.weight), n = end - done;
        int32_t *to = ids + done * request->length;
        if (n && sources.items[i].kind == FROM_FILE) st = from_text(&m, &sources.items[i], to, n, err);
        if (n && sources.items[i].kind == FROM_CHANCE) from_chance(&m, to, n, &rng);
        if (n && sources.items[i].kind == FROM_SELF) st = from_self(&m, to, n, &rng, err);
        done = end;
    }
    zq_free(m.texts);
    return st;
}
