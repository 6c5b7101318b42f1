/* What this machine can do at best: the limits that measured rates are shares of. */
#ifndef ZQ_BENCH_MACHINE_H
#define ZQ_BENCH_MACHINE_H

#include "bench/peaks.h"

enum { ZQ_MACHINE_LEVELS = 7 }; /* bits of enum zq_level */

struct zq_rate {
    double median, best; /* per second; 0: unknown */
};

struct zq_machine {
    int n_threads;
    unsigned levels;
    struct zq_rate ops[ZQ_MACHINE_LEVELS][ZQ_N_WORKS]; /* by bit of the level */
    struct zq_rate memory, cache; /* bytes read: from arrays far larger than the last-level cache, and from a quarter of it */
    struct zq_rate exchange;      /* trips of a line of cache to another core and back; 0: there is one core */
    size_t cache_bytes;           /* of the last level; 0: unknown */
};

/* Calls fn on [0, n) until `seconds` of processor time have gone by, at least three times and once before. Time is the processor time of
 * the threads while in fn, divided by their number: what other programs take does not count, nor does waiting. */
struct zq_rate zq_busy_rate(struct zq_team *team, size_t n, size_t grain, zq_range_fn *fn, void *work, double seconds);
/* Runs of fn a second become `amount` of each run a second. */
struct zq_rate zq_rate_times(struct zq_rate runs, double amount);

/* The peak of exactly that level; 0 if none is known. */
struct zq_rate zq_peak_rate(struct zq_team *team, unsigned level, enum zq_work work, double seconds);
/* Bytes read a second by all threads from an array of n_bytes; 0: out of memory. */
struct zq_rate zq_read_rate(struct zq_team *team, size_t n_bytes, double seconds);
/* Trips of a line of cache to another core and back, a second: the median of several pairs of threads. 0: there is one core. */
struct zq_rate zq_exchange_rate(void);
/* Of the last-level cache; 0: unknown. */
size_t zq_cache_bytes(void);
/* The size of an array that no last-level cache holds. */
size_t zq_memory_array_bytes(void);

/* The best rate of a kind of work among `levels`; *level, which one it is of. 0 and 0 if none is known. */
double zq_machine_ops(const struct zq_machine *machine, unsigned levels, enum zq_work work, unsigned *level);

#endif
