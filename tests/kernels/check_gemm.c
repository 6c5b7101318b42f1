/* Products: integer and float inputs, weights of every format. The reference is the contract of kernels.h written down element
 * by element, with integer sums in 64 bits. */
#include "check.h"
#include "products.h"

#include "base/alloc.h"
#include "base/half.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct shape {
    size_t n_rows, n_cols, k_group, n_tokens;
    enum zq_dtype dtype;
    int bits; /* 8 or 4: codes; 16: float weights */
    bool int8_input;
};

float product_weight(const struct zq_matrix *w, const void *values, size_t i)
{
    float f;
    zq_to_float(&f, (const uint8_t *)values + i * zq_dtype_bytes(w->dtype), w->dtype, 1);
    return f;
}

/* Sum of group g of a row: exact for codes, a chain of fma for float inputs. */
static float group_sum(const struct shape *s, const struct zq_product *p, const void *values, size_t token, size_t row, size_t g, size_t n)
{
    const size_t first = row * s->n_cols + g * n, from = token * p->ld_x + g * n;
    const int8_t *codes = s->bits == 16 ? NULL : (const int8_t *)values + first;
    int64_t exact = 0;
    float chain = 0;
    if (s->int8_input) {
        for (size_t k = 0; k < n; k++) exact += codes[k] * p->q[from + k];
        return (float)exact;
    }
    for (size_t k = 0; k < n; k++) chain = fmaf(p->x[from + k], codes ? codes[k] : product_weight(p->w, values, first + k), chain);
    return chain;
}

static void reference(const struct shape *s, const struct zq_product *p, const void *values, const float *scales)
{
    const size_t n_groups = s->k_group ? s->n_cols / s->k_group : 1, n = s->k_group ? s->k_group : s->n_cols;
    for (size_t t = 0; t < s->n_tokens; t++) {
        for (size_t r = 0; r < s->n_rows; r++) {
            const float b = p->bias ? p->bias[r] : 0, token_scale = s->int8_input ? p->scale[t] : 1;
            float y, f = 0;
            if (s->bits == 16) {
                y = group_sum(s, p, values, t, r, 0, n) + b;
            } else if (!s->k_group) {
                const float sum = group_sum(s, p, values, t, r, 0, n);
                y = s->int8_input ? fmaf(sum, token_scale * scales[r], b) : fmaf(sum, scales[r], b);
            } else {
                for (size_t g = 0; g < n_groups; g++) f = fmaf(group_sum(s, p, values, t, r, g, n), scales[r * n_groups + g], f);
                y = s->int8_input ? fmaf(f, token_scale, b) : f + b;
            }
            const size_t at = t * p->ld_out + r;
            p->out[at] = p->residual ? y + p->residual[at] : y;
        }
    }
}

/* Packs and runs in pieces cut at random multiples of row_tile. */
void product_pack(struct check *c, const struct zq_gemm *g, struct zq_matrix *w, const void *values, size_t value_bytes, const float *scales)
{
    const size_t n_groups = w->k_group ? w->n_cols / w->k_group : 1;
    w->packed = check_buffer(c, g->packed_bytes(w), 64);
    for (size_t row = 0; row < w->n_rows;) {
        size_t n = (1 + check_random(c, 3)) * g->row_tile;
        if (n > w->n_rows - row) n = w->n_rows - row;
        g->pack(w, row, n, (const uint8_t *)values + row * w->n_cols * value_bytes, scales ? scales + row * n_groups : NULL);
        row += n;
    }
}

void product_run(struct check *c, const struct zq_gemm *g, const struct zq_product *p)
{
    for (size_t row = 0; row < p->w->n_rows;) {
        size_t end = row + (1 + check_random(c, 3)) * g->row_tile;
        if (end > p->w->n_rows || check_random(c, 4) == 0) end = p->w->n_rows;
        g->run(p, row, end);
        row = end;
    }
}

void *product_weights(struct check *c, size_t n, enum zq_dtype dtype, enum check_values kind)
{
    const float *x = check_floats(c, n, kind);
    void *values = check_buffer(c, n * zq_dtype_bytes(dtype), zq_dtype_bytes(dtype));
    zq_from_float(values, dtype, x, n);
    return values;
}

