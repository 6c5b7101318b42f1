/* A team of POSIX threads. A run is a count of parts that are left; every member, the caller included, takes parts until none is,
 * and the run is over when all parts are done: a member that the system has put aside holds up the others by the part it has in
 * work, and one that sleeps through a run by nothing.
 *
 * A member takes a part by lowering the count, and only then reads what the run is: until its part is done there is no other run. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/threads.h"

#include "base/alloc.h"
#include "zeroquant.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    MAX_THREADS = 1024,
    PARTS_PER_THREAD = 2,
    UNEVEN_PARTS_PER_THREAD = 4,
    SPINS = 4000, /* of a few nanoseconds up to 40: longer than the gaps between the operators of a step, shorter than a time slice */
};

enum cutting { EVEN, UNEVEN, EACH };

struct zq_team {
    int n_members; /* the caller included */
    int n_useful;  /* members that have a core to run on: no more are awake, however many there are */
    pthread_t threads[MAX_THREADS];
    struct member {
        struct zq_team *team;
        int index;
    } members[MAX_THREADS];

    zq_range_fn *fn; /* of the run in work */
    void *work;
    size_t n, grain, n_parts;
    size_t n_first, first; /* parts at the beginning of `first` grains each */

    /* Whoever goes to sleep counts itself in and then looks again; whoever has news publishes it and then looks for sleepers. */
    _Alignas(64) atomic_size_t left; /* parts to be taken */
    _Alignas(64) atomic_size_t done; /* parts finished */
    _Alignas(64) atomic_int n_asleep;
    atomic_bool caller_asleep, ended;
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

/* Those after the first differ by one grain at most, for a short last one would leave its thread idle; the larger ones come first, so
 * that what is taken last evens out: 12 grains are 4, 4, 2 and 2 for two threads, and 6 for each, whoever takes which. */
static size_t part_begin(const struct zq_team *t, size_t i)
{
    if (i < t->n_first) return i * t->first * t->grain;
    const size_t grains = t->n / t->grain + (t->n % t->grain != 0), begun = t->n_first * t->first;
    const size_t n_left = t->n_parts - t->n_first, larger = (grains - begun) % n_left, part = i - t->n_first;
    return (begun + (grains - begun) / n_left * part + (part < larger ? part : larger)) * t->grain;
}

/* false: none is left. *n_parts: of the run that the part belongs to. */
static bool take_part(struct zq_team *t, size_t *part, size_t *n_parts)
{
    size_t left = atomic_load(&t->left);
    while (left && !atomic_compare_exchange_weak(&t->left, &left, left - 1)) {}
    if (!left) return false;
    *n_parts = t->n_parts;
    *part = *n_parts - left;
    return true;
}

static void take_parts(struct zq_team *t, int thread)
{
    size_t i, n_parts;
    while (take_part(t, &i, &n_parts)) {
        const size_t end = part_begin(t, i + 1);
        t->fn(t->work, part_begin(t, i), end < t->n ? end : t->n, thread);
        if (atomic_fetch_add(&t->done, 1) + 1 < n_parts || !atomic_load(&t->caller_asleep)) continue;
        pthread_mutex_lock(&t->lock);
        pthread_cond_signal(&t->finished);
        pthread_mutex_unlock(&t->lock);
    }
}

/* Spins a little, then sleeps. */
static void wait_for_parts(struct zq_team *t)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&t->left)) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->n_asleep, 1);
    while (!atomic_load(&t->left) && !atomic_load(&t->ended)) pthread_cond_wait(&t->begun, &t->lock);
    atomic_fetch_sub(&t->n_asleep, 1);
    pthread_mutex_unlock(&t->lock);
}

static void wait_for_others(struct zq_team *t)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&t->done) == t->n_parts) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->caller_asleep, true);
    while (atomic_load(&t->done) != t->n_parts) pthread_cond_wait(&t->finished, &t->lock);
    atomic_store(&t->caller_asleep, false);
    pthread_mutex_unlock(&t->lock);
}

static void *serve(void *argument)
{
    const struct member *self = argument;
    while (!atomic_load(&self->team->ended)) {
        wait_for_parts(self->team);
        take_parts(self->team, self->index);
    }
    return NULL;
}

/* Wakes members until `wanted` of the others are awake. */
static void wake(struct zq_team *t, int wanted)
{
    const int asleep = atomic_load(&t->n_asleep), awake = t->n_members - 1 - asleep;
    if (!asleep || awake >= wanted) return;
    pthread_mutex_lock(&t->lock);
    for (int i = awake; i < wanted; i++) pthread_cond_signal(&t->begun);
    pthread_mutex_unlock(&t->lock);
}

int zq_available_cores(void)
{
    cpu_set_t set;
    const int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}

