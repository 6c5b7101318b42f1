/* The simulator: fibers, the scheduler, barriers, exchanges between lanes, asynchronous copies. */
#include "cuda/sim/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
/* Saves what a called function must keep, stores the stack pointer in *from and continues where `to` was stored. */
extern "C" void sim_switch_stack(void **from, void *to);
asm(".text\n.p2align 4\n.type sim_switch_stack, @function\n.hidden sim_switch_stack\nsim_switch_stack:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size sim_switch_stack, .-sim_switch_stack\n");
#endif

static int fault_to_wake(void)
{
    const char *number = getenv("ZQ_MUTANT");
    return number ? (int)strtol(number, NULL, 10) : 0;
}

const int zq_mutant = fault_to_wake();

namespace sim {

thread_local struct sim_device *device;

uint64_t next_random(struct sim_device *d) /* splitmix64 */
{
    uint64_t z = d->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void fail(struct sim_device *d, const char *what)
{
    const struct fiber *f = d->running;
    if (d->error[0]) return;
    if (f)
        snprintf(d->error, sizeof d->error, "simulated device, seed %llu: block (%u, %u), thread %u: %s", (unsigned long long)d->first_seed,
                 f->block->index.x, f->block->index.y, f->thread, what);
    else snprintf(d->error, sizeof d->error, "simulated device, seed %llu: %s", (unsigned long long)d->first_seed, what);
}

void stop(const char *what)
{
    fail(device, what);
    device->running->state = STOPPED;
    yield_to_scheduler(device->running);
    abort(); /* the launch is over */
}

void garbage(struct sim_device *d, void *p, size_t n)
{
    uint8_t *at = (uint8_t *)p;
    for (; n >= 8; n -= 8, at += 8) {
        const uint64_t r = next_random(d) | 0x0100010001000100u;
        memcpy(at, &r, 8);
    }
    for (; n; n--) *at++ = 0xD5;
}

/* ---- switching ---- */

void fiber_main()
{
    struct sim_device *d = device;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &d->stack_bottom, &d->stack_bytes);
#endif
    d->body(d->arg);
    struct fiber *f = d->running;
    f->state = DONE;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(NULL, d->stack_bottom, d->stack_bytes);
#endif
#if defined(__x86_64__)
    sim_switch_stack(&f->sp, d->sp);
#else
    swapcontext(&f->context, &d->context);
#endif
    abort(); /* a fiber that is done is never resumed */
}

/* Stacks lie a power of two apart; beginning at different places they do not compete for the same lines of the cache. */
void prepare_stack(struct fiber *f)
{
    const size_t n_bytes = STACK_BYTES - f->thread * 192 % 16384;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
#if defined(__x86_64__)
    void **top = (void **)(void *)(f->stack + n_bytes);
    *--top = NULL; /* the stack is as after a call: 8 bytes off a multiple of 16 when fiber_main begins */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++) *--top = NULL;
    f->sp = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = n_bytes;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
#endif
    f->fake_stack = NULL;
}

void resume(struct sim_device *d, struct fiber *f)
{
    d->running = f;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&d->fake_stack, f->stack, STACK_BYTES);
#endif
#if defined(__x86_64__)
    sim_switch_stack(&d->sp, f->sp);
#else
    swapcontext(&d->context, &f->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(d->fake_stack, NULL, NULL);
#endif
    d->running = NULL;
}

void yield_to_scheduler(struct fiber *f)
{
    struct sim_device *d = device;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&f->fake_stack, d->stack_bottom, d->stack_bytes);
#endif
#if defined(__x86_64__)
    sim_switch_stack(&f->sp, d->sp);
#else
    swapcontext(&f->context, &d->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f->fake_stack, NULL, NULL);
#endif
}

void make_ready(struct sim_device *d, struct fiber *f)
{
    f->state = READY;
    const unsigned w = (unsigned)(f->block - d->blocks) * WARPS + f->thread / LANES;
    d->ready[w] |= 1u << f->thread % LANES;
    d->n_lanes[w]++;
    d->n_ready++;
}

