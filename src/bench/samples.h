/* Times of repeated work. */
#ifndef ZQ_BENCH_SAMPLES_H
#define ZQ_BENCH_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>

struct zq_samples {
    double *seconds; /* [n] */
    size_t n, capacity;
};
/* Seconds of a clock that only goes forward. */
double zq_bench_clock(void);
/* false: out of memory. */
bool zq_samples_add(struct zq_samples *s, double seconds);
/* Of n >= 1 samples, which it sorts. */
double zq_samples_median(struct zq_samples *s);
double zq_samples_best(const struct zq_samples *s);
void zq_samples_free(struct zq_samples *s); /* accepts zero */

#endif
