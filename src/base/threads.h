/* Work split over outputs: a range of independent items, cut into parts that any thread may take. What an item computes may
 * not depend on the cut, so results are the same for every number of threads.
 *
 * A team keeps its threads from one call to the next: between calls they spin for some microseconds, which is what separates
 * the operators of a step, and then sleep, so that neither an idle session nor a crowded machine burns cycles. */
#ifndef ZQ_BASE_THREADS_H
#define ZQ_BASE_THREADS_H

#include <stddef.h>

/* Handles items [begin, end); thread < team size tells which scratch it may use. */
typedef void zq_range_fn(void *work, size_t begin, size_t end, int thread);

struct zq_team;
/* A team of the calling thread and up to n_threads - 1 others; fewer if the system grants no more. NULL: out of memory. */
struct zq_team *zq_team_create(int n_threads);
void zq_team_free(struct zq_team *team); /* accepts NULL */
/* Here and below, NULL is the calling thread alone. */
int zq_team_size(const struct zq_team *team);

/* Calls fn on parts of [0, n) whose bounds are multiples of `grain` (but for n itself) and returns when all are done.
 * grain >= 1. One call at a time per team. Items take about as long as one another. */
void zq_team_run(struct zq_team *team, size_t n, size_t grain, zq_range_fn *fn, void *work);
/* Items that do not: smaller parts, handed out from 0 on, where those that take longest should be. */
void zq_team_run_uneven(struct zq_team *team, size_t n, size_t grain, zq_range_fn *fn, void *work);

/* Few items that take long, each a part of its own. */
void zq_team_run_each(struct zq_team *team, size_t n, zq_range_fn *fn, void *work);

/* Uneven items with a team made for this call: for long jobs (loading, quantizing), not for operators. thread < n_threads. */
void zq_parallel(int n_threads, size_t n, size_t grain, zq_range_fn *fn, void *work);

/* From zq_parallel_keep() to its zq_parallel_release(), calls of zq_parallel() by this thread share one team: for jobs of many short
 * steps. Pairs nest. */
void zq_parallel_keep(void);
void zq_parallel_release(void);

/* Processors this process may run on, >= 1. */
int zq_available_cores(void);
/* 0 -> zq_available_cores(); else the value itself, at most 1024. */
int zq_thread_count(int asked);

#endif
