/* Every operator of a device plug-in against plain C, in bits: zqcheck --cuda-host (the simulator) and --cuda[:N] (a GPU). In the
 * simulator device memory is ours, so operators work in the guarded buffers themselves; for a GPU buffers are copied over and back. */
#include "device.h"

#include "cuda/layout.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PADDED = ZQ_DEVICE_ALIGN };

void *place(struct device *d, const void *host, size_t n_bytes)
{
    if (!host || d->plugin->simulated) return (void *)(uintptr_t)host;
    for (size_t i = 0; i < d->n_copies; i++)
        if (d->copies[i].host == host) return d->copies[i].on_device;
    void *p = d->plugin->alloc(d->queue, n_bytes);
    if (!p || d->n_copies == ZQ_LEN(d->copies)) {
        fprintf(stderr, "zqcheck: no device memory\n");
        exit(1);
    }
    d->plugin->upload(d->queue, p, host, n_bytes);
    d->copies[d->n_copies].on_device = p;
    d->copies[d->n_copies].host = (void *)(uintptr_t)host;
    d->copies[d->n_copies++].n_bytes = n_bytes;
    return p;
}

void fetch(struct device *d)
{
    for (size_t i = 0; i < d->n_copies; i++) {
        d->plugin->download(d->queue, d->copies[i].host, d->copies[i].on_device, d->copies[i].n_bytes);
        d->plugin->free(d->queue, d->copies[i].on_device);
    }
    d->n_copies = 0;
    const char *failure = d->plugin->finish(d->queue);
    if (failure) check_fail(&d->c, "%s", failure);
}

void *copy_of(struct check *c, const void *from, size_t n_bytes, size_t align)
{
    return memcpy(check_buffer(c, n_bytes, align), from, n_bytes);
}
size_t row_values(size_t n_rows, size_t ld, size_t n) { return n_rows ? (n_rows - 1) * ld + n : 0; }
/* h is x in the type: rounded to nearest even, F16 clamped to its range. */
void check_halves(struct check *c, const uint16_t *h, const float *x, size_t n, enum zq_dtype dtype)
{
    for (size_t i = 0; i < n && !c->failed; i++) {
        const float y = dtype == ZQ_F16 ? fminf(fmaxf(x[i], -65504), 65504) : x[i];
        uint16_t want;
        zq_from_float(&want, dtype, &y, 1);
        if (h[i] != want) check_fail(c, "h[%zu] of %g is %04x, not %04x", i, (double)x[i], h[i], want);
    }
}
static enum check_values plain_kind(struct check *c)
{
    return (enum check_values[]){VALUES_NORMAL, VALUES_OUTLIERS, VALUES_EQUAL, VALUES_ZERO, VALUES_TINY}[check_random(c, 5)];
}

/* Outputs of a row operator, twice: [0] for the device, [1] for C. */
struct outputs {
    struct zq_rows_out want[2];
    uint16_t *h; /* the device's F16 or BF16, or NULL */
    size_t n_f, n_q, n_h, n_rows, n;
};

static struct outputs make_outputs(struct check *c, size_t n_rows, size_t n, bool f, bool q)
{
    struct outputs o = {.n_rows = n_rows, .n = n};
    const size_t ld_f = n + check_random(c, 3), ld_q = n + check_random(c, 3);
    o.n_f = f ? row_values(n_rows, ld_f, n) : 0;
    o.n_q = q ? row_values(n_rows, ld_q, n) : 0;
    o.n_h = f && check_coin(c) ? row_values(n_rows, ld_f, n) : 0;
    if (o.n_h) o.h = check_buffer(c, o.n_h * sizeof *o.h, sizeof *o.h);
    for (int i = 0; i < 2; i++) {
        o.want[i] = (struct zq_rows_out){.ld_f = ld_f, .ld_q = ld_q};
        if (f) o.want[i].f = check_buffer(c, o.n_f * sizeof(float), sizeof(float));
        if (q) o.want[i].q = check_buffer(c, o.n_q, 1);
        if (q) o.want[i].scale = check_buffer(c, n_rows * sizeof(float), sizeof(float));
    }
    return o;
}

