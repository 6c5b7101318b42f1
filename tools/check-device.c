/* check-device MODEL --device D [--math M] [--kv F] [--text FILE] [--limit N] [--count N]: whole models on a device against this processor, as a
 * table row. --math is the device's: the processor, as the yardstick, is exact, with keys and values in the same format.
 *
 * Decoders: nll of a text within 5e-3 (fast, of few tokens: see nll_bound()); greedy text, both fed with the processor's choices, where a
 * different choice counts unless the two largest logits are within 1 % of the largest; and that what a sequence gives does not depend on the
 * others of its step.
 * Encoders: hidden states, or logits, of the first lines of the text. Exit code 1: the device is wrong; else as zq's. */
#include "zeroquant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPT = 16, BATCH = 3, LINES = 8 };

static struct {
    const char *model, *device, *text;
    size_t limit, count;
    zq_math math;
    zq_kv_format kv;
} args = {.device = "cuda", .text = "models/novels/heldout.txt", .limit = 512, .count = 32};

static const char *const maths[] = {[ZQ_MATH_EXACT] = "exact", [ZQ_MATH_FAST] = "fast"};
static const char *const kvs[] = {[ZQ_KV_DEFAULT] = "", [ZQ_KV_F32] = "f32", [ZQ_KV_F16] = "f16", [ZQ_KV_INT8] = "int8"};

struct run {
    zq_model *model;
    zq_session *session;
    double seconds; /* of single steps */
    size_t n_steps;
};

static zq_error error;

static int give_up(zq_status st)
{
    fprintf(stderr, "check-device: %s\n", error.message[0] ? error.message : zq_status_text(st));
    return (int)st;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char *read_text(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(1 << 20) : NULL;
    *n = text ? fread(text, 1, (1 << 20) - 1, f) : 0;
    if (f) fclose(f);
    if (text) text[*n] = 0;
    return text;
}

static zq_status open_both(struct run run[2])
{
    zq_status st = ZQ_OK;
    for (int i = 0; i < 2 && !st; i++) {
        const zq_open_options options = {.device = i ? args.device : NULL, .math = i ? args.math : ZQ_MATH_EXACT, .kv = args.kv};
        st = zq_model_open(&run[i].model, args.model, &options, &error);
    }
    return st;
}

static zq_status session(struct run *r, size_t n_sequences, size_t max_length)
{
    const zq_session_options options = {.n_sequences = n_sequences, .max_length = max_length, .max_batch_tokens = n_sequences * max_length};
    zq_session_close(r->session);
    return zq_session_create(&r->session, r->model, &options, &error);
}

static size_t largest(const float *x, size_t n, float *gap, float *size)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    *gap = INFINITY;
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        if (i != best && x[best] - x[i] < *gap) *gap = x[best] - x[i];
        if (fabsf(x[i]) > *size) *size = fabsf(x[i]);
    }
    return best;
}

/* Squares of values, and of what others are off from them. */
struct distance {
    double off, all;
};

static void add_distance(struct distance *d, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        d->off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        d->all += (double)a[i] * a[i];
    }
}

static double relative_of(const struct distance *d) { return d->all > 0 ? sqrt(d->off / d->all) : sqrt(d->off); }

static double relative(const float *a, const float *b, size_t n)
{
    struct distance d = {0};
    add_distance(&d, a, b, n);
    return relative_of(&d);
}

static zq_status step(struct run *r, const int32_t *ids, size_t n)
{
    const double began = now();
    const zq_status st = zq_session_step(r->session, &(zq_input){.ids = ids, .n = n}, 1, &error);
    if (n == 1) {
        r->seconds += now() - began;
        r->n_steps++;
    }
    return st;
}

struct greedy {
    size_t n, near_ties, wrong;
    double off; /* largest relative distance of logits */
};

