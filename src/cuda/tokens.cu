/* Launches what works on ids: embeddings, the rows that heads read, and the choice of the next id. */
#include "cuda/queue.cuh"
#include "cuda/tokens.cuh"

void zq_launch_embed(struct zq_queue *queue, const struct zq_device_embed *a)
{
    static void (*const kernels[])(const embed_args) = {embed_tokens<SIDE_F32>, embed_tokens<SIDE_F16>, embed_tokens<SIDE_BF16>,
                                                        embed_tokens<SIDE_I8>, embed_tokens<SIDE_I4>};
    embed_args args = {*a, NULL, NULL, 0, 0, 1};
    int side = SIDE_F32;
    if (a->table) {
        const struct zq_matrix *w = a->table;
        const size_t width = zq_layout_width(w);
        const int of_floats = w->dtype == ZQ_F32 ? SIDE_F32 : w->dtype == ZQ_F16 ? SIDE_F16 : SIDE_BF16;
        side = a->format == ZQ_DEVICE_W8A16 ? SIDE_I8 : a->format == ZQ_DEVICE_W4A16 ? SIDE_I4 : of_floats;
        args.table = (const uint8_t *)w->packed;
        args.scale = (const float *)(args.table + w->n_cols * (side == SIDE_I8 ? width : width / 2));
        args.width = (uint32_t)width;
        args.n_rows = (uint32_t)w->n_rows;
        args.group = (uint32_t)zq_layout_group(w);
    }
    launch(queue, kernels[side], (unsigned)a->n_tokens, 1, TOKEN_THREADS, args);
}

void zq_launch_gather(struct zq_queue *queue, float *to, const float *from, const int32_t *rows, size_t n_rows, size_t n)
{
    launch(queue, gather_rows, (unsigned)n_rows, 1, TOKEN_THREADS, gather_args{to, from, rows, n});
}

void zq_launch_sample(struct zq_queue *queue, const struct zq_device_sample *a)
{
    launch(queue, sample_row, (unsigned)a->n_rows, 1, SAMPLE_THREADS, *a);
}
