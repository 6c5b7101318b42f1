/* The words in which kernels are written: a few instructions of CUDA under names of our own, as inline PTX under nvcc and through
 * the simulator under g++. Float arithmetic is spelled out (add, mul, fma, ...), so that neither compiler contracts it. */
#ifndef ZQ_CUDA_SHIM_CUH
#define ZQ_CUDA_SHIM_CUH

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A build with ZQ_MUTANTS has the planted faults inside, and the environment's ZQ_MUTANT=n wakes number n; a test sees that each is caught. */
#ifdef ZQ_MUTANTS
#define MUTANT(n) (zq_mutant == (n))
#else
#define MUTANT(n) false
#endif

struct chunk16 { uint32_t word[4]; };

#if defined(__CUDACC__)

#include <cuda_fp16.h>

#define KERNEL(threads) static __global__ void __launch_bounds__(threads)
#define KERNEL_RESIDENT(threads, blocks) static __global__ void __launch_bounds__(threads, blocks)
#define DEVICE static __device__ __forceinline__
#define ZQ_TABLE static __device__ const
#define SHARED(type, name, n) __shared__ __align__(128) type name[n]
#define UNROLL _Pragma("unroll")
#define thread_x() (threadIdx.x)
#define block_x() (blockIdx.x)
#define block_y() (blockIdx.y)
#define sync_block() __syncthreads()

DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
DEVICE float sub(float a, float b) { return __fsub_rn(a, b); }
DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }
DEVICE float root(float a) { return __fsqrt_rn(a); }
DEVICE float round_even(float a) { return rintf(a); }
DEVICE float magnitude(float a) { return fabsf(a); }
DEVICE float from_int(int32_t a) { return __int2float_rn(a); }
DEVICE float bits_float(uint32_t a) { return __uint_as_float(a); }

DEVICE uint32_t float_bits(float a) { return __float_as_uint(a); }
DEVICE double exp_double(double a) { return exp(a); }
DEVICE double log_double(double a) { return log(a); }
DEVICE uint16_t half_bits(float a) { return __half_as_ushort(__float2half_rn(a)); }
DEVICE float half_value(uint16_t a) { return __half2float(__ushort_as_half(a)); }

DEVICE uint32_t halves(float low, float high)
{
    const __half2 h = __floats2half2_rn(low, high);
    uint32_t r;
    memcpy(&r, &h, 4);
    return r;
}

DEVICE int32_t dot4(uint32_t a, uint32_t b, int32_t sum) { return __dp4a((int)a, (int)b, sum); }
DEVICE int32_t shuffle(int32_t a, unsigned lane) { return __shfl_sync(0xffffffffu, a, (int)lane); }
DEVICE int32_t shuffle_up(int32_t a, unsigned by) { return __shfl_up_sync(0xffffffffu, a, by); }
DEVICE float shuffle_xor(float a, unsigned mask) { return __shfl_xor_sync(0xffffffffu, a, (int)mask); }
DEVICE double shuffle_xor(double a, unsigned mask) { return __shfl_xor_sync(0xffffffffu, a, (int)mask); }

DEVICE void copy_async(void *to, const void *from, unsigned n)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(n) : "memory");
}
DEVICE void copy_async4(void *to, const void *from, unsigned n)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(n) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

DEVICE chunk16 load16(const void *p)
{
    const uint4 v = *(const uint4 *)p;
    return chunk16{{v.x, v.y, v.z, v.w}};
}

struct chunk8 { uint32_t word[2]; };
DEVICE chunk8 load8(const void *p)
{
    const uint2 v = *(const uint2 *)p;
    return chunk8{{v.x, v.y}};
}

DEVICE void store16(void *p, chunk16 v) { *(uint4 *)p = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]); }

/* For what other blocks of the same launch have written: what publish() follows is seen by those whose arrive() comes later. */
DEVICE void publish() { __threadfence(); }
DEVICE uint32_t arrive(uint32_t *counter, uint32_t n) { return atomicAdd(counter, n); }
DEVICE float load_fresh(const float *p) { return __ldcg(p); }

