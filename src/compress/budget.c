/* The estimate of memory counts mapped pages of the source, since they are resident too; what the system's page cache keeps of
 * written files belongs to no process. */
#include "compress/budget.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    DEFAULT_STRIP = 32 << 20, /* larger strips measured no faster */
    MIN_STRIP = 64 << 10,
    SLACK = 12 << 20, /* write buffer, stacks of threads, JSON of journal and report */
};

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

/* The item that takes most memory. */
static const struct zq_item *largest(const struct zq_plan *plan, const struct zq_means *means, uint64_t *n_bytes)
{
    const struct zq_item *item = NULL;
    *n_bytes = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const uint64_t n = zq_item_memory(&plan->items[i], means);
        if (item && n <= *n_bytes) continue;
        item = &plan->items[i];
        *n_bytes = n;
    }
    return item;
}

zq_status zq_budget_fit(struct zq_means *means, const struct zq_plan *plan, uint64_t lesson_bytes, uint64_t bound, uint64_t *memory_bytes,
                        zq_error *err)
{
    const uint64_t base = resident_now() + SLACK + lesson_bytes;
    uint64_t work;
    means->strip_bytes = DEFAULT_STRIP;
    const struct zq_item *item = largest(plan, means, &work);
    while (bound && base + work > bound && means->strip_bytes > MIN_STRIP) {
        means->strip_bytes /= 2;
        item = largest(plan, means, &work);
    }
    *memory_bytes = base + work;
    if (!bound || *memory_bytes <= bound || !item) return ZQ_OK;
    zq_status st = zq_fail(err, ZQ_ENOMEM, "tensor %s needs %.1f MiB of memory on %d threads, the bound is %.1f MiB", item->tensor->name,
                           (double)*memory_bytes / 0x1p20, means->n_threads, (double)bound / 0x1p20);
    *memory_bytes = 0;
    return st;
}

double zq_budget_seconds(const struct zq_plan *plan, int n_threads)
{
    /* weights per second and thread, measured on Zen 4; bytes per second of a modest SSD */
    const double coded_per_s = 0.3e9, read_per_s = 1e9, written_per_s = 0.3e9;
    double read = 0, written = 0, coded = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        read += (double)item->tensor->n_bytes;
        written += (double)item->bytes_out;
        if (item->storage != ZQ_STORED_FLOAT) coded += (double)item->tensor->n_values;
    }
    return coded / (coded_per_s * n_threads) + read / read_per_s + written / written_per_s;
}
