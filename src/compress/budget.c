/* The estimate of memory counts mapped pages of the source, since they are resident too; what the system's page cache keeps of
 * written files belongs to no process. */
#include "compress/budget.h"

#include "base/alloc.h"
#include "base/rng.h"
#include "base/trim.h"
#include "compress/lesson.h"
#include "quant/encode.h"
#include "quant/pack.h"

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_STRIP = 32 << 20, /* larger strips measured no faster */
    MIN_STRIP = 64 << 10,
    SLACK = 6 << 20, /* write buffer, stacks of threads, JSON of journal and report */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t resident_now(void)
{
    unsigned long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    const bool ok = f && fscanf(f, "%llu %llu", &total, &resident) == 2;
    if (f) fclose(f);
    return ok ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : zq_budget_peak();
}

uint64_t zq_budget_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

/* What distillation takes, learned once: lengths of strips change nothing of it. */
struct lessons {
    uint64_t samples;
    struct zq_lesson_bytes *blocks; /* [n_layers] */
};

static zq_status take_lessons(struct lessons *out, const struct zq_plan *plan, int n_threads, bool on_disk, zq_error *err)
{
    *out = (struct lessons){.blocks = zq_alloc_array(plan->config.n_layers, sizeof *out->blocks)};
    zq_status st = out->blocks ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for a plan");
    if (!st) st = zq_lesson_sample_bytes(&out->samples, plan, n_threads, on_disk, err);
    for (size_t l = 0; l < plan->config.n_layers && !st; l++) st = zq_lesson_bytes(&out->blocks[l], plan, l, n_threads, on_disk, err);
    return st;
}

struct need {
    uint64_t bytes;             /* at the peak */
    uint64_t buffers;           /* the largest of an item */
    const struct zq_item *item; /* in work at the peak, or the first of what is in work; NULL: there is none */
    const char *work;           /* on it */
};

static void meet(struct need *need, uint64_t bytes, const struct zq_item *item, const char *work)
{
    if (need->item && bytes <= need->bytes) return;
    need->bytes = bytes;
    need->item = item;
    need->work = work;
}

/* Goes through the work in its order: what lies outside the blocks is written first, then each block is solved and written. Buffers are one
 * piece, of which stays resident what an item before has used. */
static struct need need_of(const struct zq_plan *plan, const struct zq_means *means, const struct lessons *lessons)
{
    struct need need = {0};
    size_t layer = SIZE_MAX;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        const uint64_t buffers = zq_item_buffers(item, means);
        if (item->layer != layer) {
            if (layer == SIZE_MAX) meet(&need, need.buffers + lessons->samples, item, "making samples for the block of");
            layer = item->layer;
            meet(&need, need.buffers + lessons->blocks[layer].solving, item, "distilling the block of");
        }
        if (buffers > need.buffers) need.buffers = buffers;
        meet(&need, need.buffers + zq_item_mapped(item, means) + (layer == SIZE_MAX ? 0 : lessons->blocks[layer].waiting), item, "coding");
    }
    return need;
}

/* base: what is there whatever the work comes to. */
static zq_status fit(struct zq_means *means, const struct zq_plan *plan, const struct lessons *lessons, uint64_t base, uint64_t bound,
                     struct zq_budget *out, zq_error *err)
{
    means->strip_bytes = DEFAULT_STRIP;
    struct need need = need_of(plan, means, lessons);
    while (bound && base + need.bytes > bound && means->strip_bytes > MIN_STRIP) {
        means->strip_bytes /= 2;
        need = need_of(plan, means, lessons);
    }
    *out = (struct zq_budget){.memory_bytes = base + need.bytes, .buffer_bytes = need.buffers};
    if (!bound || out->memory_bytes <= bound || !need.item) return ZQ_OK;
    return zq_fail(err, ZQ_ENOMEM, "%s tensor %s needs %.1f MiB of memory on %d threads, the bound is %.1f MiB", need.work,
                   need.item->tensor->name, (double)out->memory_bytes / 0x1p20, means->n_threads, (double)bound / 0x1p20);
}

