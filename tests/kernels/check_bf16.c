/* BF16 products of --math fast against their formula in double, within the bound of kernels.h; where they keep the products of exact,
 * against plain C bit by bit. */
#include "products.h"
#include "written.h"

#include "kernels/crossovers.h"

#include <math.h>
#include <string.h>

struct bf16_shape {
    size_t n_rows, n_cols, k_group, n_tokens;
    enum zq_dtype dtype;
    int bits; /* 8 or 4: codes; 16: float weights */
};

/* One result of a row of weights and a token, both of BF16 values, and how far from it a kernel's may be. */
static void written(const struct bf16_shape *s, const struct zq_product *p, const float *w, const float *x, const float *scales, size_t token,
                    size_t row, double *want, double *bound)
{
    const size_t group = s->k_group ? s->k_group : s->n_cols, n_groups = s->k_group ? s->n_cols / group : 1;
    const size_t at = token * p->ld_out + row;
    double y = 0, mass = 0, lost = 0;
    for (size_t g = 0; g < n_groups; g++) {
        const double scale = s->bits == 16 ? 1 : (double)scales[row * n_groups + g];
        double sum = 0, size = 0, tiny = 0;
        for (size_t k = g * group; k < (g + 1) * group; k++) {
            const double product = (double)x[k] * (double)w[k];
            sum += product;
            size += fabs(product);
            tiny += 1 + fabs((double)x[k]) + fabs((double)w[k]);
        }
        y += sum * scale;
        mass += size * fabs(scale);
        lost += tiny * fabs(scale);
    }
    const double bias = p->bias ? (double)p->bias[row] : 0, residual = p->residual ? (double)p->residual[at] : 0;
    *want = y + bias + residual;
    *bound = 1.01 * 0x1p-24 * (double)(group + n_groups + 8) * (mass + fabs(bias) + fabs(residual)) + 0x1p-126 * lost;
    *bound += 0x1p-149 * (double)(n_groups + 3);
}

static bool stays_exact(const struct bf16_shape *s)
{
    return s->bits != 16 && (s->n_tokens <= FEW_TOKENS_BF16 || s->k_group % 32);
}

static void compare(struct check *c, const struct bf16_shape *s, const struct zq_product *p, const void *values, const float *scales,
                    const float *got)
{
    float *w = check_buffer(c, s->n_rows * s->n_cols * sizeof *w, sizeof *w), *x = check_buffer(c, s->n_cols * sizeof *x, sizeof *x);
    for (size_t i = 0; i < s->n_rows * s->n_cols; i++)
        w[i] = s->bits == 16 ? written_bf16(product_weight(p->w, values, i)) : ((const int8_t *)values)[i];
    for (size_t t = 0; t < s->n_tokens && !c->failed; t++) {
        double want[256], bound[256];
        for (size_t k = 0; k < s->n_cols; k++) x[k] = written_bf16(p->x[t * p->ld_x + k]);
        for (size_t row = 0; row < s->n_rows; row++) written(s, p, w + row * s->n_cols, x, scales, t, row, &want[row], &bound[row]);
        check_near(c, got + t * p->ld_out, want, bound, s->n_rows, "out");
    }
}

static void check_shape(struct check *c, const struct zq_gemm *got, const struct zq_gemm *plain, const struct bf16_shape *s)
{
    check_begin(c);
    const size_t n_groups = s->k_group ? s->n_cols / s->k_group : 1;
    const enum check_values kind = (enum check_values[]){VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY}[check_random(c, 5)];
    struct zq_matrix w = {.n_rows = s->n_rows, .n_cols = s->n_cols, .k_group = s->k_group, .dtype = s->dtype};
    const void *values = s->bits == 16 ? product_weights(c, s->n_rows * s->n_cols, s->dtype, kind) : product_codes(c, s->n_rows * s->n_cols, s->bits);
    const float *scales = s->bits == 16 ? NULL : check_floats(c, s->n_rows * n_groups, check_coin(c) ? VALUES_NORMAL : VALUES_TINY);
    struct zq_product p = {.w = &w, .n_tokens = s->n_tokens, .ld_x = s->n_cols + check_random(c, 3), .ld_out = s->n_rows + check_random(c, 3)};
    const size_t n_x = s->n_tokens ? (s->n_tokens - 1) * p.ld_x + s->n_cols : 0, n_out = s->n_tokens ? (s->n_tokens - 1) * p.ld_out + s->n_rows : 0;
    p.x = check_floats(c, n_x, kind);
    if (check_coin(c)) p.bias = check_floats(c, s->n_rows, VALUES_NORMAL);
    const float *residual = check_coin(c) ? check_floats(c, n_out, VALUES_NORMAL) : NULL;
    const bool in_place = residual && check_coin(c);

    float *out[2];
    for (int i = 0; i < (stays_exact(s) ? 2 : 1); i++) {
        out[i] = p.out = check_buffer(c, n_out * sizeof(float), sizeof(float));
        p.residual = in_place ? memcpy(p.out, residual, n_out * sizeof(float)) : residual;
        const struct zq_gemm *g = i ? plain : got;
        product_pack(c, g, &w, values, s->bits == 16 ? zq_dtype_bytes(s->dtype) : 1, scales);
        product_run(c, g, &p);
    }
    p.residual = residual;
    if (stays_exact(s)) check_same_floats(c, out[0], out[1], n_out, "out");
    else compare(c, s, &p, values, scales, out[0]);
}