/* ---- blocks ---- */

void start_block(struct sim_device *d, struct block *b, struct sim_index index, unsigned n_threads)
{
    b->index = index;
    b->n_threads = n_threads;
    b->waiting = b->n_done = 0;
    b->running = true;
    for (unsigned i = 0; i < MAX_SHARED; i++)
        if (b->shared[i]) garbage(d, b->shared[i], b->shared_bytes[i]);
    if (b->dynamic) garbage(d, b->dynamic, b->dynamic_bytes);
    begin_flight(b);
    for (unsigned w = 0; w < n_threads / LANES; w++) {
        b->warps[w].arrived = 0;
        b->warps[w].left = LANES;
        d->aside_until[(unsigned)(b - d->blocks) * WARPS + w] = 0;
    }
    for (unsigned t = 0; t < n_threads; t++) {
        struct fiber *f = &b->fibers[t];
        f->block = b;
        f->thread = t;
        f->n_shared = f->exchanges = f->n_copies = f->group = 0;
        f->products.issued = f->products.retired = f->products.n_batches = 0;
        f->products.fenced = false;
        prepare_stack(f);
        make_ready(d, f);
    }
}

void release_shared(struct sim_device *d)
{
    for (unsigned i = 0; i < RESIDENT; i++) {
        for (unsigned s = 0; s < MAX_SHARED; s++) {
            free(d->blocks[i].shared[s]);
            d->blocks[i].shared[s] = NULL;
        }
        free(d->blocks[i].dynamic);
        d->blocks[i].dynamic = NULL;
    }
}

void after_run(struct sim_device *d, struct fiber *f)
{
    if (f->state != DONE) return;
    struct block *b = f->block;
    b->warps[f->thread / LANES].left--;
    b->n_done++;
    if (b->n_done == b->n_threads) {
        b->running = false;
        if (d->held == b) d->held_until = 0;
        if (!ended_flight(b)) fail(d, "ended while tiles or products are in flight");
    } else if (b->waiting && b->waiting + b->n_done == b->n_threads) fail(d, "ended without the barrier at which others wait");
}

/* A random number below n. */
unsigned below(uint64_t random, unsigned n) { return (unsigned)((random & 0xffffffffu) * n >> 32); }

/* Takes a random fiber that may run. Warps that were put aside come back when their time is over; if all are aside, whoever's ends first. */
struct fiber *choose(struct sim_device *d)
{
    unsigned w, lane;
    uint64_t r;
    for (;;) {
        unsigned n = 0, first = ALL_WARPS;
        for (w = 0; w < ALL_WARPS; w++) {
            if (!d->n_lanes[w]) continue;
            if (d->aside_until[w] <= d->tick) n += d->n_lanes[w];
            if (first == ALL_WARPS || d->aside_until[w] < d->aside_until[first]) first = w;
        }
        r = next_random(d);
        unsigned which = below(r, n);
        for (w = n ? 0 : first; n && (d->aside_until[w] > d->tick || which >= d->n_lanes[w]); w++)
            if (d->aside_until[w] <= d->tick) which -= d->n_lanes[w];
        if (!n || r >> 58) break;
        d->aside_until[w] = d->tick + ((uint64_t)1 << (r >> 40) % 12);
    }
    lane = (unsigned)(r >> 32) % LANES;
    const uint32_t turned = d->ready[w] >> lane | (uint32_t)((uint64_t)d->ready[w] << (LANES - lane));
    lane = (lane + (unsigned)__builtin_ctz(turned)) % LANES;
    d->ready[w] &= ~(1u << lane);
    d->n_lanes[w]--;
    d->n_ready--;
    d->tick++;
    return &d->blocks[w / WARPS].fibers[w % WARPS * LANES + lane];
}

