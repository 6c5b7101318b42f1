/* Gradients of a block against difference quotients of a block written here a second time, in double, as plain loops: every
 * kind of norm, position, attention and activation function that a row of the architecture table can ask for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "distill/activation.h"
#include "distill/loss.h"
#include "distill/student.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 12, FFN = 10, HEADS = 4, HEAD_DIM = 6, MAX_T = 100, MAX_SEQUENCES = 2 };

/* ---- the block in double ---------------------------------------------------------------------------------------------- */

/* Parameters lie as in struct zq_student: `p` + the offset of the float. */
struct reference {
    const struct zq_student *s;
    const double *p, *x;      /* parameters, input [T, WIDTH] */
    const size_t *lengths;
    size_t n_sequences, n_tokens;
    double normed[2][MAX_T][WIDTH], qkv[MAX_T][3 * HEADS * HEAD_DIM], attended[MAX_T][HEADS * HEAD_DIM], mid[MAX_T][WIDTH], out[MAX_T][WIDTH];
};

static const double *param(const struct reference *f, const float *of)
{
    return f->p + (of - f->s->params);
}

static void ref_linear(const struct reference *f, int role, const double *x, double *y)
{
    const struct zq_student_linear *l = &f->s->linear[role];
    for (size_t r = 0; r < l->n_rows; r++) {
        y[r] = param(f, l->bias)[r];
        for (size_t k = 0; k < l->n_cols; k++) y[r] += param(f, l->w)[r * l->n_cols + k] * x[k];
    }
}

static void ref_norm(const struct reference *f, const struct zq_student_norm *w, const double *x, double *y)
{
    double mean = 0, square = 0;
    for (int i = 0; i < WIDTH && !f->s->config.arch->rms; i++) mean += x[i] / WIDTH;
    for (int i = 0; i < WIDTH; i++) square += (x[i] - mean) * (x[i] - mean) / WIDTH;
    for (int i = 0; i < WIDTH; i++)
        y[i] = (x[i] - mean) / sqrt(square + (double)(float)f->s->config.norm_eps) * param(f, w->gamma)[i] + (w->beta ? param(f, w->beta)[i] : 0);
}

static double ref_act(enum zq_activation act, double x)
{
    switch (act) {
    case ZQ_ACT_RELU: return x > 0 ? x : 0;
    case ZQ_ACT_GELU: return x * 0.5 * erfc(-x / sqrt(2));
    case ZQ_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case ZQ_ACT_SILU: return x / (1 + exp(-x));
    case ZQ_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case ZQ_ACT_TANH: return tanh(x);
    case ZQ_ACT_NONE: break;
    }
    return x;
}

static void ref_rotate(const struct zq_config *c, double *x, size_t position)
{
    const size_t half = c->n_rotated / 2;
    for (size_t i = 0; i < half; i++) {
        const double angle = (double)position * pow(c->theta, -2.0 * (double)i / (double)c->n_rotated);
        const bool pairs = c->arch->positions == ZQ_POS_ROTARY_PAIRS;
        double *a = pairs ? x + 2 * i : x + i, *b = pairs ? a + 1 : a + half;
        const double turned = *a * cos(angle) - *b * sin(angle);
        *b = *b * cos(angle) + *a * sin(angle);
        *a = turned;
    }
}

/* Where head h of kind 0 q, 1 k, 2 v begins in a row of qkv. */
static size_t head_at(const struct zq_config *c, int kind, size_t h)
{
    if (c->arch->qkv_rows == ZQ_QKV_BY_HEAD) return (3 * h + (size_t)kind) * HEAD_DIM;
    return (kind == 0 ? h : kind == 1 ? c->n_heads + h : c->n_heads + c->n_kv_heads + h) * HEAD_DIM;
}

