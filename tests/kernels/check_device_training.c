/* The operators of training on a device against the table of this processor: the same bits, but for what kernels/training.h leaves open. Sums in
 * double may differ in their last bits, hence by one in the last place as floats; products and attention are held against a bound. */
#include "device.h"
#include "written.h"

#include "distill/processor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_OUTPUTS = 16, LONGEST = 40, WIDEST = 700 };

/* Arrays that an operator writes, once for each table. */
static struct {
    struct {
        const char *what;
        float *here, *there; /* there: the device's, in memory of this case */
        size_t n;
        double ulps, part;   /* how far they may be apart: of the value itself in 2^-23, and as a part of the largest; both 0: same bits */
    } items[MAX_OUTPUTS];
    size_t n;
} outputs;

/* An array on both sides; `there` is as the device knows it. */
struct both {
    float *here, *there;
};

static float _Alignas(64) scratch[2 * 64 * LONGEST + 2 * WIDEST];
static struct zq_processor processor = {.n_threads = 1, .scratch = scratch, .thread_floats = sizeof scratch / sizeof *scratch};
static const struct zq_training_ops *const plain = &zq_processor_ops;

static float *send(struct device *d, const float *x, size_t n) { return place(d, x, n * sizeof *x); }

/* n values that both begin with; NULL: garbage. */
static struct both output_near(struct device *d, const char *what, const float *x, size_t n, double ulps, double part)
{
    float *here = check_buffer(&d->c, n * sizeof *here, sizeof *here), *there = check_buffer(&d->c, n * sizeof *there, sizeof *there);
    if (x) memcpy(here, x, n * sizeof *here);
    memcpy(there, here, n * sizeof *there);
    if (outputs.n == MAX_OUTPUTS) check_fail(&d->c, "more outputs than the check has room for");
    else outputs.items[outputs.n].what = what, outputs.items[outputs.n].here = here, outputs.items[outputs.n].there = there,
         outputs.items[outputs.n].ulps = ulps, outputs.items[outputs.n].part = part, outputs.items[outputs.n++].n = n;
    return (struct both){here, send(d, there, n)};
}
static struct both output(struct device *d, const char *what, const float *x, size_t n) { return output_near(d, what, x, n, 0, 0); }

static void compare(struct device *d)
{
    fetch(d);
    for (size_t i = 0; i < outputs.n && !d->c.failed; i++) {
        const float *want = outputs.items[i].here, *got = outputs.items[i].there;
        const size_t n = outputs.items[i].n;
        if (outputs.items[i].ulps == 0 && outputs.items[i].part == 0) {
            check_same_floats(&d->c, got, want, n, outputs.items[i].what);
            continue;
        }
        double top = 0;
        for (size_t k = 0; k < n; k++) top = fmax(top, fabs((double)want[k]));
        for (size_t k = 0; k < n && !d->c.failed; k++) {
            const double bound = outputs.items[i].ulps * 0x1p-23 * fabs((double)want[k]) + outputs.items[i].part * top;
            if (!(fabs((double)got[k] - (double)want[k]) <= bound))
                check_fail(&d->c, "%s[%zu] is %.9g, not %.9g, and the bound is %g", outputs.items[i].what, k, (double)got[k], (double)want[k], bound);
        }
    }
    outputs.n = 0;
}

/* The device's table; NULL, and a word, where it has none. */
static const struct zq_training_ops *training(struct device *d)
{
    const struct zq_training_ops *ops = d->plugin->training(d->queue);
    outputs.n = 0;
    if (!ops && d->c.at_end) printf("%s: skipped: there is no cuBLASLt\n", d->c.slot);
    return ops;
}

/* ---- rows and values ---------------------------------------------------------------------------------------------- */