/* For whole models, which nobody tells one: the environment's ZQ_SIM_SEED, else the clock. */
static uint64_t some_seed()
{
    const char *text = getenv("ZQ_SIM_SEED");
    const uint64_t given = text ? strtoull(text, NULL, 0) : 0;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return given ? given : ((uint64_t)t.tv_nsec ^ (uint64_t)t.tv_sec << 20) | 1;
}

} // namespace sim

using namespace sim;

struct sim_device *sim_create(uint64_t seed)
{
    struct sim_device *d = (struct sim_device *)calloc(1, sizeof *d);
    if (!d) return NULL;
    d->first_seed = d->rng = seed ? seed : some_seed();
    const size_t all = (size_t)RESIDENT * MAX_THREADS * STACK_BYTES;
    char *stacks = (char *)mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) {
        free(d);
        return NULL;
    }
    for (size_t i = 0; i < RESIDENT * MAX_THREADS; i++) d->blocks[i / MAX_THREADS].fibers[i % MAX_THREADS].stack = stacks + i * STACK_BYTES;
    return d;
}

void sim_destroy(struct sim_device *d)
{
    if (!d) return;
    release_shared(d);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(d->blocks[0].fibers[0].stack, (size_t)RESIDENT * MAX_THREADS * STACK_BYTES);
#endif
    munmap(d->blocks[0].fibers[0].stack, (size_t)RESIDENT * MAX_THREADS * STACK_BYTES);
    free(d);
}

uint64_t sim_seed(const struct sim_device *d) { return d->first_seed; }
const char *sim_error(const struct sim_device *d) { return d->error[0] ? d->error : NULL; }
void sim_fail(struct sim_device *d, const char *what) { fail(d, what); }

void sim_launch(struct sim_device *d, unsigned grid_x, unsigned grid_y, unsigned n_threads, void (*body)(const void *arg), const void *arg)
{
    const uint64_t n_blocks = (uint64_t)grid_x * grid_y;
    if (d->error[0] || !n_blocks) return;
    if (n_threads > MAX_THREADS || n_threads % LANES) {
        fail(d, "unsupported number of threads");
        return;
    }
    device = d;
    d->body = body;
    d->arg = arg;
    d->n_ready = d->n_flying = 0;
    d->land_at = 0;
    memset(d->ready, 0, sizeof d->ready);
    memset(d->n_lanes, 0, sizeof d->n_lanes);
    d->held_until = 0;
    release_shared(d);
    /* random order: i -> (i * step + start) mod n with a step that has no divisor in common with n */
    const uint64_t start = next_random(d) % n_blocks;
    uint64_t step = 1 + next_random(d) % n_blocks;
    for (;; step = 1 + next_random(d) % n_blocks) {
        uint64_t a = n_blocks, b = step;
        while (b) {
            const uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) break;
    }
    for (unsigned i = 0; i < RESIDENT; i++) d->blocks[i].running = false;
    for (uint64_t next = 0; !d->error[0];) {
        for (unsigned i = 0; i < RESIDENT && next < n_blocks; i++) {
            if (d->blocks[i].running) continue;
            const uint64_t at = (next++ * step + start) % n_blocks;
            start_block(d, &d->blocks[i], sim_index{(unsigned)(at % grid_x), (unsigned)(at / grid_x)}, n_threads);
        }
        while (d->n_flying && land(d, !d->n_ready)) {}
        if (!d->n_ready) {
            for (unsigned i = 0; i < RESIDENT; i++)
                if (d->blocks[i].running) fail(d, "all threads wait for others that never come");
            break;
        }
        struct fiber *f = choose(d);
        resume(d, f);
        after_run(d, f);
    }
    device = NULL;
}

void sim_hold_block(void)
{
    struct sim_device *d = device;
    struct block *b = d->running->block;
    if (d->held_until > d->tick) return; /* else whoever comes last would wait as long as those that it is to overtake */
    d->held = b;
    d->held_until = d->tick + ((uint64_t)1 << (18 + next_random(d) % 3));
    for (unsigned w = 0; w < b->n_threads / LANES; w++) d->aside_until[(unsigned)(b - d->blocks) * WARPS + w] = d->held_until;
}