static void ref_attend(struct reference *f, size_t row, size_t n)
{
    const struct zq_config *c = &f->s->config;
    for (size_t t = 0; t < n; t++) {
        for (size_t h = 0; h < c->n_heads; h++) ref_rotate(c, f->qkv[row + t] + head_at(c, 0, h), t);
        for (size_t h = 0; h < c->n_kv_heads; h++) ref_rotate(c, f->qkv[row + t] + head_at(c, 1, h), t);
    }
    for (size_t t = 0; t < n; t++) {
        for (size_t h = 0; h < c->n_heads; h++) {
            const size_t kv = h / (c->n_heads / c->n_kv_heads);
            double *out = f->attended[row + t] + h * HEAD_DIM, total = 0;
            for (int d = 0; d < HEAD_DIM; d++) out[d] = 0;
            for (size_t j = 0; j < n; j++) {
                if ((c->arch->causal && j > t) || (c->window && t >= j + c->window)) continue;
                double score = 0;
                for (int d = 0; d < HEAD_DIM; d++) score += f->qkv[row + t][head_at(c, 0, h) + d] * f->qkv[row + j][head_at(c, 1, kv) + d];
                const double e = exp(score / sqrt(HEAD_DIM));
                total += e;
                for (int d = 0; d < HEAD_DIM; d++) out[d] += e * f->qkv[row + j][head_at(c, 2, kv) + d];
            }
            for (int d = 0; d < HEAD_DIM; d++) out[d] /= total;
        }
    }
}

static void ref_ffn(const struct reference *f, const double *in, const double *residual, double *out)
{
    const struct zq_config *c = &f->s->config;
    double up[FFN], gate[FFN];
    ref_linear(f, ZQ_UP, in, up);
    if (c->gated) ref_linear(f, ZQ_GATE, in, gate);
    for (int i = 0; i < FFN; i++) up[i] = c->gated ? ref_act(c->activation, gate[i]) * up[i] : ref_act(c->activation, up[i]);
    ref_linear(f, ZQ_DOWN, up, out);
    for (int i = 0; i < WIDTH; i++) out[i] += residual[i];
}

static void ref_block(struct reference *f)
{
    const struct zq_student *s = f->s;
    const enum zq_norm_place place = s->config.norm;
    for (size_t t = 0; t < f->n_tokens; t++) {
        const double *x = f->x + t * WIDTH, *in = place == ZQ_NORM_POST ? x : f->normed[0][t];
        if (place != ZQ_NORM_POST) ref_norm(f, &s->norm1, x, f->normed[0][t]);
        double *at = f->qkv[t];
        for (int r = ZQ_QKV; r <= ZQ_V; at += s->linear[r].n_rows, r++) ref_linear(f, r, in, at);
    }
    for (size_t i = 0, row = 0; i < f->n_sequences; row += f->lengths[i], i++) ref_attend(f, row, f->lengths[i]);
    for (size_t t = 0; t < f->n_tokens; t++) {
        const double *x = f->x + t * WIDTH;
        double *mid = f->mid[t], *in = f->normed[1][t], last[WIDTH];
        ref_linear(f, ZQ_O, f->attended[t], mid);
        for (int i = 0; i < WIDTH; i++) mid[i] += x[i];
        if (place == ZQ_NORM_POST) {
            ref_norm(f, &s->norm1, mid, in);
            ref_ffn(f, in, in, last);
            ref_norm(f, &s->norm2, last, f->out[t]);
            continue;
        }
        if (place == ZQ_NORM_PRE) ref_norm(f, &s->norm2, mid, in);
        else if (s->norm2.gamma) ref_norm(f, &s->norm2, x, in);
        else memcpy(in, f->normed[0][t], sizeof last);
        ref_ffn(f, in, mid, f->out[t]);
    }
}

/* ---- kinds of blocks --------------------------------------------------------------------------------------------------- */

struct kind {
    const char *name;
    enum zq_norm_place norm;
    enum zq_positions positions;
    enum zq_qkv_rows rows;
    enum zq_activation activation;
    size_t n_kv_heads, n_rotated, window, lengths[MAX_SEQUENCES];
    bool one_norm, rms, bidirectional, fused, gated;
};

