/* Allocation: aligned, countable, and able to fail on demand, so that tests can walk every failure path. */
#include "base/alloc.h"

#include "zeroquant.h"

#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

static atomic_size_t n_asked;
static atomic_size_t fail_at;
static atomic_bool fail_persistent;
static _Thread_local int frozen;

void zq_alloc_fail_at(size_t n, bool persistent)
{
    atomic_store(&n_asked, 0);
    atomic_store(&fail_persistent, persistent);
    atomic_store(&fail_at, n);
}

size_t zq_alloc_count(void)
{
    return atomic_load(&n_asked);
}

static bool must_fail(void)
{
    const size_t n = atomic_fetch_add(&n_asked, 1) + 1, at = atomic_load(&fail_at);
    return at && (n == at || (n > at && atomic_load(&fail_persistent)));
}

void zq_alloc_freeze(void) { frozen++; }
void zq_alloc_thaw(void) { frozen--; }

bool zq_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

bool zq_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

void *zq_alloc_aligned(size_t alignment, size_t n_bytes)
{
    assert(!frozen && "a step may not allocate");
    void *p;
    /* the exact size, so that sanitizers see the first byte past it */
    if (must_fail() || n_bytes > PTRDIFF_MAX || posix_memalign(&p, alignment, n_bytes ? n_bytes : 1)) return NULL;
    return p;
}

void *zq_alloc(size_t n_bytes)
{
    return zq_alloc_aligned(ALIGNMENT, n_bytes);
}

void *zq_alloc_zero(size_t n_bytes)
{
    void *p = zq_alloc(n_bytes);
    if (p) memset(p, 0, n_bytes);
    return p;
}

void *zq_alloc_array(size_t n, size_t item_bytes)
{
    size_t n_bytes;
    return zq_mul(n, item_bytes, &n_bytes) ? zq_alloc_zero(n_bytes) : NULL;
}

void *zq_realloc(void *old, size_t old_bytes, size_t new_bytes)
{
    void *p = zq_alloc(new_bytes);
    if (!p) return NULL;
    if (old) memcpy(p, old, old_bytes < new_bytes ? old_bytes : new_bytes);
    free(old);
    return p;
}

bool zq_grow(void **items, size_t n, size_t *capacity, size_t item_bytes)
{
    if (n < *capacity) return true;
    size_t more, new_bytes;
    if (!zq_mul(*capacity ? *capacity : 8, 2, &more) || !zq_mul(more, item_bytes, &new_bytes)) return false;
    void *p = zq_realloc(*items, n * item_bytes, new_bytes);
    if (!p) return false;
    *items = p;
    *capacity = more;
    return true;
}

char *zq_strndup(const char *s, size_t n)
{
    char *p = zq_alloc(n + 1);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *zq_strdup(const char *s)
{
    return zq_strndup(s, strlen(s));
}

char *zq_format(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const int n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : zq_alloc((size_t)n + 1);
    if (!p) return NULL;
    va_start(ap, format);
    vsnprintf(p, (size_t)n + 1, format, ap);
    va_end(ap);
    return p;
}

void zq_free(void *memory)
{
    free(memory);
}
