/* Launches the products of many tokens. Two tile shapes: wide ones where they fill the device, small ones before. */
#include "cuda/gemm.cuh"
#include "cuda/queue.cuh"

template <int BITS, bool GROUPED> static void run(struct zq_queue *queue, const product_args &a, bool wide)
{
    if (wide) launch(queue, gemm<BITS, GROUPED, 128, 128, 2, 4>, parts(a.n_rows, 128), parts(a.n_tokens, 128), 256, a);
    else launch(queue, gemm<BITS, GROUPED, 32, 64, 1, 4>, parts(a.n_rows, 64), parts(a.n_tokens, 32), 128, a);
}

enum zq_device_kernel zq_launch_gemm(struct zq_queue *queue, const product_args &a, int bits, bool grouped, enum zq_device_kernel kernel)
{
    if (kernel == ZQ_KERNEL_HOPPER && zq_hopper_product(queue, a, bits, grouped)) return kernel;
    if (kernel == ZQ_KERNEL_CUTLASS && bits == 8 && !grouped && zq_cutlass_product(queue, a)) return kernel;
    if (kernel == ZQ_KERNEL_VENDOR && bits == 8 && !grouped && zq_blas_product(queue, a)) return kernel;
    const bool wide = kernel == ZQ_KERNEL_WIDE || (kernel != ZQ_KERNEL_SMALL && a.n_tokens > 128);
    if (bits == 8 && grouped) run<8, true>(queue, a, wide);
    else if (bits == 8) run<8, false>(queue, a, wide);
    else if (grouped) run<4, true>(queue, a, wide);
    else run<4, false>(queue, a, wide);
    return wide ? ZQ_KERNEL_WIDE : ZQ_KERNEL_SMALL;
}
