/* Norms, activation functions, embeddings and conversions: bit for bit, and plain C against double. */
#include "check.h"
#include "products.h"
#include "written.h"

#include "base/alloc.h"
#include "base/half.h"
#include "quant/pack.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Half an ulp, relative: what one rounding costs. */
static const double u = FLT_EPSILON / 2.0;

/* Outputs of one run: f and q may be absent. */
struct outputs {
    float *f, *scale;
    int8_t *q;
};

static struct outputs outputs(struct check *c, struct zq_rows_out *out, size_t n_rows, size_t n, bool f, bool q)
{
    struct outputs o = {NULL, NULL, NULL};
    const size_t last = n_rows ? n_rows - 1 : 0, row = n_rows ? n : 0;
    if (f) o.f = check_buffer(c, (last * out->ld_f + row) * sizeof(float), sizeof(float));
    if (q) o.q = check_buffer(c, last * out->ld_q + row, 1);
    if (q) o.scale = check_buffer(c, n_rows * sizeof(float), sizeof(float));
    out->f = o.f;
    out->q = o.q;
    out->scale = o.scale;
    return o;
}

static void same_outputs(struct check *c, const struct zq_rows_out *out, size_t n_rows, size_t n, struct outputs got, struct outputs want)
{
    const size_t last = n_rows ? n_rows - 1 : 0, row = n_rows ? n : 0;
    if (got.f) check_same_floats(c, got.f, want.f, last * out->ld_f + row, "f");
    if (got.scale) check_same_floats(c, got.scale, want.scale, n_rows, "scale");
    if (got.q) check_same_bytes(c, got.q, want.q, last * out->ld_q + row, "q");
}

/* Rows in pieces, some of them empty. */
static size_t piece(struct check *c, size_t begin, size_t n)
{
    const size_t end = begin + check_random(c, 4);
    return end > n ? n : end;
}

/* Every length up to 70, then some. */
enum { N_LENGTHS = 70 };
static size_t row_length(struct check *c, size_t i)
{
    return i < N_LENGTHS ? 1 + i : CHECK_PICK(c, 96, 127, 128, 255, 256, 300, 768, 1000, 1023, 4096);
}

/* Of complete cases at least one. */
static size_t row_count(struct check *c, bool complete, size_t n)
{
    return n > 1000 ? 2 : complete ? 1 + check_random(c, 4) : check_random(c, 5);
}

/* Of complete cases values that make results. */
static enum check_values row_values(struct check *c, bool complete)
{
    return (enum check_values)check_random(c, complete ? VALUES_EQUAL : N_VALUES);
}

/* Stores a finished row. false where a value overflowed: such rows have no written codes, and only levels are compared. */
static bool store_written(const struct zq_rows_out *out, size_t i, const float *y, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (!isfinite(y[k])) return false;
    if (out->f) memcpy(out->f + i * out->ld_f, y, n * sizeof *y);
    if (out->q) out->scale[i] = written_token(out->q + i * out->ld_q, y, n);
    return true;
}

/* ---- norm ---- */

static bool norm_written(const struct zq_norm *a, size_t n_rows)
{
    float y[4096];
    bool finite = true;
    for (size_t i = 0; i < n_rows; i++) {
        const float *x = a->x + i * a->ld_x;
        const float mean = a->rms ? 0 : written_sum(x, a->n) / (float)a->n;
        const float r = 1 / sqrtf(written_squares(x, a->n, mean) / (float)a->n + a->eps);
        for (size_t k = 0; k < a->n; k++) {
            const float scaled = (a->rms ? x[k] : x[k] - mean) * r;
            y[k] = a->beta ? fmaf(scaled, a->gamma[k], a->beta[k]) : scaled * a->gamma[k];
        }
        finite &= store_written(&a->out, i, y, a->n);
    }
    return finite;
}