static struct zq_rows_out place_outputs(struct device *d, const struct outputs *o)
{
    struct zq_rows_out r = o->want[0];
    r.f = place(d, r.f, o->n_f * sizeof(float));
    r.q = place(d, r.q, o->n_q);
    r.scale = place(d, r.scale, o->n_rows * sizeof(float));
    r.h = place(d, o->h, o->n_h * sizeof *o->h);
    r.h_dtype = o->n % 2 ? ZQ_F16 : ZQ_BF16;
    return r;
}

static void compare_outputs(struct device *d, const struct outputs *o)
{
    fetch(d);
    if (o->want[0].f) check_same_floats(&d->c, o->want[0].f, o->want[1].f, o->n_f, "f");
    if (o->want[0].q) check_same_bytes(&d->c, o->want[0].q, o->want[1].q, o->n_q, "q");
    if (o->want[0].q) check_same_floats(&d->c, o->want[0].scale, o->want[1].scale, o->n_rows, "scale");
    const size_t ld = o->want[0].ld_f;
    for (size_t r = 0; o->h && r < o->n_rows; r++) check_halves(&d->c, o->h + r * ld, o->want[1].f + r * ld, o->n, o->n % 2 ? ZQ_F16 : ZQ_BF16);
}

static void device_norm(struct device *d)
{
    struct check *c = &d->c;
    for (size_t i = 0; i < 24 && !c->failed; i++) {
        check_begin(c);
        const size_t n = CHECK_PICK(c, 1, 15, 16, 17, 33, 64, 100, 768), n_rows = 1 + check_random(c, 19), ld = n + check_random(c, 3);
        struct zq_norm a = {.n = n, .ld_x = ld, .eps = 1e-5f, .rms = check_coin(c)};
        const float *x = check_floats(c, row_values(n_rows, ld, n), plain_kind(c)), *gamma = check_floats(c, n, VALUES_NORMAL);
        const float *beta = check_coin(c) ? check_floats(c, n, VALUES_NORMAL) : NULL;
        const bool f = check_coin(c);
        struct outputs o = make_outputs(c, n_rows, n, f, !f || check_coin(c));
        a.x = x, a.gamma = gamma, a.beta = beta, a.out = o.want[1];
        d->layouts.norm(&a, 0, n_rows);
        a.x = place(d, x, row_values(n_rows, ld, n) * sizeof(float));
        a.gamma = place(d, gamma, n * sizeof(float));
        a.beta = place(d, beta, n * sizeof(float));
        a.out = place_outputs(d, &o);
        d->plugin->norm(d->queue, &a, n_rows);
        compare_outputs(d, &o);
    }
}

static void device_activate(struct device *d)
{
    struct check *c = &d->c;
    for (size_t i = 0; i < 28 && !c->failed; i++) {
        check_begin(c);
        const size_t n = CHECK_PICK(c, 1, 31, 64, 172, 255, 256, 257, 700), n_rows = 1 + check_random(c, 4), ld = n + check_random(c, 3);
        struct zq_activate a = {.n = n, .ld_x = ld, .ld_times = ld, .act = (enum zq_activation)(i % 7)};
        const size_t n_x = row_values(n_rows, ld, n);
        const float *x = check_floats(c, n_x, plain_kind(c)), *times = check_coin(c) ? check_floats(c, n_x, VALUES_NORMAL) : NULL;
        const bool f = check_coin(c);
        struct outputs o = make_outputs(c, n_rows, n, f, !f || check_coin(c));
        a.x = x, a.times = times, a.out = o.want[1];
        d->layouts.activate(&a, 0, n_rows);
        a.x = place(d, x, n_x * sizeof(float));
        a.times = place(d, times, n_x * sizeof(float));
        a.out = place_outputs(d, &o);
        d->plugin->activate(d->queue, &a, n_rows);
        compare_outputs(d, &o);
    }
}

/* ---- products ---- */

struct product_case {
    enum zq_device_format format;
    size_t n_rows, n_cols, k_group, n_tokens;
    enum zq_dtype dtype;
    bool float_tokens; /* INT8 products that quantize their input */
    enum zq_device_kernel kernel; /* BY_TABLE: any */
    bool sure;         /* of a library's kernel: it has to serve, so there is no residual */
};

