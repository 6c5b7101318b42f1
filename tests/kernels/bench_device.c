/* zqcheck --cuda --bench: what products, attention and training's products reach on a GPU, in shares of limits measured in the same run: copying
 * for what reads weights, the fastest product of the run for what computes. Matrices rotate through more memory than the second-level cache holds.
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

/* F16 values of either sign between a half and one: random bits would be NaN here and there. */
static void *device_halves(struct table *t, size_t n)
{
    uint16_t *host = malloc(n * sizeof *host);
    uint64_t state = 9;
    if (!host) give_up("no memory");
    for (size_t i = 0; i < n; i++) host[i] = (uint16_t)(0x3800 | (zq_rng_next(&state) & 0x83ff));
    void *p = device_memory(t, n * sizeof *host);
    t->plugin->upload(t->queue, p, host, n * sizeof *host);
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
    {"GPT-NeoX-20B head, w8a16", ZQ_DEVICE_W8A16, 50432, 6144, 0, 4},
    {"GPT-NeoX-20B up, w8a16", ZQ_DEVICE_W8A16, 24576, 6144, 0, 1},
    {"GPT-NeoX-20B o, w8a16", ZQ_DEVICE_W8A16, 6144, 6144, 0, 1},
    {"GPT-NeoX-20B up, w4a16 k:128", ZQ_DEVICE_W4A16, 24576, 6144, 128, 1},
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
    if (format >= ZQ_DEVICE_W8A16) *codes = w->n_cols * zq_layout_width(w) / (format == ZQ_DEVICE_W4A16 ? 2 : 1);
    else *codes = zq_layout_codes(w, format == ZQ_DEVICE_W4A8 ? 4 : 8);
    return *codes + scales + 64;
}

static void print_product(const struct table *t, size_t i, const char *kernel, size_t n_tokens, size_t n_bytes, double ops, double s)
{
    const char *name = shapes[i].name;
    if (t->plugin->simulated) printf("| %s, %zu tokens%s | ran | no time | |\n", name, n_tokens, kernel);
    else if (n_tokens <= 16)
        printf("| %s, %zu tokens%s | %.1f us | %.0f GB/s | %.0f %% of the copy's |\n", name, n_tokens, kernel, 1e6 * s, 1e-9 * (double)n_bytes / s,
               100 * (double)n_bytes / s / t->copy_bytes);
    else printf("| %s, %zu tokens%s | %.1f us | %.1f TOPS | |\n", name, n_tokens, kernel, 1e6 * s, 1e-12 * ops / s);
    fflush(stdout);
}

/* By the rule, and each kernel for many tokens by itself. */
static void bench_product(struct table *t, size_t i)
{
    static const char *const kernels[] = {"", ", small tiles", ", wide tiles", ", wgmma", ", CUTLASS", ", cuBLASLt"};
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
    const bool floats = shapes[i].format >= ZQ_DEVICE_W8A16;
    work.p = (struct zq_product){.n_tokens = n_tokens, .q = floats ? NULL : q, .scale = floats ? NULL : scale, .x = x, .ld_x = w.n_cols,
                                 .out = out, .ld_out = w.n_rows};
    for (enum zq_device_kernel k = ZQ_KERNEL_BY_TABLE; k < ZQ_N_DEVICE_KERNELS; k++) {
        if (k != ZQ_KERNEL_BY_TABLE && (n_tokens <= 4 || !t->plugin->serves(t->queue, k, &w, shapes[i].format, false))) continue;
        t->plugin->prefer(t->queue, k);
        const double ops = 2.0 * (double)n_tokens * (double)w.n_rows * (double)w.n_cols;
        run_product(t, &work, 0);
        if (k != ZQ_KERNEL_BY_TABLE && t->plugin->took(t->queue) != k) {
            printf("| %s, %zu tokens%s | refused | | |\n", shapes[i].name, n_tokens, kernels[k]);
            continue;
        }
        print_product(t, i, kernels[k], n_tokens, n_bytes, ops, median(t, run_product, &work));
    }
    t->plugin->prefer(t->queue, ZQ_KERNEL_BY_TABLE);
    void *const all[] = {q, x, scale, out};
    for (size_t m = 0; m < ZQ_LEN(all); m++) t->plugin->free(t->queue, all[m]);
    for (size_t m = 0; m < work.n_matrices; m++) t->plugin->free(t->queue, work.w[m].packed);
}

/* ---- attention */