/* Rounding errors of a LayerNorm: the sums run over n / 16 terms per lane and 4 levels of the tree. */
static void norm_near_double(struct check *c, const struct zq_norm *a, const float *got)
{
    double want[4096], bound[4096], sum = 0, mass = 0, squares = 0;
    const double n = (double)a->n, terms = n / 16 + 6;
    for (size_t k = 0; k < a->n; k++) sum += a->rms ? 0 : a->x[k], mass += a->rms ? 0 : fabs((double)a->x[k]);
    const double mean = sum / n, mean_error = u * terms * mass / n;
    for (size_t k = 0; k < a->n; k++) squares += (a->x[k] - mean) * (a->x[k] - mean);
    const double variance = squares / n + a->eps, r = 1 / sqrt(variance);
    /* d(r) / r = d(var) / 2 var; var moves by its own roundings and by d(mean)^2 */
    const double r_error = r * (u * (terms + 6) + mean_error * mean_error / variance + 2 * u * sqrt(variance) * mean_error / variance);
    for (size_t k = 0; k < a->n; k++) {
        const double d = a->x[k] - mean, gamma = a->gamma[k], beta = a->beta ? a->beta[k] : 0;
        want[k] = d * r * gamma + beta;
        bound[k] =
            fabs(gamma) * (r * (mean_error + u * fabs(d)) + fabs(d) * r_error + u * fabs(d * r)) + 2 * u * (fabs(want[k]) + fabs(beta)) + 0x1p-149;
    }
    check_near(c, got, want, bound, a->n, "against double");
}

void check_norm(struct check *c)
{
    enum { COMPLETE = 4 * N_LENGTHS };
    for (size_t i = 0; i < COMPLETE + 180 && !c->failed; i++) {
        check_begin(c);
        const bool complete = i < COMPLETE;
        const size_t n = row_length(c, i / 4), n_rows = row_count(c, complete, n);
        const enum check_values kind = row_values(c, complete);
        struct zq_norm a = {.ld_x = n + check_random(c, 3), .n = n, .rms = i % 2};
        a.eps = CHECK_PICK(c, 0, 1) ? 1e-5f : 1e-12f;
        a.gamma = check_floats(c, n, VALUES_NORMAL);
        if (check_coin(c)) a.beta = check_floats(c, n, VALUES_NORMAL);
        a.out.ld_f = n + check_random(c, 3);
        a.out.ld_q = n + check_random(c, 3);
        const size_t n_x = n_rows ? (n_rows - 1) * a.ld_x + n : 0;
        const size_t what = complete ? 1 + i / 2 % 2 : check_random(c, 4); /* 0: f; 1: q; 2: both; 3: both, in place */
        const float *x = check_floats(c, n_x, kind);
        if (what == 3) a.out.ld_f = a.ld_x;

        struct outputs out[2];
        bool comparable = true;
        for (int o = 0; o < 2; o++) {
            out[o] = outputs(c, &a.out, n_rows, n, what != 1, what != 0);
            a.x = what == 3 ? memcpy(out[o].f, x, n_x * sizeof(float)) : x;
            if (o && c->is_c) comparable = norm_written(&a, n_rows);
            else for (size_t row = 0, end; row < n_rows; row = end) (o ? c->c : c->k)->norm(&a, row, end = piece(c, row, n_rows));
        }
        if (comparable) same_outputs(c, &a.out, n_rows, n, out[0], out[1]);
        a.x = x;
        /* beyond the range where squares neither overflow nor vanish, rounding is no relative error */
        if (c->is_c && out[0].f && n_rows && kind <= VALUES_ZERO) norm_near_double(c, &a, out[0].f);
        if (c->failed) check_fail(c, "n");
    }
}

/* ---- activation functions ---- */

static const char *const act_names[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "quick_gelu", "tanh"};

static double act_double(enum zq_activation act, double x, double *exponent)
{
    const double g = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
    *exponent = 0;
    switch (act) {
    case ZQ_ACT_NONE: return x;
    case ZQ_ACT_RELU: return x > 0 ? x : 0;
    case ZQ_ACT_GELU: *exponent = written_gelu_mass(fmin(fabs(x), 10)); return x * erfc(-x / M_SQRT2) / 2;
    case ZQ_ACT_GELU_TANH: *exponent = 2 * g; return x / (1 + exp(-2 * g));
    case ZQ_ACT_SILU: *exponent = x; return x / (1 + exp(-x));
    case ZQ_ACT_QUICK_GELU: *exponent = 1.702 * x; return x / (1 + exp(-1.702 * x));
    case ZQ_ACT_TANH: return tanh(x);
    }
    return 0;
}

