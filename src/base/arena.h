/* Memory for what is made once and lives as long as its owner: pieces of a few large blocks, in huge pages where the system has them.
 * Weights that are read in every step reach a tenth to a third more bandwidth so. Not for several threads at a time. */
#ifndef ZQ_BASE_ARENA_H
#define ZQ_BASE_ARENA_H

#include <stddef.h>

/* Zero-initialise. */
struct zq_arena {
    struct zq_arena_block *blocks; /* the one that pieces are cut from first */
};

/* n_bytes, aligned to 64, contents undefined; NULL if there is no memory. */
void *zq_arena_alloc(struct zq_arena *a, size_t n_bytes);
/* Gives all pieces back. */
void zq_arena_free(struct zq_arena *a);

/* An allocation of its own that begins at a huge page and asks for such; zq_free() gives it back. */
void *zq_alloc_pages(size_t n_bytes);

#endif