static const struct kind kinds[] = {
    {"pre, fused, gelu", .n_kv_heads = 4, .activation = ZQ_ACT_GELU, .lengths = {5, 3}, .fused = true},
    {"pre, relu", .n_kv_heads = 4, .activation = ZQ_ACT_RELU, .lengths = {4, 4}},
    {"post, bidirectional", .norm = ZQ_NORM_POST, .n_kv_heads = 4, .activation = ZQ_ACT_GELU, .lengths = {3, 6}, .bidirectional = true},
    {"post, causal, quick gelu", .norm = ZQ_NORM_POST, .n_kv_heads = 4, .activation = ZQ_ACT_QUICK_GELU, .lengths = {5, 1}},
    {"parallel, one norm, pairs", .norm = ZQ_NORM_PARALLEL, .positions = ZQ_POS_ROTARY_PAIRS, .n_rotated = 4, .n_kv_heads = 4,
     .activation = ZQ_ACT_GELU_TANH, .lengths = {5, 3}, .one_norm = true},
    {"parallel, two norms, halves, by head", .norm = ZQ_NORM_PARALLEL, .positions = ZQ_POS_ROTARY_HALF, .rows = ZQ_QKV_BY_HEAD, .n_rotated = 2,
     .n_kv_heads = 4, .activation = ZQ_ACT_GELU, .lengths = {6, 2}, .fused = true},
    {"rms, shared keys, gate", .positions = ZQ_POS_ROTARY_HALF, .n_rotated = 6, .n_kv_heads = 2, .activation = ZQ_ACT_SILU, .lengths = {4, 5},
     .rms = true, .gated = true},
    {"rms, one key head, window", .positions = ZQ_POS_ROTARY_HALF, .n_rotated = 6, .n_kv_heads = 1, .activation = ZQ_ACT_SILU, .window = 3,
     .lengths = {7, 4}, .rms = true, .gated = true},
    {"several blocks of queries, window", .positions = ZQ_POS_ROTARY_HALF, .n_rotated = 6, .n_kv_heads = 2, .activation = ZQ_ACT_SILU, .window = 20,
     .lengths = {90, 10}, .rms = true, .gated = true},
    {"several blocks of queries, bidirectional", .norm = ZQ_NORM_POST, .n_kv_heads = 4, .activation = ZQ_ACT_GELU, .lengths = {70, 30},
     .bidirectional = true},
};

static struct zq_arch arch_of(const struct kind *k)
{
    struct zq_arch a = {.norm = k->norm, .positions = k->positions, .qkv_rows = k->rows, .rms = k->rms, .causal = !k->bidirectional};
    const char *name = "any"; /* a map exists where its name does */
    a.names.norm1 = name;
    a.names.norm2 = k->one_norm ? NULL : name;
    a.names.linear[ZQ_QKV] = k->fused ? name : NULL;
    a.names.linear[ZQ_Q] = a.names.linear[ZQ_K] = a.names.linear[ZQ_V] = k->fused ? NULL : name;
    a.names.linear[ZQ_GATE] = k->gated ? name : NULL;
    a.names.linear[ZQ_O] = a.names.linear[ZQ_UP] = a.names.linear[ZQ_DOWN] = name;
    return a;
}

static struct zq_student *open_student(const struct kind *k, const struct zq_arch *arch)
{
    const struct zq_config c = {
        .arch = arch, .width = WIDTH, .n_heads = HEADS, .n_kv_heads = k->n_kv_heads, .head_dim = HEAD_DIM, .ffn_width = FFN,
        .max_length = MAX_T, .window = k->window, .norm = k->norm, .activation = k->activation, .gated = k->gated, .norm_eps = 1e-5,
        .n_rotated = k->n_rotated, .theta = 100,
    };
    struct zq_student_options o = {
        .config = &c, .max_sequences = MAX_SEQUENCES, .max_length = MAX_T, .max_tokens = MAX_T, .trains = true, .n_threads = 2,
    };
    for (int r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r].spec = ZQ_SPEC_FLOAT;
    struct zq_student *s = NULL;
    assert_int_equal(zq_student_create(&s, &o, NULL), ZQ_OK);
    for (int r = 0; r < ZQ_N_LINEARS; r++) s->linear[r].has_bias = true;
    return s;
}