/* Plain C against double over [-30, 30] and over small magnitudes. All functions but tanh are made of exp: an error of its
 * argument, a few roundings of a value as large as the argument, becomes a relative error of exp, which counts where the
 * result is as small as the exponential, for x < 0. Else 4 roundings. A sigmoid
 * below 2^-127 may be 0, since exp overflows. GELU's polynomial adds its own error, and it is cut where it is -5e-20
 * (polynomials.h). */
static void activate_near_double(struct check *c, enum zq_activation act)
{
    enum { N = 512 };
    float x[N], y[N];
    double want[N], bound[N];
    for (size_t round = 0; round < 60 && !c->failed; round++) {
        for (size_t i = 0; i < N; i++) {
            const float r = (float)((double)check_random(c, 1u << 24) / (1 << 23) - 1);
            x[i] = round % 3 ? r * (round % 3 == 1 ? 30.0f : 4.0f) : ldexpf(r, -(int)check_random(c, 40));
            double exponent;
            want[i] = act_double(act, x[i], &exponent);
            bound[i] = fabs(want[i]) * u * (5 + (x[i] < 0 ? 3 * fabs(exponent) : 0)) + fabs(x[i]) * 0x1p-127 + 0x1p-149;
            if (act == ZQ_ACT_GELU) bound[i] += fabs(x[i]) * sqrt(erfc(fabs(x[i]) / M_SQRT2) / 2) * written_gelu_error() + 5e-20;
        }
        const struct zq_activate a = {.x = x, .ld_x = N, .n = N, .act = act, .out = {.f = y, .ld_f = N}};
        c->k->activate(&a, 0, 1);
        check_near(c, y, want, bound, N, act_names[act]);
    }
}

static bool activate_written(struct check *c, const struct zq_activate *a, size_t n_rows)
{
    float y[4096];
    bool finite = true;
    for (size_t i = 0; i < n_rows; i++) {
        /* values: the kernel one element at a time, so that neither neighbours nor tails matter */
        for (size_t k = 0; k < a->n; k++) {
            const struct zq_activate one = {.x = a->x + i * a->ld_x + k, .n = 1, .act = a->act, .out = {.f = &y[k]}};
            c->c->activate(&one, 0, 1);
            if (a->times) y[k] *= a->times[i * a->ld_times + k];
        }
        finite &= store_written(&a->out, i, y, a->n);
    }
    return finite;
}

void check_activate(struct check *c)
{
    enum { N_ACTS = ZQ_LEN(act_names), COMPLETE = 2 * N_ACTS * N_LENGTHS };
    for (size_t i = 0; i < COMPLETE + 230 && !c->failed; i++) {
        check_begin(c);
        const bool complete = i < COMPLETE;
        const size_t n = row_length(c, i / (2 * N_ACTS)), n_rows = row_count(c, complete, n);
        const enum check_values kind = row_values(c, complete);
        struct zq_activate a = {
            .ld_x = n + check_random(c, 3), .ld_times = n + check_random(c, 3), .n = n, .act = (enum zq_activation)(i % N_ACTS)};
        a.out.ld_f = n + check_random(c, 3);
        a.out.ld_q = n + check_random(c, 3);
        const size_t last = n_rows ? n_rows - 1 : 0, row = n_rows ? n : 0, n_x = last * a.ld_x + row;
        const size_t what = complete ? 1 + i / N_ACTS % 2 : check_random(c, 4); /* as of norms */
        const float *x = check_floats(c, n_x, kind);
        if (check_coin(c)) a.times = check_floats(c, last * a.ld_times + row, check_coin(c) ? VALUES_NORMAL : VALUES_TINY);
        if (what == 3) a.out.ld_f = a.ld_x;

        struct outputs out[2];
        bool comparable = true;
        for (int o = 0; o < 2; o++) {
            out[o] = outputs(c, &a.out, n_rows, n, what != 1, what != 0);
            a.x = what == 3 ? memcpy(out[o].f, x, n_x * sizeof(float)) : x;
            if (o && c->is_c) comparable = activate_written(c, &a, n_rows);
            else for (size_t begin = 0, end; begin < n_rows; begin = end) (o ? c->c : c->k)->activate(&a, begin, end = piece(c, begin, n_rows));
        }
        if (comparable) same_outputs(c, &a.out, n_rows, n, out[0], out[1]);
        if (c->failed) check_fail(c, "n");
    }
    for (size_t act = 0; act < ZQ_LEN(act_names) && c->is_c && !c->failed; act++) activate_near_double(c, (enum zq_activation)act);
}