/* Codes as models have them: mostly small, so that kernels which treat pairs of large ones apart meet a few of those. */
static int8_t *bell_codes(struct check *c, size_t n)
{
    int8_t *q = check_buffer(c, n, 1);
    const size_t rare = CHECK_PICK(c, 40, 150, 1000);
    const int large = check_coin(c) ? 127 : -128;
    for (size_t i = 0; i < n; i++) q[i] = (int8_t)(check_random(c, rare) ? (int)check_random(c, 121) - 60 : large);
    return q;
}

int8_t *product_codes(struct check *c, size_t n, int bits)
{
    if (bits == 8 && check_random(c, 3)) return bell_codes(c, n);
    return check_codes(c, n, bits == 8 ? -128 : -8, bits == 8 ? 127 : 7);
}

static void check_shape(struct check *c, const struct zq_gemm *got, const struct zq_gemm *plain, const struct shape *s)
{
    check_begin(c);
    const size_t n_groups = s->k_group ? s->n_cols / s->k_group : 1;
    /* huge floats make infinities, which is no part of the contract: codes bound the integer kernels */
    const enum check_values kind = (enum check_values[]){VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY}[check_random(c, 5)];
    struct zq_matrix w = {.n_rows = s->n_rows, .n_cols = s->n_cols, .k_group = s->k_group, .dtype = s->dtype};
    const void *values = s->bits == 16 ? product_weights(c, s->n_rows * s->n_cols, s->dtype, kind)
                                       : product_codes(c, s->n_rows * s->n_cols, s->bits);
    /* scales of any size: what overflows or underflows does so in every kernel */
    static const enum check_values sizes[] = {VALUES_NORMAL, VALUES_NORMAL, VALUES_NORMAL, VALUES_TINY, VALUES_SUBNORMAL, VALUES_HUGE};
    const enum check_values of_rows = sizes[check_random(c, s->int8_input ? 6 : 4)], of_tokens = sizes[check_random(c, 6)];
    const float *scales = s->bits == 16 ? NULL : check_floats(c, s->n_rows * n_groups, of_rows);
    struct zq_product p = {.w = &w, .n_tokens = s->n_tokens, .ld_x = s->n_cols + check_random(c, 3), .ld_out = s->n_rows + check_random(c, 3)};
    /* the last row of an array ends where the array ends, not after its gap */
    const size_t n_x = s->n_tokens ? (s->n_tokens - 1) * p.ld_x + s->n_cols : 0, n_out = s->n_tokens ? (s->n_tokens - 1) * p.ld_out + s->n_rows : 0;
    if (s->int8_input) {
        p.q = check_codes(c, n_x, -127, 127);
        p.scale = check_floats(c, s->n_tokens, of_tokens);
    } else {
        p.x = check_floats(c, n_x, kind);
    }
    if (check_coin(c)) p.bias = check_floats(c, s->n_rows, VALUES_NORMAL);
    const float *residual = check_coin(c) ? check_floats(c, n_out, VALUES_NORMAL) : NULL;
    const bool in_place = check_coin(c);

    float *out[2];
    for (int i = 0; i < 2; i++) {
        out[i] = p.out = check_buffer(c, n_out * sizeof(float), sizeof(float));
        p.residual = residual;
        if (residual && in_place) p.residual = memcpy(p.out, residual, n_out * sizeof(float));
        if (i == 1 && c->is_c) {
            reference(s, &p, values, scales);
            continue;
        }
        const struct zq_gemm *g = i ? plain : got;
        product_pack(c, g, &w, values, s->bits == 16 ? zq_dtype_bytes(s->dtype) : 1, scales);
        product_run(c, g, &p);
    }
    check_same_floats(c, out[0], out[1], n_out, "out");
    if (c->failed) check_fail(c, "shape");
}

size_t product_divisor(struct check *c, size_t n)
{
    size_t divisor;
    do divisor = 1 + check_random(c, n);
    while (n % divisor);
    return divisor;
}

static const enum zq_dtype float_dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};