static const struct zq_gemm *slot(const struct zq_kernels *k, enum zq_device_format format)
{
    const struct zq_gemm *const slots[] = {&k->w8_a8, &k->w4_a8, &k->w8_a16, &k->w4_a16, &k->f32_a16};
    return slots[format];
}

void *packed(struct check *c, const struct zq_gemm *g, struct zq_matrix w, const void *values, const float *scales)
{
    w.packed = check_buffer(c, g->packed_bytes(&w), 64);
    const size_t value = w.dtype == ZQ_I8 ? 1 : zq_dtype_bytes(w.dtype), groups = w.k_group ? w.n_cols / w.k_group : 1;
    for (size_t row = 0, n; row < w.n_rows; row += n) {
        n = w.n_rows - row < g->row_tile ? w.n_rows - row : g->row_tile;
        g->pack(&w, row, n, (const uint8_t *)values + row * w.n_cols * value, scales ? scales + row * groups : NULL);
    }
    return w.packed;
}

/* Tokens of both kinds for a case: C always reads codes in INT8 products. */
static void make_tokens(struct device *d, const struct product_case *s, struct zq_product *p)
{
    struct check *c = &d->c;
    const size_t n_x = row_values(s->n_tokens, p->ld_x, s->n_cols);
    float *scale = check_floats(c, s->n_tokens, VALUES_NORMAL);
    int8_t *q = copy_of(c, check_codes(c, n_x, -127, 127), n_x, PADDED);
    p->x = check_floats(c, n_x, plain_kind(c));
    if (s->format >= ZQ_DEVICE_W8A16) return;
    p->q = q, p->scale = scale;
    if (!s->float_tokens) return;
    const struct zq_activate a = {.x = p->x, .ld_x = p->ld_x, .n = s->n_cols, .out = {.q = q, .scale = scale, .ld_q = p->ld_x}};
    d->layouts.activate(&a, 0, s->n_tokens);
}

static bool of_library(enum zq_device_kernel k) { return k == ZQ_KERNEL_CUTLASS || k == ZQ_KERNEL_VENDOR; }

/* Whether an INT8 product took the kernel that it was told to: another one gives the same bits. Libraries refuse some shapes. */
static void check_took(struct device *d, const struct product_case *s, const struct zq_matrix *w, bool residual, enum zq_device_kernel told)
{
    const enum zq_device_kernel took = d->plugin->took(d->queue);
    const bool serves = s->n_tokens > 4 && d->plugin->serves(d->queue, told, w, s->format, residual);
    if (s->format > ZQ_DEVICE_W4A8 || told == ZQ_KERNEL_BY_TABLE) return;
    if (took == told ? !serves : serves && (s->sure || !of_library(told)))
        check_fail(&d->c, "kernel %d took the product, not %d, which %s", (int)took, (int)told, serves ? "serves it" : "cannot serve it");
}