static const struct {
    const char *name;
    size_t n_heads, n_kv_heads, head_dim, n_sequences, n_tokens, position; /* tokens of each sequence, and what it has already */
    enum zq_dtype dtype;
    bool causal, fast;
} attentions[] = {
    {"BERT-large, 128 x 128 tokens", 16, 16, 64, 128, 128, 0, ZQ_F16, false, true},
    {"GPT-NeoX-20B, prompt of 2048", 64, 64, 96, 1, 2048, 0, ZQ_F16, true, true},
    {"GPT-NeoX-20B, 1 token after 2047, F16", 64, 64, 96, 1, 1, 2047, ZQ_F16, true, true},
    {"GPT-NeoX-20B, 1 token after 2047, INT8", 64, 64, 96, 1, 1, 2047, ZQ_I8, true, true},
    {"GPT-NeoX-20B, 32 x 1 token after 1023, F16", 64, 64, 96, 32, 1, 1023, ZQ_F16, true, true},
    {"32 heads on 8 keys, 1 token after 8191, F16", 32, 8, 128, 1, 1, 8191, ZQ_F16, true, true},
    {"32 heads on 8 keys, 8 x 1 token after 8191, F16", 32, 8, 128, 8, 1, 8191, ZQ_F16, true, true},
    {"GPT-NeoX-20B, 1 token after 2047, F16, --math exact", 64, 64, 96, 1, 1, 2047, ZQ_F16, true, false},
};

static void run_attention(struct table *t, void *work, size_t call)
{
    (void)call;
    t->plugin->attend(t->queue, work);
}

/* Tokens of an attention, sequence by sequence, each with a cache of its own. */
static const struct zq_device_token *attention_tokens(struct table *t, size_t n_sequences, size_t n_tokens, size_t position)
{
    const size_t n_keys = position + n_tokens, capacity = (n_keys + 15) / 16 * 16, n = n_sequences * n_tokens;
    struct zq_device_token *tokens = calloc(n, sizeof *tokens), *there = device_memory(t, n * sizeof *tokens);
    if (!tokens) give_up("no memory");
    for (size_t k = 0; k < n; k++)
        tokens[k] = (struct zq_device_token){.cache = k / n_tokens * capacity, .capacity = (uint32_t)capacity,
                                             .position = (uint32_t)(position + k % n_tokens), .n_keys = (uint32_t)n_keys};
    t->plugin->upload(t->queue, there, tokens, n * sizeof *tokens);
    free(tokens);
    return there;
}

static void bench_attention(struct table *t, size_t i)
{
    const size_t part = t->plugin->simulated ? SMALLER : 1, n_sequences = t->plugin->simulated ? 1 : attentions[i].n_sequences;
    const size_t n_tokens = attentions[i].n_tokens == 1 ? 1 : attentions[i].n_tokens / part + 9, position = attentions[i].position / part;
    struct zq_heads h = {.n_kv_heads = (attentions[i].n_kv_heads + part - 1) / part, .head_dim = attentions[i].head_dim};
    h.n_heads = h.n_kv_heads * (attentions[i].n_heads / attentions[i].n_kv_heads);
    h.q_stride = h.kv_stride = h.head_dim;
    h.k_offset = h.n_heads * h.head_dim;
    h.v_offset = h.k_offset + h.n_kv_heads * h.head_dim;
    const size_t n = n_sequences * n_tokens, ld = (h.n_heads + 2 * h.n_kv_heads) * h.head_dim, width = h.n_heads * h.head_dim;
    const size_t n_keys = position + n_tokens, rows = n_sequences * ((n_keys + 15) / 16 * 16) * h.n_kv_heads;
    const size_t value = attentions[i].dtype == ZQ_I8 ? 1 : 2, scale = value == 1 ? sizeof(float) : 0;
    const size_t bytes = 2 * n_sequences * n_keys * h.n_kv_heads * (h.head_dim * value + scale);
    void *zeros = calloc(n + ZQ_DEVICE_SPLIT_BLOCKS, sizeof(uint32_t)), *counters = device_memory(t, (n + ZQ_DEVICE_SPLIT_BLOCKS) * sizeof(uint32_t));
    if (!zeros) give_up("no memory");
    t->plugin->upload(t->queue, counters, zeros, (n + ZQ_DEVICE_SPLIT_BLOCKS) * sizeof(uint32_t));
    free(zeros);
    void *kv[2];
    for (int k = 0; k < 2; k++) kv[k] = value == 1 ? device_random(t, rows * h.head_dim, 0) : device_halves(t, rows * h.head_dim);
    struct zq_device_attention a = {
        .qkv = device_random(t, n * ld * sizeof(float), 1), .ld = ld, .n_tokens = n, .heads = h, .causal = attentions[i].causal,
        .fast = attentions[i].fast,
        .tokens = attention_tokens(t, n_sequences, n_tokens, position), .n_sequences = n_sequences, .scale = 0.1f,
        .cache = {.dtype = attentions[i].dtype, .k = kv[0], .v = kv[1],
                  .k_scale = device_random(t, rows * sizeof(float), 0.01f), .v_scale = device_random(t, rows * sizeof(float), 0.01f)},
        .out = {.f = device_memory(t, n * width * sizeof(float)), .ld_f = width, .q = device_memory(t, n * (width + 16)),
                .scale = device_memory(t, n * sizeof(float)), .ld_q = (width + 15) / 16 * 16},
        .arrived = counters, .joined = (uint32_t *)counters + n, .parts = device_memory(t, zq_device_parts(&h) * sizeof(float)),
    };
    const double s = median(t, run_attention, &a);
    if (t->plugin->simulated) printf("| attention: %s | ran | no time | |\n", attentions[i].name);
    else if (n_tokens == 1)
        printf("| attention: %s | %.1f us | %.0f GB/s | %.0f %% of the copy's |\n", attentions[i].name, 1e6 * s, 1e-9 * (double)bytes / s,
               100 * (double)bytes / s / t->copy_bytes);
    else {
        const double pairs = attentions[i].causal ? 0.5 * (double)n_tokens * (double)(n_tokens + 1) : (double)n_tokens * (double)n_keys;
        printf("| attention: %s | %.1f us | %.1f TFLOPS | |\n", attentions[i].name, 1e6 * s,
               4e-12 * pairs * (double)n_sequences * (double)width / s);
    }
    void *const all[] = {a.qkv, (void *)(uintptr_t)a.tokens, a.cache.k, a.cache.v, a.cache.k_scale, a.cache.v_scale, a.out.f, a.out.q, a.out.scale,
                         counters, a.parts};
    for (size_t k = 0; k < ZQ_LEN(all); k++) t->plugin->free(t->queue, all[k]);
    fflush(stdout);
}

