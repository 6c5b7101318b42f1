/* Launches attention: in the written order of kernels.h, or with --math fast on tensor cores. */
#include "cuda/attend.cuh"
#include "cuda/prompt.cuh"
#include "cuda/queue.cuh"

template <class T> static void run_prompt(struct zq_queue *queue, const struct zq_device_attention &a)
{
    const struct zq_heads *h = &a.heads;
    void (*const kernel)(const struct zq_device_attention) = h->head_dim <= 64    ? attend_prompt<T, 64>
                                                             : h->head_dim <= 96  ? attend_prompt<T, 96>
                                                             : h->head_dim <= 128 ? attend_prompt<T, 128>
                                                                                  : attend_prompt<T, 256>;
    launch(queue, kernel, parts(a.n_tokens * (h->n_heads / h->n_kv_heads), PROMPT_ROWS), (unsigned)h->n_kv_heads, PROMPT_THREADS, a);
}

template <class T> static void run(struct zq_queue *queue, const struct zq_device_attention &a)
{
    const size_t head_dim = a.heads.head_dim;
    const bool fast = a.fast && head_dim % 8 == 0 && head_dim <= ZQ_DEVICE_FAST_HEAD_DIM, prompt = a.n_tokens > ZQ_DEVICE_FEW * a.n_sequences;
    if (fast && prompt) run_prompt<T>(queue, a);
    else if (fast && sizeof(T) < sizeof(float)) zq_launch_decode(queue, &a);
    else launch(queue, attend_query<T>, (unsigned)a.n_tokens, (unsigned)a.heads.n_heads, ATTEND_THREADS, a);
}

void zq_launch_attend(struct zq_queue *queue, const struct zq_device_attention *a)
{
    if (a->cache.dtype == ZQ_I8) run<int8_t>(queue, *a);
    else if (a->cache.dtype == ZQ_F16) run<uint16_t>(queue, *a);
    else run<float>(queue, *a);
}
