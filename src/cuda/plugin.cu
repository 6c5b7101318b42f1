/* The plug-in's one exported symbol: memory, queues, and the choice of a kernel for each product. */
#include "cuda/floatmul.cuh"
#include "cuda/queue.cuh"

#include <stdio.h>
#include <stdlib.h>

static void run_float(struct zq_queue *queue, product_args args, const struct zq_product *p, enum zq_device_format format)
{
    const struct zq_matrix *w = p->w;
    const size_t width = zq_layout_width(w);
    const int of_floats = w->dtype == ZQ_F32 ? SIDE_F32 : w->dtype == ZQ_F16 ? SIDE_F16 : SIDE_BF16;
    const int side = format == ZQ_DEVICE_W8A16 ? SIDE_I8 : format == ZQ_DEVICE_W4A16 ? SIDE_I4 : of_floats;
    args.cols = (uint32_t)width;
    args.step = w->k_group ? 1 : 0;
    args.w_scale = (const float *)(args.w + w->n_cols * (format == ZQ_DEVICE_W8A16 ? width : width / 2));
    zq_launch_float(queue, args, side);
}

void zq_launch_product(struct zq_queue *queue, const struct zq_product *p, enum zq_device_format format)
{
    const struct zq_matrix *w = p->w;
    product_args args = {};
    if (!p->n_tokens || !w->n_rows) return;
    args.q = p->q;
    args.scale = p->scale;
    args.x = p->x;
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
    const bool padded = args.step != args.group && w->k_group && args.step != args.cols;
    if (args.q && args.n_tokens > 4 && !padded) {
        zq_launch_gemm(queue, args, bits, w->k_group != 0);
        return;
    }
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

#if defined(__CUDACC__)

static bool ok(struct zq_queue *queue, cudaError_t error)
{
    if (error && !queue->error) queue->error = error;
    return !queue->error;
}

static int device_open(struct zq_queue **out, int index, uint64_t seed, char *why, size_t n_why)
{
    (void)seed;
    int n = 0;
    *out = NULL;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error || !n) {
        snprintf(why, n_why, "no NVIDIA GPU can be used: %s", error ? cudaGetErrorString(error) : "none is installed");
        return 1;
    }
    if (index >= n) {
        snprintf(why, n_why, "there is no GPU %d, only %d", index, n);
        return 1;
    }
    struct zq_queue *queue = (struct zq_queue *)calloc(1, sizeof *queue);
    if (!queue) return 1;
    queue->index = index;
    error = cudaSetDevice(index);
    if (!error) error = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
    if (error) {
        snprintf(why, n_why, "GPU %d cannot be used: %s", index, cudaGetErrorString(error));
        free(queue);
        return 1;
    }
    *out = queue;
    return 0;
}

static void device_close(struct zq_queue *queue)
{
    if (!queue) return;
    cudaStreamDestroy(queue->stream);
    free(queue);
}

static uint64_t device_seed(const struct zq_queue *queue) { return (void)queue, 0; }

static void *device_alloc(struct zq_queue *queue, size_t n)
{
    void *p = NULL;
    if (cudaSetDevice(queue->index) || cudaMalloc(&p, n ? n : 1)) return NULL;
    return p;
}

static void device_free(struct zq_queue *queue, void *p) { (void)queue, cudaFree(p); }

static void device_move(struct zq_queue *queue, void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
    if (n && ok(queue, cudaSetDevice(queue->index))) ok(queue, cudaMemcpyAsync(to, from, n, kind, queue->stream));
}

static void device_upload(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    device_move(queue, to, from, n, cudaMemcpyHostToDevice);
    ok(queue, cudaStreamSynchronize(queue->stream)); /* the caller may reuse its memory */
}

static void device_download(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    device_move(queue, to, from, n, cudaMemcpyDeviceToHost);
    ok(queue, cudaStreamSynchronize(queue->stream));
}

static void device_copy(struct zq_queue *queue, void *to, const void *from, size_t n) { device_move(queue, to, from, n, cudaMemcpyDeviceToDevice); }

static const char *device_finish(struct zq_queue *queue)
{
    ok(queue, cudaStreamSynchronize(queue->stream));
    if (!queue->error) return NULL;
    snprintf(queue->sentence, sizeof queue->sentence, "GPU %d: %s", queue->index, cudaGetErrorString(queue->error));
    return queue->sentence;
}

#else

static int device_open(struct zq_queue **out, int index, uint64_t seed, char *why, size_t n_why)
{
    *out = NULL;
    struct zq_queue *queue = (struct zq_queue *)calloc(1, sizeof *queue);
    if (index == 0 && queue && (queue->device = sim_create(seed))) {
        *out = queue;
        return 0;
    }
    snprintf(why, n_why, index ? "there is one simulated device, number 0" : "no memory for a simulated device");
    free(queue);
    return 1;
}

static void device_close(struct zq_queue *queue)
{
    if (!queue) return;
    sim_destroy(queue->device);
    free(queue);
}

static uint64_t device_seed(const struct zq_queue *queue) { return sim_seed(queue->device); }
static void *device_alloc(struct zq_queue *queue, size_t n) { return (void)queue, aligned_alloc(256, (n + 256) / 256 * 256); }
static void device_free(struct zq_queue *queue, void *p) { (void)queue, free(p); }
static void device_copy(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    (void)queue;
    if (n) memcpy(to, from, n);
}
static const char *device_finish(struct zq_queue *queue) { return sim_error(queue->device); }
#define device_upload device_copy
#define device_download device_copy

#endif

extern "C" __attribute__((visibility("default"))) const struct zq_plugin *zq_device_plugin(void)
{
    static const struct zq_plugin plugin = {
        ZQ_PLUGIN_VERSION,
#if defined(__CUDACC__)
        false,
#else
        true,
#endif
        device_open, device_close, device_seed, device_alloc, device_free, device_upload, device_download, device_copy, device_finish,
        zq_launch_norm, zq_launch_activate, zq_launch_product, zq_launch_keep, zq_launch_attend,
    };
    return &plugin;
}