static zq_status compare_greedy(struct run run[2], const int32_t *prompt, size_t vocab, struct greedy *g)
{
    zq_status st = ZQ_OK;
    for (int i = 0; i < 2 && !st; i++) st = session(&run[i], 1, PROMPT + args.count + 1);
    for (int i = 0; i < 2 && !st; i++) st = step(&run[i], prompt, PROMPT);
    while (!st && g->n < args.count) {
        const float *here = zq_session_logits(run[0].session, NULL), *there = zq_session_logits(run[1].session, NULL);
        float gap, size, ignored;
        const int32_t id = (int32_t)largest(here, vocab, &gap, &size);
        const bool same = (size_t)id == largest(there, vocab, &ignored, &ignored);
        const double off = relative(here, there, vocab);
        g->off = off > g->off || isnan(off) ? off : g->off;
        if (!same && gap <= 0.01f * size) g->near_ties++;
        else if (!same) g->wrong++;
        g->n++;
        for (int i = 0; i < 2 && !st; i++) st = step(&run[i], &id, 1);
    }
    return st;
}

/* Sequences of different lengths in one step, then one token each: logits against those of each alone, on the device. */
static zq_status compare_batch(struct run *r, const int32_t *ids, size_t vocab, double *off)
{
    static const size_t lengths[BATCH] = {PROMPT, 3, 9};
    float *together = malloc(2 * BATCH * vocab * sizeof *together);
    if (!together) return ZQ_ENOMEM;
    zq_status st = session(r, BATCH, PROMPT + 2);
    for (int s = 0; s < 2 && !st; s++) {
        zq_input in[BATCH];
        for (size_t i = 0; i < BATCH; i++)
            in[i] = (zq_input){.sequence = i, .ids = ids + i + (s ? lengths[i] : 0), .n = s ? 1 : lengths[i]};
        st = zq_session_step(r->session, in, BATCH, &error);
        if (!st) memcpy(together + (size_t)s * BATCH * vocab, zq_session_logits(r->session, NULL), BATCH * vocab * sizeof *together);
    }
    for (size_t i = 0; i < BATCH && !st; i++) {
        st = zq_session_rewind(r->session, i, 0, &error);
        for (int s = 0; s < 2 && !st; s++) {
            const zq_input in = {.sequence = i, .ids = ids + i + (s ? lengths[i] : 0), .n = s ? 1 : lengths[i]};
            st = zq_session_step(r->session, &in, 1, &error);
            if (st) break;
            const double d = relative(together + ((size_t)s * BATCH + i) * vocab, zq_session_logits(r->session, NULL), vocab);
            *off = d > *off || isnan(d) ? d : *off;
        }
    }
    free(together);
    return st;
}

/* With --math fast some codes round the other way, which moves a token's nll by a few hundredths, up or down: 5e-3 is for 512 tokens or more,
 * and chance adds as the square root of how many fewer there are. */
static double nll_bound(void)
{
    enum { ENOUGH = 512 };
    return args.math == ZQ_MATH_FAST && args.limit < ENOUGH ? 5e-3 * sqrt((double)ENOUGH / (double)args.limit) : 5e-3;
}

static int check_decoder(struct run run[2], const char *text, size_t n_bytes, const zq_model_info *info)
{
    zq_ids ids = {0};
    zq_eval_result result[2];
    struct greedy g = {0};
    double batch = 0;
    zq_status st = zq_tokenizer_encode(zq_model_tokenizer(run[0].model), text, n_bytes, NULL, 0, false, &ids, &error);
    if (!st && ids.n < 2 * PROMPT) {
        fprintf(stderr, "check-device: %s is too short\n", args.text);
        return ZQ_EINVAL;
    }
    for (int i = 0; i < 2 && !st; i++) {
        const zq_eval_options options = {.limit = args.limit, .window = args.limit < 256 ? args.limit : 0};
        st = zq_eval_text(run[i].model, text, n_bytes, &options, &result[i], &error);
    }
    if (!st) st = compare_greedy(run, ids.ids, info->n_outputs, &g);
    if (!st) st = compare_batch(&run[1], ids.ids, info->n_outputs, &batch);
    zq_ids_free(&ids);
    if (st) return give_up(st);
    const double off = fabs(result[0].nll - result[1].nll);
    const bool right = off <= nll_bound() && !g.wrong && batch <= 1e-2;
    printf("| %s | %s, kv %s | %s | nll %.5f, device %.5f | ", args.model, maths[args.math], kvs[args.kv], right ? "right" : "WRONG", result[0].nll,
           result[1].nll);
    printf("%zu of %zu, %zu near ties; logits off by %.1e | batch off by %.1e | %.0f, device %.0f tokens/s |\n", g.n - g.wrong - g.near_ties, g.n,
           g.near_ties, g.off, batch, (double)run[0].n_steps / run[0].seconds, (double)run[1].n_steps / run[1].seconds);
    return !right;
}

