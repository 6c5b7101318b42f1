/* Linear maps. Packed ones go to the kernel of their format; maps of a model that is not quantized go through BLAS, straight
 * from the mapped file: a strip of rows is widened to F32 in the cache of the thread that multiplies it, so that no F32 copy
 * of the model ever exists. */
#include "ops/ops.h"

#include <string.h>

#ifdef ZQ_WITH_BLAS
#include <cblas.h>
#include <omp.h>
#endif

/* Values of a strip: 1 MiB of F32, about a second-level cache. */
enum { STRIP_FLOATS = 1 << 18 };

struct linear_work {
    const struct zq_ops *ops;
    const struct zq_linear *l;
    struct zq_product p;
    size_t strip; /* rows of a strip, BLAS */
};

static void packed_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct linear_work *w = work;
    w->l->gemm->run(&w->p, begin, end);
}

static size_t strip_rows(const struct zq_linear *l)
{
    size_t rows = STRIP_FLOATS / l->w.n_cols;
    if (rows > l->w.n_rows) rows = l->w.n_rows;
    return rows < 16 ? 16 : rows;
}

size_t zq_linear_thread_floats(const struct zq_linear *l)
{
    return l->gemm ? 0 : strip_rows(l) * l->w.n_cols;
}

#ifdef ZQ_WITH_BLAS
/* out = bias + residual, to which the product is then added. */
static void start_outputs(const struct zq_product *p, size_t begin, size_t end)
{
    for (size_t t = 0; t < p->n_tokens; t++) {
        float *out = p->out + t * p->ld_out;
        const float *residual = p->residual ? p->residual + t * p->ld_out : NULL;
        for (size_t r = begin; r < end; r++) out[r] = (p->bias ? p->bias[r] : 0) + (residual ? residual[r] : 0);
    }
}

/* The strip's weights as F32: the mapped values themselves if they are, else widened into scratch. *ld is the row stride. */
static const float *strip_floats(const struct linear_work *w, size_t begin, size_t end, float *scratch, size_t *ld)
{
    const struct zq_linear *l = w->l;
    const size_t n_rows = l->w.n_rows, n_cols = l->w.n_cols, value = zq_dtype_bytes(l->w.dtype);
    const bool in_place = l->w.dtype == ZQ_F32 && (uintptr_t)l->stored % sizeof(float) == 0;
    if (l->transposed) { /* [n_cols, n_rows]: columns begin .. end of every stored row */
        *ld = in_place ? n_rows : end - begin;
        if (in_place) return (const float *)(const void *)l->stored + begin;
        for (size_t k = 0; k < n_cols; k++)
            w->ops->kernels->to_float(scratch + k * (end - begin), l->stored + (k * n_rows + begin) * value, l->w.dtype, end - begin);
        return scratch;
    }
    *ld = n_cols;
    if (in_place) return (const float *)(const void *)l->stored + begin * n_cols;
    w->ops->kernels->to_float(scratch, l->stored + begin * n_cols * value, l->w.dtype, (end - begin) * n_cols);
    return scratch;
}

static void blas_strip(const struct linear_work *w, size_t begin, size_t end, float *scratch)
{
    const struct zq_product *p = &w->p;
    const int m = (int)p->n_tokens, n = (int)(end - begin), k = (int)w->l->w.n_cols;
    size_t ld;
    start_outputs(p, begin, end);
    const float *weights = strip_floats(w, begin, end, scratch, &ld);
    float *out = p->out + begin;
    if (m == 1 && w->l->transposed) cblas_sgemv(CblasRowMajor, CblasTrans, k, n, 1, weights, (int)ld, p->x, 1, 1, out, 1);
    else if (m == 1) cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, weights, (int)ld, p->x, 1, 1, out, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, w->l->transposed ? CblasNoTrans : CblasTrans, m, n, k, 1, p->x, (int)p->ld_x, weights, (int)ld, 1,
                    out, (int)p->ld_out);
}

static void blas_range(void *work, size_t begin, size_t end, int thread)
{
    const struct linear_work *w = work;
    float *scratch = w->ops->scratch + (size_t)thread * w->ops->thread_floats;
    /* the split is ours: BLAS must not start a team of its own on every thread of this one */
    const int blas_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    for (size_t r = begin; r < end; r += w->strip) blas_strip(w, r, r + w->strip < end ? r + w->strip : end, scratch);
    omp_set_num_threads(blas_threads);
}
#endif