static void check_product(struct device *d, const struct product_case *s)
{
    struct check *c = &d->c;
    check_begin(c);
    const struct zq_gemm *plain = slot(c->c, s->format), *ours = slot(&d->layouts, s->format);
    struct zq_matrix w = {.n_rows = s->n_rows, .n_cols = s->n_cols, .k_group = s->k_group, .dtype = s->dtype};
    const size_t n_groups = s->k_group ? s->n_cols / s->k_group : 1, n = s->n_rows * s->n_cols;
    const bool four = s->format == ZQ_DEVICE_W4A8 || s->format == ZQ_DEVICE_W4A16;
    void *values;
    if (s->format == ZQ_DEVICE_FLOAT) {
        const float *f = check_floats(c, n, VALUES_NORMAL);
        values = check_buffer(c, n * zq_dtype_bytes(s->dtype), zq_dtype_bytes(s->dtype));
        zq_from_float(values, s->dtype, f, n);
    } else values = check_codes(c, n, four ? -8 : -128, four ? 7 : 127);
    const float *scales = s->format == ZQ_DEVICE_FLOAT ? NULL : check_floats(c, s->n_rows * n_groups, VALUES_NORMAL);
    struct zq_product p = {.w = &w, .n_tokens = s->n_tokens, .ld_x = zq_layout_up(s->n_cols, PADDED) + PADDED * check_random(c, 2),
                           .ld_out = s->n_rows + check_random(c, 3) * (s->sure ? 4 : 1)};
    make_tokens(d, s, &p);
    if (check_coin(c)) p.bias = check_floats(c, s->n_rows, VALUES_NORMAL);
    const size_t n_x = row_values(s->n_tokens, p.ld_x, s->n_cols), n_out = row_values(s->n_tokens, p.ld_out, s->n_rows);
    const float *residual = check_coin(c) && !s->sure ? check_floats(c, n_out, VALUES_NORMAL) : NULL;
    float *want = check_buffer(c, n_out * sizeof(float), sizeof(float)), *got = check_buffer(c, n_out * sizeof(float), sizeof(float));

    uint16_t *h = NULL; /* the same tokens as 16 bits, which C reads widened; with cuBLASLt sums have another order: own kernels only */
    if (s->format == ZQ_DEVICE_FLOAT && s->dtype != ZQ_F32 && d->plugin->simulated && check_coin(c)) {
        float *widened = copy_of(c, p.x, n_x * sizeof *widened, sizeof *widened);
        h = check_buffer(c, n_x * sizeof *h, sizeof *h);
        zq_from_float(h, s->dtype, p.x, n_x);
        zq_to_float(widened, h, s->dtype, n_x);
        p.x = widened;
    }

    if (residual) p.residual = memcpy(want, residual, n_out * sizeof(float));
    p.out = want;
    w.packed = packed(c, plain, w, values, scales);
    plain->run(&p, 0, s->n_rows);

    p.q = s->float_tokens ? NULL : place(d, p.q, n_x);
    p.scale = s->float_tokens ? NULL : place(d, p.scale, s->n_tokens * sizeof(float));
    p.x = h ? NULL : place(d, p.x, n_x * sizeof(float));
    p.h = place(d, h, n_x * sizeof *h);
    p.bias = place(d, p.bias, s->n_rows * sizeof(float));
    if (residual) memcpy(got, residual, n_out * sizeof(float));
    p.out = place(d, got, n_out * sizeof(float));
    p.residual = residual ? p.out : NULL;
    w.packed = place(d, packed(c, ours, w, values, scales), ours->packed_bytes(&w));
    const enum zq_device_kernel told = s->kernel ? s->kernel : (enum zq_device_kernel)check_random(c, ZQ_N_DEVICE_KERNELS);
    d->plugin->prefer(d->queue, told);
    d->plugin->product(d->queue, &p, s->format);
    d->plugin->prefer(d->queue, ZQ_KERNEL_BY_TABLE);
    fetch(d);
    check_took(d, s, &w, residual != NULL, told);
    check_same_floats(c, got, want, n_out, "out");
    if (c->failed)
        check_fail(c, "shape"), printf("      rows %zu, columns %zu, groups of %zu, tokens %zu%s\n", s->n_rows, s->n_cols, s->k_group, s->n_tokens,
                                       s->float_tokens ? " as floats" : "");
}

static void check_coded(struct device *d, enum zq_device_format format, const struct product_case *fixed, size_t n_fixed)
{
    struct check *c = &d->c;
    for (size_t i = 0; i < 30 && !c->failed; i++) {
        struct product_case s = {.format = format, .dtype = ZQ_I8, .n_rows = CHECK_PICK(c, 1, 7, 8, 31, 64, 65, 100, 128, 130),
                                 .n_cols = CHECK_PICK(c, 1, 15, 16, 17, 32, 48, 64, 65, 96, 128, 172, 256, 320),
                                 .n_tokens = i % 3 ? 1 + check_random(c, 4) : 5 + check_random(c, 60)};
        if (i % 2) s.k_group = s.n_cols % 32 == 0 && check_coin(c) ? 32 : s.n_cols % 3 == 0 ? s.n_cols / 3 : s.n_cols;
        s.float_tokens = s.n_tokens <= 4 && check_coin(c);
        check_product(d, &s);
    }
    for (size_t i = 0; i < n_fixed && !c->failed; i++) {
        struct product_case s = fixed[i];
        s.format = format;
        s.dtype = ZQ_I8;
        check_product(d, &s);
    }
}

