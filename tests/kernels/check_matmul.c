/* Products of training with --math fast against their formula in double, within the bound of kernels.h; and parts of one against the whole, bit
 * by bit. */
#include "check.h"
#include "written.h"

#include "base/alloc.h"
#include "kernels/training.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* An operand of n_rows rows of n_cols values in memory, and how far apart they lie. */
static const float *operand(struct check *c, size_t n_rows, size_t n_cols, size_t *ld, enum check_values kind)
{
    *ld = n_cols + check_random(c, 3);
    return check_floats(c, n_rows ? (n_rows - 1) * *ld + n_cols : 0, kind);
}

static void compare(struct check *c, const struct zq_matmul *p, const float *before)
{
    float *x = check_buffer(c, p->k * sizeof *x, sizeof *x), *y = check_buffer(c, p->n * p->k * sizeof *y, sizeof *y); /* [k], [n, k] */
    for (size_t i = 0; i < p->n * p->k; i++) y[i] = written_bf16(p->b[p->turn_b ? i / p->k * p->ldb + i % p->k : i % p->k * p->ldb + i / p->k]);
    for (size_t i = 0; i < p->m && !c->failed; i++) {
        double want[256], bound[256];
        for (size_t k = 0; k < p->k; k++) x[k] = written_bf16(p->alpha * p->a[p->turn_a ? k * p->lda + i : i * p->lda + k]);
        for (size_t j = 0; j < p->n; j++) {
            const double start = p->add ? (double)before[i * p->ldc + j] : 0;
            double sum = 0, mass = 0, tiny = 0;
            for (size_t k = 0; k < p->k; k++) {
                const double w = (double)y[j * p->k + k], product = (double)x[k] * w;
                sum += product;
                mass += fabs(product);
                tiny += 1 + fabs((double)x[k]) + fabs(w);
            }
            want[j] = sum + start;
            bound[j] = 1.01 * 0x1p-24 * (double)(p->k + 8) * (mass + fabs(start)) + 0x1p-126 * (tiny + 1);
        }
        check_near(c, p->c + i * p->ldc, want, bound, p->n, "c");
    }
}

/* Four parts, cut anywhere. */
static void run_parts(struct check *c, const struct zq_matmul *p, float *to)
{
    const size_t rows[] = {0, check_random(c, p->m + 1), p->m}, cols[] = {0, check_random(c, p->n + 1), p->n};
    for (size_t i = 0; i < 4; i++) {
        const size_t r = rows[i / 2], s = cols[i % 2];
        struct zq_matmul part = *p;
        part.m = rows[i / 2 + 1] - r;
        part.n = cols[i % 2 + 1] - s;
        if (!part.m || !part.n) continue;
        part.a += p->turn_a ? r : r * p->lda;
        part.b += p->turn_b ? s * p->ldb : s;
        part.c = to + r * p->ldc + s;
        c->k->matmul(&part);
    }
}

static void check_shape(struct check *c, size_t m, size_t n, size_t k)
{
    check_begin(c);
    const enum check_values kind = (enum check_values[]){VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY}[check_random(c, 5)];
    const size_t turned = check_random(c, 3);
    struct zq_matmul p = {.m = m, .n = n, .k = k, .alpha = check_coin(c) ? 1 : 0.3f, .turn_a = turned == 1, .turn_b = turned == 2};
    p.add = check_coin(c);
    p.a = p.turn_a ? operand(c, k, m, &p.lda, kind) : operand(c, m, k, &p.lda, kind);
    p.b = p.turn_b ? operand(c, n, k, &p.ldb, VALUES_NORMAL) : operand(c, k, n, &p.ldb, VALUES_NORMAL);
    p.ldc = n + check_random(c, 3);
    const size_t n_c = m ? (m - 1) * p.ldc + n : 0;
    const float *before = check_floats(c, n_c, VALUES_NORMAL);
    float *out = check_buffer(c, n_c * sizeof *out, sizeof *out), *parts = check_buffer(c, n_c * sizeof *out, sizeof *out);
    p.c = memcpy(out, before, n_c * sizeof *out);
    memcpy(parts, before, n_c * sizeof *parts);
    c->k->matmul(&p);
    compare(c, &p, before);
    run_parts(c, &p, parts);
    check_same_floats(c, parts, out, n_c, "parts");
}

void check_matmul_bf16(struct check *c)
{
    enum { ROWS = 40, COLS = 128, DEPTHS = 70 }; /* every remainder of tiles and steps, one at a time beside random others */
    for (size_t i = 0; i < ROWS + COLS + DEPTHS && !c->failed; i++) {
        size_t m = 1 + check_random(c, 20), n = 1 + check_random(c, 40), k = check_random(c, 70);
        if (i < ROWS) m = 1 + i;
        else if (i < ROWS + COLS) n = 1 + i - ROWS;
        else k = i - ROWS - COLS;
        check_shape(c, m, n, k);
    }
    for (size_t i = 0; i < 200 && !c->failed; i++)
        check_shape(c, CHECK_PICK(c, 1, 2, 5, 6, 7, 15, 16, 17, 31, 32, 33, 48, 97), CHECK_PICK(c, 1, 2, 15, 16, 17, 63, 64, 65, 80, 129),
                    CHECK_PICK(c, 0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257));
    for (size_t i = 0; i < 5 && !c->failed; i++) /* more than one panel in every direction */
        check_shape(c, CHECK_PICK(c, 239, 240, 241, 260), CHECK_PICK(c, 60, 191, 193, 200), CHECK_PICK(c, 767, 768, 769, 900));
}

/* ---- timing ------------------------------------------------------------------------------------------------------- */

enum { PART_ROWS = 240 };

struct bench_work {
    const struct zq_kernels *k;
    struct zq_matmul p;
};

static void run_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct bench_work *w = work;
    for (size_t i = begin; i < end; i += PART_ROWS) {
        struct zq_matmul part = w->p;
        part.m = end - i < PART_ROWS ? end - i : PART_ROWS;
        part.a += part.turn_a ? i : i * part.lda;
        part.c += i * part.ldc;
        w->k->matmul(&part);
    }
}

/* The three products of a map of GPT-2's feed-forward part on 3840 tokens: forward, gradient of the input, gradient of the weights. */
void bench_matmul_bf16(struct bench *b)
{
    static const struct zq_matmul products[] = {
        {.m = 3840, .n = 3072, .k = 768, .turn_b = true}, {.m = 3840, .n = 768, .k = 3072}, {.m = 3072, .n = 768, .k = 3840, .turn_a = true},
    };
    for (size_t i = 0; i < ZQ_LEN(products); i++) {
        struct bench_work work = {b->k, products[i]};
        struct zq_matmul *p = &work.p;
        p->alpha = 1;
        p->lda = p->turn_a ? p->m : p->k;
        p->ldb = p->turn_b ? p->k : p->n;
        p->ldc = p->n;
        float *memory = zq_alloc_zero((p->m * p->k + p->k * p->n + p->m * p->n) * sizeof *memory);
        if (!memory) return;
        p->a = memory;
        p->b = memory + p->m * p->k;
        p->c = memory + p->m * p->k + p->k * p->n;
        char what[96];
        snprintf(what, sizeof what, "matmul_bf16 %zux%zux%zu%s%s", p->m, p->n, p->k, p->turn_a ? " a turned" : "", p->turn_b ? " b turned" : "");
        const double seconds = bench_time(b, p->m, PART_ROWS, run_rows, &work);
        bench_print(b, what, 2 * (double)p->m * (double)p->n * (double)p->k / seconds, "GOP/s", b->limits.bf16_ops);
        zq_free(memory);
    }
}
