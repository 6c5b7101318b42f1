/* The median says what a user sees, the best what the code can do when nothing else runs. */
#include "bench/samples.h"

#include "base/alloc.h"
#include "zeroquant.h"

#include <stdlib.h>
#include <time.h>

double zq_bench_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool zq_samples_add(struct zq_samples *s, double seconds)
{
    if (!zq_grow((void **)&s->seconds, s->n, &s->capacity, sizeof *s->seconds)) return false;
    s->seconds[s->n++] = seconds;
    return true;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double zq_samples_median(struct zq_samples *s)
{
    qsort(s->seconds, s->n, sizeof *s->seconds, by_value);
    return s->n % 2 ? s->seconds[s->n / 2] : (s->seconds[s->n / 2 - 1] + s->seconds[s->n / 2]) / 2;
}

double zq_samples_best(const struct zq_samples *s)
{
    double best = s->seconds[0];
    for (size_t i = 1; i < s->n; i++) best = s->seconds[i] < best ? s->seconds[i] : best;
    return best;
}

void zq_samples_free(struct zq_samples *s)
{
    zq_free(s->seconds);
    *s = (struct zq_samples){0};
}
