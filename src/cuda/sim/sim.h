/* A simulator of a CUDA device, enough for the kernels of this folder: they compile unchanged with g++ and run on the CPU, under
 * sanitizers if wanted. It is not a fast device but a mean one:
 *   - every CUDA thread is a fiber with its own stack; which one runs next is random, and whole warps are put aside for random times,
 *     so that a missing barrier shows as a wrong result
 *   - blocks run in random order, two of them side by side
 *   - shared memory holds garbage at first, each array in an allocation of its own (AddressSanitizer sees what is read beside it)
 *   - an asynchronous copy lands when its thread waits for it and not before; until then its destination holds garbage
 *   - tiles that a transaction barrier counts (TMA) land at a random time after somebody waits for it, in any order; products of a warp group
 *     (wgmma) happen at a random time between their issue and the wait for them, as their descriptors say, and until then their registers
 *     hold garbage
 *   - lanes that meet in different warp operations, or a barrier that some thread never reaches, end the launch with an error
 * The seed of all randomness is printed by zqcheck and in every complaint, and can be set: zqcheck --seed, for whole models ZQ_SIM_SEED in
 * the environment. What it cannot see: the weak memory model, bank conflicts, speed. */
#ifndef ZQ_CUDA_SIM_H
#define ZQ_CUDA_SIM_H

#include <stddef.h>
#include <stdint.h>

struct sim_device;

struct sim_device *sim_create(uint64_t seed); /* 0: ZQ_SIM_SEED, else a fresh one */
void sim_destroy(struct sim_device *device);
uint64_t sim_seed(const struct sim_device *device);
/* NULL, or what went wrong in a launch since sim_create(). */
const char *sim_error(const struct sim_device *device);
/* Nothing runs afterwards; the first of several failures counts. */
void sim_fail(struct sim_device *device, const char *what);

/* Runs grid_x * grid_y blocks of n_threads (a multiple of 32), each thread calling body(arg). */
void sim_launch(struct sim_device *device, unsigned grid_x, unsigned grid_y, unsigned n_threads, void (*body)(const void *arg), const void *arg);

/* ---- for kernels, of the thread that runs ---- */

struct sim_index { unsigned x, y; };
struct sim_index sim_thread(void);
struct sim_index sim_block(void);

/* The next shared array of the block: the n-th call of every thread gives the same one. */
void *sim_shared(size_t n_bytes);
void sim_barrier(void);
/* Puts the block's warps aside for long, other blocks come first: this thread is about to tell them that all have written. */
extern const int zq_mutant; /* which of the planted faults is awake, 0: none */
void sim_hold_block(void);

/* All 32 lanes hand in n_bytes and get what every lane handed in, [32][SIM_HANDED] bytes, valid until the lane's next operation.
 * `operation` tells a shuffle from a product. */
enum { SIM_HANDED = 48 };
const uint8_t *sim_exchange(int operation, const void *mine, size_t n_bytes);

/* cp.async: `size` bytes (4 or 16), of which the first n are read and the others are zero. */
void sim_copy_async(void *to, const void *from, unsigned n, unsigned size);
void sim_copy_commit(void);
void sim_copy_wait(unsigned n_left);

/* ---- Hopper's asynchronous units: hopper.cpp ---- */

/* The block's one array of dynamic shared memory, aligned to 1024, and an address in it as descriptors have them. */
void *sim_shared_dynamic(size_t n_bytes);
uint32_t sim_shared_address(const void *p);

/* Transaction barriers: mbarrier.init, the fences that follow it, arrive (with expect_tx, unless bytes is 0), and waiting for the end of the
 * phase of this parity. */
void sim_transactions_init(uint64_t *barrier, unsigned n_arrivals);
void sim_transactions_fence(void);
void sim_transactions_arrive(uint64_t *barrier, unsigned bytes);
void sim_transactions_wait(const uint64_t *barrier, unsigned parity);

/* A matrix of bytes in global memory, and the box of it that is copied at once: CUtensorMap of two dimensions. What of a box lies outside of the
 * matrix is zero. swizzle: 0, or the bytes of a row of the box within which 16-byte chunks change places: 32, 64, 128. */
struct sim_tile_map {
    const uint8_t *base;
    uint64_t n_columns, n_rows, stride;
    uint32_t box_columns, box_rows, swizzle;
};
/* cp.async.bulk.tensor.2d of the box at (column, row), completed on the barrier. */
void sim_copy_tile(void *to, const struct sim_tile_map *map, uint32_t column, uint32_t row, uint64_t *barrier);

/* wgmma of 64 x n_columns x 32 signed bytes. fence: the registers that the next products take. left: of a descriptor, unless registers a [4]. */
void sim_product_fence(const int32_t *d, unsigned n_d, const uint32_t *a, unsigned n_a);
void sim_product(int32_t *d, unsigned n_columns, uint32_t *a, uint64_t left, uint64_t right, bool keep);
void sim_product_commit(void);
void sim_product_wait(unsigned n_left);

/* Writes and reads of 16 bytes that the hardware would refuse unless they are aligned. */
void sim_need_aligned(const void *p, size_t align);

#endif