/* Many tokens; more columns than one stage or block of columns holds; groups that end in different passes of a warp. */
static const struct product_case large[] = {
    {.n_rows = 130, .n_cols = 160, .n_tokens = 150},
    {.n_rows = 129, .n_cols = 192, .n_tokens = 131, .k_group = 96},
    {.n_rows = 9, .n_cols = 20000, .n_tokens = 3},
    {.n_rows = 5, .n_cols = 16640, .n_tokens = 2, .k_group = 128, .float_tokens = true},
    {.n_rows = 10, .n_cols = 9000, .n_tokens = 1, .k_group = 1000},
    {.n_rows = 40, .n_cols = 640, .n_tokens = 33},
};

static void device_w8a8(struct device *d) { check_coded(d, ZQ_DEVICE_W8A8, large, ZQ_LEN(large)); }
static void device_w4a8(struct device *d) { check_coded(d, ZQ_DEVICE_W4A8, large, ZQ_LEN(large)); }

/* Whether the device has a kernel for many tokens at all; once for each operator, why it is skipped. */
static bool is_there(struct device *d, enum zq_device_kernel kernel, const char *why_not)
{
    const struct zq_matrix any = {.n_rows = 1, .n_cols = 1, .dtype = ZQ_I8};
    const bool there = d->plugin->serves(d->queue, kernel, &any, ZQ_DEVICE_W8A8, false);
    if (!there && d->c.at_end) printf("%s: skipped: %s\n", d->c.slot, why_not);
    return there;
}

static const char no_cublaslt[] = "there is no cuBLASLt";

/* Hopper's kernel by itself: one tile and several; more stages than it keeps; columns that end within a stage, groups within and behind one. */
static void device_wgmma(struct device *d)
{
    static const struct product_case cases[] = {
        {.n_rows = 130, .n_cols = 160, .n_tokens = 150},
        {.n_rows = 100, .n_cols = 1600, .n_tokens = 9},
        {.n_rows = 61, .n_cols = 17, .n_tokens = 40},
        {.n_rows = 70, .n_cols = 1280, .n_tokens = 33, .k_group = 128},
        {.n_rows = 128, .n_cols = 576, .n_tokens = 16, .k_group = 192},
        {.n_rows = 20, .n_cols = 100, .n_tokens = 5, .k_group = 100},
    };
    if (!is_there(d, ZQ_KERNEL_HOPPER, "this GPU is not of compute capability 9.0, or its driver is too old")) return;
    for (size_t i = 0; i < 2 * ZQ_LEN(cases) && !d->c.failed; i++) {
        struct product_case s = cases[i / 2];
        s.format = i % 2 ? ZQ_DEVICE_W4A8 : ZQ_DEVICE_W8A8;
        s.dtype = ZQ_I8;
        s.kernel = ZQ_KERNEL_HOPPER;
        check_product(d, &s);
    }
}

static void device_float_input(struct device *d)
{
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    struct check *c = &d->c;
    for (size_t i = 0; i < 45 && !c->failed; i++) {
        struct product_case s = {.format = (enum zq_device_format)(ZQ_DEVICE_W8A16 + i % 3), .n_rows = CHECK_PICK(c, 1, 2, 31, 63, 64, 65, 200),
                                 .n_cols = CHECK_PICK(c, 1, 2, 15, 32, 64, 96, 100), .n_tokens = 1 + check_random(c, 19)};
        s.dtype = s.format == ZQ_DEVICE_FLOAT ? dtypes[check_random(c, 3)] : ZQ_I8;
        if (s.format != ZQ_DEVICE_FLOAT && check_coin(c)) s.k_group = s.n_cols % 4 ? s.n_cols : s.n_cols / 4;
        check_product(d, &s);
    }
}

/* Products of few tokens by themselves: more columns than its stages hold; groups that end within a stage, at its end and behind it, and such as
 * it leaves to the other kernel. */