/* ---- embeddings ---- */

enum { TABLE_ROWS = 5 };

static const enum zq_dtype table_dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16, ZQ_I8, ZQ_I32};

static enum zq_dtype float_dtype(struct check *c) { return table_dtypes[check_random(c, 3)]; }

/* A table of [TABLE_ROWS, n]; packed codes have 2 to 8 bits. */
static struct zq_lookup table(struct check *c, size_t n, enum zq_dtype dtype)
{
    struct zq_lookup t = {.dtype = dtype};
    if (zq_dtype_is_float(dtype)) {
        t.values = product_weights(c, TABLE_ROWS * n, t.dtype, (enum check_values)check_random(c, N_VALUES));
        return t;
    }
    t.bits = dtype == ZQ_I8 ? 8 : (int)CHECK_PICK(c, 8, 4, 3, 2);
    const int8_t *q = check_codes(c, TABLE_ROWS * n, -(1 << (t.bits - 1)), (1 << (t.bits - 1)) - 1);
    t.values = (const uint8_t *)q;
    if (t.dtype == ZQ_I32) {
        const size_t row_bytes = 4 * zq_packed_words(n, t.bits);
        uint8_t *words = check_buffer(c, TABLE_ROWS * row_bytes, 1);
        for (size_t i = 0; i < TABLE_ROWS; i++) zq_pack_codes(words + i * row_bytes, q + i * n, t.bits, n);
        t.values = words;
    }
    if (check_coin(c)) t.k_group = n % 16 || check_coin(c) ? product_divisor(c, n) : 16;
    t.scale_dtype = float_dtype(c);
    t.scales = product_weights(c, TABLE_ROWS * (t.k_group ? n / t.k_group : 1), t.scale_dtype, VALUES_NORMAL);
    return t;
}

/* Value i of a row of n, by conversions of single values. */
static float table_value(const struct zq_lookup *t, size_t row, size_t i, size_t n)
{
    float value, scale;
    if (!t->scales) {
        zq_to_float(&value, t->values + (row * n + i) * zq_dtype_bytes(t->dtype), t->dtype, 1);
        return value;
    }
    int8_t codes[4096];
    if (t->dtype == ZQ_I8) memcpy(codes, t->values + row * n, n);
    else zq_unpack_codes(codes, t->values + row * 4 * zq_packed_words(n, t->bits), t->bits, n);
    const size_t group = t->k_group ? t->k_group : n;
    zq_to_float(&scale, t->scales + (row * (n / group) + i / group) * zq_dtype_bytes(t->scale_dtype), t->scale_dtype, 1);
    return (float)codes[i] * scale;
}

static bool embed_written(const struct zq_embed *a, size_t n_rows)
{
    bool finite = true;
    for (size_t i = 0; i < n_rows; i++) {
        float y[4096], *f = a->out.f + i * a->out.ld_f;
        for (size_t k = 0; k < a->n; k++) {
            y[k] = a->tokens.values ? table_value(&a->tokens, a->rows[i].token, k, a->n) : f[k];
            if (a->types.values) y[k] += table_value(&a->types, a->rows[i].type, k, a->n);
            if (a->positions.values) y[k] += table_value(&a->positions, a->rows[i].position, k, a->n);
        }
        struct zq_norm norm = {y, a->n, a->n, a->gamma, a->beta, a->eps, a->rms, a->out};
        norm.out.f = f;
        if (a->out.q) norm.out.q += i * a->out.ld_q, norm.out.scale += i;
        finite &= a->gamma ? norm_written(&norm, 1) : store_written(&norm.out, 0, y, a->n);
    }
    return finite;
}