/* Uniform with standard deviation `size`. */
static double noise(uint64_t *state, double size)
{
    return size * sqrt(12) * ((double)zq_rng_float(state) - 0.5);
}

/* dL/dv at v[at], L = sum of dy * out: central differences with one extrapolation, so that their error is of fourth order. The step is
 * too small to cross a kink of ReLU. */
static double quotient(struct reference *f, const float *dy, double *v, size_t at)
{
    const double h = 1e-5, old = v[at], step[4] = {h, -h, 2 * h, -2 * h};
    double l[4] = {0};
    for (int i = 0; i < 4; i++) {
        v[at] = old + step[i];
        ref_block(f);
        for (size_t t = 0; t < f->n_tokens; t++)
            for (int j = 0; j < WIDTH; j++) l[i] += dy[t * WIDTH + (size_t)j] * f->out[t][j];
    }
    v[at] = old;
    return (8 * (l[0] - l[1]) - (l[2] - l[3])) / (12 * h);
}

/* Every stride-th of the n gradients at `got`, whose variables are v: FP32 sums of a few thousand terms are off by some 1e-6. */
static void check_against(const char *what, struct reference *f, const float *dy, double *v, const float *got, size_t n, size_t stride)
{
    double off = 0, norm = 0;
    for (size_t i = 0; i < n; i += stride) {
        const double want = quotient(f, dy, v, i);
        off += (got[i] - want) * (got[i] - want);
        norm += want * want;
    }
    if (!(sqrt(off) <= 1e-5 * sqrt(norm))) fail_msg("%s: gradient is off by %g of %g", what, sqrt(off), sqrt(norm));
}

static void check_weights(struct reference *f, const float *dy, double *p, size_t stride)
{
    const struct zq_student *s = f->s;
    const struct zq_student_norm *const norms[] = {&s->norm1, &s->norm2};
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        if (!l->n_rows) continue;
        char what[32];
        snprintf(what, sizeof what, "weight of map %d", r);
        check_against(what, f, dy, p + (l->w - s->params), l->dw, l->n_rows * l->n_cols, stride);
        /* without positions a key bias changes no probability: its gradient is 0, and no share of its own norm bounds the rest */
        snprintf(what, sizeof what, "bias of map %d", r);
        if (r != ZQ_K || s->config.n_rotated) check_against(what, f, dy, p + (l->bias - s->params), l->dbias, l->n_rows, 1);
    }
    for (size_t i = 0; i < 2; i++) {
        if (norms[i]->gamma) check_against("gamma", f, dy, p + (norms[i]->gamma - s->params), norms[i]->dgamma, WIDTH, 1);
        if (norms[i]->beta) check_against("beta", f, dy, p + (norms[i]->beta - s->params), norms[i]->dbeta, WIDTH, 1);
    }
}

