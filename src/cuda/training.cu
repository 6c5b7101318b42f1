/* Launches training's operators and lists them. A GPU without cuBLASLt has no table: there is no product of our own for F32. */
#include "cuda/queue.cuh"
#include "cuda/training_attend.cuh"
#include "cuda/training_codes.cuh"

#if !defined(__CUDACC__)
#include "cuda/sim/product.h"
#endif

static struct zq_queue *of(void *self) { return (struct zq_queue *)self; }
static unsigned value_blocks(size_t n) { return parts(n, TRAIN_VALUES); }
static unsigned column_blocks(size_t n) { return parts(n, TRAIN_COLUMNS); }

/* ---- memory --------------------------------------------------------------------------------------------------------- */

static void release(void *self, void *p) { zq_queue_free(of(self), p); }
static void upload(void *self, void *to, const void *from, size_t n) { zq_queue_upload(of(self), to, from, n); }
static void download(void *self, void *to, const void *from, size_t n) { zq_queue_download(of(self), to, from, n); }
static void copy(void *self, void *to, const void *from, size_t n) { zq_queue_copy(of(self), to, from, n); }
static void clear(void *self, void *to, size_t n) { zq_queue_clear(of(self), to, n); }
static const char *check(void *self) { return zq_queue_finish(of(self)); }

static void *alloc(void *self, size_t n)
{
    void *p = zq_queue_alloc(of(self), n);
    if (p) clear(self, p, n);
    return p;
}

/* ---- rows and values ------------------------------------------------------------------------------------------------ */

/* Values of a row of n as BF16: a multiple of 16 bytes, as tensor cores want them. */
static size_t halved(size_t n) { return (n + 7) / 8 * 8; }

/* A factor that lies as rows of n values, as BF16 at `at`. */
static uint16_t *halve(struct zq_queue *queue, const float *x, size_t *ld, size_t n_rows, size_t n, uint16_t *at)
{
    const halve_args args = {x, *ld, at, halved(n), n};
    launch(queue, train_halve, (unsigned)n_rows, value_blocks(n), TRAIN_THREADS, args);
    *ld = args.ld_to;
    return at;
}

/* Both factors of p as BF16, in memory of the queue that the next product uses again; its leading dimensions become theirs. */
static bool halve_factors(struct zq_queue *queue, struct zq_training_product *p)
{
    struct zq_matmul *a = &p->of;
    const size_t rows_a = a->turn_a ? a->k : a->m, cols_a = a->turn_a ? a->m : a->k;
    const size_t rows_b = a->turn_b ? a->n : a->k, cols_b = a->turn_b ? a->k : a->n;
    const size_t n_a = (rows_a * halved(cols_a) + 127) / 128 * 128, n_b = rows_b * halved(cols_b);
    uint16_t *at = (uint16_t *)zq_queue_scratch(queue, (n_a + n_b) * sizeof *at);
    if (!at) return false;
    p->a = halve(queue, a->a, &a->lda, rows_a, cols_a, at);
    p->b = halve(queue, a->b, &a->ldb, rows_b, cols_b, at + n_a);
    return true;
}

#if !defined(__CUDACC__)
static void run_product(const void *args)
{
    const struct zq_training_product *p = (const struct zq_training_product *)args;
    if (p->a) sim_product(&p->of, p->a, p->b);
    else sim_product(&p->of, p->of.a, p->of.b);
}
#endif

static void product(void *self, const struct zq_matmul *a)
{
    struct zq_training_product p = {*a, NULL, NULL};
    if (!a->m || !a->n) return;
    if (a->factors == ZQ_FACTORS_BF16 && !halve_factors(of(self), &p)) return;
#if defined(__CUDACC__)
    const bool well = !of(self)->error;
    zq_blas_floats(of(self), &p);
    if (well && of(self)->error) of(self)->culprit = "cuBLASLt, a product of training: ";
#else
    zq_queue_launch(of(self), 0, 0, 0, run_product, &p, sizeof p);
#endif
}

