/* How long a line of cache takes from one core to another and back: what threads pay for every line of activations that one wrote and
 * another reads. Cores that share a cache and cores that do not differ by several times, and virtual ones may be moved from the first
 * kind to the second while they run. */
#include "bench/machine.h"
#include "bench/samples.h"

#include <pthread.h>
#include <stdatomic.h>

enum { TRIPS = 2000 };

struct exchange {
    _Alignas(64) atomic_int turn; /* whose: 0 or 1 */
    atomic_bool begun;
};

static void wait_turn(struct exchange *e, int turn)
{
    while (atomic_load_explicit(&e->turn, memory_order_acquire) != turn) {}
}

static void *answer(void *argument)
{
    struct exchange *e = argument;
    atomic_store(&e->begun, true);
    for (int i = 0; i < TRIPS; i++) {
        wait_turn(e, 1);
        atomic_store_explicit(&e->turn, 0, memory_order_release);
    }
    return NULL;
}

/* Seconds of a trip, with threads that lie where the system puts them; 0: no second thread. */
static double trip(void)
{
    struct exchange e = {0};
    pthread_t other;
    if (pthread_create(&other, NULL, answer, &e)) return 0;
    while (!atomic_load(&e.begun)) {}
    const double start = zq_bench_clock();
    for (int i = 0; i < TRIPS; i++) {
        atomic_store_explicit(&e.turn, 1, memory_order_release);
        wait_turn(&e, 0);
    }
    const double seconds = (zq_bench_clock() - start) / TRIPS;
    pthread_join(other, NULL);
    return seconds;
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