/* ---- training */

/* As struct zq_matmul has them. */
static const struct {
    const char *name;
    size_t m, n, k;
    bool turn_a, turn_b;
} trained[] = {
    {"GPT-350M, up, 4096 tokens, forward", 4096, 4096, 1024, false, true},
    {"GPT-350M, up, 4096 tokens, gradient of weights", 4096, 1024, 4096, true, false},
    {"GPT-350M, moments of what down reads, 2048 tokens", 512, 4096, 2048, true, false},
};

struct trained_work {
    const struct zq_training_ops *ops;
    struct zq_matmul p;
};
static void run_trained(struct table *t, void *work, size_t call)
{
    const struct trained_work *w = work;
    (void)call;
    w->ops->product(t->queue, &w->p);
}

static void bench_trained(struct table *t, const struct zq_training_ops *ops, size_t i)
{
    const size_t part = t->plugin->simulated ? SMALLER : 1;
    struct trained_work w = {ops, {.m = trained[i].m / part, .n = trained[i].n / part, .k = trained[i].k / part, .alpha = 1,
                                   .turn_a = trained[i].turn_a, .turn_b = trained[i].turn_b}};
    struct zq_matmul *p = &w.p;
    p->lda = p->turn_a ? p->m : p->k;
    p->ldb = p->turn_b ? p->k : p->n;
    p->ldc = p->n;
    float *const a = device_random(t, p->m * p->k * sizeof *a, 1), *const b = device_random(t, p->k * p->n * sizeof *b, 1);
    p->a = a;
    p->b = b;
    p->c = device_memory(t, p->m * p->n * sizeof *p->c);
    static const char *const names[] = {[ZQ_FACTORS_F32] = "F32", [ZQ_FACTORS_TF32] = "TF32", [ZQ_FACTORS_BF16] = "BF16"};
    for (enum zq_factors f = ZQ_FACTORS_F32; f <= ZQ_FACTORS_BF16; f++) {
        p->factors = f;
        const double s = median(t, run_trained, &w), ops_done = 2.0 * (double)p->m * (double)p->n * (double)p->k;
        if (t->plugin->simulated) printf("| training: %s, %s | ran | no time | |\n", trained[i].name, names[f]);
        else printf("| training: %s, %s | %.1f us | %.1f TFLOPS | |\n", trained[i].name, names[f], 1e6 * s, 1e-12 * ops_done / s);
    }
    t->plugin->free(t->queue, a);
    t->plugin->free(t->queue, b);
    t->plugin->free(t->queue, p->c);
    fflush(stdout);
}

int bench_device(const struct zq_plugin *plugin, struct zq_queue *queue)
{
    struct table t = {.plugin = plugin, .queue = queue};
    printf("\n| operator | time | rate | |\n|---|---|---|---|\n");
    bench_copy(&t);
    for (size_t i = 0; i < ZQ_LEN(shapes); i++) bench_product(&t, i);
    for (size_t i = 0; i < ZQ_LEN(attentions); i++) bench_attention(&t, i);
    const struct zq_training_ops *training = plugin->training(queue);
    for (size_t i = 0; training && i < ZQ_LEN(trained); i++) bench_trained(&t, training, i);
    const char *failure = plugin->finish(queue);
    if (failure) fprintf(stderr, "zqcheck: %s\n", failure);
    return failure != NULL;
}