static void test_kind(void **state)
{
    const struct kind *k = *state;
    const struct zq_arch arch = arch_of(k);
    struct zq_student *s = open_student(k, &arch);
    uint64_t seed = 3;
    const size_t n_tokens = k->lengths[0] + k->lengths[1], n = n_tokens * WIDTH;
    float *x = zq_alloc_array(4 * n, sizeof *x), *dy = x + n, *out = dy + n, *dx = out + n;
    double *p = zq_alloc_array(s->n_params + n, sizeof *p), *dxs = p + s->n_params;
    for (size_t i = 0; i < s->n_params; i++) s->params[i] = (float)noise(&seed, 0.4);
    for (size_t i = 0; i < WIDTH; i++) s->norm1.gamma[i] += 1;
    for (size_t i = 0; i < WIDTH && s->norm2.gamma; i++) s->norm2.gamma[i] += 1;
    for (size_t i = 0; i < 2 * n; i++) x[i] = (float)noise(&seed, 1);
    for (size_t i = 0; i < s->n_params; i++) p[i] = s->params[i];
    for (size_t i = 0; i < n; i++) dxs[i] = x[i];

    const struct zq_student_batch batch = {x, k->lengths, MAX_SEQUENCES};
    zq_student_forward(s, &batch, true, out);
    zq_student_backward(s, dy, dx);
    struct reference *f = zq_alloc_zero(sizeof *f);
    *f = (struct reference){.s = s, .p = p, .x = dxs, .lengths = k->lengths, .n_sequences = MAX_SEQUENCES, .n_tokens = n_tokens};
    ref_block(f);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < WIDTH; i++) assert_true(fabs(out[t * WIDTH + i] - f->out[t][i]) <= 2e-5); /* values of about 1 */
    const size_t stride = n_tokens > 20 ? 17 : 1;
    check_weights(f, dy, p, stride);
    check_against("dx", f, dy, dxs, dx, n, stride);
    zq_student_backward(s, dy, NULL); /* the same without dx */
    check_weights(f, dy, p, 5 * stride);

    zq_free(f);
    zq_free(p);
    zq_free(x);
    zq_student_free(s);
}

/* Values and slopes of each function from -8 to 8, alone and with a gate. */
static void test_activations(void **state)
{
    (void)state;
    enum { N = 1601 };
    float u[N], times[N], dy[N], y[N], du[N], dtimes[N];
    uint64_t seed = 5;
    for (int i = 0; i < N; i++) {
        u[i] = (float)(i - N / 2) / 100 + 0.003f;
        times[i] = (float)noise(&seed, 1);
        dy[i] = (float)noise(&seed, 1);
    }
    for (int act = ZQ_ACT_NONE; act <= ZQ_ACT_TANH; act++) {
        for (int gated = 0; gated < 2; gated++) {
            const struct zq_activation_pass p = {(enum zq_activation)act, N, u, gated ? times : NULL};
            zq_activation_forward(&p, y, 2);
            zq_activation_backward(&p, dy, du, gated ? dtimes : NULL, 2);
            for (int i = 0; i < N; i++) {
                const double h = 1e-4, a = ref_act((enum zq_activation)act, u[i]), gate = gated ? times[i] : 1;
                const double slope = (ref_act((enum zq_activation)act, u[i] + h) - ref_act((enum zq_activation)act, u[i] - h)) / (2 * h);
                assert_true(fabs(y[i] - a * gate) <= 1e-6 * (1 + fabs(a * gate)));
                assert_true(fabs(du[i] - dy[i] * gate * slope) <= 2e-6 * fabs(dy[i] * gate));
                if (gated) assert_true(fabs(dtimes[i] - dy[i] * a) <= 1e-6 * (1 + fabs(dy[i] * a)));
            }
        }
    }
}

static void test_loss(void **state)
{
    (void)state;
    const float y[6] = {1, 2, 3, 4, 5, 6}, target[6] = {0, 2, 5, 4, 5, 3};
    float dy[6];
    double sums[2];
    assert_true(fabs(zq_loss_mse(y, target, 2, 3, dy, sums, 1) - 14.0 / 6) < 1e-15);
    for (int i = 0; i < 6; i++) assert_true(fabs(dy[i] - 2.0 * (y[i] - target[i]) / 6) < 1e-6);
}

int main(void)
{
    struct CMUnitTest tests[ZQ_LEN(kinds) + 2] = {cmocka_unit_test(test_activations), cmocka_unit_test(test_loss)};
    for (size_t i = 0; i < ZQ_LEN(kinds); i++)
        tests[i + 2] = (struct CMUnitTest){kinds[i].name, test_kind, NULL, NULL, (void *)(uintptr_t)&kinds[i]};
    return cmocka_run_group_tests_name("gradients of blocks", tests, NULL, NULL);
}