enum zq_device_format zq_device_format(struct zq_spec s)
{
    if (s.w_bits == 16) return ZQ_DEVICE_FLOAT;
    if (s.a_bits == 8) return s.w_bits == 8 ? ZQ_DEVICE_W8A8 : ZQ_DEVICE_W4A8;
    return s.w_bits == 8 ? ZQ_DEVICE_W8A16 : ZQ_DEVICE_W4A16;
}

static struct linear_work linear_work(const struct zq_ops *ops, const struct zq_linear *l, struct zq_rows x, size_t n, const float *residual,
                                      float *out, size_t ld_out)
{
    return (struct linear_work){
        .ops = ops,
        .l = l,
        .p = {.w = &l->w,
              .n_tokens = n,
              .q = x.q,
              .scale = x.scale,
              .x = x.f,
              .ld_x = x.ld,
              .h = l->halves ? x.h : NULL,
              .bias = l->bias,
              .residual = residual,
              .out = out,
              .ld_out = ld_out},
    };
}

static void run_linear(const struct zq_ops *ops, const struct zq_linear *l, struct zq_rows x, size_t n, const float *residual, float *out,
                       size_t ld_out)
{
    struct linear_work work = linear_work(ops, l, x, n, residual, out, ld_out);
    if (ops->plugin) {
        if (l->spec.a_bits == 8) work.p.ld_x = zq_codes_ld(ops->plugin, x.ld);
        ops->plugin->product(ops->queue, &work.p, zq_device_format(l->spec));
        return;
    }
    if (l->gemm) {
        zq_team_run(ops->team, l->w.n_rows, l->gemm->row_tile, packed_range, &work);
        return;
    }
#ifdef ZQ_WITH_BLAS
    work.strip = strip_rows(l);
    const size_t n_threads = (size_t)zq_team_size(ops->team), share = (l->w.n_rows + n_threads - 1) / n_threads;
    zq_team_run(ops->team, l->w.n_rows, share < work.strip ? share : work.strip, blas_range, &work);
#endif
}

void zq_linear_run(const struct zq_ops *ops, const struct zq_linear *l, struct zq_rows x, size_t n, const float *residual, float *out, size_t ld_out)
{
    if (!n) return;
    zq_watch_see(ops, NULL);
    run_linear(ops, l, x, n, residual, out, ld_out);
    zq_watch_see(ops, &(struct zq_event){.op = ZQ_OP_PRODUCT, .map = l, .n_rows = n, .n = l->w.n_rows, .f = true, .residual = residual != NULL});
}

/* ---- several maps of one input ---- */

enum { MOST_MAPS = 4 };

struct maps_work {
    struct linear_work maps[MOST_MAPS];
    size_t n_maps;
};

static size_t n_tiles(const struct zq_linear *l) { return l->w.n_rows / l->gemm->row_tile + (l->w.n_rows % l->gemm->row_tile != 0); }

/* Items are tiles of rows, those of the maps one after the other. */
static void maps_range(void *work, size_t begin, size_t end, int thread)
{
    const struct maps_work *w = work;
    size_t first = 0;
    for (size_t i = 0; i < w->n_maps; i++) {
        const struct zq_linear *l = w->maps[i].l;
        const size_t n = n_tiles(l), tile = l->gemm->row_tile;
        const size_t from = begin > first ? begin - first : 0, to = end > first + n ? n : end > first ? end - first : 0;
        if (from < to) packed_range((void *)(uintptr_t)&w->maps[i], from * tile, to * tile < l->w.n_rows ? to * tile : l->w.n_rows, thread);
        first += n;
    }
}

void zq_linear_run_all(const struct zq_ops *ops, const struct zq_linear_output *maps, size_t n_maps, struct zq_rows x, size_t n, size_t ld_out)
{
    struct maps_work work = {.n_maps = n_maps};
    size_t tiles = 0;
    bool together = n > 0 && n_maps <= MOST_MAPS && !ops->plugin && !ops->watch.see; /* each is measured by itself */
    for (size_t i = 0; i < n_maps; i++) together &= maps[i].l->gemm != NULL;
    for (size_t i = 0; i < n_maps; i++) {
        if (!together) {
            zq_linear_run(ops, maps[i].l, x, n, NULL, maps[i].out, ld_out);
            continue;
        }
        work.maps[i] = linear_work(ops, maps[i].l, x, n, NULL, maps[i].out, ld_out);
        tiles += n_tiles(maps[i].l);
    }
    if (together) zq_team_run(ops->team, tiles, 1, maps_range, &work);
}