zq_status zq_budget_fit(struct zq_means *means, const struct zq_plan *plan, bool on_disk, uint64_t bound, struct zq_budget *out, zq_error *err)
{
    /* a lesson has the model open: tokenizer, norms and biases are megabytes, and no size in the file tells how many */
    struct lessons lessons = {0};
    zq_model *model = NULL;
    const zq_open_options open = {.n_threads = means->n_threads};
    zq_status st = plan->lesson.method ? zq_model_open(&model, plan->ckpt->dir, &open, err) : ZQ_OK;
    zq_trim();
    const uint64_t base = resident_now() + SLACK;
    if (!st) st = take_lessons(&lessons, plan, means->n_threads, on_disk, err);
    if (!st) st = fit(means, plan, &lessons, base, bound, out, err);
    zq_free(lessons.blocks);
    zq_model_close(model);
    return st;
}

/* Seconds per weight, on one thread of this processor: the fastest of three passes over a tile of made-up weights, which lie in the cache
 * as those of a strip do. Negative if out of memory. */
static double time_coding(const struct zq_item *item)
{
    enum { VALUES = 1 << 16, PASSES = 3 };
    const size_t n_cols = item->module->n_cols, n_rows = n_cols < VALUES ? VALUES / n_cols : 1, n = n_rows * n_cols;
    const struct zq_layout *layout = &item->layout;
    const enum zq_dtype stored = item->tensor->dtype;
    struct tile {
        float *w, *scales, *shared;
        int8_t *codes;
        uint8_t *bytes;
    } t = {zq_alloc_array(n, sizeof(float)), zq_alloc_array(n, sizeof(float)), zq_alloc_array(n_rows, sizeof(float)), zq_alloc(n),
           zq_alloc_array(n, sizeof(float))};
    double best = -1;
    if (t.w && t.scales && t.shared && t.codes && t.bytes) {
        uint64_t random = 1;
        for (size_t i = 0; i < n; i++) t.w[i] = zq_rng_float(&random) - 0.5f;
        for (size_t r = 0; r < n_rows; r++) t.shared[r] = 1.0f / 64;
        zq_from_float(t.bytes, stored, t.w, n);
        for (int pass = 0; pass < PASSES; pass++) {
            const struct zq_weight_rows rows = {t.w, 0, n_rows, n_cols, layout, layout->row_groups ? t.shared : NULL};
            struct zq_deviation unused = {0};
            const double start = now();
            zq_to_float(t.w, t.bytes, stored, n);
            zq_encode_nearest(NULL, &rows, t.codes, t.scales);
            zq_weight_deviation(&unused, &rows, t.codes, t.scales);
            if (item->storage == ZQ_STORED_PACKED) zq_pack_codes((uint8_t *)t.w, t.codes, layout->spec.w_bits, n);
            const double seconds = (now() - start) / (double)n;
            if (best < 0 || seconds < best) best = seconds;
        }
    }
    zq_free(t.w);
    zq_free(t.scales);
    zq_free(t.shared);
    zq_free(t.codes);
    zq_free(t.bytes);
    return best;
}

zq_status zq_budget_seconds(double *out, const struct zq_plan *plan, int n_threads, zq_error *err)
{
    const double read_per_s = 1e9, written_per_s = 0.3e9; /* bytes; assumed: a modest SSD */
    double per_weight[9] = {0}, read = 0, written = 0, coding = 0; /* per_weight: by bits, as first met */
    *out = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        read += (double)item->tensor->n_bytes;
        written += (double)item->bytes_out;
        if (item->storage == ZQ_STORED_FLOAT) continue;
        double *seconds = &per_weight[item->layout.spec.w_bits];
        if (*seconds == 0) *seconds = time_coding(item);
        if (*seconds < 0) return zq_fail(err, ZQ_ENOMEM, "%s: no memory to time the coding of its weights", plan->ckpt->dir);
        coding += *seconds * (double)item->tensor->n_values;
    }
    *out = coding / n_threads + read / read_per_s + written / written_per_s + zq_lesson_seconds(plan, n_threads);
    return ZQ_OK;
}
