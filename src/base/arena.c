/* A block is address space until it is written: what is left of one when the next begins costs at most a part of a huge page. */
#define _GNU_SOURCE /* madvise */
#include "base/arena.h"

#include "base/alloc.h"
#include "zeroquant.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
enum { BLOCK_BYTES = 1 }; /* a block for each piece, so that its last byte is known */
#else
enum { BLOCK_BYTES = 64 << 20 };
#endif
enum { HUGE_BYTES = 2 << 20, ALIGNMENT = 64 };

struct zq_arena_block {
    struct zq_arena_block *next;
    uint8_t *bytes;
    size_t n_bytes, used;
};

void *zq_alloc_pages(size_t n_bytes)
{
    void *p = zq_alloc_aligned(HUGE_BYTES, n_bytes);
    if (p && n_bytes >= HUGE_BYTES) madvise(p, n_bytes / HUGE_BYTES * HUGE_BYTES, MADV_HUGEPAGE); /* where it fails, pages are small */
    return p;
}

static struct zq_arena_block *add_block(struct zq_arena *a, size_t n_bytes)
{
    struct zq_arena_block *b = zq_alloc(sizeof *b);
    uint8_t *bytes = b ? zq_alloc_pages(n_bytes) : NULL;
    if (!bytes) {
        zq_free(b);
        return NULL;
    }
    *b = (struct zq_arena_block){.next = a->blocks, .bytes = bytes, .n_bytes = n_bytes};
    return a->blocks = b;
}

void *zq_arena_alloc(struct zq_arena *a, size_t n_bytes)
{
    struct zq_arena_block *b = a->blocks;
    if (!b || n_bytes > b->n_bytes - b->used) b = add_block(a, n_bytes < BLOCK_BYTES ? BLOCK_BYTES : n_bytes);
    if (!b) return NULL;
    void *p = b->bytes + b->used;
    const size_t left = b->n_bytes - b->used;
    b->used += left - n_bytes < ALIGNMENT ? left : (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return p;
}

void zq_arena_free(struct zq_arena *a)
{
    while (a->blocks) {
        struct zq_arena_block *next = a->blocks->next;
        zq_free(a->blocks->bytes);
        zq_free(a->blocks);
        a->blocks = next;
    }
}
