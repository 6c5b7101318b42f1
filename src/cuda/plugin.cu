/* The plug-in's one exported symbol, and the choice of a kernel for each product. */
#include "cuda/floatmul.cuh"
#include "cuda/queue.cuh"

static void run_float(struct zq_queue *queue, product_args args, const struct zq_product *p, enum zq_device_format format)
{
    const struct zq_matrix *w = p->w;
    const size_t width = zq_layout_width(w);
    const int of_floats = w->dtype == ZQ_F32 ? SIDE_F32 : w->dtype == ZQ_F16 ? SIDE_F16 : SIDE_BF16;
    const int side = format == ZQ_DEVICE_W8A16 ? SIDE_I8 : format == ZQ_DEVICE_W4A16 ? SIDE_I4 : of_floats;
    args.cols = (uint32_t)width;
    args.step = w->k_group ? 1 : 0;
    args.w_scale = (const float *)(args.w + w->n_cols * (format == ZQ_DEVICE_W8A16 ? width : width / 2));
    const bool vendor = zq_blas_halves(queue, args, side);
    queue->kernels.took = vendor ? ZQ_KERNEL_VENDOR : ZQ_KERNEL_BY_TABLE;
    if (!vendor) zq_launch_float(queue, args, side);
}

/* Groups that were padded go to the kernel of few tokens. */
static bool is_padded(const struct zq_matrix *w)
{
    return w->k_group && zq_layout_step(w) != zq_layout_group(w) && zq_layout_step(w) != zq_layout_cols(w);
}

static bool serves(struct zq_queue *queue, enum zq_device_kernel kernel, const struct zq_matrix *w, enum zq_device_format format, bool residual)
{
    if (format > ZQ_DEVICE_W4A8 || is_padded(w)) return false;
    const bool plain = format == ZQ_DEVICE_W8A8 && !w->k_group && !residual;
    if (kernel == ZQ_KERNEL_HOPPER) return zq_hopper_serves(queue) && (!w->k_group || zq_hopper_groups(zq_layout_step(w), zq_layout_cols(w)));
    if (kernel == ZQ_KERNEL_VENDOR) return plain && (ZQ_SIMULATED || zq_blas_there(queue));
    if (kernel == ZQ_KERNEL_CUTLASS) return plain && zq_cutlass_built();
    return true;
}

static void prefer(struct zq_queue *queue, enum zq_device_kernel kernel) { queue->kernels.preferred = kernel; }
static void use_table(struct zq_queue *queue, const struct zq_tuned *items, size_t n)
{
    queue->kernels.items = items;
    queue->kernels.n = n;
}

static enum zq_device_kernel took(const struct zq_queue *queue) { return queue->kernels.took; }

static enum zq_device_kernel choose(const struct zq_queue_kernels &k, const struct zq_product *p, enum zq_device_format format)
{
    const struct zq_tuned *found = NULL;
    if (k.preferred != ZQ_KERNEL_BY_TABLE) return k.preferred;
    for (size_t i = 0; i < k.n; i++) {
        const struct zq_tuned *t = &k.items[i];
        if (t->format != format || t->n_rows != p->w->n_rows || t->n_cols != p->w->n_cols || t->k_group != p->w->k_group) continue;
        if (t->residual == (p->residual != NULL) && t->n_tokens >= p->n_tokens && (!found || t->n_tokens < found->n_tokens)) found = t;
    }
    return found ? found->kernel : ZQ_KERNEL_BY_TABLE;
}

void zq_launch_product(struct zq_queue *queue, const struct zq_product *p, enum zq_device_format format)
{
    const struct zq_matrix *w = p->w;
    product_args args = {};
    if (!p->n_tokens || !w->n_rows) return;
    args.q = p->q;
    args.scale = p->scale;
    args.x = p->x;
    args.h = p->h;
    args.ld_x = p->ld_x;
    args.w = (const uint8_t *)w->packed;
    args.n_tokens = (uint32_t)p->n_tokens;
    args.n_rows = (uint32_t)w->n_rows;
    args.n_cols = (uint32_t)w->n_cols;
    args.group = (uint32_t)zq_layout_group(w);
    args.bias = p->bias;
    args.residual = p->residual;
    args.out = p->out;
    args.ld_out = p->ld_out;
    if (format >= ZQ_DEVICE_W8A16) {
        run_float(queue, args, p, format);
        return;
    }
    const int bits = format == ZQ_DEVICE_W8A8 ? 8 : 4;
    args.step = (uint32_t)zq_layout_step(w);
    args.cols = (uint32_t)zq_layout_cols(w);
    args.w_scale = (const float *)(args.w + zq_layout_codes(w, bits));
    /* tensor cores take columns as they come; groups that were padded go through the other kernel, four tokens at a time */
    if (args.q && args.n_tokens > 4 && !is_padded(w)) {
        queue->kernels.took = zq_launch_gemm(queue, args, bits, w->k_group != 0, choose(queue->kernels, p, format));
        return;
    }
    queue->kernels.took = ZQ_KERNEL_BY_TABLE;
    for (size_t t = 0; t < p->n_tokens; t += 4) {
        args.n_tokens = (uint32_t)(p->n_tokens - t < 4 ? p->n_tokens - t : 4);
        args.q = p->q ? p->q + t * p->ld_x : NULL;
        args.x = p->x ? p->x + t * p->ld_x : NULL;
        args.scale = p->scale ? p->scale + t : NULL;
        args.residual = p->residual ? p->residual + t * p->ld_out : NULL;
        args.out = p->out + t * p->ld_out;
        zq_launch_gemv(queue, args, bits, w->k_group != 0);
    }
}

extern "C" __attribute__((visibility("default"))) const struct zq_plugin *zq_device_plugin(void)
{
    static const struct zq_plugin plugin = {
        ZQ_PLUGIN_VERSION,
        ZQ_SIMULATED,
        zq_queue_open, zq_queue_close, zq_queue_seed, zq_queue_describe,
        zq_queue_alloc, zq_queue_free, zq_queue_upload, zq_queue_download, zq_queue_copy, zq_queue_finish,
        zq_queue_start_clock, zq_queue_read_clock,
        zq_launch_norm, zq_launch_activate, zq_launch_product, zq_launch_keep, zq_launch_attend,
        zq_launch_embed, zq_launch_gather, zq_launch_sample, zq_blas_sums, serves, prefer, use_table, took, zq_queue_training,
        zq_queue_begin_graph, zq_queue_end_graph, zq_queue_run_graph, zq_graph_free,
    };
    return &plugin;
}
