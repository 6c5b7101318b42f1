/* The only malloc of the library. Blocks are aligned to 64 bytes. All return NULL on failure (or when a test asked for it);
 * zero bytes give a valid block. Products of counts and sizes go through the _array forms or zq_mul, never through a bare `*`. */
#ifndef ZQ_BASE_ALLOC_H
#define ZQ_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

void *zq_alloc(size_t n_bytes);                       /* contents undefined */
void *zq_alloc_aligned(size_t alignment, size_t n_bytes); /* to a power of two of at least 64 */
void *zq_alloc_zero(size_t n_bytes);
void *zq_alloc_array(size_t n, size_t item_bytes);    /* zeroed; NULL if the product overflows */
/* Keeps the first min(old_bytes, new_bytes) bytes; on failure returns NULL and `old` stays valid. old may be NULL. */
void *zq_realloc(void *old, size_t old_bytes, size_t new_bytes);
/* Makes room for one more item in a growing array: doubles *capacity when n == *capacity. false: out of memory, unchanged. */
bool zq_grow(void **items, size_t n, size_t *capacity, size_t item_bytes);
char *zq_strdup(const char *s);
char *zq_strndup(const char *s, size_t n);
char *zq_format(const char *format, ...) __attribute__((format(printf, 1, 2))); /* as asprintf */
/* zq_free is public: zeroquant.h */

/* false and *out unchanged if the result does not fit. */
bool zq_mul(size_t a, size_t b, size_t *out);
bool zq_add(size_t a, size_t b, size_t *out);

/* For tests: the n-th allocation from now fails (1 = the next), and all after it if `persistent`; 0 switches it off.
 * zq_alloc_count() counts allocations asked for since the last call of zq_alloc_fail_at(), failed ones included. */
void zq_alloc_fail_at(size_t n, bool persistent);
size_t zq_alloc_count(void);

/* Between freeze and thaw an allocation by this thread is a defect: debug builds stop at an assertion. */
void zq_alloc_freeze(void);
void zq_alloc_thaw(void);

#endif
