/* The table of training's operators on this processor: what the files of this folder offer, under the names of kernels/training.h. */
#include "distill/processor.h"

#include "base/arena.h"
#include "base/threads.h"
#include "distill/activation.h"
#include "distill/attention.h"
#include "distill/coded.h"
#include "distill/fake.h"
#include "distill/loss.h"
#include "distill/matmul.h"
#include "distill/norm.h"
#include "distill/optimizer.h"
#include "distill/rounding.h"

#include <string.h>

static int threads(void *self) { return ((const struct zq_processor *)self)->n_threads; }

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Huge pages: products read columns of rows that lie kilobytes apart. */
static void *alloc(void *self, size_t n_bytes)
{
    (void)self;
    void *p = zq_alloc_pages(n_bytes);
    return p ? memset(p, 0, n_bytes) : NULL;
}
static void release(void *self, void *p) { (void)self, zq_free(p); }
static void copy(void *self, void *to, const void *from, size_t n_bytes) { (void)self, memcpy(to, from, n_bytes); }
static void clear(void *self, void *to, size_t n_bytes) { (void)self, memset(to, 0, n_bytes); }
static const char *check(void *self) { return (void)self, NULL; }

/* ---- rows ----------------------------------------------------------------------------------------------------------- */

static void start_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct zq_rows_start *a = work;
    for (size_t t = begin; t < end; t++) {
        float *out = a->out + t * a->ld;
        if (a->residual)
            for (size_t i = 0; i < a->n; i++) out[i] = a->residual[t * a->n + i] + a->bias[i];
        else memcpy(out, a->bias, a->n * sizeof *out);
    }
}

static void start(void *self, const struct zq_rows_start *a)
{
    struct zq_rows_start work = *a;
    zq_parallel(threads(self), a->n_rows, 8, start_range, &work);
}

