/* zqcheck --cuda --bench: what products and attention reach on a GPU, in shares of limits measured in the same run: copying for what
 * reads weights, the fastest product of the run for what computes. Matrices rotate through more memory than the second-level cache holds.
 * In the simulator everything runs once, at a fraction of the size, so that the code is exercised; it has no time to print. */
#include "device.h"

#include "base/rng.h"
#include "cuda/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROTATED_BYTES = 256 << 20, RUNS = 20, SMALLER = 64 };

struct table {
    const struct zq_plugin *plugin;
    struct zq_queue *queue;
    double copy_bytes; /* per second, read and written */
};

static void give_up(const char *what)
{
    fprintf(stderr, "zqcheck: %s\n", what);
    exit(1);
}

static void *device_memory(struct table *t, size_t n)
{
    void *p = t->plugin->alloc(t->queue, n);
    if (!p) give_up("no device memory");
    return p;
}

/* Random bytes there; floats instead, if a value other than 0 is given. */
static void *device_random(struct table *t, size_t n, float value)
{
    uint8_t *host = malloc(n + 8);
    uint64_t state = 7;
    if (!host) give_up("no memory");
    for (size_t i = 0; i < n; i += 4) {
        const uint32_t bits = (uint32_t)zq_rng_next(&state);
        const float f = value * ((float)(bits >> 8) * 0x1p-24f + 0.5f);
        memcpy(host + i, value != 0 ? (const void *)&f : (const void *)&bits, 4);
    }
    void *p = device_memory(t, n);
    t->plugin->upload(t->queue, p, host, n);
    free(host);
    return p;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one call; each run is timed over a few calls if they are short. */
static double median(struct table *t, void (*run)(struct table *t, void *work, size_t call), void *work)
{
    double seconds[RUNS];
    if (t->plugin->simulated) {
        run(t, work, 0);
        return 0;
    }
    size_t calls = 1, call = 0;
    for (double ms = 0; ms < 0.5 && calls < 1000; calls *= 4) { /* warms up, too */
        t->plugin->start_clock(t->queue);
        for (size_t i = 0; i < calls; i++) run(t, work, call++);
        ms = t->plugin->read_clock(t->queue);
    }
    for (int r = 0; r < RUNS; r++) {
        t->plugin->start_clock(t->queue);
        for (size_t i = 0; i < calls; i++) run(t, work, call++);
        seconds[r] = 1e-3 * t->plugin->read_clock(t->queue) / (double)calls;
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return seconds[RUNS / 2];
}

struct copy_work {
    void *to, *from;
    size_t n;
};
static void run_copy(struct table *t, void *work, size_t call)
{
    const struct copy_work *w = work;
    (void)call;
    t->plugin->copy(t->queue, w->to, w->from, w->n);
}

static void bench_copy(struct table *t)
{
    struct copy_work w = {.n = (size_t)1 << 30};
    if (t->plugin->simulated) w.n /= 1024;
    w.from = device_random(t, w.n, 0);
    w.to = device_memory(t, w.n);
    const double s = median(t, run_copy, &w);
    t->copy_bytes = s > 0 ? 2 * (double)w.n / s : 0;
    printf("| copy of 1 GiB | %.1f us | %.0f GB/s, read and written | |\n", 1e6 * s, 1e-9 * t->copy_bytes);
    t->plugin->free(t->queue, w.from);
    t->plugin->free(t->queue, w.to);
}

struct product_work {
    struct zq_product p;
    struct zq_matrix w[64];
    size_t n_matrices;
    enum zq_device_format format;
};
static void run_product(struct table *t, void *work, size_t call)
{
    struct product_work *w = work;
    w->p.w = &w->w[call % w->n_matrices];
    t->plugin->product(t->queue, &w->p, w->format);
}

static const struct {
    const char *name;
    enum zq_device_format format;
    size_t n_rows, n_cols, k_group, n_tokens;
} shapes[] = {
    {"GPT-NeoX-20B qkv, w8a8", ZQ_DEVICE_W8A8, 18432, 6144, 0, 1},
    {"GPT-NeoX-20B o, w8a8", ZQ_DEVICE_W8A8, 6144, 6144, 0, 1},
    {"GPT-NeoX-20B up, w8a8", ZQ_DEVICE_W8A8, 24576, 6144, 0, 1},
    {"GPT-NeoX-20B down, w8a8", ZQ_DEVICE_W8A8, 6144, 24576, 0, 1},
    {"GPT-NeoX-20B up, w4a8", ZQ_DEVICE_W4A8, 24576, 6144, 0, 1},
    {"GPT-NeoX-20B down, w4a8", ZQ_DEVICE_W4A8, 6144, 24576, 0, 1},
    {"GPT-NeoX-20B up, w4a8 k:128", ZQ_DEVICE_W4A8, 24576, 6144, 128, 1},
    {"GPT-NeoX-20B head, w8a16", ZQ_DEVICE_W8A16, 50432, 6144, 0, 1},
    {"GPT-NeoX-20B up, w8a8", ZQ_DEVICE_W8A8, 24576, 6144, 0, 4},
    {"GPT-NeoX-20B up, w8a8", ZQ_DEVICE_W8A8, 24576, 6144, 0, 16},
    {"GPT-NeoX-20B up, w8a8", ZQ_DEVICE_W8A8, 24576, 6144, 0, 128},
    {"BERT-base up, w8a8", ZQ_DEVICE_W8A8, 3072, 768, 0, 16384},
    {"BERT-base down, w8a8", ZQ_DEVICE_W8A8, 768, 3072, 0, 16384},
    {"BERT-large up, w8a8", ZQ_DEVICE_W8A8, 4096, 1024, 0, 16384},
    {"8192 x 8192, w8a8", ZQ_DEVICE_W8A8, 8192, 8192, 0, 8192},
    {"8192 x 8192, w4a8", ZQ_DEVICE_W4A8, 8192, 8192, 0, 8192},
    {"8192 x 8192, w4a8 k:128", ZQ_DEVICE_W4A8, 8192, 8192, 128, 8192},
};

static size_t bytes_of(const struct zq_matrix *w, enum zq_device_format format, size_t *codes)
{
    const size_t scales = zq_layout_groups(w) * w->n_rows * sizeof(float);
    *codes = format == ZQ_DEVICE_W8A16 ? w->n_cols * zq_layout_width(w) : zq_layout_codes(w, format == ZQ_DEVICE_W4A8 ? 4 : 8);
    return *codes + scales + 64;
}

static void bench_product(struct table *t, size_t i)
{
    const size_t part = t->plugin->simulated ? SMALLER : 1;
    struct zq_matrix w = {.n_rows = shapes[i].n_rows / part, .n_cols = shapes[i].n_cols / part / 32 * 32, .k_group = shapes[i].k_group,
                          .dtype = ZQ_I8};
    const size_t n_tokens = shapes[i].n_tokens < part ? shapes[i].n_tokens : shapes[i].n_tokens / part;
    if (w.k_group && w.n_cols % w.k_group) w.n_cols = w.k_group;
    size_t codes;
    const size_t n_bytes = bytes_of(&w, shapes[i].format, &codes);
    struct product_work work = {.format = shapes[i].format, .n_matrices = t->plugin->simulated ? 1 : ROTATED_BYTES / n_bytes + 1};
    if (work.n_matrices > ZQ_LEN(work.w)) work.n_matrices = ZQ_LEN(work.w);
    for (size_t m = 0; m < work.n_matrices; m++) {
        work.w[m] = w;
        work.w[m].packed = device_random(t, n_bytes, 0);
        void *scales = device_random(t, n_bytes - codes, 0.01f);
        t->plugin->copy(t->queue, (char *)work.w[m].packed + codes, scales, n_bytes - codes);
        t->plugin->free(t->queue, scales);
    }
    void *q = device_random(t, n_tokens * w.n_cols, 0), *x = device_random(t, n_tokens * w.n_cols * sizeof(float), 1);
    void *scale = device_random(t, n_tokens * sizeof(float), 0.01f), *out = device_memory(t, n_tokens * w.n_rows * sizeof(float));
    const bool floats = shapes[i].format == ZQ_DEVICE_W8A16;
    work.p = (struct zq_product){.n_tokens = n_tokens, .q = floats ? NULL : q, .scale = floats ? NULL : scale, .x = x, .ld_x = w.n_cols,
                                 .out = out, .ld_out = w.n_rows};
    const double s = median(t, run_product, &work), ops = 2.0 * (double)n_tokens * (double)w.n_rows * (double)w.n_cols;
    if (t->plugin->simulated) printf("| %s, %zu tokens | ran | no time | |\n", shapes[i].name, n_tokens);
    else if (n_tokens <= 16)
        printf("| %s, %zu tokens | %.1f us | %.0f GB/s | %.0f %% of the copy's |\n", shapes[i].name, n_tokens, 1e6 * s, 1e-9 * (double)n_bytes / s,
               100 * (double)n_bytes / s / t->copy_bytes);
    else printf("| %s, %zu tokens | %.1f us | %.1f TOPS | |\n", shapes[i].name, n_tokens, 1e6 * s, 1e-12 * ops / s);
    void *const all[] = {q, x, scale, out};
    for (size_t m = 0; m < ZQ_LEN(all); m++) t->plugin->free(t->queue, all[m]);
    for (size_t m = 0; m < work.n_matrices; m++) t->plugin->free(t->queue, work.w[m].packed);
    fflush(stdout);
}

int bench_device(const struct zq_plugin *plugin, struct zq_queue *queue)
{
    struct table t = {.plugin = plugin, .queue = queue};
    printf("\n| operator | time | rate | |\n|---|---|---|---|\n");
    bench_copy(&t);
    for (size_t i = 0; i < ZQ_LEN(shapes); i++) bench_product(&t, i);
    const char *failure = plugin->finish(queue);
    if (failure) fprintf(stderr, "zqcheck: %s\n", failure);
    return failure != NULL;
}
