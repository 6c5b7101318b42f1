/* Written as a device: operators that have a plug-in leave everything to it, so that neither model nor operators know of this. What a
 * newcomer would get wrong: arrays and kernels are those of the processor, and a residual may be where the product goes. */
#include "bench/unfused.h"

#include "base/alloc.h"

#include <string.h>

struct zq_queue {
    const struct zq_ops *ops; /* those of the session before: kernels, team, scratch */
    float *ones;              /* [n_tokens] scales of tokens while sums are kept apart */
    float *sums;              /* [n_tokens, width] of products with a residual */
};

struct zq_unfused {
    struct zq_session *session;
    struct zq_ops fused;    /* as they were */
    struct zq_queue queue;  /* of this processor */
    struct zq_queue *there; /* of a device */
};

/* ---- rows: floats first, then tokens */

static void norm_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const void **w = work;
    ((const struct zq_kernels *)w[0])->norm(w[1], begin, end);
}

static void activate_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const void **w = work;
    ((const struct zq_kernels *)w[0])->activate(w[1], begin, end);
}

static void run_activate(struct zq_queue *q, const struct zq_activate *a, size_t n_rows)
{
    const void *work[] = {q->ops->kernels, a};
    zq_team_run(q->ops->team, n_rows, 4, activate_range, work);
}

/* Tokens of floats that lie in memory. */
static void quantize(struct zq_queue *q, const float *x, size_t ld, size_t n, struct zq_rows_out out, size_t n_rows)
{
    const struct zq_activate a = {.x = x, .ld_x = ld, .n = n, .act = ZQ_ACT_NONE, .out = {.q = out.q, .scale = out.scale, .ld_q = out.ld_q}};
    run_activate(q, &a, n_rows);
}

static void unfused_norm(struct zq_queue *q, const struct zq_norm *a, size_t n_rows)
{
    struct zq_norm floats = *a;
    const void *work[] = {q->ops->kernels, &floats};
    floats.out.q = NULL;
    if (!floats.out.f) floats.out.f = q->sums, floats.out.ld_f = a->n;
    zq_team_run(q->ops->team, n_rows, 8, norm_range, work);
    if (a->out.q) quantize(q, floats.out.f, floats.out.ld_f, a->n, a->out, n_rows);
}

static void unfused_activate(struct zq_queue *q, const struct zq_activate *a, size_t n_rows)
{
    struct zq_activate floats = *a;
    if (a->act == ZQ_ACT_NONE && !a->times) { /* quantizing is all that it does */
        run_activate(q, a, n_rows);
        return;
    }
    floats.out.q = NULL;
    if (!floats.out.f) floats.out.f = (float *)(uintptr_t)a->x, floats.out.ld_f = a->ld_x;
    run_activate(q, &floats, n_rows);
    if (a->out.q) quantize(q, floats.out.f, floats.out.ld_f, a->n, a->out, n_rows);
}

/* ---- products: sums first, then floats */

struct product_work {
    const struct zq_gemm *gemm;
    struct zq_product sums;
    const struct zq_product *wanted;
};

static void product_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct product_work *w = work;
    w->gemm->run(&w->sums, begin, end);
}

/* out = sums * scale of the token + bias + residual, tokens [begin, end). */
static void dequantize_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct product_work *w = work;
    const struct zq_product *p = w->wanted;
    for (size_t t = begin; t < end; t++) {
        const float *from = w->sums.out + t * w->sums.ld_out, *residual = p->residual ? p->residual + t * p->ld_out : NULL;
        float *to = p->out + t * p->ld_out;
        const float scale = p->scale[t];
        if (p->bias && residual)
            for (size_t r = 0; r < p->w->n_rows; r++) to[r] = from[r] * scale + p->bias[r] + residual[r];
        else if (p->bias)
            for (size_t r = 0; r < p->w->n_rows; r++) to[r] = from[r] * scale + p->bias[r];
        else
            for (size_t r = 0; r < p->w->n_rows; r++) to[r] = from[r] * scale + (residual ? residual[r] : 0);
    }
}

