/* Launches the products of few tokens and those with float inputs. */
#include "cuda/floatmul.cuh"
#include "cuda/queue.cuh"

template <int BITS, bool GROUPED> static void run(struct zq_queue *queue, const product_args &a)
{
    const unsigned blocks = parts(a.n_rows, GEMV_WARPS * GEMV_ROWS);
    if (a.n_tokens == 1) launch(queue, gemv<BITS, GROUPED, 1>, blocks, 1, GEMV_THREADS, a);
    else launch(queue, gemv<BITS, GROUPED, 4>, blocks, 1, GEMV_THREADS, a);
}

void zq_launch_gemv(struct zq_queue *queue, const product_args &a, int bits, bool grouped)
{
    if (bits == 8 && grouped) run<8, true>(queue, a);
    else if (bits == 8) run<8, false>(queue, a);
    else if (grouped) run<4, true>(queue, a);
    else run<4, false>(queue, a);
}

void zq_launch_float(struct zq_queue *queue, const product_args &a, int format)
{
    static void (*const kernels[])(const product_args) = {float_product<SIDE_F32>, float_product<SIDE_F16>, float_product<SIDE_BF16>,
                                                          float_product<SIDE_I8>, float_product<SIDE_I4>};
    launch(queue, kernels[format], parts(a.n_rows, SIDE_THREADS), parts(a.n_tokens, SIDE_TOKENS), SIDE_THREADS, a);
}