/* Every remainder of rows in two row tiles, of columns in two of the widest step (64), as rows and in groups, and of tokens; one at a time, beside
 * random others. */
static void check_tails(struct check *c, const struct zq_gemm *got, const struct zq_gemm *plain, int bits, bool int8_input)
{
    enum { COLS = 128, TOKENS = 40 };
    const size_t rows = 2 * got->row_tile, cols = bits == 16 ? COLS : 2 * COLS;
    for (size_t i = 0; i < rows + cols + TOKENS && !c->failed; i++) {
        struct shape s = {.n_rows = 1 + check_random(c, 40), .n_cols = 1 + check_random(c, 70), .n_tokens = 1 + check_random(c, 8),
                          .dtype = bits == 16 ? float_dtypes[i % 3] : ZQ_I8, .bits = bits, .int8_input = int8_input};
        if (i < rows) s.n_rows = 1 + i;
        else if (i < rows + cols) s.n_cols = 1 + (i - rows) % COLS;
        else s.n_tokens = 1 + i - rows - cols;
        if (i >= rows + COLS && bits != 16) s.k_group = product_divisor(c, s.n_cols);
        check_shape(c, got, plain, &s);
    }
}

static void check_gemm(struct check *c, const struct zq_gemm *got, const struct zq_gemm *plain, int bits, bool int8_input)
{
    if (strstr(got->name, c->level) == NULL) check_fail(c, "its name is %s", got->name);
    check_tails(c, got, plain, bits, int8_input);
    for (size_t i = 0; i < 260 && !c->failed; i++) {
        struct shape s = {
            .n_rows = i % 40 == 0 ? 0 : CHECK_PICK(c, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 80, 129),
            .n_cols = CHECK_PICK(c, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 96, 128, 172, 255, 256, 344, 512),
            .n_tokens = i % 30 == 0 ? 0 : i % 3 ? 1 + check_random(c, 8) : 1 + check_random(c, 30),
            .dtype = bits == 16 ? float_dtypes[i % 3] : ZQ_I8, .bits = bits, .int8_input = int8_input,
        };
        if (bits != 16 && i % 2) s.k_group = check_coin(c) ? product_divisor(c, s.n_cols) : s.n_cols % 32 ? 0 : 32;
        check_shape(c, got, plain, &s);
    }
    /* rows past the panels and sums that a level keeps, with codes at both ends of int32 */
    struct shape longest = {
        .n_rows = 3, .n_cols = 131072, .n_tokens = 2, .dtype = bits == 16 ? ZQ_BF16 : ZQ_I8, .bits = bits, .int8_input = int8_input};
    if (!int8_input) longest.n_cols = 20000;
    for (size_t i = 0; i < 3 && !c->failed; i++, longest.n_tokens += 4) check_shape(c, got, plain, &longest);
    /* more steps than are ordered together (x86/gemm_pairs.h), in a row and in a group */
    struct shape ordered = {.n_rows = 21, .n_cols = 2080, .n_tokens = 15, .dtype = longest.dtype, .bits = bits, .int8_input = int8_input};
    for (size_t i = 0; i < 3 && !c->failed && int8_input; i++, ordered.k_group = 1040) check_shape(c, got, plain, &ordered);
    /* more columns than are unpacked together, groups of one and of several 16-bit sums, full and not (x86/gemm_strips.h) */
    static const size_t cols_groups[][2] = {{1100, 0}, {1216, 64}, {1152, 128}, {1248, 96}, {1120, 32}, {1280, 160}, {2112, 704}};
    struct shape strips = {.n_rows = 37, .dtype = longest.dtype, .bits = bits, .int8_input = int8_input};
    for (size_t i = 0; i < ZQ_LEN(cols_groups) && !c->failed && int8_input; i++) {
        strips.n_cols = cols_groups[i][0];
        strips.k_group = cols_groups[i][1];
        strips.n_tokens = 4 + check_random(c, 14);
        check_shape(c, got, plain, &strips);
    }
    struct shape many = {.n_rows = 33, .n_cols = 96, .n_tokens = 4500, .dtype = longest.dtype, .bits = bits, .int8_input = int8_input};
    for (size_t i = 0; i < 2 && !c->failed && int8_input; i++, many.k_group = 4) check_shape(c, got, plain, &many);
    many.n_cols = 8 * 1200;
    many.n_tokens = 9;
    many.k_group = 8;
    if (!c->failed && int8_input) check_shape(c, got, plain, &many);

    const struct zq_matrix huge = {.n_rows = SIZE_MAX / 2, .n_cols = 4096, .dtype = ZQ_F32};
    if (got->packed_bytes(&huge) != 0) check_fail(c, "packed_bytes() does not notice overflow");
}