static void device_float_gemv(struct device *d)
{
    static const struct product_case cases[] = {
        {.n_rows = 65, .n_cols = 700, .n_tokens = 1}, {.n_rows = 130, .n_cols = 257, .n_tokens = 3},
        {.n_rows = 64, .n_cols = 320, .n_tokens = 4}, {.n_rows = 31, .n_cols = 384, .n_tokens = 2, .k_group = 128},
        {.n_rows = 70, .n_cols = 384, .n_tokens = 1, .k_group = 12}, {.n_rows = 5, .n_cols = 300, .n_tokens = 4, .k_group = 100},
        {.n_rows = 66, .n_cols = 450, .n_tokens = 1, .k_group = 75},
    };
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    for (size_t i = 0; i < 5 * ZQ_LEN(cases) && !d->c.failed; i++) {
        struct product_case s = cases[i / 5];
        s.format = i % 5 < 2 ? (enum zq_device_format)(ZQ_DEVICE_W8A16 + i % 5) : ZQ_DEVICE_FLOAT;
        s.dtype = i % 5 < 2 ? ZQ_I8 : dtypes[i % 5 - 2];
        if (s.format != ZQ_DEVICE_FLOAT || !s.k_group) check_product(d, &s);
    }
}

/* A witness that owes nothing to this code: the vendor's sums of a product that plain C would take long for, and the simulator for ever. */
static void device_witness(struct device *d)
{
    struct check *c = &d->c;
    if (!is_there(d, ZQ_KERNEL_VENDOR, no_cublaslt)) return;
    check_begin(c);
    const bool small = d->plugin->simulated;
    struct zq_matrix w = {.n_rows = small ? 136 : 1040, .n_cols = small ? 272 : 2080, .dtype = ZQ_I8};
    struct zq_product p = {.w = &w, .n_tokens = small ? 40 : 300, .ld_x = w.n_cols, .ld_out = w.n_rows};
    const size_t n_x = p.n_tokens * w.n_cols, n_out = p.n_tokens * w.n_rows;
    float *ones = check_floats(c, w.n_rows, VALUES_NORMAL), *out = check_buffer(c, n_out * sizeof *out, sizeof *out);
    int32_t *sums = check_buffer(c, n_out * sizeof *sums, sizeof *sums);
    for (size_t i = 0; i < w.n_rows; i++) ones[i] = 1;
    p.q = place(d, copy_of(c, check_codes(c, n_x, -127, 127), n_x, PADDED), n_x);
    p.scale = place(d, ones, w.n_rows * sizeof *ones);
    p.out = place(d, out, n_out * sizeof *out);
    int32_t *const there = place(d, sums, n_out * sizeof *sums);
    const struct zq_gemm *g = &d->layouts.w8_a8;
    w.packed = place(d, packed(c, g, w, check_codes(c, w.n_rows * w.n_cols, -127, 127), ones), g->packed_bytes(&w));
    const bool refused = d->plugin->sums(d->queue, &p, there) != 0;
    d->plugin->product(d->queue, &p, ZQ_DEVICE_W8A8);
    fetch(d);
    if (refused) {
        check_fail(c, "cuBLASLt is there and refuses the product");
        return;
    }
    for (size_t i = 0; i < n_out; i++) ((float *)(void *)sums)[i] = (float)sums[i];
    check_same_floats(c, out, (float *)(void *)sums, n_out, "sums");
}

/* Kernels of libraries. Each shape comes twice such that it has to be served (both want rows and their stride in fours), and twice with any
 * residual and stride: what is refused goes by the rule. */
static void check_library(struct device *d, enum zq_device_kernel kernel, const size_t shapes[][3], size_t n)
{
    for (size_t i = 0; i < 4 * n && !d->c.failed; i++) {
        const size_t *shape = shapes[i / 4];
        check_product(d, &(struct product_case){.format = ZQ_DEVICE_W8A8, .dtype = ZQ_I8, .n_rows = shape[0], .n_cols = shape[1],
                                                .n_tokens = shape[2], .kernel = kernel, .sure = i % 2 && shape[0] % 4 == 0});
    }
}

