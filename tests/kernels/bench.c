/* Timing: medians, ratios to plain C, and shares of the machine's limits (src/bench/machine.h, which also says whose time it is). */
#include "check.h"

#include "bench/machine.h"

#include <stdio.h>
#include <string.h>

/* One team for all measurements, until the program ends; NULL: out of memory. */
static struct zq_team *team_of(int n_threads)
{
    static struct zq_team *team;
    if (!team) team = zq_team_create(n_threads);
    return team;
}

double bench_time(struct bench *b, size_t n, size_t grain, bench_fn *fn, void *work)
{
    struct zq_team *team = team_of(b->n_threads);
    return team ? 1 / zq_busy_rate(team, n, grain, fn, work, 0.3).median : 0;
}

void bench_print(struct bench *b, const char *what, double per_second, const char *unit, double limit)
{
    static struct { char what[96]; double rate; } plain[128];
    static size_t n_plain;
    double ratio = 0;
    if (b->is_c && n_plain < ZQ_LEN(plain)) {
        snprintf(plain[n_plain].what, sizeof plain[n_plain].what, "%s", what);
        plain[n_plain++].rate = per_second;
    }
    for (size_t i = 0; i < n_plain; i++)
        if (!strcmp(plain[i].what, what)) ratio = per_second / plain[i].rate;
    printf("%-11s %-44s %8.2f %s", b->level, what, per_second * 1e-9, unit);
    if (ratio > 0) printf("  %6.2fx C", ratio);
    if (limit > 0) printf("  %5.1f %% of %.0f", 100 * per_second / limit, limit * 1e-9);
    printf("\n");
    fflush(stdout);
}

struct limits bench_limits(unsigned level, int n_threads)
{
    static double read_bytes;
    struct zq_team *team = team_of(n_threads);
    if (!team) return (struct limits){0};
    if (!(read_bytes > 0)) read_bytes = zq_read_rate(team, zq_memory_array_bytes(), 0.3).median;
    struct limits limits = {.read_bytes = read_bytes};
    limits.int8_ops = zq_peak_rate(team, level, ZQ_WORK_INT8, 0.3).median;
    limits.int4_ops = zq_peak_rate(team, level, ZQ_WORK_INT4, 0.3).median;
    limits.bf16_ops = zq_peak_rate(team, level, ZQ_WORK_BF16, 0.3).median;
    limits.float_ops = zq_peak_rate(team, level, ZQ_WORK_F32, 0.3).median;
    return limits;
}