void check_gemm_w8_a8(struct check *c) { check_gemm(c, &c->k->w8_a8, &c->c->w8_a8, 8, true); }
void check_gemm_w4_a8(struct check *c) { check_gemm(c, &c->k->w4_a8, &c->c->w4_a8, 4, true); }
void check_gemm_w8_a16(struct check *c) { check_gemm(c, &c->k->w8_a16, &c->c->w8_a16, 8, false); }
void check_gemm_w4_a16(struct check *c) { check_gemm(c, &c->k->w4_a16, &c->c->w4_a16, 4, false); }
void check_gemm_f32_a16(struct check *c) { check_gemm(c, &c->k->f32_a16, &c->c->f32_a16, 16, false); }

/* ---- timing ---- */

struct bench_work {
    const struct zq_gemm *gemm;
    struct zq_product product;
};

static void bench_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *b = work;
    b->gemm->run(&b->product, begin, end);
}

/* Sums of four uniform values, nearly normal, as trained codes are: what AVX2 does with codes depends on how large they are. */
static int bench_code(uint64_t *rng, int bits)
{
    const int range = bits == 4 ? 5 : 60, most = bits == 4 ? 7 : 127;
    int sum = -2 * range;
    for (int i = 0; i < 4; i++) sum += (int)(zq_rng_next(rng) % (unsigned)(range + 1));
    return sum > most ? most : sum < -most ? -most : sum;
}

static void fill_values(uint8_t *values, const struct zq_matrix *w, size_t n, int bits, uint64_t *rng)
{
    for (size_t i = 0; i < n; i++) {
        const int code = bench_code(rng, bits);
        const float value = (float)code * 0x1p-10f;
        if (bits == 16) zq_from_float(values + i * zq_dtype_bytes(w->dtype), w->dtype, &value, 1);
        else ((int8_t *)values)[i] = (int8_t)code;
    }
}

/* Prints GOP/s for many tokens and GB/s of weights for one. */
static void bench_shape(struct bench *b, const struct zq_gemm *g, struct zq_matrix w, size_t n_tokens, int bits, bool int8_input, double limit)
{
    const size_t n_groups = w.k_group ? w.n_cols / w.k_group : 1, value_bytes = bits == 16 ? zq_dtype_bytes(w.dtype) : 1;
    w.packed = zq_alloc(g->packed_bytes(&w));
    uint8_t *values = zq_alloc_zero(g->row_tile * w.n_cols * value_bytes);
    float *scales = zq_alloc_array(g->row_tile * n_groups, sizeof(float)), *scale = zq_alloc_array(n_tokens, sizeof(float));
    void *x = zq_alloc_zero(n_tokens * w.n_cols * sizeof(float));
    float *out = zq_alloc_array(n_tokens * w.n_rows, sizeof(float));
    if (w.packed && values && scales && scale && x && out) {
        uint64_t rng = 1;
        fill_values(values, &w, g->row_tile * w.n_cols, bits, &rng);
        for (size_t i = 0; i < g->row_tile * n_groups; i++) scales[i] = 0x1p-10f;
        for (size_t i = 0; i < n_tokens; i++) scale[i] = 0x1p-10f;
        for (size_t i = 0; i < n_tokens * w.n_cols; i++) {
            if (int8_input) ((int8_t *)x)[i] = (int8_t)bench_code(&rng, 8);
            else ((float *)x)[i] = (float)bench_code(&rng, 8) * 0x1p-6f;
        }
        for (size_t row = 0; row < w.n_rows; row += g->row_tile) g->pack(&w, row, g->row_tile, values, scales);
        struct bench_work work = {g, {.w = &w, .n_tokens = n_tokens, .ld_x = w.n_cols, .out = out, .ld_out = w.n_rows}};
        work.product.q = x;
        work.product.x = x;
        work.product.scale = scale;
        const double seconds = bench_time(b, w.n_rows, g->row_tile, bench_rows, &work);
        const double ops = 2.0 * (double)(n_tokens * w.n_rows) * (double)w.n_cols;
        char what[96], group[24] = "channel";
        if (w.k_group) snprintf(group, sizeof group, "k:%zu", w.k_group);
        snprintf(what, sizeof what, "%.*s %s %zux%zux%zu", (int)(strlen(g->name) - strlen(b->level) - 1), g->name,
                 bits == 16 ? zq_dtype_name(w.dtype) : group, n_tokens, w.n_rows, w.n_cols);
        if (n_tokens <= 2) bench_print(b, what, (double)g->packed_bytes(&w) / seconds, "GB/s", b->limits.read_bytes);
        else bench_print(b, what, ops / seconds, "GOP/s", limit);
    }
    zq_free(w.packed);
    zq_free(values);
    zq_free(scales);
    zq_free(scale);
    zq_free(x);
    zq_free(out);
}

