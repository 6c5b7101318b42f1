/* Rotary positions, the KV cache and attention. Entries of the cache that no token has filled are NaN: nothing may come of
 * them. */
#include "check.h"
#include "written.h"

#include "base/alloc.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double u = FLT_EPSILON / 2.0;

/* A buffer of n floats that are all NaN. */
static float *unfilled(struct check *c, size_t n)
{
    float *x = check_buffer(c, n * sizeof *x, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}

static struct zq_heads random_heads(struct check *c, size_t *width)
{
    static const size_t dims[] = {1, 2, 3, 7, 8, 15, 16, 17, 20, 32, 48, 64, 72, 80, 128};
    const size_t n_kv = 1 + check_random(c, 3), head_dim = dims[check_random(c, ZQ_LEN(dims))];
    struct zq_heads h = {.n_heads = n_kv * (1 + check_random(c, 4)), .n_kv_heads = n_kv, .head_dim = head_dim};
    if (h.n_heads == n_kv && check_coin(c)) { /* q, k and v of a head side by side, as GPT-NeoX stores them */
        h.q_stride = h.kv_stride = 3 * head_dim;
        h.k_offset = head_dim;
        h.v_offset = 2 * head_dim;
    } else {
        h.q_stride = h.kv_stride = head_dim;
        h.k_offset = h.n_heads * head_dim;
        h.v_offset = h.k_offset + n_kv * head_dim;
    }
    *width = (h.n_heads + 2 * n_kv) * head_dim;
    return h;
}

/* ---- keep ---- */

static void keep_written(const struct zq_keep *a)
{
    const struct zq_heads *h = &a->heads;
    const size_t half = a->rotary.n_rotated / 2, dim = h->head_dim;
    for (size_t i = 0; i < a->n_tokens; i++) {
        float *token = a->qkv + i * a->ld;
        const size_t position = a->position + i;
        for (size_t j = 0; j < h->n_heads + h->n_kv_heads; j++) {
            float *head = token + (j < h->n_heads ? h->q_offset + j * h->q_stride : h->k_offset + (j - h->n_heads) * h->kv_stride);
            for (size_t d = 0; d < half; d++) {
                float *x = head + (a->rotary.pairs ? 2 * d : d), *y = a->rotary.pairs ? x + 1 : x + half;
                const float cos = a->rotary.cos[position * half + d], sin = a->rotary.sin[position * half + d], was = *x;
                *x = fmaf(was, cos, -(*y * sin));
                *y = fmaf(*y, cos, was * sin);
            }
        }
        for (size_t j = 0; j < h->n_kv_heads; j++) {
            for (size_t d = 0; d < dim; d++) {
                a->kv.k[((j * a->kv.capacity / 16 + position / 16) * dim + d) * 16 + position % 16] = token[h->k_offset + j * h->kv_stride + d];
                a->kv.v[(j * a->kv.capacity + position) * dim + d] = token[h->v_offset + j * h->kv_stride + d];
            }
        }
    }
}

void check_keep(struct check *c)
{
    for (size_t i = 0; i < 200 && !c->failed; i++) {
        check_begin(c);
        size_t width;
        struct zq_keep a = {.heads = random_heads(c, &width), .n_tokens = check_random(c, 40), .position = check_random(c, 50)};
        a.ld = width + check_random(c, 3);
        a.kv.capacity = (a.position + a.n_tokens + 15) / 16 * 16 + 16 * check_random(c, 3);
        a.rotary.n_rotated = check_coin(c) ? a.heads.head_dim / 2 * 2 : check_random(c, a.heads.head_dim / 2 + 1) * 2;
        a.rotary.pairs = check_coin(c);
        const size_t n_angles = (a.position + a.n_tokens) * (a.rotary.n_rotated / 2), n_kv = a.heads.n_kv_heads * a.kv.capacity * a.heads.head_dim;
        a.rotary.cos = check_floats(c, n_angles, VALUES_NORMAL);
        a.rotary.sin = check_floats(c, n_angles, VALUES_NORMAL);
        const size_t n_qkv = a.n_tokens ? (a.n_tokens - 1) * a.ld + width : 0;
        const float *qkv = check_floats(c, n_qkv, VALUES_OUTLIERS);
        float *got[3], *want[3];
        for (int o = 0; o < 2; o++) {
            float **out = o ? want : got;
            out[0] = a.qkv = memcpy(check_buffer(c, n_qkv * sizeof(float), sizeof(float)), qkv, n_qkv * sizeof(float));
            out[1] = a.kv.k = unfilled(c, n_kv);
            out[2] = a.kv.v = unfilled(c, n_kv);
            if (o && c->is_c) {
                keep_written(&a);
                continue;
            }
            const size_t cut = check_random(c, a.n_tokens + 1);
            (o ? c->c : c->k)->keep(&a, cut, a.n_tokens);
            (o ? c->c : c->k)->keep(&a, 0, cut);
        }
        check_same_floats(c, got[0], want[0], n_qkv, "qkv");
        check_same_floats(c, got[1], want[1], n_kv, "k");
        check_same_floats(c, got[2], want[2], n_kv, "v");
    }
}

/* ---- attend ---- */

static float key(const struct zq_attend *a, size_t kv_head, size_t j, size_t d)
{
    return a->kv.k[((kv_head * a->kv.capacity / 16 + j / 16) * a->heads.head_dim + d) * 16 + j % 16];
}

static float value(const struct zq_attend *a, size_t kv_head, size_t j, size_t d)
{
    return a->kv.v[(kv_head * a->kv.capacity + j) * a->heads.head_dim + d];
}

static bool is_visible(const struct zq_attend *a, size_t token, size_t j)
{
    const size_t i = a->position + token;
    return j < a->n_keys && !(a->causal && j > i) && !(a->window && j + a->window <= i);
}

/* One token and head, in the written order. */
static void head_written(const struct zq_attend *a, size_t token, size_t h)
{
    const size_t dim = a->heads.head_dim, kv_head = h * a->heads.n_kv_heads / a->heads.n_heads;
    const float *q = a->qkv + token * a->ld + a->heads.q_offset + h * a->heads.q_stride;
    float *out = a->out + token * a->ld_out + h * dim, m = -INFINITY, l[16] = {0}, o[128] = {0};
    for (size_t tile = 0; tile < a->n_keys; tile += 64) {
        float s[64], top = -INFINITY;
        bool any = false;
        for (size_t j = 0; j < 64; j++) {
            s[j] = -INFINITY;
            if (!is_visible(a, token, tile + j)) continue;
            float chain = 0;
            for (size_t d = 0; d < dim; d++) chain = fmaf(q[d], key(a, kv_head, tile + j, d), chain);
            s[j] = chain * a->scale;
            top = fmaxf(top, s[j]);
            any = true;
        }
        if (!any) continue;
        const float next = fmaxf(m, top), rescale = m == -INFINITY ? 0 : written_exp(m - next);
        for (size_t d = 0; d < dim; d++) o[d] *= rescale;
        for (size_t j = 0; j < 64; j++) {
            const bool visible = is_visible(a, token, tile + j);
            const float p = visible ? written_exp(s[j] - next) : 0;
            l[j % 16] = j < 16 ? fmaf(l[j % 16], rescale, p) : l[j % 16] + p;
            for (size_t d = 0; d < dim && visible; d++) o[d] = fmaf(p, value(a, kv_head, tile + j, d), o[d]);
        }
        m = next;
    }
    const float sum = written_tree(l);
    for (size_t d = 0; d < dim; d++) out[d] = o[d] / sum;
}

/* Against softmax in double. A score is off by at most u (head_dim + 2) sum |q k| scale; a weight by the relative error that
 * this and exp make of it; the sums add one rounding for each key, and rescaling two for each tile. */
static void head_near_double(struct check *c, const struct zq_attend *a, size_t token, size_t h, const float *got)
{
    const size_t dim = a->heads.head_dim, kv_head = h * a->heads.n_kv_heads / a->heads.n_heads;
    const float *q = a->qkv + token * a->ld + a->heads.q_offset + h * a->heads.q_stride;
    double s[512], top = -INFINITY, error = 0, sum = 0, want[128], bound[128];
    for (size_t j = 0; j < a->n_keys; j++) {
        double mass = 0;
        s[j] = 0;
        for (size_t d = 0; d < dim; d++) {
            s[j] += (double)q[d] * key(a, kv_head, j, d) * a->scale;
            mass += fabs((double)q[d] * key(a, kv_head, j, d) * a->scale);
        }
        if (!is_visible(a, token, j)) continue;
        top = fmax(top, s[j]);
        error = fmax(error, u * ((double)dim + 6) * mass);
    }
    for (size_t j = 0; j < a->n_keys; j++) sum += s[j] = is_visible(a, token, j) ? exp(s[j] - top) : 0;
    for (size_t d = 0; d < dim; d++) {
        double mass = 0;
        want[d] = 0;
        for (size_t j = 0; j < a->n_keys; j++) {
            if (!is_visible(a, token, j)) continue;
            want[d] += s[j] / sum * value(a, kv_head, j, d);
            mass += s[j] / sum * fabs((double)value(a, kv_head, j, d));
        }
        bound[d] = mass * (2 * expm1(2 * error) + u * (2 * (double)a->n_keys + 4 * (double)a->n_keys / 64 + 20)) + 1e-37;
    }
    check_near(c, got, want, bound, dim, "against double");
}

static void run_attend(struct check *c, const struct zq_kernels *k, struct zq_attend *a)
{
    const size_t n_scratch = k->attend_scratch(&a->heads);
    const size_t cut = check_random(c, a->n_tokens + 1), head_cut = check_random(c, a->heads.n_heads + 1);
    a->scratch = check_buffer(c, n_scratch * sizeof(float), 64);
    k->attend(a, 0, cut, 0, head_cut);
    k->attend(a, cut, a->n_tokens, 0, head_cut);
    k->attend(a, 0, a->n_tokens, head_cut, a->heads.n_heads);
}

/* Keys and values up to n_keys; the rest stays NaN. */
static void fill_cache(struct check *c, struct zq_attend *a, enum check_values kind)
{
    const size_t dim = a->heads.head_dim, n = a->heads.n_kv_heads * a->n_keys * dim;
    float *k = unfilled(c, a->heads.n_kv_heads * a->kv.capacity * dim), *v = unfilled(c, a->heads.n_kv_heads * a->kv.capacity * dim);
    const float *keys = check_floats(c, n, kind), *values = check_floats(c, n, kind);
    for (size_t h = 0, i = 0; h < a->heads.n_kv_heads; h++) {
        for (size_t j = 0; j < a->n_keys; j++) {
            for (size_t d = 0; d < dim; d++, i++) {
                k[((h * a->kv.capacity / 16 + j / 16) * dim + d) * 16 + j % 16] = keys[i];
                v[(h * a->kv.capacity + j) * dim + d] = values[i];
            }
        }
    }
    a->kv.k = k;
    a->kv.v = v;
}

static void attend_case(struct check *c, size_t i)
{
    check_begin(c);
    size_t width;
    struct zq_attend a = {.heads = random_heads(c, &width), .n_tokens = i % 20 == 0 ? 0 : 1 + check_random(c, 20)};
    a.position = check_random(c, 3) ? check_random(c, 300) : 0;
    a.n_keys = a.position + a.n_tokens;
    a.causal = check_random(c, 4) != 0;
    a.window = check_random(c, 3) ? 0 : 1 + check_random(c, 150);
    a.scale = 1 / sqrtf((float)a.heads.head_dim);
    a.ld = width + check_random(c, 3);
    a.ld_out = a.heads.n_heads * a.heads.head_dim + check_random(c, 3);
    a.kv.capacity = (a.n_keys + 15) / 16 * 16 + 16 * check_random(c, 3);
    const enum check_values kind = (enum check_values[]){VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY}[check_random(c, 5)];
    fill_cache(c, &a, kind);
    a.qkv = check_floats(c, a.n_tokens ? (a.n_tokens - 1) * a.ld + width : 0, kind);

    const size_t n_out = a.n_tokens ? (a.n_tokens - 1) * a.ld_out + a.heads.n_heads * a.heads.head_dim : 0;
    float *out[2];
    for (int o = 0; o < 2; o++) {
        out[o] = a.out = check_buffer(c, n_out * sizeof(float), sizeof(float));
        if (!o || !c->is_c) {
            run_attend(c, o ? c->c : c->k, &a);
            continue;
        }
        for (size_t t = 0; t < a.n_tokens; t++)
            for (size_t h = 0; h < a.heads.n_heads; h++) head_written(&a, t, h);
    }
    check_same_floats(c, out[0], out[1], n_out, "out");
    if (c->is_c && a.n_tokens && !c->failed) {
        const size_t t = check_random(c, a.n_tokens), h = check_random(c, a.heads.n_heads);
        head_near_double(c, &a, t, h, out[0] + t * a.ld_out + h * a.heads.head_dim);
    }
}

void check_attend(struct check *c)
{
    for (size_t i = 0; i < 150 && !c->failed; i++) attend_case(c, i);
}

/* ---- timing ---- */

struct bench_work {
    const struct zq_kernels *k;
    struct zq_attend attend;
    struct zq_keep keep;
    float *scratch;
    size_t n_scratch;
};

/* Items are heads of the attention, tokens of keep. */
static void bench_heads(void *work, size_t begin, size_t end, int thread)
{
    const struct bench_work *b = work;
    struct zq_attend a = b->attend;
    a.scratch = b->scratch + (size_t)thread * b->n_scratch;
    b->k->attend(&a, 0, a.n_tokens, begin, end);
}

static void bench_tokens(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *b = work;
    b->k->keep(&b->keep, begin, end);
}

/* n_tokens that end at position n_keys, 16 heads of 64. */
static void bench_cache(struct bench *b, bool keep, size_t n_tokens, size_t n_keys)
{
    const size_t dim = 64, n_heads = 16, width = 3 * n_heads * dim, n_kv = n_heads * n_keys * dim;
    const struct zq_heads heads = {n_heads, n_heads, dim, 0, n_heads * dim, 2 * n_heads * dim, dim, dim};
    struct bench_work w = {.k = b->k, .n_scratch = (b->k->attend_scratch(&heads) + 15) / 16 * 16};
    float *qkv = zq_alloc_array(n_tokens * width, sizeof(float)), *out = zq_alloc_array(n_tokens * n_heads * dim, sizeof(float));
    float *angles = zq_alloc_array(n_keys * dim / 2, sizeof(float));
    struct zq_kv kv = {zq_alloc_array(n_kv, sizeof(float)), zq_alloc_array(n_kv, sizeof(float)), n_keys};
    w.scratch = zq_alloc_array(w.n_scratch * (size_t)b->n_threads, sizeof(float));
    if (qkv && out && angles && kv.k && kv.v && w.scratch) {
        w.attend = (struct zq_attend){.qkv = qkv, .ld = width, .n_tokens = n_tokens, .position = n_keys - n_tokens, .n_keys = n_keys, .causal = true,
                                      .scale = 0.125f, .heads = heads, .kv = kv, .out = out, .ld_out = n_heads * dim};
        w.keep = (struct zq_keep){.qkv = qkv, .ld = width, .n_tokens = n_tokens, .position = n_keys - n_tokens, .heads = heads,
                                  .rotary = {angles, angles, dim, false}, .kv = kv};
        const double pairs = (double)n_tokens * ((double)n_keys - ((double)n_tokens - 1) / 2);
        char what[64];
        snprintf(what, sizeof what, "%s %zu tokens, %zu keys, 16 x 64", keep ? "keep" : "attend", n_tokens, n_keys);
        if (keep) bench_print(b, what, 8.0 * (double)(n_tokens * width) / bench_time(b, n_tokens, 16, bench_tokens, &w), "GB/s", 0);
        else if (n_tokens > 1)
            bench_print(b, what, 4.0 * pairs * (double)(n_heads * dim) / bench_time(b, n_heads, 1, bench_heads, &w), "GOP/s", b->limits.float_ops);
        else bench_print(b, what, 8.0 * (double)n_kv / bench_time(b, n_heads, 1, bench_heads, &w), "GB/s", b->limits.read_bytes);
    }
    zq_free(qkv);
    zq_free(out);
    zq_free(angles);
    zq_free(kv.k);
    zq_free(kv.v);
    zq_free(w.scratch);
}

void bench_keep(struct bench *b) { bench_cache(b, true, 512, 512); }

void bench_attend(struct bench *b)
{
    bench_cache(b, false, 128, 128);
    bench_cache(b, false, 512, 512);
    bench_cache(b, false, 1, 8192);
}
