/* Codes are found again from their values, fl(code * scale), whose quotient by the scale rounds to the code: it is off by less than
 * 128 * 2^-22. A product is cut into parts of tokens and rows; none of its results depends on the cut. */
#include "distill/coded.h"

#include "base/clones.h"
#include "base/threads.h"

#include <math.h>

enum { TOKENS = 512, ROWS = 256 }; /* of a part */

size_t zq_coded_bytes(const struct zq_gemm *gemm, const struct zq_matrix *w) { return gemm->packed_bytes(w); }

size_t zq_coded_thread_floats(const struct zq_gemm *gemm, size_t n_cols)
{
    return (gemm->row_tile * n_cols + sizeof(float) - 1) / sizeof(float);
}

struct pack_work {
    const struct zq_gemm *gemm;
    const struct zq_coded_map *a;
    float *scratch; /* of a thread: codes of row_tile rows */
    size_t thread_floats;
};

ZQ_CLONES static void find_codes(int8_t *codes, const float *fake, float scale, size_t n)
{
    for (size_t k = 0; k < n; k++) codes[k] = (int8_t)rintf(fake[k] / scale);
}

static void pack_range(void *work, size_t begin, size_t end, int thread)
{
    const struct pack_work *w = work;
    const struct zq_matrix *m = &w->a->w;
    const size_t group = m->k_group ? m->k_group : m->n_cols, n_groups = m->n_cols / group, tile = w->gemm->row_tile;
    int8_t *codes = (int8_t *)(w->scratch + (size_t)thread * w->thread_floats);
    for (size_t r = begin; r < end; r += tile) {
        const size_t n = end - r < tile ? end - r : tile;
        for (size_t g = 0; g < n * n_groups; g++)
            find_codes(codes + g * group, w->a->fake + (r * n_groups + g) * group, w->a->scales[r * n_groups + g], group);
        w->gemm->pack(m, r, n, codes, w->a->scales + r * n_groups);
    }
}

void zq_coded_pack(const struct zq_gemm *gemm, const struct zq_coded_map *a, int n_threads, float *scratch, size_t thread_floats)
{
    struct pack_work work = {gemm, a, scratch, thread_floats};
    zq_parallel(n_threads, a->w.n_rows, gemm->row_tile, pack_range, &work);
}

struct product_work {
    const struct zq_gemm *gemm;
    const struct zq_product *p;
    size_t n_rows;   /* of a part, a multiple of the kernel's tile */
    size_t n_across; /* parts with the same tokens */
};

static void product_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct product_work *w = work;
    for (size_t i = begin; i < end; i++) {
        struct zq_product part = *w->p;
        const size_t token = i / w->n_across * TOKENS, row = i % w->n_across * w->n_rows, last = row + w->n_rows;
        if (part.n_tokens - token > TOKENS) part.n_tokens = TOKENS;
        else part.n_tokens -= token;
        part.q += token * part.ld_x;
        part.scale += token;
        part.out += token * part.ld_out;
        if (part.residual) part.residual += token * part.ld_out;
        w->gemm->run(&part, row, last < part.w->n_rows ? last : part.w->n_rows);
    }
}

void zq_coded_product(const struct zq_gemm *gemm, const struct zq_product *p, int n_threads)
{
    struct product_work work = {gemm, p, (ROWS + gemm->row_tile - 1) / gemm->row_tile * gemm->row_tile, 0};
    work.n_across = (p->w->n_rows + work.n_rows - 1) / work.n_rows;
    zq_parallel(n_threads, (p->n_tokens + TOKENS - 1) / TOKENS * work.n_across, 1, product_range, &work);
}