/* Four 8 x 8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8, and gets 4 bytes of row l / 4 of each. */
DEVICE void load_matrices(uint32_t r[4], const void *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/* The same, turned: gets 4 bytes of column l / 4, that is of rows 2 (l % 4) and the next. */
DEVICE void load_matrices_turned(uint32_t r[4], const void *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

/* d [16, 8] += a [16, 16] * b [16, 8], F16 with FP32 sums, in the fragments of PTX mma.m16n8k16. */
DEVICE void multiply_add_halves(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d [16, 8] += a [16, 32] * b [32, 8], signed bytes, in the fragments of PTX mma.m16n8k32. */
DEVICE void multiply_add(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else /* g++ and the simulator */

#include "base/half.h"
#include "cuda/sim/sim.h"

#include <math.h>

#define KERNEL(threads) static void
#define KERNEL_RESIDENT(threads, blocks) static void
#define DEVICE static inline
#define ZQ_TABLE static const
#define SHARED(type, name, n) type *const name = (type *)sim_shared((n) * sizeof(type))
#define UNROLL
#define thread_x() (sim_thread().x)
#define block_x() (sim_block().x)
#define block_y() (sim_block().y)
#define sync_block() sim_barrier()

enum { OPERATION_SHUFFLE, OPERATION_MATRICES, OPERATION_TURNED, OPERATION_MULTIPLY, OPERATION_HALVES };

DEVICE float add(float a, float b) { return a + b; }
DEVICE float sub(float a, float b) { return a - b; }
DEVICE float mul(float a, float b) { return a * b; }
DEVICE float fma_rn(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE float divide(float a, float b) { return a / b; }
DEVICE float root(float a) { return sqrtf(a); }
DEVICE float round_even(float a) { return rintf(a); }
DEVICE float magnitude(float a) { return fabsf(a); }
DEVICE float from_int(int32_t a) { return (float)a; }
DEVICE float bits_float(uint32_t a)
{
    float f;
    memcpy(&f, &a, 4);
    return f;
}

DEVICE uint32_t float_bits(float a) { return zq_float_bits(a); }
DEVICE double exp_double(double a) { return exp(a); }
DEVICE double log_double(double a) { return log(a); }
DEVICE uint16_t half_bits(float a) { return zq_float_to_f16(a); }
DEVICE float half_value(uint16_t a) { return zq_f16_to_float(a); }

DEVICE uint32_t halves(float low, float high) { return half_bits(low) | (uint32_t)half_bits(high) << 16; }

DEVICE int8_t byte_of(uint32_t word, unsigned i) { return (int8_t)(uint8_t)(word >> 8 * i); }

DEVICE int32_t dot4(uint32_t a, uint32_t b, int32_t sum)
{
    for (unsigned i = 0; i < 4; i++) sum += byte_of(a, i) * byte_of(b, i);
    return sum;
}

template <class T> DEVICE T lane_value(T a, unsigned lane)
{
    T r;
    memcpy(&r, sim_exchange(OPERATION_SHUFFLE, &a, sizeof a) + lane % 32 * SIM_HANDED, sizeof r);
    return r;
}
DEVICE int32_t shuffle(int32_t a, unsigned lane) { return lane_value(a, lane); }
DEVICE int32_t shuffle_up(int32_t a, unsigned by)
{
    const unsigned lane = thread_x() % 32;
    return lane_value(a, lane >= by ? lane - by : lane);
}
DEVICE float shuffle_xor(float a, unsigned mask) { return lane_value(a, thread_x() % 32 ^ mask); }
DEVICE double shuffle_xor(double a, unsigned mask) { return lane_value(a, thread_x() % 32 ^ mask); }

DEVICE void copy_async(void *to, const void *from, unsigned n) { sim_copy_async(to, from, n, 16); }
DEVICE void copy_async4(void *to, const void *from, unsigned n) { sim_copy_async(to, from, n, 4); }
DEVICE void copy_commit() { sim_copy_commit(); }
template <int LEFT> DEVICE void copy_wait() { sim_copy_wait(LEFT); }

DEVICE chunk16 load16(const void *p)
{
    chunk16 r;
    sim_need_aligned(p, 16);
    memcpy(&r, p, sizeof r);
    return r;
}

struct chunk8 { uint32_t word[2]; };
DEVICE chunk8 load8(const void *p)
{
    chunk8 r;
    sim_need_aligned(p, 8);
    memcpy(&r, p, sizeof r);
    return r;
}

DEVICE void store16(void *p, chunk16 v)
{
    sim_need_aligned(p, 16);
    memcpy(p, &v, sizeof v);
}

DEVICE void publish() {}
DEVICE uint32_t arrive(uint32_t *counter, uint32_t n) /* fibers change places elsewhere only */
{
    sim_hold_block();
    const uint32_t before = *counter;
    *counter += n;
    return before;
}
DEVICE float load_fresh(const float *p) { return *p; }

DEVICE void load_matrices(uint32_t r[4], const void *row)
{
    const unsigned lane = thread_x() % 32;
    sim_need_aligned(row, 16);
    const uint8_t *rows = sim_exchange(OPERATION_MATRICES, &row, sizeof row);
    for (unsigned m = 0; m < 4; m++) {
        const uint8_t *at;
        memcpy(&at, rows + (8 * m + lane / 4) * SIM_HANDED, sizeof at);
        memcpy(&r[m], at + 4 * (lane % 4), 4);
    }
}

DEVICE void load_matrices_turned(uint32_t r[4], const void *row)
{
    const unsigned lane = thread_x() % 32;
    sim_need_aligned(row, 16);
    const uint8_t *rows = sim_exchange(OPERATION_TURNED, &row, sizeof row);
    for (unsigned m = 0; m < 4; m++) {
        r[m] = 0;
        for (unsigned i = 0; i < 2; i++) {
            const uint8_t *at;
            uint16_t value;
            memcpy(&at, rows + (8 * m + lane % 4 * 2 + i) * SIM_HANDED, sizeof at);
            memcpy(&value, at + 2 * (lane / 4), 2);
            r[m] |= (uint32_t)value << 16 * i;
        }
    }
}

/* Lane l holds a: rows l / 4 and l / 4 + 8 (registers 0, 2 and 1, 3), columns 2 (l % 4), the next, and those + 8 (registers 2, 3);
 * b: column l / 4, rows likewise; d as below. A product of two F16 is exact in FP32, so that adding it is fma(). */
DEVICE void multiply_add_halves(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    const unsigned lane = thread_x() % 32;
    float mine[12];
    for (unsigned i = 0; i < 12; i++) {
        const uint32_t word = i < 8 ? a[i / 2] : b[i / 2 - 4];
        mine[i] = half_value((uint16_t)(i % 2 ? word >> 16 : word));
    }
    const uint8_t *handed = sim_exchange(OPERATION_HALVES, mine, sizeof mine);
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; k += 2) {
            float left[2], right[2];
            memcpy(left, handed + (row % 8 * 4 + k % 8 / 2) * SIM_HANDED + ((row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0)) * sizeof left, sizeof left);
            memcpy(right, handed + (column * 4 + k % 8 / 2) * SIM_HANDED + (4 + (k >= 8 ? 1 : 0)) * sizeof right, sizeof right);
            d[i] = add(add(d[i], mul(left[0], right[0])), mul(left[1], right[1]));
        }
    }
}

/* Lane l holds a: rows l / 4 and l / 4 + 8 (registers 0, 2 and 1, 3), columns 4 (l % 4) .. and those + 16 (registers 2, 3);
 * b: column l / 4, rows likewise; d: rows l / 4 and + 8, columns 2 (l % 4) and the next. */
DEVICE void multiply_add(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    const unsigned lane = thread_x() % 32;
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const uint8_t *handed = sim_exchange(OPERATION_MULTIPLY, mine, sizeof mine);
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 32; k += 4) {
            uint32_t left, right;
            memcpy(&left, handed + (row % 8 * 4 + k % 16 / 4) * SIM_HANDED + ((row >= 8 ? 1 : 0) + (k >= 16 ? 2 : 0)) * sizeof left, sizeof left);
            memcpy(&right, handed + (column * 4 + k % 16 / 4) * SIM_HANDED + (4 + (k >= 16 ? 1 : 0)) * sizeof right, sizeof right);
            d[i] = dot4(left, right, d[i]);
        }
    }
}
#endif

DEVICE unsigned least(unsigned a, unsigned b) { return a < b ? a : b; }
DEVICE float larger(float a, float b) { return a > b ? a : b; }
DEVICE float smaller(float a, float b) { return a < b ? a : b; }

#endif