struct sim_index sim_thread(void) { return sim_index{device->running->thread, 0}; }
struct sim_index sim_block(void) { return device->running->block->index; }

void *sim_shared(size_t n_bytes)
{
    struct fiber *f = device->running;
    struct block *b = f->block;
    const unsigned i = f->n_shared++;
    if (i >= MAX_SHARED) abort();
    if (!b->shared[i]) {
        b->shared[i] = aligned_alloc(128, (n_bytes + 127) / 128 * 128);
        if (!b->shared[i]) abort();
        b->shared_bytes[i] = n_bytes;
        garbage(device, b->shared[i], n_bytes);
#if defined(__SANITIZE_ADDRESS__)
        ASAN_POISON_MEMORY_REGION((char *)b->shared[i] + n_bytes, (n_bytes + 127) / 128 * 128 - n_bytes);
#endif
    }
    return b->shared[i];
}

void *sim_shared_dynamic(size_t n_bytes)
{
    struct block *b = device->running->block;
    if (!b->dynamic) {
        b->dynamic = (uint8_t *)aligned_alloc(1024, (n_bytes + 1023) / 1024 * 1024);
        if (!b->dynamic) abort();
        b->dynamic_bytes = n_bytes;
        garbage(device, b->dynamic, n_bytes);
#if defined(__SANITIZE_ADDRESS__)
        ASAN_POISON_MEMORY_REGION(b->dynamic + n_bytes, (n_bytes + 1023) / 1024 * 1024 - n_bytes);
#endif
    }
    return b->dynamic;
}

void sim_barrier(void)
{
    struct sim_device *d = device;
    struct fiber *f = d->running;
    struct block *b = f->block;
    f->state = AT_BARRIER;
    b->waiting++;
    if (b->n_done) fail(d, "reached a barrier after others have ended");
    if (b->waiting == b->n_threads) {
        b->waiting = 0;
        for (unsigned t = 0; t < b->n_threads; t++) make_ready(d, &b->fibers[t]);
    }
    yield_to_scheduler(f);
}

const uint8_t *sim_exchange(int operation, const void *mine, size_t n_bytes)
{
    struct sim_device *d = device;
    struct fiber *f = d->running;
    struct warp *w = &f->block->warps[f->thread / LANES];
    const unsigned parity = f->exchanges++ % 2;
    memcpy(w->handed[parity][f->thread % LANES], mine, n_bytes);
    if (w->arrived && w->operation != operation) fail(d, "lanes of its warp are in another operation");
    w->operation = operation;
    f->state = IN_EXCHANGE;
    if (++w->arrived == LANES) {
        w->arrived = 0;
        struct fiber *first = &f->block->fibers[f->thread / LANES * LANES];
        for (unsigned l = 0; l < LANES; l++) make_ready(d, first + l);
    }
    yield_to_scheduler(f);
    return &w->handed[parity][0][0];
}

void sim_need_aligned(const void *p, size_t align)
{
    if ((uintptr_t)p % align) fail(device, "an address is not aligned");
}

void sim_copy_async(void *to, const void *from, unsigned n, unsigned size)
{
    struct fiber *f = device->running;
    sim_need_aligned(to, size);
    if (n) sim_need_aligned(from, size);
    if (f->n_copies == MAX_COPIES || n > size) abort();
    garbage(device, to, size);
    f->copies[f->n_copies++] = copy{to, from, n, size, f->group};
}

void sim_copy_commit(void) { device->running->group++; }

void sim_copy_wait(unsigned n_left)
{
    struct fiber *f = device->running;
    unsigned kept = 0;
    for (unsigned i = 0; i < f->n_copies; i++) {
        const struct copy *c = &f->copies[i];
        if (c->group + n_left >= f->group) {
            f->copies[kept++] = *c;
            continue;
        }
        memset(c->to, 0, c->size);
        if (c->n) memcpy(c->to, c->from, c->n);
    }
    f->n_copies = kept;
}
