/* Round-to-nearest in place of the exporter, row by row. Scales of groups of rows are settled first: a group may span rows of
 * several threads. */
#include "distill/fake.h"

#include "base/threads.h"
#include "quant/encode.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

struct weights_work {
    const struct zq_fake_weights *a;
    float *scratch; /* of a thread: scales [n_cols], codes [n_cols] bytes */
    size_t thread_floats;
    atomic_bool bad;
};

size_t zq_fake_thread_floats(size_t n_cols)
{
    return n_cols + (n_cols + sizeof(float) - 1) / sizeof(float);
}

static void share_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    struct weights_work *w = work;
    const struct zq_fake_weights *a = w->a;
    const size_t n_groups = a->layout->row_groups;
    for (size_t g = begin; g < end; g++) {
        const size_t first = zq_row_group_begin(g, a->n_rows, n_groups), last = zq_row_group_begin(g + 1, a->n_rows, n_groups);
        struct zq_range range;
        if (!zq_range_of(&range, a->w + first * a->n_cols, (last - first) * a->n_cols)) {
            atomic_store(&w->bad, true);
            return;
        }
        const float scale = zq_scale_nearest(a->layout->spec.w_bits, range, a->layout->scale_dtype);
        for (size_t r = first; r < last; r++) a->shared[r] = scale;
    }
}

static void decode(float *out, const int8_t *codes, const float *scales, size_t n, size_t n_groups)
{
    const size_t length = n / n_groups;
    for (size_t g = 0; g < n_groups; g++)
        for (size_t k = g * length; k < (g + 1) * length; k++) out[k] = (float)codes[k] * scales[g];
}

static void weights_range(void *work, size_t begin, size_t end, int thread)
{
    struct weights_work *w = work;
    const struct zq_fake_weights *a = w->a;
    float *scales = w->scratch + (size_t)thread * w->thread_floats;
    int8_t *codes = (int8_t *)(scales + a->n_cols);
    for (size_t r = begin; r < end; r++) {
        const struct zq_weight_rows row = {a->w + r * a->n_cols, r, 1, a->n_cols, a->layout, a->layout->row_groups ? a->shared + r : NULL};
        if (!zq_encode_nearest(NULL, &row, codes, scales)) {
            atomic_store(&w->bad, true);
            return;
        }
        const size_t n_groups = zq_spec_n_groups(a->layout->spec, a->n_cols);
        decode(a->out + r * a->n_cols, codes, scales, a->n_cols, n_groups);
        if (a->scales) memcpy(a->scales + r * n_groups, scales, n_groups * sizeof *scales);
    }
}

bool zq_fake_weights(const struct zq_fake_weights *a, int n_threads, float *scratch, size_t thread_floats)
{
    struct weights_work work = {.a = a, .scratch = scratch, .thread_floats = thread_floats};
    atomic_init(&work.bad, false);
    if (a->layout->row_groups) zq_parallel(n_threads, a->layout->row_groups, 1, share_range, &work);
    if (!atomic_load(&work.bad)) zq_parallel(n_threads, a->n_rows, 8, weights_range, &work);
    return !atomic_load(&work.bad);
}

struct tokens_work {
    const float *x;
    float *out, *scratch;
    size_t n, thread_floats;
    int8_t *q;    /* [n_tokens, n], or NULL */
    float *scale; /* [n_tokens], with q */
};

static void tokens_range(void *work, size_t begin, size_t end, int thread)
{
    const struct tokens_work *w = work;
    for (size_t t = begin; t < end; t++) {
        const float *x = w->x + t * w->n;
        float *out = w->out + t * w->n;
        int8_t *codes = w->q ? w->q + t * w->n : (int8_t *)(w->scratch + (size_t)thread * w->thread_floats);
        struct zq_range range;
        if (!zq_range_of(&range, x, w->n)) {
            if (out != x) memcpy(out, x, w->n * sizeof *out);
            if (!w->q) continue;
            memset(codes, 0, w->n);
            w->scale[t] = NAN;
            continue;
        }
        const float scale = zq_scale_nearest(8, range, ZQ_F32);
        zq_codes(codes, x, w->n, scale, 8);
        decode(out, codes, &scale, w->n, 1);
        if (w->q) w->scale[t] = scale;
    }
}

void zq_fake_tokens(const float *x, float *out, size_t n_tokens, size_t n, int n_threads, float *scratch, size_t thread_floats)
{
    struct tokens_work work = {.x = x, .out = out, .scratch = scratch, .n = n, .thread_floats = thread_floats};
    zq_parallel(n_threads, n_tokens, 8, tokens_range, &work);
}

void zq_code_tokens(const float *x, float *out, int8_t *q, float *scale, size_t n_tokens, size_t n, int n_threads)
{
    struct tokens_work work = {.x = x, .out = out, .n = n, .q = q, .scale = scale};
    zq_parallel(n_threads, n_tokens, 8, tokens_range, &work);
}
