/* Rotary positions, the KV cache in its three formats, and attention. Entries of the cache that no token has filled are NaN (of INT8: their
 * scales are): nothing may come of them. */
#include "check.h"
#include "written.h"

#include "base/alloc.h"
#include "base/half.h"
#include "kernels/crossovers.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double u = FLT_EPSILON / 2.0;

/* ---- caches ---- */

/* n bytes of ones: NaN as F32 and as F16. */
static void *unfilled(struct check *c, size_t n_bytes, size_t align)
{
    return memset(check_buffer(c, n_bytes, align), 0xff, n_bytes);
}

static size_t kept_values(const struct zq_kv *kv, const struct zq_heads *h) { return h->n_kv_heads * kv->capacity * h->head_dim; }

/* A cache that holds nothing. */
static struct zq_kv empty_cache(struct check *c, const struct zq_heads *h, size_t capacity, enum zq_dtype dtype)
{
    struct zq_kv kv = {.dtype = dtype, .capacity = capacity};
    const size_t value = zq_dtype_bytes(dtype), n_bytes = kept_values(&kv, h) * value, n_scales = h->n_kv_heads * capacity * sizeof(float);
    kv.k = unfilled(c, n_bytes, 16 * value);
    kv.v = unfilled(c, n_bytes, value);
    if (dtype != ZQ_I8) return kv;
    kv.k_scale = unfilled(c, n_scales, sizeof(float));
    kv.v_scale = unfilled(c, n_scales, sizeof(float));
    return kv;
}

static size_t key_at(const struct zq_kv *kv, const struct zq_heads *h, size_t head, size_t j, size_t d)
{
    return ((head * kv->capacity / 16 + j / 16) * h->head_dim + d) * 16 + j % 16;
}

static size_t value_at(const struct zq_kv *kv, const struct zq_heads *h, size_t head, size_t j, size_t d)
{
    return (head * kv->capacity + j) * h->head_dim + d;
}

static void put(void *values, size_t i, float x, enum zq_dtype dtype)
{
    if (dtype == ZQ_F32) ((float *)values)[i] = x;
    else ((uint16_t *)values)[i] = zq_float_to_f16(fminf(fmaxf(x, -65504), 65504));
}

/* One position of one head, from its key and value as floats. */
static void keep_position(const struct zq_kv *kv, const struct zq_heads *h, size_t head, size_t j, const float *k, const float *v)
{
    int8_t codes[2][128];
    if (kv->dtype == ZQ_I8) {
        kv->k_scale[head * kv->capacity + j] = written_token(codes[0], k, h->head_dim);
        kv->v_scale[head * kv->capacity + j] = written_token(codes[1], v, h->head_dim);
    }
    for (size_t d = 0; d < h->head_dim; d++) {
        const size_t at_k = key_at(kv, h, head, j, d), at_v = value_at(kv, h, head, j, d);
        if (kv->dtype == ZQ_I8) {
            ((int8_t *)kv->k)[at_k] = codes[0][d];
            ((int8_t *)kv->v)[at_v] = codes[1][d];
        } else {
            put(kv->k, at_k, k[d], kv->dtype);
            put(kv->v, at_v, v[d], kv->dtype);
        }
    }
}

/* As floats; of INT8 the code. */
static float kept(const void *values, size_t i, enum zq_dtype dtype)
{
    if (dtype == ZQ_I8) return ((const int8_t *)values)[i];
    return dtype == ZQ_F16 ? zq_f16_to_float(((const uint16_t *)values)[i]) : ((const float *)values)[i];
}

static const enum zq_dtype cache_dtypes[] = {ZQ_F32, ZQ_F16, ZQ_I8};

/* Case i of a check: every size of head up to 40 with each format of the cache, then some. */
enum { COMPLETE = 3 * 40 };
static size_t head_size(struct check *c, size_t i)
{
    return i < COMPLETE ? 1 + i / 3 : CHECK_PICK(c, 1, 2, 15, 16, 17, 20, 32, 48, 64, 72, 80, 127, 128);
}

static struct zq_heads random_heads(struct check *c, size_t head_dim, size_t *width)
{
    const size_t n_kv = 1 + check_random(c, 3);
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
    const size_t half = a->rotary.n_rotated / 2;
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
            const size_t at = j * h->kv_stride;
            keep_position(&a->kv, h, j, position, token + h->k_offset + at, token + h->v_offset + at);
        }
    }
}