static void norms(struct device *d, const struct zq_training_ops *ops)
{
    struct check *c = &d->c;
    const size_t n = CHECK_PICK(c, 1, 15, 16, 33, 64, 300), n_tokens = 1 + check_random(c, 40), all = n * n_tokens;
    const float *x = check_floats(c, all, VALUES_NORMAL), *dy = check_floats(c, all, VALUES_NORMAL), *more = check_floats(c, all, VALUES_NORMAL);
    const float *gamma = check_floats(c, n, VALUES_NORMAL), *beta = check_floats(c, n, VALUES_NORMAL);
    const bool rms = check_coin(c), onto = check_coin(c);
    struct both out = output(d, "norm", NULL, all), stats = output(d, "statistics", NULL, 2 * n_tokens), dx = output(d, "dx", more, all);
    struct both dgamma = output_near(d, "dgamma", NULL, n, 1, 1e-12), dbeta = output_near(d, "dbeta", NULL, n, 1, 1e-12);
    struct zq_norm_pass pass = {n_tokens, n, rms, 1e-5f, x, stats.here, gamma, rms ? NULL : beta};
    plain->norm(&processor, &pass, out.here);
    plain->norm_back(&processor, &(struct zq_norm_back){pass, dy, onto ? dx.here : NULL, dgamma.here, rms ? NULL : dbeta.here, dx.here});
    pass.x = send(d, x, all), pass.stats = stats.there, pass.gamma = send(d, gamma, n), pass.beta = rms ? NULL : send(d, beta, n);
    ops->norm(d->queue, &pass, out.there);
    const float *add = onto ? dx.there : NULL;
    ops->norm_back(d->queue, &(struct zq_norm_back){pass, send(d, dy, all), add, dgamma.there, rms ? NULL : dbeta.there, dx.there});
    compare(d);
}

static void activations(struct device *d, const struct zq_training_ops *ops, enum zq_activation act)
{
    struct check *c = &d->c;
    const size_t n = 1 + check_random(c, 3000);
    const float *u = check_floats(c, n, VALUES_NORMAL), *times = check_coin(c) ? check_floats(c, n, VALUES_NORMAL) : NULL;
    const float *dy = check_floats(c, n, VALUES_NORMAL);
    struct both out = output(d, "activation", NULL, n), du = output(d, "du", dy, n), dtimes = output(d, "dtimes", dy, n);
    struct zq_activation_pass pass = {act, n, u, times};
    plain->activate(&processor, &pass, out.here);
    plain->activate_back(&processor, &pass, times ? dtimes.here : du.here, du.here, dtimes.here);
    pass.u = send(d, u, n), pass.times = times ? send(d, times, n) : NULL;
    ops->activate(d->queue, &pass, out.there);
    ops->activate_back(d->queue, &pass, times ? dtimes.there : du.there, du.there, dtimes.there);
    compare(d);
}

static void sums(struct device *d, const struct zq_training_ops *ops)
{
    struct check *c = &d->c;
    const size_t n = 1 + check_random(c, 100), ld = n + check_random(c, 3), n_rows = 1 + check_random(c, 60), all = n_rows * n;
    const float *x = check_floats(c, row_values(n_rows, ld, n), VALUES_NORMAL), *bias = check_floats(c, n, VALUES_NORMAL);
    const float *y = check_floats(c, all, VALUES_NORMAL), *residual = check_coin(c) ? y : NULL;
    struct both columns = output_near(d, "column sums", NULL, n, 1, 1e-12), onto = output(d, "sum", y, all);
    struct both apart = output(d, "difference", bias, n);
    double here[100], *there = check_buffer(c, n * sizeof *there, sizeof *there);
    for (size_t i = 0; i < n; i++) here[i] = there[i] = 3 * (double)bias[i];
    struct both begun = output(d, "start", x, row_values(n_rows, ld, n));
    plain->column_sums(&processor, x, ld, n_rows, n, columns.here);
    plain->start(&processor, &(struct zq_rows_start){bias, residual, begun.here, n_rows, n, ld});
    plain->add(&processor, onto.here, y, all);
    plain->scale(&processor, onto.here, 0.37f, all);
    plain->add_columns(&processor, y, n_rows, n, here);
    plain->add_difference(&processor, apart.here, x, y, 0.37f, n);
    ops->column_sums(d->queue, send(d, x, row_values(n_rows, ld, n)), ld, n_rows, n, columns.there);
    ops->start(d->queue, &(struct zq_rows_start){send(d, bias, n), residual ? send(d, y, all) : NULL, begun.there, n_rows, n, ld});
    ops->add(d->queue, onto.there, send(d, y, all), all);
    ops->scale(d->queue, onto.there, 0.37f, all);
    ops->add_columns(d->queue, send(d, y, all), n_rows, n, place(d, there, n * sizeof *there));
    ops->add_difference(d->queue, apart.there, send(d, x, n), send(d, y, n), 0.37f, n);
    compare(d);
    for (size_t i = 0; i < n && !c->failed; i++)
        if (!(fabs(there[i] - here[i]) <= 1e-12 * (double)n_rows)) check_fail(c, "sum of column %zu is %.17g, not %.17g", i, there[i], here[i]);
}

