/* Launches the row operators. */
#include "cuda/queue.cuh"
#include "cuda/rows.cuh"

void zq_launch_norm(struct zq_queue *queue, const struct zq_norm *a, size_t n_rows)
{
    launch(queue, norm_rows, parts(n_rows, NORM_ROWS), 1, NORM_THREADS, norm_args{*a, n_rows});
}

void zq_launch_activate(struct zq_queue *queue, const struct zq_activate *a, size_t n_rows)
{
    launch(queue, activate_rows, (unsigned)n_rows, 1, ROW_THREADS, *a);
}

template <class A>
static void launch_cached(struct zq_queue *queue, const A &a, void (*const kernels[3])(const A), unsigned grid_y, unsigned n_threads)
{
    launch(queue, kernels[a.cache.dtype == ZQ_I8 ? 2 : a.cache.dtype == ZQ_F16 ? 1 : 0], (unsigned)a.n_tokens, grid_y, n_threads, a);
}

void zq_launch_keep(struct zq_queue *queue, const struct zq_device_attention *a)
{
    static void (*const kernels[])(const struct zq_device_attention) = {keep_tokens<float>, keep_tokens<uint16_t>, keep_tokens<int8_t>};
    launch_cached(queue, *a, kernels, 1, ROW_THREADS);
}