struct zq_team *zq_team_create(int n_threads)
{
    struct zq_team *t = zq_alloc_zero(sizeof *t);
    if (!t) return NULL;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->begun, NULL);
    pthread_cond_init(&t->finished, NULL);
    t->n_members = 1;
    t->n_useful = zq_available_cores();
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
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->ended, true);
    pthread_cond_broadcast(&t->begun);
    pthread_mutex_unlock(&t->lock);
    for (int i = 1; i < t->n_members; i++) pthread_join(t->threads[i], NULL);
    pthread_cond_destroy(&t->finished);
    pthread_cond_destroy(&t->begun);
    pthread_mutex_destroy(&t->lock);
    zq_free(t);
}

int zq_team_size(const struct zq_team *t)
{
    return t ? t->n_members : 1;
}

/* Cuts the run. Even items: a first part of three quarters of its share for each thread, since a part that is long is a long stream of
 * weights, and what a kernel prepares for each part is prepared seldom; the rest evens out who is quicker. */
static void cut(struct zq_team *t, size_t grains, size_t n_threads, enum cutting cutting)
{
    const size_t most = cutting == EACH ? grains : n_threads * (cutting == EVEN ? PARTS_PER_THREAD : UNEVEN_PARTS_PER_THREAD);
    t->n_parts = grains < most ? grains : most;
    t->n_first = t->first = 0;
    if (cutting != EVEN || grains <= most) return;
    t->n_first = n_threads;
    t->first = grains * 3 / 4 / n_threads;
    const size_t left = grains - t->n_first * t->first;
    if (t->n_parts > t->n_first + left) t->n_parts = t->n_first + left;
}

static void run(struct zq_team *t, size_t n, size_t grain, zq_range_fn *fn, void *work, enum cutting cutting)
{
    const size_t grains = n / grain + (n % grain != 0);
    if (!grains) return;
    if (!t || grains == 1 || t->n_members == 1) {
        fn(work, 0, n, 0);
        return;
    }
    const int useful = t->n_members < t->n_useful ? t->n_members : t->n_useful;
    t->fn = fn;
    t->work = work;
    t->n = n;
    t->grain = grain;
    cut(t, grains, (size_t)(useful < 2 ? 2 : useful), cutting);
    atomic_store(&t->done, 0);
    atomic_store(&t->left, t->n_parts);
    wake(t, t->n_parts < (size_t)useful ? (int)t->n_parts - 1 : useful - 1);
    take_parts(t, 0);
    wait_for_others(t);
}

void zq_team_run(struct zq_team *t, size_t n, size_t grain, zq_range_fn *fn, void *work)
{
    run(t, n, grain, fn, work, EVEN);
}

void zq_team_run_uneven(struct zq_team *t, size_t n, size_t grain, zq_range_fn *fn, void *work)
{
    run(t, n, grain, fn, work, UNEVEN);
}

void zq_team_run_each(struct zq_team *t, size_t n, zq_range_fn *fn, void *work)
{
    run(t, n, 1, fn, work, EACH);
}

/* The team of a thread that called zq_parallel_keep(). */
static _Thread_local struct {
    struct zq_team *team;
    int n_threads, depth;
    bool busy; /* in a run, whose parts may have work to split themselves */
} kept;

void zq_parallel_keep(void)
{
    kept.depth++;
}

void zq_parallel_release(void)
{
    if (--kept.depth) return;
    zq_team_free(kept.team);
    kept.team = NULL;
}

static bool run_kept(int n_threads, size_t n, size_t grain, zq_range_fn *fn, void *work)
{
    if (!kept.depth || kept.busy) return false;
    if (kept.team && kept.n_threads != n_threads) {
        zq_team_free(kept.team);
        kept.team = NULL;
    }
    if (!kept.team) kept.team = zq_team_create(n_threads);
    if (!kept.team) return false;
    kept.n_threads = n_threads;
    kept.busy = true;
    zq_team_run_uneven(kept.team, n, grain, fn, work);
    kept.busy = false;
    return true;
}

void zq_parallel(int n_threads, size_t n, size_t grain, zq_range_fn *fn, void *work)
{
    const bool splits = n_threads > 1 && n > grain;
    if (splits && run_kept(n_threads, n, grain, fn, work)) return;
    struct zq_team *t = splits ? zq_team_create(n_threads) : NULL;
    if (t) zq_team_run_uneven(t, n, grain, fn, work);
    else if (n) fn(work, 0, n, 0); /* one thread, one part, or no memory for more */
    zq_team_free(t);
}

int zq_thread_count(int asked)
{
    return asked <= 0 ? zq_available_cores() : asked > MAX_THREADS ? MAX_THREADS : asked;
}
