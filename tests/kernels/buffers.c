/* Buffers between unreadable pages, random data, comparisons. */
#include "check.h"

#include "base/half.h"
#include "base/rng.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Regions are mapped once: [unreadable page][REGION_BYTES][unreadable page]. Bytes beside a buffer hold a pattern. */
enum { N_REGIONS = 28, REGION_BYTES = 12 << 20, BESIDE = 256, PATTERN = 0xA5 };

static struct {
    uint8_t *start;
    uint8_t *used;
    size_t n_bytes;
} regions[N_REGIONS];
static size_t n_used;

static void map_regions(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), all = REGION_BYTES + 2 * page;
    for (size_t i = 0; i < N_REGIONS; i++) {
        uint8_t *p = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + page, REGION_BYTES, PROT_READ | PROT_WRITE)) {
            fprintf(stderr, "zqcheck: cannot map %zu bytes\n", all);
            exit(1);
        }
        regions[i].start = p + page;
    }
}

static size_t bytes_before(size_t i) { return (size_t)(regions[i].used - regions[i].start); }
static size_t bytes_after(size_t i) { return REGION_BYTES - bytes_before(i) - regions[i].n_bytes; }

void check_begin(struct check *c)
{
    for (size_t i = 0; i < n_used; i++) {
        const size_t before = bytes_before(i) < BESIDE ? bytes_before(i) : BESIDE, after = bytes_after(i) < BESIDE ? bytes_after(i) : BESIDE;
        for (size_t j = 0; j < before; j++)
            if (regions[i].used[-1 - (ptrdiff_t)j] != PATTERN) check_fail(c, "buffer %zu: wrote %zu bytes before it", i, j + 1);
        for (size_t j = 0; j < after; j++)
            if (regions[i].used[regions[i].n_bytes + j] != PATTERN) check_fail(c, "buffer %zu: wrote %zu bytes after it", i, j + 1);
    }
    n_used = 0;
}

void *check_buffer(struct check *c, size_t n_bytes, size_t align)
{
    if (!regions[0].start) map_regions();
    if (n_used == N_REGIONS || n_bytes + align > REGION_BYTES) {
        fprintf(stderr, "zqcheck: %s: too many or too large buffers\n", c->slot);
        exit(1);
    }
    const size_t i = n_used++;
    uint8_t *p = c->at_end ? regions[i].start + (REGION_BYTES - n_bytes) / align * align : regions[i].start;
    regions[i].used = p;
    regions[i].n_bytes = n_bytes;
    const size_t before = bytes_before(i) < BESIDE ? bytes_before(i) : BESIDE, after = bytes_after(i) < BESIDE ? bytes_after(i) : BESIDE;
    memset(p - before, PATTERN, before + n_bytes + after);
    return p;
}

size_t check_random(struct check *c, size_t n) { return (size_t)(zq_rng_next(&c->rng) % n); }
bool check_coin(struct check *c) { return zq_rng_next(&c->rng) >> 63; }

static float random_value(struct check *c, enum check_values kind)
{
    const float u = zq_rng_float(&c->rng) * 2 - 1;
    switch (kind) {
    case VALUES_NORMAL: return u * 4;
    case VALUES_OUTLIERS: return check_random(c, 40) ? u : u * 100;
    case VALUES_TINY: return u * 0x1p-70f;
    case VALUES_HUGE: return check_random(c, 10) ? u * FLT_MAX : u > 0 ? FLT_MAX : -FLT_MAX;
    case VALUES_SUBNORMAL: return u * 0x1p-140f;
    default: return 0;
    }
}

float *check_floats(struct check *c, size_t n, enum check_values kind)
{
    float *x = check_buffer(c, n * sizeof *x, sizeof *x);
    const float all = kind == VALUES_EQUAL ? random_value(c, VALUES_NORMAL) : 0;
    for (size_t i = 0; i < n; i++) x[i] = kind == VALUES_EQUAL ? all : random_value(c, kind);
    return x;
}

int8_t *check_codes(struct check *c, size_t n, int lowest, int highest)
{
    int8_t *q = check_buffer(c, n, 1);
    const size_t kind = check_random(c, 8), span = (size_t)(highest - lowest + 1);
    const int all = check_coin(c) ? lowest : highest;
    for (size_t i = 0; i < n; i++) {
        if (kind == 0) q[i] = (int8_t)all;
        else if (kind == 1) q[i] = (int8_t)(check_coin(c) ? lowest : highest);
        else q[i] = (int8_t)(lowest + (int)check_random(c, span));
    }
    return q;
}

void check_fail(struct check *c, const char *format, ...)
{
    if (!c->failed) {
        va_list args;
        va_start(args, format);
        printf("FAIL %s %s: ", c->slot, c->level);
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }
    c->failed = true;
}

void check_same_floats(struct check *c, const float *got, const float *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n && !c->failed; i++) {
        if (zq_float_bits(got[i]) == zq_float_bits(want[i]) || (isnan(got[i]) && isnan(want[i]))) continue;
        check_fail(c, "%s: element %zu of %zu is %a, want %a", what, i, n, (double)got[i], (double)want[i]);
    }
}

void check_same_bytes(struct check *c, const void *got, const void *want, size_t n, const char *what)
{
    const uint8_t *g = got, *w = want;
    for (size_t i = 0; i < n && !c->failed; i++)
        if (g[i] != w[i]) check_fail(c, "%s: byte %zu of %zu is %d, want %d", what, i, n, g[i], w[i]);
}

void check_near(struct check *c, const float *got, const double *want, const double *bound, size_t n, const char *what)
{
    for (size_t i = 0; i < n && !c->failed; i++) {
        const double error = fabs((double)got[i] - want[i]);
        if (!(error <= bound[i]))
            check_fail(c, "%s: element %zu of %zu is %.9g, want %.12g, error %.3g > %.3g", what, i, n, (double)got[i], want[i], error, bound[i]);
    }
}