/* With --math fast codes that round the other way move outputs about as far as quantizing itself did: 3 % in a small classifier. */
static int check_encoder(struct run run[2], char *text, const zq_model_info *info)
{
    const double bound = args.math == ZQ_MATH_FAST ? 1e-1 : 2e-2;
    struct distance d = {0};
    size_t n_lines = 0;
    zq_status st = ZQ_OK;
    for (int i = 0; i < 2 && !st; i++) st = session(&run[i], 1, info->max_length);
    for (char *line = strtok(text, "\n"); line && n_lines < LINES && !st; line = strtok(NULL, "\n")) {
        zq_ids ids = {0};
        const float *out[2] = {NULL};
        size_t n = 0;
        st = zq_tokenizer_encode(zq_model_tokenizer(run[0].model), line, strlen(line), NULL, 0, true, &ids, &error);
        if (ids.n > info->max_length) ids.n = info->max_length;
        for (int i = 0; i < 2 && !st; i++) {
            st = step(&run[i], ids.ids, ids.n);
            out[i] = info->n_outputs ? zq_session_logits(run[i].session, &n) : zq_session_hidden(run[i].session, info->n_layers, &n);
        }
        if (!st) add_distance(&d, out[0], out[1], n * (info->n_outputs ? info->n_outputs : info->width));
        n_lines += !st;
        zq_ids_free(&ids);
    }
    if (st) return give_up(st);
    const double off = relative_of(&d);
    const bool right = n_lines && off <= bound;
    printf("| %s | %s | %s | outputs of %zu lines off by %.1e | | | |\n", args.model, maths[args.math], right ? "right" : "WRONG", n_lines, off);
    return !right;
}

/* The index of a word among n. */
static bool choose(const char *const *words, size_t n, const char *word, size_t *index)
{
    for (*index = 0; *index < n; ++*index)
        if (!strcmp(words[*index], word)) return true;
    return false;
}

static bool parse(int argc, char **argv)
{
    size_t index;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' && !args.model) args.model = argv[i];
        else if (i + 1 == argc) return false;
        else if (!strcmp(argv[i], "--device")) args.device = argv[++i];
        else if (!strcmp(argv[i], "--text")) args.text = argv[++i];
        else if (!strcmp(argv[i], "--limit")) args.limit = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--count")) args.count = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--math") && choose(maths, sizeof maths / sizeof *maths, argv[++i], &index)) args.math = (zq_math)index;
        else if (!strcmp(argv[i], "--kv") && choose(kvs, sizeof kvs / sizeof *kvs, argv[++i], &index) && index) args.kv = (zq_kv_format)index;
        else return false;
    }
    if (!args.kv) args.kv = args.math == ZQ_MATH_FAST ? ZQ_KV_F16 : ZQ_KV_F32; /* as models choose */
    return args.model && args.limit >= 2 && args.count;
}

int main(int argc, char **argv)
{
    struct run run[2] = {{0}};
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: check-device MODEL [--device D] [--math exact|fast] [--kv f32|f16|int8] [--text FILE] [--limit N] [--count N]\n");
        return 2;
    }
    size_t n_bytes;
    char *text = read_text(args.text, &n_bytes);
    if (!text) {
        fprintf(stderr, "check-device: %s cannot be read\n", args.text);
        return ZQ_EIO;
    }
    int code;
    zq_model_info info;
    const zq_status st = open_both(run);
    if (st) code = give_up(st);
    else {
        zq_model_info_get(run[0].model, &info);
        code = info.kind == ZQ_DECODER ? check_decoder(run, text, n_bytes, &info) : check_encoder(run, text, &info);
    }
    for (int i = 0; i < 2; i++) {
        zq_session_close(run[i].session);
        zq_model_close(run[i].model);
    }
    free(text);
    return code;
}