static void start(void *self, const struct zq_rows_start *a)
{
    launch(of(self), train_start, (unsigned)a->n_rows, value_blocks(a->n), TRAIN_THREADS, *a);
}

static void column_sums(void *self, const float *x, size_t ld, size_t n_rows, size_t n, float *out)
{
    launch(of(self), train_column_sums, column_blocks(n), 1, TRAIN_THREADS, columns_args{x, ld, n_rows, n, out, NULL});
}

static void add_columns(void *self, const float *x, size_t n_rows, size_t n, double *sums)
{
    launch(of(self), train_column_sums, column_blocks(n), 1, TRAIN_THREADS, columns_args{x, n, n_rows, n, NULL, sums});
}

static void norm(void *self, const struct zq_norm_pass *a, float *out)
{
    launch(of(self), train_norm, parts(a->n_tokens, TRAIN_ROWS), 1, TRAIN_THREADS, train_norm_args{*a, out});
}

/* Weights first: dx may be dy. */
static void norm_back(void *self, const struct zq_norm_back *a)
{
    launch(of(self), train_norm_weights, column_blocks(a->pass.n), 1, TRAIN_THREADS, *a);
    launch(of(self), train_norm_inputs, parts(a->pass.n_tokens, TRAIN_ROWS), 1, TRAIN_THREADS, *a);
}

static void activate(void *self, const struct zq_activation_pass *a, float *out)
{
    launch(of(self), train_activate, value_blocks(a->n), 1, TRAIN_THREADS, activate_args{*a, out, NULL, NULL, NULL});
}

static void activate_back(void *self, const struct zq_activation_pass *a, const float *dy, float *du, float *dtimes)
{
    launch(of(self), train_activate_back, value_blocks(a->n), 1, TRAIN_THREADS, activate_args{*a, NULL, dy, du, dtimes});
}

static void add_to(void *self, float *x, const float *y, size_t n)
{
    launch(of(self), train_add, value_blocks(n), 1, TRAIN_THREADS, values_args{x, y, NULL, 0, n});
}

static void add_difference(void *self, float *x, const float *y, const float *less, float by, size_t n)
{
    launch(of(self), train_add_difference, value_blocks(n), 1, TRAIN_THREADS, values_args{x, y, less, by, n});
}

static void scale(void *self, float *x, float by, size_t n)
{
    launch(of(self), train_scale, value_blocks(n), 1, TRAIN_THREADS, values_args{x, NULL, NULL, by, n});
}

static void loss(void *self, const struct zq_loss_pass *a)
{
    const double n = a->kl ? (double)a->n_tokens : (double)a->n_tokens * (double)a->width;
    launch(of(self), a->kl ? train_divergence : train_squares, (unsigned)a->n_tokens, 1, TRAIN_THREADS, loss_args{*a, (float)((a->kl ? 1 : 2) / n)});
}

static void adamw(void *self, const struct zq_adamw_pass *a) { launch(of(self), train_adamw, value_blocks(a->n), 1, TRAIN_THREADS, *a); }
static void signsgd(void *self, const struct zq_sign_pass *a) { launch(of(self), train_signs, value_blocks(a->n), 1, TRAIN_THREADS, *a); }

/* ---- attention ------------------------------------------------------------------------------------------------------ */

template <int DIM> static void launch_tiles(struct zq_queue *queue, const struct zq_attention_pass &a, bool back)
{
    const size_t longest = a.max_length < a.n_tokens ? a.max_length : a.n_tokens;
    const unsigned tiles = parts(longest, attend_shape<DIM>::ROWS), heads = (unsigned)(a.n_sequences * a.heads.n_heads);
    if (!back) {
        launch(queue, train_attend<DIM>, heads, tiles, ATTEND_THREADS, a);
        return;
    }
    launch(queue, train_attend_queries<DIM>, heads, tiles, ATTEND_THREADS, a);
    launch(queue, train_attend_keys<DIM>, (unsigned)(a.n_sequences * a.heads.n_kv_heads), tiles, ATTEND_THREADS, a);
}

