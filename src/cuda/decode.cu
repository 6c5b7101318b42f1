/* Launches the attention of decoding with --math fast. */
#include "cuda/decode.cuh"
#include "cuda/queue.cuh"

template <class T, int DIMS> static void run_dims(struct zq_queue *queue, const decode_args &args)
{
    launch(queue, attend_parts<T, DIMS>, (unsigned)args.a.n_tokens * args.n_splits, (unsigned)zq_device_split_heads(&args.a.heads),
           decode_block<DIMS>::THREADS, args);
}

template <class T> static void run(struct zq_queue *queue, const decode_args &args)
{
    const size_t head_dim = args.a.heads.head_dim;
    if (head_dim <= 64) run_dims<T, 64>(queue, args);
    else if (head_dim <= 96) run_dims<T, 96>(queue, args);
    else if (head_dim <= 128) run_dims<T, 128>(queue, args);
    else run_dims<T, 256>(queue, args);
}

void zq_launch_decode(struct zq_queue *queue, const struct zq_device_attention *a)
{
    const struct zq_heads *h = &a->heads;
    const decode_args args = {*a, (uint32_t)zq_device_splits(h, a->n_tokens), (uint32_t)(zq_device_split_heads(h) / h->n_kv_heads)};
    if (a->cache.dtype == ZQ_I8) run<int8_t>(queue, args);
    else run<uint16_t>(queue, args);
}