static void losses(struct device *d, const struct zq_training_ops *ops, bool kl)
{
    struct check *c = &d->c;
    const size_t n = 1 + check_random(c, 400), n_tokens = 1 + check_random(c, 5), all = n * n_tokens;
    const float *target = check_floats(c, all, VALUES_NORMAL);
    struct both dy = output_near(d, "gradient of the loss", check_floats(c, all, VALUES_NORMAL), all, kl ? 1 : 0, kl ? 1e-12 : 0);
    double here[5], *there = check_buffer(c, n_tokens * sizeof *there, sizeof *there);
    plain->loss(&processor, &(struct zq_loss_pass){kl, dy.here, target, n_tokens, n, dy.here, here});
    ops->loss(d->queue, &(struct zq_loss_pass){kl, dy.there, send(d, target, all), n_tokens, n, dy.there, place(d, there, n_tokens * sizeof *there)});
    compare(d);
    for (size_t t = 0; t < n_tokens && !c->failed; t++)
        if (!(fabs(there[t] - here[t]) <= 1e-13 * (kl ? 20 : 1) * (fabs(here[t]) + (kl ? 1 : 0))))
            check_fail(c, "loss of token %zu is %.17g, not %.17g", t, there[t], here[t]);
}

static void steps(struct device *d, const struct zq_training_ops *ops)
{
    struct check *c = &d->c;
    const size_t n = 1 + check_random(c, 5000);
    float *second = check_floats(c, n, VALUES_NORMAL);
    const float *grads = check_floats(c, n, VALUES_NORMAL), *values = check_floats(c, n, VALUES_NORMAL);
    for (size_t i = 0; i < n; i++) second[i] *= second[i];
    struct both p = output(d, "parameters", values, n), m = output(d, "first moments", grads, n), v = output(d, "second moments", second, n);
    struct both offsets = output(d, "offsets", values, n), mean = output(d, "mean of gradients", second, n);
    struct both settled = output(d, "mean of offsets", second, n);
    struct zq_adamw_pass adamw = {p.here, m.here, v.here, grads, n, 0.9f, 0.999f, 1e-8f, 0.9999f, 0.01f, 1.7f};
    struct zq_sign_pass sign = {offsets.here, mean.here, settled.here, grads, n, 0.3f, 0.05f, 0.5f};
    plain->adamw(&processor, &adamw);
    plain->signsgd(&processor, &sign);
    adamw.params = p.there, adamw.first = m.there, adamw.second = v.there, adamw.grads = send(d, grads, n);
    sign.params = offsets.there, sign.mean = mean.there, sign.settled = settled.there, sign.grads = adamw.grads;
    ops->adamw(d->queue, &adamw);
    ops->signsgd(d->queue, &sign);
    compare(d);
}

/* c = alpha a b (+ c): (k + 2) * 2^-24 * sum|alpha a b| around the exact value; on tensor cores, which may cut sums off instead of rounding them,
 * twice that. Factors of BF16 are rounded first, as a processor's are (check_matmul.c). Those of TF32 are rounded or cut off by the library, which
 * may be 2^-10 of each, 2^-9 of sum|a b|; the simulator's are F32, so there this case tells nothing of rounding. Few products per sum: in sums
 * of many, errors of both signs hide how large they are. */
static double product_bound(enum zq_factors factors, size_t k)
{
    return (double)(k + 2) * (factors == ZQ_FACTORS_F32 ? 0x1p-24 : 0x1p-23) + (factors == ZQ_FACTORS_TF32 ? 0x1p-9 : 0);
}

