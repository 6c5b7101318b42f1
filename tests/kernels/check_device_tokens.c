/* What a device does with ids, against plain C: embeddings, rows for a head, the choice of the next id (against zq_sample's rules, written
 * once more here), and recorded steps. */
#include "device.h"

#include "cuda/layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void device_embed(struct device *d)
{
    static const enum zq_device_format formats[] = {ZQ_DEVICE_W8A16, ZQ_DEVICE_W4A16, ZQ_DEVICE_FLOAT};
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    struct check *c = &d->c;
    for (size_t i = 0; i < 24 && !c->failed; i++) {
        check_begin(c);
        const enum zq_device_format format = formats[i % 3];
        const struct zq_gemm *g = (const struct zq_gemm *[]){&d->layouts.w8_a16, &d->layouts.w4_a16, &d->layouts.f32_a16}[i % 3];
        const bool coded = format != ZQ_DEVICE_FLOAT, table = check_random(c, 4) != 0;
        struct zq_matrix w = {.n_rows = 1 + check_random(c, 70), .n_cols = CHECK_PICK(c, 1, 31, 64, 300), .dtype = coded ? ZQ_I8 : dtypes[i / 3 % 3]};
        if (coded && check_coin(c)) w.k_group = w.n_cols % 4 ? w.n_cols : w.n_cols / 4;
        const size_t n = w.n_cols, n_groups = w.k_group ? n / w.k_group : 1, group = n / n_groups, n_tokens = 1 + check_random(c, 6), n_types = 3;
        const size_t offset = check_random(c, 3), n_positions = 9 + offset, ld = n + check_random(c, 3), n_out = (n_tokens - 1) * ld + n;
        const int8_t *codes = check_codes(c, w.n_rows * n, format == ZQ_DEVICE_W4A16 ? -8 : -128, format == ZQ_DEVICE_W4A16 ? 7 : 127);
        const float *values = check_floats(c, w.n_rows * n, VALUES_NORMAL), *scales = check_floats(c, w.n_rows * n_groups, VALUES_NORMAL);
        void *stored = check_buffer(c, w.n_rows * n * zq_dtype_bytes(w.dtype), 4);
        if (coded) memcpy(stored, codes, w.n_rows * n);
        else zq_from_float(stored, w.dtype, values, w.n_rows * n);
        const float *types = check_coin(c) ? check_floats(c, n_types * n, VALUES_NORMAL) : NULL;
        const float *positions = check_coin(c) ? check_floats(c, n_positions * n, VALUES_NORMAL) : NULL;
        struct zq_device_token *tokens = check_buffer(c, n_tokens * sizeof *tokens, 8);
        float *got = check_buffer(c, n_out * sizeof(float), 4), *want = check_buffer(c, n_out * sizeof(float), 4);
        for (size_t k = 0; k < n_out; k++) got[k] = want[k] = 0.25f * (float)k;
        for (size_t t = 0; t < n_tokens; t++) {
            tokens[t] = (struct zq_device_token){.id = (int32_t)check_random(c, w.n_rows), .type = (uint32_t)check_random(c, n_types),
                                                 .position = (uint32_t)check_random(c, 9)};
            for (size_t k = 0; k < n; k++) {
                float x = want[t * ld + k];
                const size_t at = (size_t)tokens[t].id * n + k;
                if (table && coded) x = (float)codes[at] * scales[(size_t)tokens[t].id * n_groups + k / group];
                else if (table) zq_to_float(&x, (const uint8_t *)stored + at * zq_dtype_bytes(w.dtype), w.dtype, 1);
                if (types) x += types[tokens[t].type * n + k];
                if (positions) x += positions[(tokens[t].position + offset) * n + k];
                want[t * ld + k] = x;
            }
        }
        w.packed = place(d, packed(c, g, w, stored, coded ? scales : NULL), g->packed_bytes(&w));
        const struct zq_device_embed a = {
            .tokens = place(d, tokens, n_tokens * sizeof *tokens), .n_tokens = n_tokens, .n = n, .table = table ? &w : NULL, .format = format,
            .types = place(d, types, n_types * n * sizeof(float)), .positions = place(d, positions, n_positions * n * sizeof(float)),
            .position_offset = offset, .out = place(d, got, n_out * sizeof(float)), .ld_out = ld,
        };
        d->plugin->embed(d->queue, &a);
        fetch(d);
        check_same_floats(c, got, want, n_out, "out");
    }
}