/* cuBLASLt's sums, scaled in place; a plain loop's in the simulator. */
static void device_vendor(struct device *d)
{
    static const size_t shapes[][3] = {{300, 64, 5}, {17, 128, 40}, {64, 36, 130}};
    if (is_there(d, ZQ_KERNEL_VENDOR, no_cublaslt)) check_library(d, ZQ_KERNEL_VENDOR, shapes, ZQ_LEN(shapes));
}

static void device_cutlass(struct device *d)
{
    static const size_t shapes[][3] = {{300, 64, 5}, {17, 128, 40}, {64, 48, 130}, {392, 1040, 129}};
    if (is_there(d, ZQ_KERNEL_CUTLASS, "the plug-in was built without CUTLASS")) check_library(d, ZQ_KERNEL_CUTLASS, shapes, ZQ_LEN(shapes));
}

/* One product of 16-bit weights and tokens against sums in double. sure: cuBLASLt has to serve it. */
static void check_halves_product(struct device *d, enum zq_dtype dtype, size_t n_rows, size_t n_cols, size_t n_tokens, bool there, bool sure)
{
    struct check *c = &d->c;
    check_begin(c);
    struct zq_matrix w = {.n_rows = n_rows, .n_cols = n_cols, .dtype = dtype};
    struct zq_product p = {.w = &w, .n_tokens = n_tokens, .ld_x = zq_layout_up(n_cols, PADDED) + PADDED * check_random(c, 2),
                           .ld_out = n_rows + check_random(c, 3) * (sure ? 4 : 1)};
    const size_t n_w = n_rows * n_cols, n_x = row_values(n_tokens, p.ld_x, n_cols), n_out = row_values(n_tokens, p.ld_out, n_rows);
    uint16_t *values = check_buffer(c, n_w * sizeof *values, sizeof *values), *h = check_buffer(c, n_x * sizeof *h, sizeof *h);
    float *wide_w = check_floats(c, n_w, VALUES_NORMAL), *wide_x = check_floats(c, n_x, VALUES_NORMAL);
    zq_from_float(values, dtype, wide_w, n_w);
    zq_to_float(wide_w, values, dtype, n_w);
    zq_from_float(h, dtype, wide_x, n_x);
    zq_to_float(wide_x, h, dtype, n_x);
    const float *bias = check_coin(c) ? check_floats(c, n_rows, VALUES_NORMAL) : NULL;
    const bool in_place = check_coin(c);
    float *out = check_floats(c, n_out, VALUES_NORMAL); /* what lies between rows stays */
    const float *residual = check_coin(c) ? in_place ? out : check_floats(c, n_out, VALUES_NORMAL) : NULL;
    double *want = check_buffer(c, n_out * sizeof *want, sizeof *want), *bound = check_buffer(c, n_out * sizeof *bound, sizeof *bound);
    for (size_t i = 0; i < n_out; i++) {
        const size_t token = i / p.ld_out, row = i % p.ld_out;
        double sum = 0, all = 0;
        for (size_t k = 0; k < n_cols && row < n_rows; k++) {
            const double x = (double)wide_w[row * n_cols + k] * (double)wide_x[token * p.ld_x + k];
            sum += x;
            all += fabs(x);
        }
        const double b = bias && row < n_rows ? (double)bias[row] : 0, r = residual ? (double)residual[i] : 0;
        want[i] = row < n_rows ? sum + b + r : (double)out[i];
        bound[i] = row < n_rows ? (double)(n_cols + 4) * 0x1p-23 * (all + fabs(b) + fabs(r)) : 0; /* 2^-23: sums on tensor cores may be cut off */
    }
    p.h = place(d, h, n_x * sizeof *h);
    p.bias = place(d, bias, n_rows * sizeof *bias);
    p.out = place(d, out, n_out * sizeof *out);
    p.residual = place(d, residual, n_out * sizeof *residual);
    const struct zq_gemm *g = &d->layouts.f32_a16;
    w.packed = place(d, packed(c, g, w, values, NULL), g->packed_bytes(&w));
    d->plugin->product(d->queue, &p, ZQ_DEVICE_FLOAT);
    const bool took = d->plugin->took(d->queue) == ZQ_KERNEL_VENDOR;
    fetch(d);
    check_near(c, out, want, bound, n_out, "out");
    if (sure && there != took) check_fail(c, there ? "cuBLASLt is there and refuses the product" : "cuBLASLt took the product and is not there");
    if (c->failed)
        printf("      %s, rows %zu, columns %zu, tokens %zu, bias %d, residual %d, in place %d\n", zq_dtype_name(dtype), n_rows, n_cols, n_tokens,
               bias != NULL, residual != NULL, in_place);
}