static const struct zq_gemm *gemm_of(const struct zq_kernels *k, enum zq_device_format format)
{
    switch (format) {
    case ZQ_DEVICE_W8A8: return &k->w8_a8;
    case ZQ_DEVICE_W4A8: return &k->w4_a8;
    case ZQ_DEVICE_W8A16: return &k->w8_a16;
    case ZQ_DEVICE_W4A16: return &k->w4_a16;
    default: return &k->f32_a16;
    }
}

static void unfused_product(struct zq_queue *q, const struct zq_product *a, enum zq_device_format format)
{
    struct product_work work = {gemm_of(q->ops->kernels, format), *a, a};
    const bool tokens = format == ZQ_DEVICE_W8A8 || format == ZQ_DEVICE_W4A8;
    if (tokens) {
        work.sums.scale = q->ones;
        work.sums.bias = work.sums.residual = NULL;
        if (a->residual) work.sums.out = q->sums, work.sums.ld_out = a->w->n_rows;
    }
    zq_team_run(q->ops->team, a->w->n_rows, work.gemm->row_tile, product_range, &work);
    if (tokens) zq_team_run(q->ops->team, a->n_tokens, 4, dequantize_range, &work);
}

static void move(struct zq_queue *q, void *to, const void *from, size_t n_bytes)
{
    (void)q;
    if (to && to != from) memmove(to, from, n_bytes);
}

static const char *finish(struct zq_queue *q)
{
    (void)q;
    return NULL;
}

static const struct zq_plugin plugin = {
    .version = ZQ_PLUGIN_VERSION, .upload = move, .download = move, .copy = move, .finish = finish, .norm = unfused_norm,
    .activate = unfused_activate, .product = unfused_product, /* attention stays, and leaves floats */
};

zq_status zq_unfused_begin(struct zq_unfused **out, struct zq_session *s, zq_error *err)
{
    const struct zq_config *c = &s->model->config;
    *out = NULL;
    if (s->model->blas) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: only quantized models have fused steps", s->model->dir);
    if (!s->ops.plugin && (c->width % ZQ_DEVICE_ALIGN || c->ffn_width % ZQ_DEVICE_ALIGN || c->n_heads * c->head_dim % ZQ_DEVICE_ALIGN))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: a width is no multiple of %d", s->model->dir, (int)ZQ_DEVICE_ALIGN);
    struct zq_unfused *u = zq_alloc_zero(sizeof *u);
    if (u && s->ops.plugin) {
        u->session = s;
        u->fused = s->ops;
        u->there = zq_unfused_device_begin(s->ops.plugin, s->ops.queue, s->max_batch_tokens, c->width, &s->ops.plugin);
        if (u->there) {
            s->ops.queue = u->there;
            *out = u;
            return ZQ_OK;
        }
    } else if (u) {
        u->session = s;
        u->fused = s->ops;
        u->queue = (struct zq_queue){.ops = &u->fused, .ones = zq_alloc_array(s->max_batch_tokens, sizeof(float)),
                                     .sums = zq_alloc_array(s->max_batch_tokens, c->width * sizeof(float))};
    }
    if (!u || !u->queue.ones || !u->queue.sums) {
        zq_unfused_end(u);
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a step without fusion", s->model->dir);
    }
    for (size_t t = 0; t < s->max_batch_tokens; t++) u->queue.ones[t] = 1;
    s->ops.plugin = &plugin;
    s->ops.queue = &u->queue;
    *out = u;
    return ZQ_OK;
}

void zq_unfused_end(struct zq_unfused *u)
{
    if (!u) return;
    u->session->ops = u->fused;
    zq_unfused_device_end(u->there);
    zq_free(u->queue.ones);
    zq_free(u->queue.sums);
    zq_free(u);
}