static const enum zq_dtype float_dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};

/* Every remainder of rows in two row tiles, of columns in two steps (of 32), and of tokens, one at a time beside random others. */
static void check_tails(struct check *c, const struct zq_gemm *got, const struct zq_gemm *plain, int bits)
{
    enum { COLS = 64, TOKENS = 40 };
    const size_t rows = 2 * got->row_tile;
    for (size_t i = 0; i < rows + COLS + TOKENS && !c->failed; i++) {
        struct bf16_shape s = {.n_rows = 1 + check_random(c, 40), .n_cols = 1 + check_random(c, 70), .n_tokens = 1 + check_random(c, 12),
                               .dtype = bits == 16 ? float_dtypes[i % 3] : ZQ_I8, .bits = bits};
        if (i < rows) s.n_rows = 1 + i;
        else if (i < rows + COLS) s.n_cols = 1 + i - rows, s.n_tokens += FEW_TOKENS_BF16;
        else s.n_tokens = 1 + i - rows - COLS;
        check_shape(c, got, plain, &s);
    }
}

static void check_bf16(struct check *c, const struct zq_gemm *got, const struct zq_gemm *plain, int bits)
{
    if (strstr(got->name, c->level) == NULL) check_fail(c, "its name is %s", got->name);
    check_tails(c, got, plain, bits);
    for (size_t i = 0; i < 120 && !c->failed; i++) {
        struct bf16_shape s = {
            .n_rows = i % 40 == 0 ? 0 : CHECK_PICK(c, 1, 2, 15, 16, 17, 31, 33, 48, 63, 64, 65, 80, 129),
            .n_cols = CHECK_PICK(c, 1, 2, 3, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 96, 128, 255, 256, 257, 344, 512, 576),
            .n_tokens = i % 30 == 0 ? 0 : 1 + check_random(c, i % 3 ? 20 : 40), .dtype = bits == 16 ? float_dtypes[i % 3] : ZQ_I8, .bits = bits,
        };
        const bool whole = s.n_cols % 32 == 0 && check_random(c, 4); /* groups that become BF16 products */
        if (bits != 16 && i % 2) s.k_group = whole ? 32 * product_divisor(c, s.n_cols / 32) : product_divisor(c, s.n_cols);
        check_shape(c, got, plain, &s);
    }
    /* more tokens than a block has, and longer rows than its panel */
    struct bf16_shape s = {.n_rows = 17, .n_cols = 96, .n_tokens = 261, .dtype = bits == 16 ? ZQ_BF16 : ZQ_I8, .bits = bits};
    s.k_group = bits == 16 ? 0 : 32;
    if (!c->failed) check_shape(c, got, plain, &s);
    s.n_cols = 4900;
    s.k_group = 0;
    s.n_tokens = 120;
    if (!c->failed) check_shape(c, got, plain, &s);
    s.n_rows = 70;
    s.n_cols = 20000;
    s.n_tokens = 33;
    if (!c->failed) check_shape(c, got, plain, &s);

    const struct zq_matrix huge = {.n_rows = SIZE_MAX / 2, .n_cols = 4096, .dtype = ZQ_F32};
    if (got->packed_bytes(&huge) != 0) check_fail(c, "packed_bytes() does not notice overflow");
}

void check_gemm_w8_bf16(struct check *c) { check_bf16(c, &c->k->w8_a16, &c->c->w8_a16, 8); }
void check_gemm_w4_bf16(struct check *c) { check_bf16(c, &c->k->w4_a16, &c->c->w4_a16, 4); }
void check_gemm_f32_bf16(struct check *c) { check_bf16(c, &c->k->f32_a16, &c->c->f32_a16, 16); }
