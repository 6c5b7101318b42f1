/* How long a line of cache takes from one core to another and back: what threads pay for every line of activations that one wrote and
 * another reads. Cores that share a cache and cores that do not differ by several times, and virtual ones may be moved from the first
 * kind to the second while they run. */
#include "bench/machine.h"
#include "bench/samples.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { TRIPS = 2000, CHECKED = 50 }; /* at most, while the other core is there; between two looks at the clock */
static const double LONGEST_S = 0.01;

struct exchange {
    _Alignas(64) atomic_int turn; /* whose: 0 or 1; ENDED */
    atomic_bool begun;
};
enum { ENDED = 2 };

/* Spins, and gives its core away if the other seems to have none. */
static int wait_turn(struct exchange *e, int turn)
{
    int now;
    for (unsigned spins = 1; (now = atomic_load_explicit(&e->turn, memory_order_acquire)) != turn && now != ENDED; spins++)
        if (spins % 4096 == 0) sched_yield();
    return now;
}

static void *answer(void *argument)
{
    struct exchange *e = argument;
    atomic_store(&e->begun, true);
    while (wait_turn(e, 1) != ENDED) atomic_store_explicit(&e->turn, 0, memory_order_release);
    return NULL;
}

/* Seconds of a trip, with threads that lie where the system puts them; 0: no second thread. */
static double trip(void)
{
    struct exchange e = {0};
    pthread_t other;
    if (pthread_create(&other, NULL, answer, &e)) return 0;
    while (!atomic_load(&e.begun)) sched_yield();
    const double start = zq_bench_clock();
    double seconds = 0;
    int n = 0;
    while (n < TRIPS && seconds < LONGEST_S) {
        for (int i = 0; i < CHECKED; i++, n++) {
            atomic_store_explicit(&e.turn, 1, memory_order_release);
            wait_turn(&e, 0);
        }
        seconds = zq_bench_clock() - start;
    }
    atomic_store(&e.turn, ENDED);
    pthread_join(other, NULL);
    return seconds / n;
}

struct zq_rate zq_exchange_rate(void)
{
    enum { TIMES = 9 };
    double times[TIMES];
    struct zq_samples samples = {.seconds = times};
    if (zq_available_cores() < 2) return (struct zq_rate){0};
    while (samples.n < TIMES) {
        const double seconds = trip();
        if (!(seconds > 0)) return (struct zq_rate){0};
        times[samples.n++] = seconds;
    }
    return (struct zq_rate){1 / zq_samples_median(&samples), 1 / zq_samples_best(&samples)};
}
