/* Launches the products of few tokens and those with float inputs. */
#include "cuda/floatgemv.cuh"
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

template <int FORMAT, bool GROUPED> static void run_few(struct zq_queue *queue, const product_args &a)
{
    const unsigned blocks = parts(a.n_rows, SIDE_THREADS);
    if (a.n_tokens == 1) launch(queue, float_gemv<FORMAT, GROUPED, 1>, blocks, 1, SIDE_THREADS, a);
    else launch(queue, float_gemv<FORMAT, GROUPED, SIDE_FEW>, blocks, 1, SIDE_THREADS, a);
}

template <int FORMAT> static void run_float(struct zq_queue *queue, const product_args &a)
{
    const bool grouped = a.step != 0; /* step is 0 without groups */
    if (a.n_tokens > SIDE_FEW || a.h || (grouped && a.group % 4))
        launch(queue, float_product<FORMAT>, parts(a.n_rows, SIDE_THREADS), parts(a.n_tokens, SIDE_TOKENS), SIDE_THREADS, a);
    else if (FORMAT >= SIDE_I8 && grouped) run_few<FORMAT, FORMAT >= SIDE_I8>(queue, a);
    else run_few<FORMAT, false>(queue, a);
}

void zq_launch_float(struct zq_queue *queue, const product_args &a, int format)
{
    static void (*const runs[])(struct zq_queue *, const product_args &) = {run_float<SIDE_F32>, run_float<SIDE_F16>, run_float<SIDE_BF16>,
                                                                            run_float<SIDE_I8>, run_float<SIDE_I4>};
    runs[format](queue, a);
}