/* cuBLASLt's products of 16-bit floats; where it is not, and in the simulator, those of the kernel in its place. */
static void device_halves(struct device *d)
{
    static const size_t shapes[][3] = {{64, 64, 1}, {200, 96, 5}, {136, 320, 40}, {17, 33, 7}};
    const bool there = !d->plugin->simulated && is_there(d, ZQ_KERNEL_VENDOR, no_cublaslt);
    if (d->plugin->simulated && d->c.at_end) printf("halves: cuBLASLt skipped: the simulator has our own kernel only\n");
    for (size_t i = 0; i < 16 * ZQ_LEN(shapes) && !d->c.failed; i++) {
        const size_t *shape = shapes[i / 16];
        check_halves_product(d, i % 2 ? ZQ_F16 : ZQ_BF16, shape[0], shape[1], shape[2], there, shape[0] % 8 == 0);
    }
}

static const struct {
    const char *name;
    void (*run)(struct device *d);
} operators[] = {
    {"norm", device_norm}, {"activate", device_activate}, {"gemm_w8_a8", device_w8a8}, {"gemm_w4_a8", device_w4a8},
    {"wgmma", device_wgmma}, {"float_input", device_float_input}, {"float_gemv", device_float_gemv},
    {"witness", device_witness}, {"vendor", device_vendor}, {"cutlass", device_cutlass}, {"halves", device_halves},
    {"attention", device_attention}, {"prompt", device_prompt}, {"decode", device_decode}, {"embed", device_embed}, {"gather", device_gather},
    {"sample", device_sample}, {"graph", device_graph}, {"train_rows", device_train_rows}, {"train_codes", device_train_codes},
    {"train_softmax", device_train_softmax},
};

int check_device(const char *path, int index, uint64_t seed, const char *filter, enum errand errand)
{
    static struct device d;
    static struct zq_kernels plain;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    zq_plugin_fn *entry = NULL;
    char why[256] = "it is no plug-in of this version";
    if (library) *(void **)(void *)&entry = dlsym(library, "zq_device_plugin");
    if (!library || !entry || entry()->version != ZQ_PLUGIN_VERSION || entry()->open(&d.queue, index, seed, why, sizeof why)) {
        fprintf(stderr, "zqcheck: %s: %s\n", path, library ? why : dlerror());
        return 2;
    }
    d.plugin = entry();
    if (errand != ERRAND_CHECK) {
        char text[256];
        d.plugin->describe(d.queue, text, sizeof text);
        printf("%s%s\n", text, d.plugin->simulated ? "" : d.plugin->training(d.queue) ? ", with cuBLASLt" : ", without cuBLASLt");
        const int failed = errand == ERRAND_BENCH ? bench_device(d.plugin, d.queue) : 0;
        d.plugin->close(d.queue);
        return failed;
    }
    zq_kernels_init(&plain, ZQ_LEVEL_C);
    d.layouts = plain;
    zq_device_layouts(&d.layouts);
    size_t n_failed = 0, n_checked = 0;
    for (size_t i = 0; i < ZQ_LEN(operators); i++) {
        if (filter && !strstr(operators[i].name, filter)) continue;
        for (int at_end = 1; at_end >= 0; at_end--) {
            d.c = (struct check){.k = &plain, .c = &plain, .level = "device", .slot = operators[i].name, .rng = seed, .at_end = at_end};
            operators[i].run(&d);
            check_begin(&d.c);
            if (d.c.failed) break;
        }
        n_checked++;
        n_failed += d.c.failed;
    }
    if (d.plugin->simulated) seed = d.plugin->seed(d.queue);
    d.plugin->close(d.queue);
    printf("%zu device operators checked, %zu failed, seed %llu\n", n_checked, n_failed, (unsigned long long)seed);
    return n_failed ? 1 : 0;
}