void device_gather(struct device *d)
{
    struct check *c = &d->c;
    for (size_t i = 0; i < 6 && !c->failed; i++) {
        check_begin(c);
        const size_t n = CHECK_PICK(c, 1, 100, 256, 600), n_from = 1 + check_random(c, 9), n_to = 1 + check_random(c, 5);
        const float *from = check_floats(c, n_from * n, VALUES_NORMAL);
        float *got = check_buffer(c, n_to * n * sizeof(float), 4), *want = check_buffer(c, n_to * n * sizeof(float), 4);
        int32_t *rows = check_buffer(c, n_to * sizeof *rows, 4);
        for (size_t r = 0; r < n_to; r++) {
            rows[r] = (int32_t)check_random(c, n_from);
            memcpy(want + r * n, from + (size_t)rows[r] * n, n * sizeof *want);
        }
        d->plugin->gather(d->queue, place(d, got, n_to * n * sizeof(float)), place(d, from, n_from * n * sizeof(float)),
                          place(d, rows, n_to * sizeof *rows), n_to, n);
        fetch(d);
        check_same_floats(c, got, want, n_to * n, "rows");
    }
}

/* ---- the next id ---- */

struct candidate {
    int32_t id;
    float logit;
    double p;
};

static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

/* The rules of zq_sample. *clear: no bound falls near a running sum. */
static int32_t choose(const float *logits, size_t n, struct zq_device_choice rule, bool *clear)
{
    struct candidate *c = malloc(n * sizeof *c);
    if (!c) abort();
    for (size_t i = 0; i < n; i++) c[i] = (struct candidate){.id = (int32_t)i, .logit = logits[i]};
    qsort(c, n, sizeof *c, by_logit);
    size_t kept = rule.temperature > 0 ? n : 1;
    *clear = true;
    if (kept > 1 && rule.top_k > 0 && (size_t)rule.top_k < n) kept = (size_t)rule.top_k;
    double total = 0, sum = 0;
    for (size_t i = 0; i < kept; i++) total += c[i].p = kept > 1 ? exp(((double)c[i].logit - c[0].logit) / rule.temperature) : 1;
    const double near = 1e-9 * total;
    if (kept > 1 && rule.top_p > 0 && rule.top_p < 1) {
        size_t i = 0;
        for (; i < kept && sum < rule.top_p * total; i++) {
            sum += c[i].p;
            *clear &= fabs(sum - rule.top_p * total) > near;
        }
        kept = i;
        total = sum;
    }
    size_t i = 0;
    for (sum = 0; i + 1 < kept; i++) {
        sum += c[i].p;
        *clear &= fabs(sum - rule.u * total) > near;
        if (sum > rule.u * total) break;
    }
    const int32_t id = c[i].id;
    free(c);
    return id;
}