static void products(struct device *d, const struct zq_training_ops *ops, enum zq_factors factors)
{
    const bool bf16 = factors == ZQ_FACTORS_BF16;
    struct check *c = &d->c;
    const size_t form = check_random(c, 3);
    struct zq_matmul p = {.m = 1 + check_random(c, 30), .n = 1 + check_random(c, 30), .k = 1 + check_random(c, CHECK_PICK(c, 3, 70)), .alpha = 0.75f,
                          .turn_a = form == 1, .turn_b = form == 2, .add = check_coin(c)};
    p.lda = (p.turn_a ? p.m : p.k) + check_random(c, 4), p.ldb = (p.turn_b ? p.k : p.n) + check_random(c, 4), p.ldc = p.n + check_random(c, 4);
    const size_t n_a = (p.turn_a ? p.k : p.m) * p.lda, n_b = (p.turn_b ? p.n : p.k) * p.ldb, n_c = p.m * p.ldc;
    const float *a = check_floats(c, n_a, VALUES_NORMAL), *b = check_floats(c, n_b, VALUES_NORMAL), *begun = check_floats(c, n_c, VALUES_NORMAL);
    float *got = copy_of(c, begun, n_c * sizeof *got, sizeof *got);
    p.a = send(d, a, n_a), p.b = send(d, b, n_b), p.c = send(d, got, n_c);
    p.factors = factors;
    ops->product(d->queue, &p);
    fetch(d);
    for (size_t i = 0; i < p.m && !c->failed; i++) {
        for (size_t j = 0; j < p.n && !c->failed; j++) {
            double want = p.add ? (double)begun[i * p.ldc + j] : 0, all = fabs(want);
            for (size_t k = 0; k < p.k; k++) {
                const float left = p.turn_a ? a[k * p.lda + i] : a[i * p.lda + k], right = p.turn_b ? b[j * p.ldb + k] : b[k * p.ldb + j];
                const double x = 0.75 * (double)(bf16 ? written_bf16(left) : left) * (double)(bf16 ? written_bf16(right) : right);
                want += x;
                all += fabs(x);
            }
            if (!(fabs((double)got[i * p.ldc + j] - want) <= product_bound(factors, p.k) * all))
                check_fail(c, "product [%zu, %zu] is %.9g, not %.9g", i, j, (double)got[i * p.ldc + j], want);
        }
        for (size_t j = p.n; j < p.ldc; j++)
            if (got[i * p.ldc + j] != begun[i * p.ldc + j]) check_fail(c, "a product wrote beside its columns");
    }
}

