/* What the files of the simulator share. Everything happens in one OS thread: a fiber leaves only through yield_to_scheduler(), and only the
 * scheduler resumes one; so nothing here needs a lock. */
#ifndef ZQ_CUDA_SIM_INSIDE_H
#define ZQ_CUDA_SIM_INSIDE_H

#include "cuda/sim/sim.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace sim {

enum { MAX_THREADS = 288, RESIDENT = 2, STACK_BYTES = 128 * 1024, MAX_SHARED = 8, MAX_COPIES = 64, LANES = 32 };
enum { WARPS = MAX_THREADS / LANES, ALL_WARPS = RESIDENT * WARPS };
enum { GROUP_LANES = 128, GROUPS = MAX_THREADS / GROUP_LANES, MAX_BARRIERS = 32, MAX_TILES = 32, MAX_PRODUCTS = 32, MAX_SUMS = 128, MAX_LEFT = 64 };
enum state { READY, AT_BARRIER, IN_EXCHANGE, AT_TRANSACTIONS, AT_PRODUCTS, STOPPED, DONE };

struct copy {
    void *to;
    const void *from;
    unsigned n, size, group;
};

/* A transaction barrier (mbarrier): a phase ends when all have arrived and all bytes have. */
struct transactions {
    const void *at;
    unsigned n_arrivals, pending, phase;
    int64_t bytes;      /* expected and not yet there */
    bool fenced;        /* others and the asynchronous proxy may see that it was made */
    bool wanted;        /* somebody waits for this phase, since: */
    uint64_t wanted_at;
};

/* A tile on its way into shared memory. */
struct tile_copy {
    bool busy;
    uint32_t to; /* address in shared memory */
    uint32_t column, row;
    uint64_t delay;
    struct transactions *barrier;
    struct sim_tile_map map;
};

/* A product of a warp group, which 128 lanes issue one by one. */
struct product {
    unsigned index;              /* of its group's */
    unsigned n_lanes, n_retired; /* lanes that have issued it, and that have waited for it */
    unsigned n_columns;
    bool from_registers, keep;
    uint64_t left, right; /* descriptors */
    uint64_t due;
    uint32_t a[GROUP_LANES][4];
};
struct warp_group {
    unsigned n_issued, n_done; /* by all lanes; multiplied */
    struct product products[MAX_PRODUCTS];
    int32_t sums[GROUP_LANES][MAX_SUMS]; /* what the accumulators of products in flight hold */
};

/* A lane's side of products. */
struct lane_products {
    unsigned issued, retired, n_batches, ends[8]; /* ends[b % 8]: issued at the end of batch b */
    int32_t *d;                                   /* accumulators of products in flight */
    unsigned n_d;
    uint32_t *a[MAX_PRODUCTS];
    bool fenced; /* since it last waited; what its registers held then: */
    const int32_t *fenced_d;
    const uint32_t *fenced_a;
    unsigned n_fenced_d, n_fenced_a;
    int32_t d_then[MAX_SUMS];
    uint32_t a_then[MAX_LEFT];
};

struct block;

struct fiber {
    struct block *block;
    unsigned thread;
    enum state state;
    unsigned n_shared;  /* arrays asked for so far */
    unsigned exchanges; /* taken part in */
    unsigned n_copies, group;
    struct copy copies[MAX_COPIES];
    const struct transactions *waits_for;
    struct lane_products products;
    char *stack;
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake_stack; /* AddressSanitizer's */
};

struct warp {
    uint8_t handed[2][LANES][SIM_HANDED]; /* two: a fast lane may hand in again before a slow one has read */
    unsigned arrived, left;               /* lanes in the exchange; lanes not done */
    int operation;
};

struct block {
    struct sim_index index;
    unsigned n_threads, waiting, n_done;
    bool running;
    void *shared[MAX_SHARED];
    size_t shared_bytes[MAX_SHARED];
    uint8_t *dynamic; /* addresses in descriptors and of tiles are in it, from SHARED_BASE on */
    size_t dynamic_bytes;
    unsigned n_barriers;
    struct transactions barriers[MAX_BARRIERS];
    struct tile_copy tiles[MAX_TILES];
    struct warp_group groups[GROUPS];
    struct warp warps[MAX_THREADS / LANES];
    struct fiber fibers[MAX_THREADS];
};

} // namespace sim

struct sim_device {
    uint64_t first_seed, rng, tick;
    uint64_t held_until; /* this block's warps are, by sim_hold_block() */
    struct sim::block *held;
    char error[200];
    void (*body)(const void *arg);
    const void *arg;
    unsigned n_ready;
    uint32_t ready[sim::ALL_WARPS]; /* lanes of each warp, block after block, that may run, and how many they are */
    unsigned n_lanes[sim::ALL_WARPS];
    uint64_t aside_until[sim::ALL_WARPS];
    unsigned n_flying; /* tiles and products that have yet to happen, */
    uint64_t land_at;  /* no sooner than this */
    struct sim::fiber *running;
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake_stack;
    const void *stack_bottom; /* of the caller, for AddressSanitizer */
    size_t stack_bytes;
    struct sim::block blocks[sim::RESIDENT];
};

namespace sim {

extern thread_local struct sim_device *device; /* whose launch this thread is in */

uint64_t next_random(struct sim_device *d);
void garbage(struct sim_device *d, void *p, size_t n);
/* The first failure of a device is kept, and ends the launch. */
void fail(struct sim_device *d, const char *what);
/* Fails in a fiber, which never runs again. */
[[noreturn]] void stop(const char *what);
void make_ready(struct sim_device *d, struct fiber *f);
/* The fiber has set its state; returns when it is READY and chosen again. */
void yield_to_scheduler(struct fiber *f);

/* hopper.cpp, for the scheduler: a block begins; it has ended (false: with something in flight); the next thing in flight happens, if its time
 * has come or, with `now`, at once. False: nothing may happen. */
void begin_flight(struct block *b);
bool ended_flight(const struct block *b);
bool land(struct sim_device *d, bool now);

} // namespace sim

#endif
