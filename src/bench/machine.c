/* Peaks and bandwidths. A limit is the best of its runs, since nothing can be faster than the machine; rates of models are compared with
 * limits of the same run, because clocks and neighbours change from hour to hour. */
#include "bench/machine.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "bench/samples.h"

#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct timed {
    zq_range_fn *fn;
    void *work;
    atomic_llong ns; /* of all threads */
};

static void timed_range(void *work, size_t begin, size_t end, int thread)
{
    struct timed *t = work;
    const double start = thread_seconds();
    t->fn(t->work, begin, end, thread);
    atomic_fetch_add(&t->ns, (long long)(1e9 * (thread_seconds() - start)));
}

struct zq_rate zq_busy_rate(struct zq_team *team, size_t n, size_t grain, zq_range_fn *fn, void *work, double seconds)
{
    enum { LEAST = 3, MOST = 200 };
    double times[MOST], total = 0;
    struct zq_samples samples = {.seconds = times};
    struct timed timed = {.fn = fn, .work = work};
    zq_team_run(team, n, grain, timed_range, &timed); /* touches memory, wakes threads */
    while (samples.n < MOST && (samples.n < LEAST || total < seconds)) {
        atomic_store(&timed.ns, 0);
        zq_team_run(team, n, grain, timed_range, &timed);
        total += times[samples.n++] = 1e-9 * (double)atomic_load(&timed.ns) / zq_team_size(team);
    }
    return (struct zq_rate){1 / zq_samples_median(&samples), 1 / zq_samples_best(&samples)};
}

struct zq_rate zq_rate_times(struct zq_rate runs, double amount)
{
    return (struct zq_rate){runs.median * amount, runs.best * amount};
}

struct zq_rate zq_peak_rate(struct zq_team *team, unsigned level, enum zq_work work, double seconds)
{
    size_t n;
    const struct zq_peak *peaks = zq_peaks(&n);
    const size_t n_items = (size_t)zq_team_size(team);
    for (size_t i = 0; i < n; i++)
        if (peaks[i].level == level && peaks[i].work == work)
            return zq_rate_times(zq_busy_rate(team, n_items, 1, peaks[i].run, NULL, seconds), peaks[i].ops * (double)n_items);
    return (struct zq_rate){0};
}

/* ---- memory */

enum { LINE = 64 };

static void read_lines(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const uint64_t *p = work;
    uint64_t sum[8] = {0};
    for (size_t i = begin; i < end; i++)
        for (size_t j = 0; j < 8; j++) sum[j] += p[i * 8 + j];
    volatile uint64_t sink = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
    (void)sink;
}

struct zq_rate zq_read_rate(struct zq_team *team, size_t n_bytes, double seconds)
{
    uint8_t *memory = zq_alloc_pages(n_bytes); /* as weights lie */
    if (!memory) return (struct zq_rate){0};
    memset(memory, 1, n_bytes); /* pages of zeros may share memory */
    const struct zq_rate runs = zq_busy_rate(team, n_bytes / LINE, 64, read_lines, memory, seconds);
    zq_free(memory);
    return zq_rate_times(runs, (double)n_bytes);
}

size_t zq_cache_bytes(void)
{
    size_t bytes = 0;
    for (int index = 0; index < 8; index++) { /* Documentation/ABI/testing/sysfs-devices-system-cpu; the largest index is the last level */
        char path[80];
        unsigned long kib;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
        FILE *f = fopen(path, "r");
        if (!f) break;
        if (fscanf(f, "%luK", &kib) == 1) bytes = (size_t)kib << 10;
        fclose(f);
    }
    return bytes;
}

size_t zq_memory_array_bytes(void)
{
    const size_t least = (size_t)256 << 20, most = (size_t)2 << 30, bytes = 4 * zq_cache_bytes();
    return bytes < least ? least : bytes > most ? most : bytes;
}

/* ---- all of it */

double zq_machine_ops(const struct zq_machine *m, unsigned levels, enum zq_work work, unsigned *level)
{
    double best = 0;
    *level = 0;
    for (int bit = 0; bit < ZQ_MACHINE_LEVELS; bit++) {
        if (!(levels >> bit & 1) || m->ops[bit][work].best <= best) continue;
        best = m->ops[bit][work].best;
        *level = 1u << bit;
    }
    return best;
}

/* The large arrays must not count as memory of the model that is measured next: Documentation/filesystems/proc.rst, clear_refs. */
static void forget_peak_memory(void)
{
    const int f = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (f < 0) return;
    const ssize_t written = write(f, "5", 1); /* where it fails, the peak is too high, as without it */
    (void)written;
    close(f);
}

zq_status zq_machine_measure(zq_machine **out, int n_threads, double seconds, zq_error *err)
{
    *out = NULL;
    struct zq_team *team = zq_team_create(zq_thread_count(n_threads));
    zq_machine *m = team ? zq_alloc_zero(sizeof *m) : NULL;
    zq_status st = m ? zq_levels_detect(&m->levels, err) : zq_fail(err, ZQ_ENOMEM, "no memory to measure this machine");
    if (seconds <= 0) seconds = 0.2;
    if (!st) {
        m->n_threads = zq_team_size(team);
        for (int bit = 0; bit < ZQ_MACHINE_LEVELS; bit++)
            for (enum zq_work work = 0; work < ZQ_N_WORKS; work++)
                if (m->levels >> bit & 1) m->ops[bit][work] = zq_peak_rate(team, 1u << bit, work, seconds);
        if (m->n_threads > 1) m->exchange = zq_exchange_rate();
        m->cache_bytes = zq_cache_bytes();
        m->memory = zq_read_rate(team, zq_memory_array_bytes(), seconds);
        if (m->cache_bytes) m->cache = zq_read_rate(team, m->cache_bytes / 4, seconds);
    }
    zq_team_free(team);
    forget_peak_memory();
    if (st) zq_free(m);
    else *out = m;
    return st;
}

void zq_machine_free(zq_machine *machine)
{
    zq_free(machine);
}

static void report(const zq_machine *m, const char *name, const char *unit, const char *level, struct zq_rate rate,
                   zq_bench_fn *row, void *user)
{
    if (!(rate.best > 0)) return;
    const zq_bench_row r = {.name = name, .unit = unit, .median = rate.median, .best = rate.best, .limit = NAN, .share = NAN,
                            .threads = m->n_threads, .level = level, .math = "exact"};
    row(user, &r);
}

void zq_machine_report(const zq_machine *m, zq_bench_fn *row, void *user)
{
    char name[64];
    for (int bit = 0; bit < ZQ_MACHINE_LEVELS; bit++)
        for (enum zq_work work = 0; work < ZQ_N_WORKS; work++) {
            const char *level = zq_levels_name(1u << bit);
            snprintf(name, sizeof name, "machine.%s.%s", zq_work_name(work), level);
            report(m, name, work < ZQ_WORK_BF16 ? "GOP/s" : "GFLOP/s", level, zq_rate_times(m->ops[bit][work], 1e-9), row, user);
        }
    const char *level = zq_levels_name(m->levels);
    const struct zq_rate ns = {1e9 / m->exchange.median, 1e9 / m->exchange.best};
    report(m, "machine.memory", "GB/s", level, zq_rate_times(m->memory, 1e-9), row, user);
    report(m, "machine.cache", "GB/s", level, zq_rate_times(m->cache, 1e-9), row, user);
    if (m->exchange.best > 0) report(m, "machine.exchange", "ns", level, ns, row, user);
}