void device_train_rows(struct device *d)
{
    const struct zq_training_ops *ops = training(d);
    for (size_t i = 0; ops && i < 7 && !d->c.failed; i++) {
        check_begin(&d->c);
        norms(d, ops);
        check_begin(&d->c);
        activations(d, ops, (enum zq_activation)i);
        sums(d, ops);
        check_begin(&d->c);
        losses(d, ops, i % 2);
        steps(d, ops);
        check_begin(&d->c);
        products(d, ops, ZQ_FACTORS_F32);
        products(d, ops, ZQ_FACTORS_TF32);
        products(d, ops, ZQ_FACTORS_BF16);
    }
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

static void tokens(struct device *d, const struct zq_training_ops *ops)
{
    struct check *c = &d->c;
    const size_t n = CHECK_PICK(c, 1, 31, 64, 257, 600), n_tokens = 1 + check_random(c, 4), all = n * n_tokens;
    static const enum check_values kinds[] = {VALUES_NORMAL, VALUES_OUTLIERS, VALUES_ZERO, VALUES_EQUAL, VALUES_TINY};
    float *x = check_floats(c, all, kinds[check_random(c, ZQ_LEN(kinds))]);
    if (check_coin(c)) x[check_random(c, all)] = check_coin(c) ? INFINITY : NAN;
    struct both out = output(d, "tokens", x, all);
    plain->fake_tokens(&processor, x, out.here, n_tokens, n);
    ops->fake_tokens(d->queue, out.there, out.there, n_tokens, n);
    compare(d);
}

/* Layouts of all kinds for n_cols a multiple of 8. */
static struct zq_layout layout_of(struct check *c, size_t n_rows)
{
    static const int bits[] = {8, 4, 3, 2};
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    struct zq_layout l = {.spec = {bits[check_random(c, 4)], 8, 0}, .scale_dtype = dtypes[check_random(c, 3)]};
    const size_t kind = check_random(c, 3);
    if (kind == 1) l.spec.k_group = 8;
    if (kind == 2) l.row_groups = 1 + check_random(c, n_rows);
    return l;
}

static void weights(struct device *d, const struct zq_training_ops *ops)
{
    struct check *c = &d->c;
    const size_t n_rows = 1 + check_random(c, 20), n_cols = 8 * (1 + check_random(c, 12)), all = n_rows * n_cols;
    const struct zq_layout l = layout_of(c, n_rows);
    float *w = check_floats(c, all, check_coin(c) ? VALUES_NORMAL : VALUES_OUTLIERS);
    const bool spoilt = check_random(c, 4) == 0;
    if (spoilt) w[check_random(c, all)] = NAN;
    uint32_t here = 0, *there = check_buffer(c, sizeof *there, sizeof *there);
    *there = 0;
    struct both out = output(d, "weights", w, all), shared = output(d, "shared scales", w, n_rows);
    struct zq_fake_weights a = {w, out.here, n_rows, n_cols, &l, shared.here, NULL};
    plain->fake_weights(&processor, &a, &here);
    a.w = send(d, w, all), a.out = out.there, a.shared = shared.there;
    ops->fake_weights(d->queue, &a, place(d, there, sizeof *there));
    if (spoilt) {
        fetch(d);
        outputs.n = 0;
    }
    compare(d);
    if (*there != here || here != spoilt) check_fail(c, "a weight that is no number: %u said, %d so", *there, spoilt);
}

/* Every operator of learned roundings in turn, as a step has them. */
static void roundings(struct device *d, const struct zq_training_ops *ops)
{
    struct check *c = &d->c;
    const size_t n_rows = 1 + check_random(c, 12), n_cols = 8 * (1 + check_random(c, 10)), all = n_rows * n_cols;
    const struct zq_layout l = layout_of(c, n_rows);
    const size_t n_groups = l.spec.k_group ? n_cols / l.spec.k_group : 1, n_scales = n_rows * n_groups;
    const int low = l.spec.w_bits == 8 ? -127 : -(1 << (l.spec.w_bits - 1)), high = l.spec.w_bits == 8 ? 127 : (1 << (l.spec.w_bits - 1)) - 1;
    float *scales = check_floats(c, n_scales, VALUES_NORMAL), *w = check_floats(c, all, VALUES_NORMAL), *dw = check_floats(c, all, VALUES_NORMAL);
    float *stretch = check_floats(c, n_scales, VALUES_NORMAL), *offsets = check_floats(c, all, VALUES_NORMAL);
    for (size_t i = 0; i < n_scales; i++) scales[i] = fabsf(scales[i]) / 8 + 0x1p-6f, stretch[i] /= 8;
    int8_t *codes = check_codes(c, all, low, high), *there = copy_of(c, codes, all, 1);
    struct both centres = output(d, "centres", w, all), grads = output(d, "gradients", dw, all), fake = output(d, "values", w, all);
    struct both weight = output(d, "weights", w, all), first = output(d, "first scales", NULL, n_scales);
    struct both present = output(d, "scales", NULL, n_scales), kept = output(d, "kept scales", scales, n_scales);
    struct both slope = output_near(d, "slopes", NULL, n_scales, 1, 1e-12);
    struct both decoded = output(d, "decoded", w, all);
    for (int side = 0; side < 2; side++) {
        const struct zq_training_ops *o = side ? ops : plain;
        void *self = side ? (void *)d->queue : (void *)&processor;
#define SIDE(x) (side ? (x).there : (x).here)
        struct zq_rounding a = {
            .n_rows = n_rows, .n_cols = n_cols, .n_groups = n_groups, .bits = l.spec.w_bits, .scale_dtype = l.scale_dtype, .row_groups = l.row_groups,
            .w = SIDE(weight), .fake = SIDE(fake), .dw = SIDE(grads), .codes = side ? place(d, there, all) : codes, .scales = SIDE(kept),
            .centres = SIDE(centres), .first = SIDE(first), .present = SIDE(present), .slope = SIDE(slope), .reach = 0.4f,
            .stretch = side ? send(d, stretch, n_scales) : stretch,
        };
        o->begin_rounding(self, &a);
        o->add(self, a.w, side ? send(d, offsets, all) : offsets, all);
        o->round(self, &a);
        o->slopes(self, &a);
        o->keep_rounding(self, &a);
        a.fake = SIDE(decoded);
        o->decode(self, &a);
    }
    compare(d);
    check_same_bytes(c, there, codes, all, "codes");
}

void device_train_codes(struct device *d)
{
    const struct zq_training_ops *ops = training(d);
    for (size_t i = 0; ops && i < 12 && !d->c.failed; i++) {
        check_begin(&d->c);
        tokens(d, ops);
        weights(d, ops);
        check_begin(&d->c);
        roundings(d, ops);
    }
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

static struct zq_attention_pass shape_of(struct check *c, size_t i)
{
    const size_t head_dim = (const size_t[]){8, 24, 64, 80, 160}[i % 5], n_kv = 1 + check_random(c, 2), n = n_kv * (1 + check_random(c, 2));
    struct zq_attention_pass a = {
        .heads = {n, n_kv, head_dim, 0, n * head_dim, (n + n_kv) * head_dim, head_dim, head_dim}, .ld = (n + 2 * n_kv) * head_dim,
        .rotary = {.n_rotated = (const size_t[]){0, head_dim, 4}[check_random(c, 3)], .pairs = check_coin(c)}, .causal = check_coin(c),
        .window = check_coin(c) ? 1 + check_random(c, 20) : 0, .scale = (float)(1 / sqrt((double)head_dim)), .n_sequences = 1 + check_random(c, 3),
        .max_length = LONGEST,
    };
    if (n == n_kv && check_coin(c)) { /* NeoX: q, k and v of a head side by side */
        a.heads.k_offset = head_dim, a.heads.v_offset = 2 * head_dim;
        a.heads.q_stride = a.heads.kv_stride = 3 * head_dim;
    }
    return a;
}

void device_train_softmax(struct device *d)
{
    /* what products of FP32 leave in scores moves probabilities by as much, relatively; a wrong key, row or order moves them by far more */
    static const double apart = 3e-5;
    const struct zq_training_ops *ops = training(d);
    struct check *c = &d->c;
    for (size_t i = 0; ops && i < 10 && !c->failed; i++) {
        check_begin(c);
        struct zq_attention_pass a = shape_of(c, i), b;
        uint32_t *begins = check_buffer(c, (a.n_sequences + 1) * sizeof *begins, sizeof *begins);
        for (size_t s = begins[0] = 0; s < a.n_sequences; s++) begins[s + 1] = begins[s] + 1 + (uint32_t)check_random(c, s ? 20 : LONGEST);
        a.n_tokens = begins[a.n_sequences];
        uint32_t *positions = check_buffer(c, a.n_tokens * sizeof *positions, sizeof *positions);
        for (size_t s = 0; s < a.n_sequences; s++)
            for (uint32_t t = begins[s]; t < begins[s + 1]; t++) positions[t] = t - begins[s];
        const size_t n_qkv = a.n_tokens * a.ld, width = a.heads.n_heads * a.heads.head_dim, n_out = a.n_tokens * width;
        const size_t n_table = LONGEST * (a.rotary.n_rotated / 2), n_stats = a.n_tokens * a.heads.n_heads * 3;
        const float *cos = check_floats(c, n_table + 1, VALUES_NORMAL), *sin = check_floats(c, n_table + 1, VALUES_NORMAL);
        const float *dout = check_floats(c, n_out, VALUES_NORMAL);
        float *stats = check_buffer(c, n_stats * sizeof *stats, sizeof *stats);
        struct both qkv = output(d, "rotated", check_floats(c, n_qkv, VALUES_NORMAL), n_qkv);
        struct both out = output_near(d, "attention", NULL, n_out, 0, apart), grads = output_near(d, "its gradients", NULL, n_qkv, 0, apart);
        b = a;
        a.begins = begins, a.positions = positions, a.qkv = qkv.here, a.attended = out.here, a.d_qkv = grads.here, a.d_attended = dout;
        a.rotary.cos = cos, a.rotary.sin = sin;
        b.begins = place(d, begins, (a.n_sequences + 1) * sizeof *begins), b.positions = place(d, positions, a.n_tokens * sizeof *positions);
        b.qkv = qkv.there, b.attended = out.there, b.d_qkv = grads.there, b.d_attended = send(d, dout, n_out);
        b.rotary.cos = send(d, cos, n_table + 1), b.rotary.sin = send(d, sin, n_table + 1), b.stats = send(d, stats, n_stats);
        plain->attend(&processor, &a);
        plain->attend_back(&processor, &a);
        ops->attend(d->queue, &b);
        ops->attend_back(d->queue, &b);
        compare(d);
    }
}