void check_keep(struct check *c)
{
    for (size_t i = 0; i < COMPLETE + 140 && !c->failed; i++) {
        check_begin(c);
        size_t width;
        struct zq_keep a = {.heads = random_heads(c, head_size(c, i), &width), .n_tokens = check_random(c, 40), .position = check_random(c, 50)};
        if (i < COMPLETE) a.n_tokens++;
        a.ld = width + check_random(c, 3);
        const size_t capacity = (a.position + a.n_tokens + 15) / 16 * 16 + 16 * check_random(c, 3);
        const enum zq_dtype dtype = cache_dtypes[i % 3];
        a.rotary.n_rotated = check_coin(c) ? a.heads.head_dim / 2 * 2 : check_random(c, a.heads.head_dim / 2 + 1) * 2;
        a.rotary.pairs = check_coin(c);
        const size_t n_angles = (a.position + a.n_tokens) * (a.rotary.n_rotated / 2);
        a.rotary.cos = check_floats(c, n_angles, VALUES_NORMAL);
        a.rotary.sin = check_floats(c, n_angles, VALUES_NORMAL);
        const size_t n_qkv = a.n_tokens ? (a.n_tokens - 1) * a.ld + width : 0;
        const float *qkv = check_floats(c, n_qkv, VALUES_OUTLIERS);
        float *rows[2];
        struct zq_kv kv[2];
        for (int o = 0; o < 2; o++) {
            rows[o] = a.qkv = memcpy(check_buffer(c, n_qkv * sizeof(float), sizeof(float)), qkv, n_qkv * sizeof(float));
            kv[o] = a.kv = empty_cache(c, &a.heads, capacity, dtype);
            if (o && c->is_c) {
                keep_written(&a);
                continue;
            }
            const size_t cut = check_random(c, a.n_tokens + 1);
            const size_t heads = a.heads.n_kv_heads, first = check_random(c, heads + 1);
            (o ? c->c : c->k)->keep(&a, cut, a.n_tokens, first, heads);
            (o ? c->c : c->k)->keep(&a, cut, a.n_tokens, 0, first);
            (o ? c->c : c->k)->keep(&a, 0, cut, 0, heads);
        }
        const size_t n_bytes = kept_values(&kv[0], &a.heads) * zq_dtype_bytes(dtype), n_scales = a.heads.n_kv_heads * capacity;
        check_same_floats(c, rows[0], rows[1], n_qkv, "qkv");
        check_same_bytes(c, kv[0].k, kv[1].k, n_bytes, "k");
        check_same_bytes(c, kv[0].v, kv[1].v, n_bytes, "v");
        if (dtype != ZQ_I8) continue;
        check_same_floats(c, kv[0].k_scale, kv[1].k_scale, n_scales, "k_scale");
        check_same_floats(c, kv[0].v_scale, kv[1].v_scale, n_scales, "v_scale");
    }
}

/* ---- attend ---- */

static float key(const struct zq_attend *a, size_t kv_head, size_t j, size_t d)
{
    return kept(a->kv.k, key_at(&a->kv, &a->heads, kv_head, j, d), a->kv.dtype);
}

static float value(const struct zq_attend *a, size_t kv_head, size_t j, size_t d)
{
    return kept(a->kv.v, value_at(&a->kv, &a->heads, kv_head, j, d), a->kv.dtype);
}

/* What a key's score and a value's weight are multiplied by: 1 unless they are codes. */
static float key_scale(const struct zq_attend *a, size_t kv_head, size_t j)
{
    return a->kv.dtype == ZQ_I8 ? a->kv.k_scale[kv_head * a->kv.capacity + j] : 1;
}

static float value_scale(const struct zq_attend *a, size_t kv_head, size_t j)
{
    return a->kv.dtype == ZQ_I8 ? a->kv.v_scale[kv_head * a->kv.capacity + j] : 1;
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
            s[j] = chain * key_scale(a, kv_head, tile + j) * a->scale;
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
            if (!visible) continue;
            const float weight = p * value_scale(a, kv_head, tile + j);
            for (size_t d = 0; d < dim; d++) o[d] = fmaf(weight, value(a, kv_head, tile + j, d), o[d]);
        }
        m = next;
    }
    const float sum = written_tree(l);
    for (size_t d = 0; d < dim; d++) out[d] = o[d] / sum;
}

/* Against softmax in double. A score is off by at most u (head_dim + 6) sum |q k| scale; a weight by the relative error that
 * this, exp and the value's scale make of it; the sums add one rounding for each key, and rescaling two for each tile.
 * With BF16 products the operands are BF16, and a weight is rounded to one, at most 2^-8 of it (kernels.h). */