void check_embed(struct check *c)
{
    enum { N_TABLES = ZQ_LEN(table_dtypes) + 1, COMPLETE = N_TABLES * N_LENGTHS }; /* the last: no table */
    for (size_t i = 0; i < COMPLETE + 120 && !c->failed; i++) {
        check_begin(c);
        const size_t n = row_length(c, i / N_TABLES), n_rows = row_count(c, i < COMPLETE, n);
        struct zq_embed a = {.n = n, .rms = check_coin(c), .eps = 1e-5f};
        if (i % N_TABLES < ZQ_LEN(table_dtypes)) a.tokens = table(c, n, table_dtypes[i % N_TABLES]);
        if (check_coin(c)) a.types = table(c, n, float_dtype(c));
        if (check_coin(c)) a.positions = table(c, n, float_dtype(c));
        if (check_coin(c)) a.gamma = check_floats(c, n, VALUES_NORMAL);
        if (check_coin(c)) a.beta = check_floats(c, n, VALUES_NORMAL);
        struct zq_token_rows *rows = check_buffer(c, n_rows * sizeof *rows, sizeof(uint32_t));
        for (size_t t = 0; t < n_rows; t++)
            rows[t] = (struct zq_token_rows){(uint32_t)check_random(c, TABLE_ROWS), (uint32_t)check_random(c, TABLE_ROWS), TABLE_ROWS - 1};
        a.rows = rows;
        a.out.ld_f = n + check_random(c, 3);
        a.out.ld_q = n + check_random(c, 3);
        const size_t n_f = n_rows ? (n_rows - 1) * a.out.ld_f + n : 0;
        const float *before = check_floats(c, n_f, VALUES_OUTLIERS);
        const bool q = i < COMPLETE || check_coin(c);

        struct outputs out[2];
        bool comparable = true;
        for (int o = 0; o < 2; o++) {
            out[o] = outputs(c, &a.out, n_rows, n, true, q);
            memcpy(out[o].f, before, n_f * sizeof(float));
            if (o && c->is_c) comparable = embed_written(&a, n_rows);
            else for (size_t begin = 0, end; begin < n_rows; begin = end) (o ? c->c : c->k)->embed(&a, begin, end = piece(c, begin, n_rows));
        }
        if (comparable) same_outputs(c, &a.out, n_rows, n, out[0], out[1]);
        if (c->failed) check_fail(c, "n");
    }
}

/* ---- conversion ---- */

void check_to_float(struct check *c)
{
    enum { ALL = 65536 };
    for (int bf16 = 0; bf16 < 2 && !c->failed; bf16++) {
        check_begin(c);
        uint16_t *h = check_buffer(c, ALL * sizeof *h, sizeof *h);
        float *got = check_buffer(c, ALL * sizeof *got, sizeof *got), *want = check_buffer(c, ALL * sizeof *want, sizeof *want);
        for (size_t i = 0; i < ALL; i++) {
            h[i] = (uint16_t)i;
            want[i] = bf16 ? zq_bf16_to_float(h[i]) : zq_f16_to_float(h[i]);
        }
        c->k->to_float(got, h, bf16 ? ZQ_BF16 : ZQ_F16, ALL);
        check_same_floats(c, got, want, ALL, bf16 ? "BF16" : "F16");
    }
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    for (size_t i = 0; i < 300 && !c->failed; i++) {
        check_begin(c);
        const size_t n = i / 3;
        const enum zq_dtype dtype = dtypes[i % 3];
        const float *x = check_floats(c, n, VALUES_OUTLIERS);
        void *stored = check_buffer(c, n * zq_dtype_bytes(dtype), zq_dtype_bytes(dtype));
        float *got = check_buffer(c, n * sizeof *got, sizeof *got), *want = check_buffer(c, n * sizeof *want, sizeof *want);
        zq_from_float(stored, dtype, x, n);
        zq_to_float(want, stored, dtype, n);
        c->k->to_float(got, stored, dtype, n);
        check_same_floats(c, got, want, n, zq_dtype_name(dtype));
    }
}