void device_sample(struct device *d)
{
    struct check *c = &d->c;
    for (size_t i = 0; i < 14 && !c->failed; i++) {
        check_begin(c);
        const size_t n = CHECK_PICK(c, 1, 2, 17, 129, 500, 1000), n_rows = 1 + check_random(c, 3), ld = n + check_random(c, 3);
        const size_t n_logits = (n_rows - 1) * ld + n;
        float *logits = check_floats(c, n_logits, check_coin(c) ? VALUES_NORMAL : VALUES_EQUAL);
        if (check_coin(c)) /* equal ones */
            for (size_t k = 0; k < n_logits; k++) logits[k] = roundf(logits[k]);
        struct zq_device_choice *rules = check_buffer(c, n_rows * sizeof *rules, 4);
        int32_t *got = check_buffer(c, n_rows * sizeof *got, 4), *want = check_buffer(c, n_rows * sizeof *want, 4);
        bool clear[4];
        for (size_t r = 0; r < n_rows; r++) {
            rules[r] = (struct zq_device_choice){.temperature = check_random(c, 4) ? 0.2f + 0.01f * (float)check_random(c, 200) : 0,
                                                 .top_k = check_coin(c) ? (int32_t)check_random(c, n + 2) : 0,
                                                 .top_p = check_coin(c) ? 0.01f * (float)check_random(c, 101) : 0,
                                                 .u = 0x1p-24f * (float)check_random(c, (size_t)1 << 24)};
            want[r] = choose(logits + r * ld, n, rules[r], &clear[r]);
        }
        double *weights = check_buffer(c, n_rows * n * sizeof *weights, 8);
        const struct zq_device_sample a = {
            .logits = place(d, logits, n_logits * sizeof(float)), .ld = ld, .n = n, .n_rows = n_rows,
            .choices = place(d, rules, n_rows * sizeof *rules), .weights = place(d, weights, n_rows * n * sizeof *weights),
            .ids = place(d, got, n_rows * sizeof *got),
        };
        d->plugin->sample(d->queue, &a);
        fetch(d);
        for (size_t r = 0; r < n_rows; r++)
            if (!clear[r]) got[r] = want[r];
        check_same_bytes(c, got, want, n_rows * sizeof *got, "ids");
    }
}

/* A recorded list: a copy and a gather, run when it is replayed and not before, each time on what lies there then. */
void device_graph(struct device *d)
{
    enum { N = 40 };
    struct check *c = &d->c;
    check_begin(c);
    float *x = check_floats(c, 2 * N, VALUES_NORMAL), *first = check_buffer(c, 2 * N * sizeof(float), 4);
    float *out = check_buffer(c, N * sizeof(float), 4);
    int32_t *rows = check_buffer(c, sizeof *rows, 4);
    *rows = 1;
    memcpy(first, x, 2 * N * sizeof *x);
    memset(out, 0, N * sizeof *out);
    float *there = place(d, x, 2 * N * sizeof(float)), *out_there = place(d, out, N * sizeof(float));
    const int32_t *rows_there = place(d, rows, sizeof *rows);
    d->plugin->gather(d->queue, out_there, there, rows_there, 1, N); /* loads the kernel, which must not happen while recording */
    d->plugin->begin_graph(d->queue);
    d->plugin->gather(d->queue, out_there, there, rows_there, 1, N);
    d->plugin->copy(d->queue, there, out_there, N * sizeof(float));
    struct zq_graph *graph = d->plugin->end_graph(d->queue);
    if (!graph) {
        check_fail(c, "nothing was recorded");
        return;
    }
    const int32_t zero = 0;
    float now[2 * N], changed[2 * N];
    d->plugin->download(d->queue, now, there, sizeof now);
    check_same_floats(c, now, first, 2 * N, "before it is run");
    d->plugin->run_graph(d->queue, graph);
    d->plugin->download(d->queue, now, there, sizeof now);
    check_same_floats(c, now, first + N, N, "after it was run");
    for (int i = 0; i < 2 * N; i++) changed[i] = (float)i;
    d->plugin->upload(d->queue, there, changed, sizeof changed);
    d->plugin->upload(d->queue, (void *)(uintptr_t)rows_there, &zero, sizeof zero);
    d->plugin->run_graph(d->queue, graph);
    d->plugin->download(d->queue, now, out_there, N * sizeof(float));
    check_same_floats(c, now, changed, N, "run again on other data");
    d->plugin->free_graph(graph);
    fetch(d);
}
