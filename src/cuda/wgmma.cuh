/* The words of Hopper (sm_90a), beside those of shim.cuh: transaction barriers, tiles that TMA copies into shared memory, and products of a warp
 * group (wgmma), as inline PTX under nvcc and through the simulator under g++.
 *
 * What a newcomer would get wrong: a product is in flight until it is waited for. Its sums, the registers of its left side and what its descriptors
 * point to must be left alone until then, and the registers must not be touched between fence and product either. */
#ifndef ZQ_CUDA_WGMMA_CUH
#define ZQ_CUDA_WGMMA_CUH

#include "cuda/shim.cuh"

/* Products of 64 rows, PRODUCT_TOKENS columns and 32 bytes; a lane has PRODUCT_SUMS of the sums. */
enum { PRODUCT_ROWS = 64, PRODUCT_TOKENS = 128, PRODUCT_COLS = 32, PRODUCT_SUMS = PRODUCT_TOKENS / 2 };

#if defined(__CUDACC__)

#include <cuda.h> /* CUtensorMap; nothing of libcuda is linked */

#define GRID_CONSTANT __grid_constant__
#define SHARED_DYNAMIC(name, n) extern __shared__ __align__(1024) uint8_t name[]

typedef CUtensorMap tile_map;

DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

DEVICE void transactions_init(uint64_t *barrier, uint32_t n_arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(n_arrivals) : "memory");
}
/* After the last init, by the thread that made it; then sync_block(). */
DEVICE void transactions_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void transactions_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/* Arrives, and so many bytes more are to come in this phase. */
DEVICE void transactions_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
/* Until the phase of this parity is over; of a new barrier the phase of parity 1 is. */
DEVICE void transactions_wait(uint64_t *barrier, uint32_t parity)
{
    uint32_t over;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(over) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    } while (!over);
}

/* Starts the copy of the map's box at (column, row); all its bytes count on the barrier, also those outside of the matrix, which are zeros. */
DEVICE void copy_tile(void *to, const tile_map *map, uint32_t column, uint32_t row, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
                 "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)) : "memory");
}

/* Keeps the compiler from moving what reads or writes registers across this place. */
template <int N, class T> DEVICE void pin(T *x)
{
    UNROLL
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(x[i])::"memory");
}

/* Before products: of the registers that they take, n_a (a multiple of 4) of their left sides. */
template <int N_A> DEVICE void product_fence(int32_t *d, uint32_t *a)
{
    pin<PRODUCT_SUMS>(d);
    pin<N_A>(a);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
DEVICE void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until at most LEFT of the batches that commit ended are in flight. */
template <int LEFT> DEVICE void product_wait(int32_t *d)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
    pin<PRODUCT_SUMS>(d);
}

#define ZQ_SUMS4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define ZQ_SUMS16(d, i) ZQ_SUMS4(d, i), ZQ_SUMS4(d, i + 4), ZQ_SUMS4(d, i + 8), ZQ_SUMS4(d, i + 12)
#define ZQ_SUMS64(d) ZQ_SUMS16(d, 0), ZQ_SUMS16(d, 16), ZQ_SUMS16(d, 32), ZQ_SUMS16(d, 48)
#define ZQ_SUM_NAMES \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, " \
    "%29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
    "%56, %57, %58, %59, %60, %61, %62, %63}"

/* d (+)= left * right, both from shared memory; without `keep` d begins at zero. */
DEVICE void product(int32_t *d, uint64_t left, uint64_t right, bool keep)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " ZQ_SUM_NAMES ", %64, %65, p;\n}"
                 : ZQ_SUMS64(d) : "l"(left), "l"(right), "r"((int)keep) : "memory");
}
/* The same, the left side from registers [4]. */
DEVICE void product_of_registers(int32_t *d, uint32_t *a, uint64_t right, bool keep)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " ZQ_SUM_NAMES ", {%64, %65, %66, %67}, %68, p;\n}"
                 : ZQ_SUMS64(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right), "r"((int)keep) : "memory");
}

#else /* g++ and the simulator */

#define GRID_CONSTANT
#define SHARED_DYNAMIC(name, n) uint8_t *const name = (uint8_t *)sim_shared_dynamic(n)

typedef struct sim_tile_map tile_map;

DEVICE uint32_t shared_address(const void *p) { return sim_shared_address(p); }
DEVICE void transactions_init(uint64_t *barrier, uint32_t n_arrivals) { sim_transactions_init(barrier, n_arrivals); }
DEVICE void transactions_fence() { sim_transactions_fence(); }
DEVICE void transactions_arrive(uint64_t *barrier) { sim_transactions_arrive(barrier, 0); }
DEVICE void transactions_expect(uint64_t *barrier, uint32_t bytes) { sim_transactions_arrive(barrier, bytes); }
DEVICE void transactions_wait(uint64_t *barrier, uint32_t parity) { sim_transactions_wait(barrier, parity); }
DEVICE void copy_tile(void *to, const tile_map *map, uint32_t column, uint32_t row, uint64_t *barrier)
{
    sim_copy_tile(to, map, column, row, barrier);
}
template <int N_A> DEVICE void product_fence(int32_t *d, uint32_t *a) { sim_product_fence(d, PRODUCT_SUMS, a, N_A); }
DEVICE void product_commit() { sim_product_commit(); }
template <int LEFT> DEVICE void product_wait(int32_t *d) { (void)d, sim_product_wait(LEFT); }
DEVICE void product(int32_t *d, uint64_t left, uint64_t right, bool keep) { sim_product(d, PRODUCT_TOKENS, NULL, left, right, keep); }
DEVICE void product_of_registers(int32_t *d, uint32_t *a, uint64_t right, bool keep) { sim_product(d, PRODUCT_TOKENS, a, 0, right, keep); }

#endif

/* A descriptor of rows of 128 bytes, swizzled among themselves (TMA's 128-byte mode; PTX ISA, matrix descriptor): 8 rows are one piece of 1024
 * bytes, and pieces follow each other. The start of a tile lies at a multiple of 1024; 32 columns further are 32 bytes. */
DEVICE uint64_t rows128(uint32_t address)
{
    return (uint64_t)(address >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(MUTANT(27) ? 2 : 1) << 62;
}

#endif