static void add(void *self, float *x, const float *y, size_t n)
{
    (void)self;
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void add_difference(void *self, float *x, const float *a, const float *b, float by, size_t n)
{
    (void)self;
    for (size_t i = 0; i < n; i++) x[i] += by * (a[i] - b[i]);
}

static void scale(void *self, float *x, float by, size_t n)
{
    (void)self;
    for (size_t i = 0; i < n; i++) x[i] *= by;
}

static void product(void *self, const struct zq_matmul *a)
{
    const struct zq_processor *p = self;
    if (a->factors == ZQ_FACTORS_BF16 && p->kernels.matmul) zq_matmul_run_by(p->kernels.matmul, p->n_threads, a);
    else zq_matmul_run(p->n_threads, a);
}

static void column_sums(void *self, const float *x, size_t ld, size_t n_rows, size_t n, float *out)
{
    zq_column_sums(x, ld, n_rows, n, out, threads(self));
}

static void add_columns(void *self, const float *x, size_t n_rows, size_t n, double *sums)
{
    zq_add_columns(x, n_rows, n, sums, threads(self));
}

static void norm(void *self, const struct zq_norm_pass *a, float *out) { zq_norm_forward(a, out, threads(self)); }
static void norm_back(void *self, const struct zq_norm_back *a) { zq_norm_backward(a, threads(self)); }
static void activate(void *self, const struct zq_activation_pass *a, float *out) { zq_activation_forward(a, out, threads(self)); }

static void activate_back(void *self, const struct zq_activation_pass *a, const float *dy, float *du, float *dtimes)
{
    zq_activation_backward(a, dy, du, dtimes, threads(self));
}

/* ---- with scratch --------------------------------------------------------------------------------------------------- */

zq_status zq_processor_kernels(struct zq_processor *p, zq_error *err)
{
    unsigned levels = ZQ_LEVEL_C;
    const zq_status st = zq_levels_detect(&levels, err);
    zq_kernels_init(&p->kernels, levels);
    zq_kernels_fast(&p->kernels);
    return st;
}

size_t zq_processor_floats(const struct zq_processor *p, size_t max_length, size_t n_cols)
{
    const size_t attention = zq_attention_floats(max_length), fake = zq_fake_thread_floats(n_cols);
    const size_t coded = zq_coded_thread_floats(&p->kernels.w8_a8, n_cols), most = attention > fake ? attention : fake;
    return ((coded > most ? coded : most) + 15) / 16 * 16;
}

/* The pass with the products that it may have here. */
static struct zq_attention_pass with_product(const struct zq_processor *p, const struct zq_attention_pass *a)
{
    struct zq_attention_pass pass = *a;
    pass.product = a->fast ? p->kernels.matmul : NULL;
    return pass;
}

static void attend(void *self, const struct zq_attention_pass *a)
{
    const struct zq_processor *p = self;
    const struct zq_attention_pass pass = with_product(p, a);
    zq_attention_forward(&pass, p->n_threads, p->scratch, p->thread_floats);
}

static void attend_back(void *self, const struct zq_attention_pass *a)
{
    const struct zq_processor *p = self;
    const struct zq_attention_pass pass = with_product(p, a);
    zq_attention_backward(&pass, p->n_threads, p->scratch, p->thread_floats);
}

static void fake_tokens(void *self, const float *x, float *out, size_t n_tokens, size_t n)
{
    const struct zq_processor *p = self;
    zq_fake_tokens(x, out, n_tokens, n, p->n_threads, p->scratch, p->thread_floats);
}

static void fake_weights(void *self, const struct zq_fake_weights *a, uint32_t *bad)
{
    const struct zq_processor *p = self;
    if (!zq_fake_weights(a, p->n_threads, p->scratch, p->thread_floats)) *bad = 1;
}

/* ---- codes ---------------------------------------------------------------------------------------------------------- */

static void pack(void *self, const struct zq_coded_map *a)
{
    const struct zq_processor *p = self;
    zq_coded_pack(&p->kernels.w8_a8, a, p->n_threads, p->scratch, p->thread_floats);
}

static void code_tokens(void *self, const float *x, float *out, int8_t *q, float *scale, size_t n_tokens, size_t n)
{
    zq_code_tokens(x, out, q, scale, n_tokens, n, threads(self));
}

static void coded_product(void *self, const struct zq_product *a)
{
    const struct zq_processor *p = self;
    zq_coded_product(&p->kernels.w8_a8, a, p->n_threads);
}

/* ---- loss and steps ------------------------------------------------------------------------------------------------- */

static void loss(void *self, const struct zq_loss_pass *a) { zq_loss_run(a, threads(self)); }
static void adamw(void *self, const struct zq_adamw_pass *a) { zq_adamw_run(a, threads(self)); }
static void signsgd(void *self, const struct zq_sign_pass *a) { zq_signsgd_run(a, threads(self)); }

static void begin_rounding(void *self, const struct zq_rounding *a) { zq_rounding_begin(a, threads(self)); }
static void round_weights(void *self, const struct zq_rounding *a) { zq_rounding_round(a, threads(self)); }
static void slopes(void *self, const struct zq_rounding *a) { zq_rounding_slopes(a, threads(self)); }
static void keep_rounding(void *self, const struct zq_rounding *a) { zq_rounding_keep(a, threads(self)); }
static void decode(void *self, const struct zq_rounding *a) { zq_rounding_decode(a, threads(self)); }

const struct zq_training_ops zq_processor_ops = {
    .alloc = alloc, .free = release, .upload = copy, .download = copy, .copy = copy, .clear = clear, .check = check,
    .product = product, .start = start, .column_sums = column_sums, .add_columns = add_columns, .norm = norm, .norm_back = norm_back,
    .activate = activate, .activate_back = activate_back, .attend = attend, .attend_back = attend_back,
    .fake_tokens = fake_tokens, .fake_weights = fake_weights, .add = add, .add_difference = add_difference, .scale = scale, .loss = loss,
    .adamw = adamw, .signsgd = signsgd,
    .begin_rounding = begin_rounding, .round = round_weights, .slopes = slopes, .keep_rounding = keep_rounding, .decode = decode,
    .pack = pack, .code_tokens = code_tokens, .coded_product = coded_product,
};
