/* What the files of a plug-in share: the queue, and how a kernel is launched on a device or in the simulator. */
#ifndef ZQ_CUDA_QUEUE_CUH
#define ZQ_CUDA_QUEUE_CUH

#include "cuda/device.h"
#include "cuda/shim.cuh"

/* Which kernels products take. */
struct zq_queue_kernels {
    enum zq_device_kernel preferred, took; /* device.h: prefer(), took() */
    const struct zq_tuned *items;
    size_t n;
};

/* Memory that grows to what is asked for. */
struct zq_scratch {
    void *memory;
    size_t n_bytes;
};

#if defined(__CUDACC__)
#define ZQ_SIMULATED false
enum { ZQ_PINNED_BYTES = 8 << 20 };
struct zq_queue {
    cudaStream_t stream;
    int index;
    cudaError_t error;    /* the first one */
    const char *culprit;  /* where it came from, as its sentence begins; NULL: not known */
    cudaEvent_t clock[2];
    void *pinned[2];      /* [ZQ_PINNED_BYTES] page-locked, on their way to the card until `sent` is over */
    cudaEvent_t sent[2];
    int turn;
    bool recording;
    struct zq_blas *blas; /* NULL until a product wants it, or somebody asks for it */
    void *encode_tiles;   /* of the driver, for Hopper's tiles; NULL: not there, or not yet asked for */
    bool asked_tiles;
    struct zq_queue_kernels kernels;
    struct zq_scratch scratch;
    char sentence[200];
};
template <class A> static void launch(struct zq_queue *queue, void (*kernel)(const A), unsigned grid_x, unsigned grid_y, unsigned n_threads,
                                      const A &args, unsigned dynamic_bytes = 0)
{
    if (queue->error || !grid_x || !grid_y) return;
    void *pointers[] = {const_cast<A *>(&args)};
    queue->error = cudaLaunchKernel((const void *)kernel, dim3(grid_x, grid_y), dim3(n_threads), pointers, dynamic_bytes, queue->stream);
}
#else
#define ZQ_SIMULATED true
struct zq_queue {
    struct sim_device *device;
    struct zq_graph *recording; /* NULL: what is launched runs at once */
    struct zq_queue_kernels kernels;
    struct zq_scratch scratch;
};
template <class A> struct launched {
    void (*kernel)(const A);
    A args;
    static void body(const void *p) { ((const launched *)p)->kernel(((const launched *)p)->args); }
};
/* Runs or records; n_threads 0: no kernel, but something that the simulator does by itself. args: n_args bytes. */
void zq_queue_launch(struct zq_queue *queue, unsigned grid_x, unsigned grid_y, unsigned n_threads, void (*body)(const void *), const void *args,
                     size_t n_args);
template <class A> static void launch(struct zq_queue *queue, void (*kernel)(const A), unsigned grid_x, unsigned grid_y, unsigned n_threads,
                                      const A &args, unsigned dynamic_bytes = 0)
{
    (void)dynamic_bytes; /* the kernel says itself how many */
    const launched<A> l = {kernel, args};
    zq_queue_launch(queue, grid_x, grid_y, n_threads, launched<A>::body, &l, sizeof l);
}
#endif

static inline unsigned parts(size_t n, size_t size) { return (unsigned)((n + size - 1) / size); }