static void launch_attention(struct zq_queue *queue, const struct zq_attention_pass &a, bool back)
{
    if (a.heads.head_dim <= 64) launch_tiles<64>(queue, a, back);
    else if (a.heads.head_dim <= 128) launch_tiles<128>(queue, a, back);
    else launch_tiles<ZQ_TRAINING_HEAD_DIM>(queue, a, back);
}

static void rotate(struct zq_queue *queue, const struct zq_attention_pass &a, float *rows, float sense)
{
    if (a.rotary.n_rotated) launch(queue, train_rotate, (unsigned)a.n_tokens, 1, ATTEND_THREADS, rotate_args{a, rows, sense});
}

static void attend(void *self, const struct zq_attention_pass *a)
{
    rotate(of(self), *a, a->qkv, 1);
    launch_attention(of(self), *a, false);
}

static void attend_back(void *self, const struct zq_attention_pass *a)
{
    launch_attention(of(self), *a, true);
    rotate(of(self), *a, a->d_qkv, -1);
}

/* ---- codes ---------------------------------------------------------------------------------------------------------- */

static void fake_tokens(void *self, const float *x, float *out, size_t n_tokens, size_t n)
{
    launch(of(self), train_tokens, (unsigned)n_tokens, 1, TRAIN_THREADS, tokens_args{x, out, n});
}

static void fake_weights(void *self, const struct zq_fake_weights *a, uint32_t *bad)
{
    const struct zq_layout *l = a->layout;
    const size_t n_groups = l->spec.k_group ? a->n_cols / l->spec.k_group : 1;
    const weights_args args = {a->w, a->out, a->shared, a->n_rows, a->n_cols, n_groups, l->row_groups, l->spec.w_bits, l->scale_dtype, bad};
    if (l->row_groups) launch(of(self), train_shared_scales, (unsigned)l->row_groups, 1, TRAIN_THREADS, args);
    launch(of(self), train_weights, parts(a->n_rows * n_groups, TRAIN_WARPS), 1, TRAIN_THREADS, args);
}

static void launch_rows(void *self, void (*kernel)(const struct zq_rounding), const struct zq_rounding *a)
{
    launch(of(self), kernel, (unsigned)a->n_rows, value_blocks(a->n_cols), TRAIN_THREADS, *a);
}

static void begin_rounding(void *self, const struct zq_rounding *a)
{
    const size_t n_bytes = a->n_rows * a->n_groups * sizeof *a->first;
    copy(self, a->first, a->scales, n_bytes);
    copy(self, a->present, a->scales, n_bytes);
    launch_rows(self, train_begin_rounding, a);
}

static void round_weights(void *self, const struct zq_rounding *a) { launch_rows(self, train_round, a); }

static void slopes(void *self, const struct zq_rounding *a)
{
    launch(of(self), train_slopes, parts(a->n_rows * a->n_groups, TRAIN_WARPS), 1, TRAIN_THREADS, *a);
    if (a->row_groups) launch(of(self), train_shared_slopes, (unsigned)a->row_groups, 1, TRAIN_THREADS, *a);
}

static void keep_rounding(void *self, const struct zq_rounding *a)
{
    launch_rows(self, train_keep, a);
    copy(self, a->scales, a->present, a->n_rows * a->n_groups * sizeof *a->scales);
}

static void decode(void *self, const struct zq_rounding *a) { launch_rows(self, train_decode, a); }

const struct zq_training_ops *zq_queue_training(struct zq_queue *queue)
{
    static const struct zq_training_ops ops = {
        true, alloc, release, upload, download, copy, clear, check,
        product, start, column_sums, add_columns, norm, norm_back, activate, activate_back, attend, attend_back, fake_tokens, fake_weights, add_to,
        add_difference, scale, loss, adamw, signsgd, begin_rounding, round_weights, slopes, keep_rounding, decode,
        nullptr, nullptr, nullptr, /* products of codes are those of their values */
    };
    return ZQ_SIMULATED || zq_blas_there(queue) ? &ops : NULL;
}
