/* Timing: medians, ratios to plain C, and the machine's limits, measured by loops that do nothing else. Time is the processor time
 * of the threads while they compute, divided by their number: what other programs take from this one does not count, nor does
 * waiting, which belongs to operators and not to kernels. */
#include "check.h"

#include "base/alloc.h"
#include "base/threads.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct timed {
    bench_fn *fn;
    void *work;
    atomic_llong ns; /* of all threads */
};

static void timed_part(void *work, size_t begin, size_t end, int thread)
{
    struct timed *t = work;
    const double start = now();
    t->fn(t->work, begin, end, thread);
    atomic_fetch_add(&t->ns, (long long)(1e9 * (now() - start)));
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_time(struct bench *b, size_t n, size_t grain, bench_fn *fn, void *work)
{
    enum { MOST = 200 };
    double seconds[MOST], total = 0;
    size_t n_runs = 0;
    static struct zq_team *team; /* lives until the program ends */
    if (!team && !(team = zq_team_create(b->n_threads))) return 0;
    struct timed timed = {.fn = fn, .work = work};
    zq_team_run(team, n, grain, timed_part, &timed); /* touches memory, wakes threads */
    while (n_runs < MOST && (n_runs < 3 || total < 0.3)) {
        atomic_store(&timed.ns, 0);
        zq_team_run(team, n, grain, timed_part, &timed);
        total += seconds[n_runs++] = 1e-9 * (double)atomic_load(&timed.ns) / zq_team_size(team);
    }
    qsort(seconds, n_runs, sizeof *seconds, by_value);
    return seconds[n_runs / 2];
}

void bench_print(struct bench *b, const char *what, double per_second, const char *unit, double limit)
{
    static struct { char what[96]; double rate; } plain[128];
    static size_t n_plain;
    double ratio = 0;
    if (b->is_c && n_plain < ZQ_LEN(plain)) {
        snprintf(plain[n_plain].what, sizeof plain[n_plain].what, "%s", what);
        plain[n_plain++].rate = per_second;
    }
    for (size_t i = 0; i < n_plain; i++)
        if (!strcmp(plain[i].what, what)) ratio = per_second / plain[i].rate;
    printf("%-11s %-44s %8.2f %s", b->level, what, per_second * 1e-9, unit);
    if (ratio > 0) printf("  %6.2fx C", ratio);
    if (limit > 0) printf("  %5.1f %% of %.0f", 100 * per_second / limit, limit * 1e-9);
    printf("\n");
    fflush(stdout);
}

/* ---- limits ---- */

enum { READ_BYTES = 256 << 20, TURNS = 4 << 20 };

static void read_memory(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const uint64_t *p = work;
    uint64_t sum[8] = {0};
    for (size_t i = begin; i < end; i++)
        for (size_t j = 0; j < 8; j++) sum[j] += p[i * 8 + j];
    volatile uint64_t sink = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
    (void)sink;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Twelve independent chains in registers; one item is TURNS rounds. */
#define CHAINS(name, isa, type, zero, step, read)                                      \
    __attribute__((target(isa))) static void name(void *work, size_t begin, size_t end, int thread) \
    {                                                                                  \
        (void)work, (void)thread;                                                      \
        type a[12];                                                                    \
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = zero; /* else gcc keeps the array in memory */ \
        for (size_t r = 0; r < (end - begin) * TURNS; r++) {                           \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) { a[i] = step; __asm__ volatile("" : "+v"(a[i])); } \
        }                                                                              \
        volatile float sink = read;                                                    \
        (void)sink;                                                                    \
    }
CHAINS(int8_avx2, "avx2", __m256i, _mm256_set1_epi8(1), _mm256_add_epi32(a[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a[i], a[i]), a[i])),
       (float)_mm256_extract_epi32(a[0], 0))
CHAINS(int4_avx2, "avx2", __m256i, _mm256_set1_epi8(1), _mm256_add_epi16(a[i], _mm256_maddubs_epi16(a[i], a[i])),
       (float)_mm256_extract_epi32(a[0], 0))
CHAINS(int8_avxvnni, "avx2,avxvnni", __m256i, _mm256_set1_epi32(1), _mm256_dpbusd_epi32(a[i], a[i], a[i]), (float)_mm256_extract_epi32(a[0], 0))
CHAINS(int8_avx512vnni, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32(1), _mm512_dpbusd_epi32(a[i], a[i], a[i]),
       (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(a[0])))
CHAINS(float_avx2, "avx2,fma", __m256, _mm256_set1_ps(1), _mm256_fmadd_ps(a[i], a[i], a[i]), _mm256_cvtss_f32(a[0]))
CHAINS(float_avx512vnni, "avx512f", __m512, _mm512_set1_ps(0), _mm512_fmadd_ps(a[i], a[i], a[i]), _mm512_cvtss_f32(a[0]))

static double chain_rate(struct bench *b, bench_fn *fn, double ops_per_step)
{
    return 12.0 * TURNS * b->n_threads * ops_per_step / bench_time(b, (size_t)b->n_threads, 1, fn, NULL);
}
#endif

struct limits bench_limits(unsigned level, int n_threads)
{
    struct bench b = {.n_threads = n_threads};
    static double read_bytes;
    struct limits limits = {0};
    if (!read_bytes) {
        void *memory = zq_alloc_zero(READ_BYTES);
        if (memory) {
            memset(memory, 1, READ_BYTES);
            read_bytes = READ_BYTES / bench_time(&b, READ_BYTES / 64, 64, read_memory, memory);
        }
        zq_free(memory);
    }
    limits.read_bytes = read_bytes;
#if defined(__x86_64__)
    if (level == ZQ_LEVEL_AVX2) {
        limits.int8_ops = chain_rate(&b, int8_avx2, 64);
        limits.int4_ops = chain_rate(&b, int4_avx2, 64);
        limits.float_ops = chain_rate(&b, float_avx2, 16);
    } else if (level == ZQ_LEVEL_AVXVNNI) {
        limits.int4_ops = limits.int8_ops = chain_rate(&b, int8_avxvnni, 64);
    } else if (level == ZQ_LEVEL_AVX512VNNI) {
        limits.int4_ops = limits.int8_ops = chain_rate(&b, int8_avx512vnni, 128);
        limits.float_ops = chain_rate(&b, float_avx512vnni, 32);
    }
#else
    (void)level;
#endif
    return limits;
}