/* device.h gives the contract of each */
int zq_queue_open(struct zq_queue **queue, int index, uint64_t seed, char *why, size_t n_why);
void zq_queue_close(struct zq_queue *queue);
uint64_t zq_queue_seed(const struct zq_queue *queue);
void zq_queue_describe(struct zq_queue *queue, char *text, size_t n);
void *zq_queue_alloc(struct zq_queue *queue, size_t n_bytes);
void zq_queue_free(struct zq_queue *queue, void *p);
/* So much memory until the next call, in the queue's order; NULL: there is none, and the queue has failed. */
void *zq_queue_scratch(struct zq_queue *queue, size_t n_bytes);
void zq_queue_upload(struct zq_queue *queue, void *to, const void *from, size_t n_bytes);
void zq_queue_download(struct zq_queue *queue, void *to, const void *from, size_t n_bytes);
void zq_queue_copy(struct zq_queue *queue, void *to, const void *from, size_t n_bytes);
void zq_queue_clear(struct zq_queue *queue, void *to, size_t n_bytes);
const char *zq_queue_finish(struct zq_queue *queue);
void zq_queue_start_clock(struct zq_queue *queue);
double zq_queue_read_clock(struct zq_queue *queue);
void zq_queue_begin_graph(struct zq_queue *queue);
struct zq_graph *zq_queue_end_graph(struct zq_queue *queue);
void zq_queue_run_graph(struct zq_queue *queue, struct zq_graph *graph);
void zq_graph_free(struct zq_graph *graph);

/* One file per group of kernels, so that they compile side by side. */
void zq_launch_norm(struct zq_queue *queue, const struct zq_norm *a, size_t n_rows);
void zq_launch_activate(struct zq_queue *queue, const struct zq_activate *a, size_t n_rows);
void zq_launch_keep(struct zq_queue *queue, const struct zq_device_attention *a);
void zq_launch_attend(struct zq_queue *queue, const struct zq_device_attention *a);
void zq_launch_decode(struct zq_queue *queue, const struct zq_device_attention *a);
void zq_launch_embed(struct zq_queue *queue, const struct zq_device_embed *a);
void zq_launch_gather(struct zq_queue *queue, float *to, const float *from, const int32_t *rows, size_t n_rows, size_t n);
void zq_launch_sample(struct zq_queue *queue, const struct zq_device_sample *a);
const struct zq_training_ops *zq_queue_training(struct zq_queue *queue);
struct product_args;
void zq_launch_gemv(struct zq_queue *queue, const struct product_args &args, int bits, bool grouped);
/* Returns the kernel that serves, which need not be the one that is asked for. */
enum zq_device_kernel zq_launch_gemm(struct zq_queue *queue, const struct product_args &args, int bits, bool grouped, enum zq_device_kernel kernel);
/* False, and nothing is queued, where CUTLASS is missing or does not serve. W8A8 without groups. */
bool zq_cutlass_built(void);
bool zq_cutlass_product(struct zq_queue *queue, const struct product_args &args);
/* Hopper's wgmma: whether the device and the driver have it; whether groups of columns [.., step] of rows of so many columns are served; false,
 * and nothing is queued, where not. */
bool zq_hopper_serves(struct zq_queue *queue);
bool zq_hopper_groups(size_t step, size_t cols);
bool zq_hopper_product(struct zq_queue *queue, const struct product_args &args, int bits, bool grouped);
void zq_launch_float(struct zq_queue *queue, const struct product_args &args, int format);
/* cuBLASLt. halves: false, and nothing is queued, where it is missing or refuses. */
bool zq_blas_halves(struct zq_queue *queue, const struct product_args &args, int format);
/* product: W8A8 without groups; false as halves. */
bool zq_blas_product(struct zq_queue *queue, const struct product_args &args);
int zq_blas_sums(struct zq_queue *queue, const struct zq_product *a, int32_t *sums);
/* A product of training; a, b: its factors as BF16, with `of`'s leading dimensions, or NULL. */
struct zq_training_product {
    struct zq_matmul of;
    const uint16_t *a, *b;
};
/* Fails the queue where the library refuses. */
void zq_blas_floats(struct zq_queue *queue, const struct zq_training_product *p);
bool zq_blas_there(struct zq_queue *queue); /* opens the library if nothing has yet */
void zq_blas_close(struct zq_queue *queue);
void zq_launch_product(struct zq_queue *queue, const struct zq_product *a, enum zq_device_format format);

#endif