static void head_near_double(struct check *c, const struct zq_attend *a, size_t token, size_t h, const float *got, bool bf16)
{
    const size_t dim = a->heads.head_dim, kv_head = h * a->heads.n_kv_heads / a->heads.n_heads;
    const float *q = a->qkv + token * a->ld + a->heads.q_offset + h * a->heads.q_stride;
    double s[512], top = -INFINITY, error = 0, sum = 0, want[128], bound[128];
    for (size_t j = 0; j < a->n_keys; j++) {
        if (!is_visible(a, token, j)) continue;
        double mass = 0;
        s[j] = 0;
        for (size_t d = 0; d < dim; d++) {
            const float k = key(a, kv_head, j, d), scale = key_scale(a, kv_head, j);
            const double term = (bf16 ? (double)written_bf16(q[d]) * written_bf16(k * scale) : (double)q[d] * k * scale) * a->scale;
            s[j] += term;
            mass += fabs(term);
        }
        top = fmax(top, s[j]);
        error = fmax(error, u * ((double)dim + 6) * mass);
    }
    const double lost = bf16 ? 0x1p-8 : 0;
    for (size_t j = 0; j < a->n_keys; j++) sum += s[j] = is_visible(a, token, j) ? exp(s[j] - top) : 0;
    for (size_t d = 0; d < dim; d++) {
        double mass = 0, tiny = 0;
        want[d] = 0;
        for (size_t j = 0; j < a->n_keys; j++) {
            if (!is_visible(a, token, j)) continue;
            const float v = value(a, kv_head, j, d), scale = value_scale(a, kv_head, j);
            const double seen = bf16 ? (double)written_bf16(v * scale) : (double)v * scale, term = s[j] / sum * seen;
            want[d] += term;
            mass += fabs(term);
            tiny += 2 + fabs(seen);
        }
        const double sums = u * (2 * (double)a->n_keys + 4 * (double)a->n_keys / 64 + 20); /* below 3 n_keys + 20 */
        bound[d] = mass * (1 + lost) * (2 * expm1(2 * error) + sums + lost) + (bf16 ? 0x1p-126 * tiny : 1e-37);
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
static void fill_cache(struct check *c, struct zq_attend *a, size_t capacity, enum zq_dtype dtype, enum check_values kind)
{
    const size_t dim = a->heads.head_dim, n = a->heads.n_kv_heads * a->n_keys * dim;
    const float *k = check_floats(c, n, kind), *v = check_floats(c, n, kind);
    a->kv = empty_cache(c, &a->heads, capacity, dtype);
    for (size_t h = 0; h < a->heads.n_kv_heads; h++)
        for (size_t j = 0; j < a->n_keys; j++, k += dim, v += dim) keep_position(&a->kv, &a->heads, h, j, k, v);
}

/* A random call, whose output is n_out floats long. The complete cases have every remainder of keys in a tile of 64. */
static struct zq_attend random_call(struct check *c, size_t i, size_t *n_out)
{
    check_begin(c);
    size_t width;
    const bool complete = i < COMPLETE;
    struct zq_attend a = {.heads = random_heads(c, head_size(c, i), &width), .n_tokens = !complete && i % 20 == 0 ? 0 : 1 + check_random(c, 20)};
    a.position = complete ? (i + 64 - a.n_tokens) % 64 + 64 * check_random(c, 4) : check_random(c, 3) ? check_random(c, 300) : 0;
    a.n_keys = a.position + a.n_tokens;
    a.causal = check_random(c, 4) != 0;
    a.window = check_random(c, 3) ? 0 : 1 + check_random(c, 150);
    a.scale = 1 / sqrtf((float)a.heads.head_dim);
    a.ld = width + check_random(c, 3);
    a.ld_out = a.heads.n_heads * a.heads.head_dim + check_random(c, 3);
    const size_t capacity = (a.n_keys + 15) / 16 * 16 + 16 * check_random(c, 3);
    const enum check_values kind = (enum check_values[]){VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY}[check_random(c, 5)];
    fill_cache(c, &a, capacity, cache_dtypes[i % 3], kind);
    a.qkv = check_floats(c, a.n_tokens ? (a.n_tokens - 1) * a.ld + width : 0, kind);
    *n_out = a.n_tokens ? (a.n_tokens - 1) * a.ld_out + a.heads.n_heads * a.heads.head_dim : 0;
    return a;
}

static void attend_case(struct check *c, size_t i)
{
    size_t n_out;
    struct zq_attend a = random_call(c, i, &n_out);
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
        head_near_double(c, &a, t, h, out[0] + t * a.ld_out + h * a.heads.head_dim, false);
    }
}

void check_attend(struct check *c)
{
    for (size_t i = 0; i < COMPLETE + 60 && !c->failed; i++) attend_case(c, i);
}

/* Of --math fast: BF16 products for many queries, for few those of exact. */
static void attend_bf16_case(struct check *c, size_t i)
{
    size_t n_out;
    struct zq_attend a = random_call(c, i, &n_out);
    const size_t group = a.heads.n_heads / a.heads.n_kv_heads;
    const bool exact = a.n_tokens * group <= FEW_QUERIES_BF16 || a.heads.head_dim % 2;
    float *out[2];
    for (int o = 0; o < (exact ? 2 : 1); o++) {
        const struct zq_kernels *k = o ? c->c : c->k;
        out[o] = a.out = check_buffer(c, n_out * sizeof(float), sizeof(float));
        a.scratch = check_buffer(c, k->attend_scratch(&a.heads) * sizeof(float), 64);
        k->attend(&a, 0, a.n_tokens, 0, a.heads.n_heads);
    }
    if (exact) check_same_floats(c, out[0], out[1], n_out, "out");
    else
        for (size_t t = 0; t < a.n_tokens; t++)
            for (size_t h = 0; h < a.heads.n_heads && !c->failed; h++)
                head_near_double(c, &a, t, h, out[0] + t * a.ld_out + h * a.heads.head_dim, true);
}

void check_attend_bf16(struct check *c)
{
    for (size_t i = 0; i < COMPLETE + 60 && !c->failed; i++) attend_bf16_case(c, i);
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
    b->k->keep(&b->keep, begin, end, 0, b->keep.heads.n_kv_heads);
}

/* n_tokens that end at position n_keys, 16 heads of 64. */
static void bench_cache(struct bench *b, bool keep, size_t n_tokens, size_t n_keys, enum zq_dtype dtype)
{
    const size_t dim = 64, n_heads = 16, width = 3 * n_heads * dim, n_kv = n_heads * n_keys * dim, value = zq_dtype_bytes(dtype);
    const struct zq_heads heads = {n_heads, n_heads, dim, 0, n_heads * dim, 2 * n_heads * dim, dim, dim};
    struct bench_work w = {.k = b->k, .n_scratch = (b->k->attend_scratch(&heads) + 15) / 16 * 16};
    float *qkv = zq_alloc_array(n_tokens * width, sizeof(float)), *out = zq_alloc_array(n_tokens * n_heads * dim, sizeof(float));
    float *angles = zq_alloc_array(n_keys * dim / 2, sizeof(float));
    float *scales = zq_alloc_array(n_heads * n_keys, sizeof(float));
    struct zq_kv kv = {dtype, zq_alloc_array(n_kv, value), zq_alloc_array(n_kv, value), scales, scales, n_keys};
    w.scratch = zq_alloc_array(w.n_scratch * (size_t)b->n_threads, sizeof(float));
    if (qkv && out && angles && scales && kv.k && kv.v && w.scratch) {
        w.attend = (struct zq_attend){.qkv = qkv, .ld = width, .n_tokens = n_tokens, .position = n_keys - n_tokens, .n_keys = n_keys, .causal = true,
                                      .scale = 0.125f, .heads = heads, .kv = kv, .out = out, .ld_out = n_heads * dim};
        w.keep = (struct zq_keep){.qkv = qkv, .ld = width, .n_tokens = n_tokens, .position = n_keys - n_tokens, .heads = heads,
                                  .rotary = {angles, angles, dim, false}, .kv = kv};
        const double pairs = (double)n_tokens * ((double)n_keys - ((double)n_tokens - 1) / 2);
        char what[64];
        snprintf(what, sizeof what, "%s %zu tokens, %zu keys %s, 16 x 64", keep ? "keep" : "attend", n_tokens, n_keys, zq_dtype_name(dtype));
        if (keep) bench_print(b, what, 8.0 * (double)(n_tokens * width) / bench_time(b, n_tokens, 16, bench_tokens, &w), "GB/s", 0);
        else if (n_tokens > 1)
            bench_print(b, what, 4.0 * pairs * (double)(n_heads * dim) / bench_time(b, n_heads, 1, bench_heads, &w), "GOP/s",
                        b->k->bf16_attention ? b->limits.bf16_ops : b->limits.float_ops);
        else bench_print(b, what, 2.0 * (double)(n_kv * value) / bench_time(b, n_heads, 1, bench_heads, &w), "GB/s", b->limits.read_bytes);
    }
    zq_free(qkv);
    zq_free(out);
    zq_free(angles);
    zq_free(scales);
    zq_free(kv.k);
    zq_free(kv.v);
    zq_free(w.scratch);
}

void bench_keep(struct bench *b)
{
    for (size_t i = 0; i < ZQ_LEN(cache_dtypes); i++) bench_cache(b, true, 512, 512, cache_dtypes[i]);
}

void bench_attend(struct bench *b)
{
    for (size_t i = 0; i < ZQ_LEN(cache_dtypes); i++) {
        bench_cache(b, false, 128, 128, cache_dtypes[i]);
        bench_cache(b, false, 512, 512, cache_dtypes[i]);
        bench_cache(b, false, 1, 8192, cache_dtypes[i]);
    }
}

void bench_attend_bf16(struct bench *b)
{
    for (size_t i = 0; i < ZQ_LEN(cache_dtypes); i++) {
        bench_cache(b, false, 128, 128, cache_dtypes[i]);
        bench_cache(b, false, 512, 512, cache_dtypes[i]);
    }
}