/* limit: operations a second. */
static void bench_gemm(struct bench *b, const struct zq_gemm *g, int bits, bool int8_input, double limit)
{
    /* 64 or 128 Mi weights for one token, more than caches hold; plain C is slow and gets fewer tokens and rows */
    const size_t far = b->is_c ? 4096 : bits == 16 ? 16384 : 32768;
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_BF16};
    for (size_t i = 0; i < 2; i++) {
        struct zq_matrix w = {.n_rows = 4096, .n_cols = 4096, .k_group = bits < 16 && i ? 64 : 0, .dtype = dtypes[i]};
        if (!int8_input) w.n_rows = w.n_cols = 1024;
        const size_t tokens[] = {512, 32, 8, 4};
        for (size_t t = b->is_c ? 2 : 0; t < ZQ_LEN(tokens); t++) bench_shape(b, g, w, tokens[t], bits, int8_input, limit);
        if (int8_input && !b->is_c && !w.k_group) { /* BERT-base at 128 tokens: output, QKV, both halves of the FFN */
            static const size_t rows_cols[][2] = {{768, 768}, {2304, 768}, {3072, 768}, {768, 3072}};
            for (size_t j = 0; j < ZQ_LEN(rows_cols); j++) {
                w.n_rows = rows_cols[j][0];
                w.n_cols = rows_cols[j][1];
                bench_shape(b, g, w, 128, bits, int8_input, limit);
            }
        }
        w.n_cols = 4096;
        w.n_rows = far;
        bench_shape(b, g, w, 1, bits, int8_input, limit);
    }
}

void bench_gemm_w8_a8(struct bench *b) { bench_gemm(b, &b->k->w8_a8, 8, true, b->limits.int8_ops); }
void bench_gemm_w4_a8(struct bench *b) { bench_gemm(b, &b->k->w4_a8, 4, true, b->limits.int4_ops); }
void bench_gemm_w8_a16(struct bench *b) { bench_gemm(b, &b->k->w8_a16, 8, false, b->limits.float_ops); }
void bench_gemm_w4_a16(struct bench *b) { bench_gemm(b, &b->k->w4_a16, 4, false, b->limits.float_ops); }
void bench_gemm_f32_a16(struct bench *b) { bench_gemm(b, &b->k->f32_a16, 16, false, b->limits.float_ops); }
void bench_gemm_w8_bf16(struct bench *b) { bench_gemm(b, &b->k->w8_a16, 8, false, b->limits.bf16_ops); }
void bench_gemm_w4_bf16(struct bench *b) { bench_gemm(b, &b->k->w4_a16, 4, false, b->limits.bf16_ops); }
void bench_gemm_f32_bf16(struct bench *b) { bench_gemm(b, &b->k->f32_a16, 16, false, b->limits.bf16_ops); }
