/* Launches the row operators and attention. */
#include "cuda/attend.cuh"
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

void zq_launch_keep(struct zq_queue *queue, const struct zq_keep *a)
{
    launch(queue, keep_tokens, (unsigned)a->n_tokens, 1, ROW_THREADS, *a);
}

void zq_launch_attend(struct zq_queue *queue, const struct zq_attend *a)
{
    launch(queue, attend_query, (unsigned)a->n_tokens, (unsigned)a->heads.n_heads, ATTEND_THREADS, *a);
}
