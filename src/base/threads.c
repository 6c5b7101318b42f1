/* A team of POSIX threads. A run is published by a new epoch; every member, the caller included, takes parts from a counter
 * until none is left, so a member that the system has put aside holds up the others by one part at most. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/threads.h"

#include "base/alloc.h"
#include "zeroquant.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum {
    MAX_THREADS = 1024,
    PARTS_PER_THREAD = 4,
    SPINS = 4000, /* of a few nanoseconds up to 40: longer than the gaps between the operators of a step, shorter than a time slice */
};

struct zq_team {
    int n_members; /* the caller included */
    pthread_t threads[MAX_THREADS];
    struct member {
        struct zq_team *team;
        int index;
    } members[MAX_THREADS];

    zq_range_fn *fn; /* of the run in work */
    void *work;
    size_t n, grain, n_parts;
    atomic_size_t next; /* part to be taken */

    atomic_uint epoch; /* counts runs; the last one ends the threads */
    atomic_int busy;   /* threads that have not finished the run */
    atomic_bool ended;
    pthread_mutex_t lock; /* for sleeping only */
    pthread_cond_t begun, finished;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Parts differ by one grain at most: a short last one would leave its thread idle. No product here exceeds n * parts. */
static size_t part_begin(const struct zq_team *t, size_t i)
{
    const size_t grains = t->n / t->grain + (t->n % t->grain != 0);
    return (grains / t->n_parts * i + grains % t->n_parts * i / t->n_parts) * t->grain;
}

static void take_parts(struct zq_team *t, int thread)
{
    for (size_t i; (i = atomic_fetch_add(&t->next, 1)) < t->n_parts;) {
        const size_t end = part_begin(t, i + 1);
        t->fn(t->work, part_begin(t, i), end < t->n ? end : t->n, thread);
    }
}

/* Waits for the epoch to leave `seen`: spins a little, then sleeps. */
static void wait_for_run(struct zq_team *t, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&t->epoch) != seen) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load(&t->epoch) == seen) pthread_cond_wait(&t->begun, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static void wait_for_others(struct zq_team *t)
{
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load(&t->busy)) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load(&t->busy)) pthread_cond_wait(&t->finished, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static void *serve(void *argument)
{
    const struct member *self = argument;
    struct zq_team *t = self->team;
    for (unsigned seen = 0;; seen++) {
        wait_for_run(t, seen);
        if (atomic_load(&t->ended)) return NULL;
        take_parts(t, self->index);
        if (atomic_fetch_sub(&t->busy, 1) == 1) {
            pthread_mutex_lock(&t->lock);
            pthread_cond_signal(&t->finished);
            pthread_mutex_unlock(&t->lock);
        }
    }
}

/* Wakes the threads for a run, or for their end. */
static void begin(struct zq_team *t)
{
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->epoch, 1);
    pthread_cond_broadcast(&t->begun);
    pthread_mutex_unlock(&t->lock);
}

struct zq_team *zq_team_create(int n_threads)
{
    struct zq_team *t = zq_alloc_zero(sizeof *t);
    if (!t) return NULL;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->begun, NULL);
    pthread_cond_init(&t->finished, NULL);
    t->n_members = 1;
    const int wanted = n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
    for (int i = 1; i < wanted; i++) {
        t->members[i] = (struct member){t, i};
        if (pthread_create(&t->threads[i], NULL, serve, &t->members[i])) break;
        t->n_members++;
    }
    return t;
}

void zq_team_free(struct zq_team *t)
{
    if (!t) return;
    atomic_store(&t->ended, true);
    begin(t);
    for (int i = 1; i < t->n_members; i++) pthread_join(t->threads[i], NULL);
    pthread_cond_destroy(&t->finished);
    pthread_cond_destroy(&t->begun);
    pthread_mutex_destroy(&t->lock);
    zq_free(t);
}

int zq_team_size(const struct zq_team *t)
{
    return t->n_members;
}

void zq_team_run(struct zq_team *t, size_t n, size_t grain, zq_range_fn *fn, void *work)
{
    const size_t grains = n / grain + (n % grain != 0), most = (size_t)t->n_members * PARTS_PER_THREAD;
    if (!grains) return;
    if (grains == 1 || t->n_members == 1) {
        fn(work, 0, n, 0);
        return;
    }
    t->fn = fn;
    t->work = work;
    t->n = n;
    t->grain = grain;
    t->n_parts = grains < most ? grains : most;
    atomic_store(&t->next, 0);
    atomic_store(&t->busy, t->n_members - 1);
    begin(t);
    take_parts(t, 0);
    wait_for_others(t);
}

void zq_parallel(int n_threads, size_t n, size_t grain, zq_range_fn *fn, void *work)
{
    struct zq_team *t = n_threads > 1 && n > grain ? zq_team_create(n_threads) : NULL;
    if (t) zq_team_run(t, n, grain, fn, work);
    else if (n) fn(work, 0, n, 0); /* one thread, one part, or no memory for more */
    zq_team_free(t);
}

int zq_available_cores(void)
{
    cpu_set_t set;
    const int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}

int zq_thread_count(int asked)
{
    return asked <= 0 ? zq_available_cores() : asked > MAX_THREADS ? MAX_THREADS : asked;
}