/* ---- timing: rows that fit the caches, as they do when the operators run ---- */

enum { BENCH_ROWS = 128, BENCH_N = 3072 };

struct bench_work {
    const struct zq_kernels *k;
    struct zq_norm norm;
    struct zq_activate activate;
    struct zq_embed embed;
    float *f;
    uint16_t *h;
};

static void bench_norm_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *b = work;
    b->k->norm(&b->norm, begin, end);
}

static void bench_activate_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *b = work;
    b->k->activate(&b->activate, begin, end);
}

static void bench_embed_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *b = work;
    b->k->embed(&b->embed, begin, end);
}

static void bench_to_float_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *b = work;
    b->k->to_float(b->f + begin * BENCH_N, b->h + begin * BENCH_N, ZQ_F16, (end - begin) * BENCH_N);
}

/* Runs fn over rows of x -> f, q; GB/s of what is read and written. act: of activate; dtype: of the tokens' table of embed. */
static void bench_rows(struct bench *b, const char *what, bench_fn *fn, enum zq_activation act, enum zq_dtype dtype, double bytes_per_value)
{
    struct zq_token_rows rows[BENCH_ROWS];
    for (uint32_t i = 0; i < BENCH_ROWS; i++) rows[i] = (struct zq_token_rows){i, 0, i};
    const size_t n = BENCH_ROWS * BENCH_N;
    float *x = zq_alloc_array(n, sizeof *x), *f = zq_alloc_array(n, sizeof *f), *scale = zq_alloc_array(BENCH_ROWS, sizeof *scale);
    int8_t *q = zq_alloc_zero(n);
    if (x && f && q && scale) {
        for (size_t i = 0; i < n; i++) x[i] = (float)(i * 2654435761u % 4096) * 0x1p-10f - 2;
        const struct zq_rows_out out = {.f = f, .q = q, .scale = scale, .ld_f = BENCH_N, .ld_q = BENCH_N};
        const uint8_t *stored = (const uint8_t *)x;
        struct bench_work work = {b->k, {.x = x, .ld_x = BENCH_N, .n = BENCH_N, .gamma = x, .beta = x, .eps = 1e-5f, .out = out},
                                  {.x = x, .ld_x = BENCH_N, .n = BENCH_N, .act = act, .out = out},
                                  {.rows = rows, .tokens = {.values = stored, .dtype = dtype, .scales = dtype == ZQ_I8 ? stored : NULL},
                                   .positions = {.values = stored}, .n = BENCH_N, .gamma = x, .beta = x, .eps = 1e-5f, .out = out},
                                  f, (uint16_t *)x};
        bench_print(b, what, bytes_per_value * (double)n / bench_time(b, BENCH_ROWS, 1, fn, &work), "GB/s", 0);
    }
    zq_free(x);
    zq_free(f);
    zq_free(scale);
    zq_free(q);
}

void bench_norm(struct bench *b) { bench_rows(b, "norm -> f32, int8", bench_norm_rows, ZQ_ACT_NONE, ZQ_F32, 9); }
void bench_to_float(struct bench *b) { bench_rows(b, "to_float F16", bench_to_float_rows, ZQ_ACT_NONE, ZQ_F16, 6); }

void bench_activate(struct bench *b)
{
    for (size_t act = 0; act < ZQ_LEN(act_names); act++) {
        char what[40];
        snprintf(what, sizeof what, "activate %s -> f32, int8", act_names[act]);
        bench_rows(b, what, bench_activate_rows, (enum zq_activation)act, ZQ_F32, 9);
    }
}

void bench_embed(struct bench *b)
{
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16, ZQ_I8};
    for (size_t i = 0; i < ZQ_LEN(dtypes); i++) {
        char what[64];
        snprintf(what, sizeof what, "embed %s + position, norm -> f32, int8", zq_dtype_name(dtypes[i]));
        bench_rows(b, what, bench_embed_rows, ZQ_ACT_NONE, dtypes[i], 9 + (double)zq_dtype_bytes(dtypes[i]));
    }
}
