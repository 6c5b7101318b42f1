/* Layer-by-layer distillation of one block: the optimizers' arithmetic, a loss that falls on samples it has not seen, the same
 * bits for any number of threads and after a cut at any step, and never a block worse than it came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "distill/lkd.h"
#include "distill/loss.h"
#include "distill/optimizer.h"

#include <math.h>
#include <string.h>

/* ---- optimizers and losses --------------------------------------------------------------------------------------------- */

static void test_adamw(void **state)
{
    (void)state;
    enum { N = 5000, STEPS = 7 };
    static float p[N], g[N], moments[2 * N];
    static double want[N], m[N], v[N];
    uint64_t seed = 1;
    const double rate = 1e-2;
    for (int i = 0; i < N; i++) want[i] = p[i] = 2 * zq_rng_float(&seed) - 1;
    for (int step = 1; step <= STEPS; step++) {
        for (int i = 0; i < N; i++) {
            g[i] = i % 10 ? zq_rng_float(&seed) - 0.4f : 0;
            m[i] = 0.9 * m[i] + 0.1 * g[i];
            v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
            want[i] -= rate * 0.01 * want[i];
            want[i] -= rate * (m[i] / (1 - pow(0.9, step))) / (sqrt(v[i] / (1 - pow(0.999, step))) + 1e-8);
        }
        const struct zq_adamw_pass pass = zq_adamw_pass_at(rate, (size_t)step, p, g, moments, N);
        zq_adamw_run(&pass, 2);
    }
    /* 1 - (float)0.999 differs from 0.001 by 1.6e-5 of it; the steps themselves are at most `rate` each */
    for (int i = 0; i < N; i++) assert_true(fabs(p[i] - want[i]) <= 2e-5 * rate * STEPS + STEPS * 0x1p-23);
}

static void test_signsgd(void **state)
{
    (void)state;
    float p[5] = {0, 0.4f, -0.4f, 0.1f, 0.2f};
    const float g[5] = {1e-20f, -3, 5, 0, -0.0f}, want[5] = {-0.2f, 0.5f, -0.5f, 0.1f, 0.2f};
    float mean[5] = {0}, settled[5] = {0};
    struct zq_sign_pass pass = {.params = p, .mean = mean, .settled = settled, .grads = g, .n = 5, .share = 0.1f, .rate = 0.2f, .limit = 0.5f};
    zq_signsgd_run(&pass, 1);
    assert_memory_equal(p, want, sizeof p);
    for (int i = 0; i < 5; i++) assert_true(fabsf(settled[i] - 0.1f * want[i]) < 1e-7f);
    /* one gradient does not turn a mean of others, unless it is large */
    const float weak[5] = {-1e-21f, 2, -4, 1, 0}, after_weak[5] = {-0.4f, 0.5f, -0.5f, -0.1f, 0.2f};
    const float strong[5] = {0, 5, -9, 0, 0}, after_strong[5] = {-0.5f, 0.3f, -0.3f, -0.3f, 0.2f};
    pass.grads = weak;
    zq_signsgd_run(&pass, 1);
    for (int i = 0; i < 5; i++) assert_true(fabsf(p[i] - after_weak[i]) < 1e-6f);
    for (int i = 0; i < 5; i++) assert_true(fabsf(settled[i] - (0.09f * want[i] + 0.1f * after_weak[i])) < 1e-6f);
    pass.grads = strong;
    zq_signsgd_run(&pass, 1);
    for (int i = 0; i < 5; i++) assert_true(fabsf(p[i] - after_strong[i]) < 1e-6f);
}

static void test_kl(void **state)
{
    (void)state;
    enum { T = 3, N = 7 };
    float y[T * N], target[T * N], dy[T * N];
    double sums[T];
    uint64_t seed = 4;
    for (int i = 0; i < T * N; i++) {
        y[i] = 4 * zq_rng_float(&seed) - 2;
        target[i] = 4 * zq_rng_float(&seed) - 2;
    }
    assert_true(fabs(zq_loss_kl(y, y, T, N, NULL, sums, 1)) < 1e-15);
    double want = 0;
    for (int t = 0; t < T; t++) {
        double p_sum = 0, q_sum = 0;
        for (int i = 0; i < N; i++) {
            p_sum += exp(target[t * N + i]);
            q_sum += exp(y[t * N + i]);
        }
        for (int i = 0; i < N; i++) {
            const double p = exp(target[t * N + i]) / p_sum, q = exp(y[t * N + i]) / q_sum;
            want += p * log(p / q) / T;
            dy[t * N + i] = (float)((q - p) / T);
        }
    }
    float got[T * N];
    assert_true(fabs(zq_loss_kl(y, target, T, N, got, sums, 2) - want) <= 1e-14);
    for (int i = 0; i < T * N; i++) assert_true(fabsf(got[i] - dy[i]) <= 1e-7f);
}

/* ---- runs -------------------------------------------------------------------------------------------------------------- */

enum { WIDTH = 32, LENGTH = 12, SAMPLES = 40, BATCH = 6, VALUES = SAMPLES * LENGTH * WIDTH };

struct lesson {
    struct zq_student *s;
    float x[VALUES], target[VALUES];
    struct zq_lkd_samples samples;
};

/* Tokens as models have them: a few directions hold most of what there is. */
static void fill_samples(float *x, uint64_t seed)
{
    enum { DIRECTIONS = 5 };
    float directions[DIRECTIONS][WIDTH];
    for (int d = 0; d < DIRECTIONS; d++)
        for (int i = 0; i < WIDTH; i++) directions[d][i] = 2 * zq_rng_float(&seed) - 1;
    for (size_t t = 0; t < SAMPLES * LENGTH; t++, x += WIDTH) {
        for (int i = 0; i < WIDTH; i++) x[i] = (2 * zq_rng_float(&seed) - 1) / 10;
        for (int d = 0; d < DIRECTIONS; d++) {
            const float much = 2 * zq_rng_float(&seed) - 1;
            for (int i = 0; i < WIDTH; i++) x[i] += much * directions[d][i];
        }
    }
}

/* A random block of a family in W4A8, samples, and what the teacher makes of them. */
static struct lesson *open_lesson(const char *family, int n_threads)
{
    const struct zq_arch *arch = zq_arch_find(family);
    const struct zq_config c = {
        .arch = arch, .width = WIDTH, .n_heads = 4, .n_kv_heads = 4, .head_dim = 8, .ffn_width = 96, .max_length = LENGTH, .norm = arch->norm,
        .activation = ZQ_ACT_GELU, .gated = arch->names.linear[ZQ_GATE] != NULL, .norm_eps = 1e-5,
        .n_rotated = arch->positions == ZQ_POS_LEARNED ? 0 : 4, .theta = 10000,
    };
    struct zq_student_options o = {
        .config = &c, .max_sequences = BATCH, .max_length = LENGTH, .max_tokens = BATCH * LENGTH,
        .trains = true, .adam = true, .n_threads = n_threads,
    };
    for (int r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r] = (struct zq_layout){.spec = {4, 8, 0}};
    struct lesson *l = zq_alloc_zero(sizeof *l);
    assert_int_equal(zq_student_create(&l->s, &o, NULL), ZQ_OK);
    uint64_t seed = 2;
    for (size_t i = 0; i < l->s->n_params; i++) l->s->params[i] = (2 * zq_rng_float(&seed) - 1) / 4;
    for (size_t i = 0; i < WIDTH; i++) l->s->norm1.gamma[i] += 1;
    for (size_t i = 0; i < WIDTH && l->s->norm2.gamma; i++) l->s->norm2.gamma[i] += 1;
    fill_samples(l->x, 3);
    for (int r = 0; r < ZQ_N_LINEARS; r++) l->s->linear[r].has_bias = true;
    l->samples = (struct zq_lkd_samples){.x = l->x, .target = l->target, .n = SAMPLES, .length = LENGTH};
    zq_lkd_teach(l->s, &l->samples, BATCH, l->target);
    return l;
}

static void close_lesson(struct lesson *l)
{
    zq_student_free(l->s);
    zq_free(l);
}

static const struct zq_lkd_options paper = {.n_iterations = 60, .batch = BATCH, .rate = 1e-3, .holdout = 0.2, .seed = 5};

/* Runs to the end; the loss that judges, before and after. */
static double run_to_end(struct lesson *l, const struct zq_lkd_options *o, double *before)
{
    struct zq_lkd run;
    assert_int_equal(zq_lkd_begin(&run, l->s, &l->samples, o, NULL), ZQ_OK);
    for (size_t i = 0; i < o->n_iterations + 3; i++) zq_lkd_step(&run); /* what is asked for beyond the end does nothing */
    assert_int_equal(run.iteration, run.diverged ? run.iteration : o->n_iterations);
    *before = run.before;
    return zq_lkd_end(&run);
}

static void test_learns(void **state)
{
    struct lesson *l = open_lesson(*state, 2);
    for (int loss = ZQ_LOSS_MSE; loss <= ZQ_LOSS_KL; loss++) {
        struct zq_lkd_options o = paper;
        double before;
        o.loss = (enum zq_loss)loss;
        const double after = run_to_end(l, &o, &before);
        if (!(after < 0.85 * before)) fail_msg("%s: loss %d on held-out samples went from %g to %g", (char *)*state, loss, before, after);
        memcpy(l->s->params, l->s->start, l->s->n_params * sizeof(float));
    }
    close_lesson(l);
}

static void test_threads(void **state)
{
    (void)state;
    struct lesson *one = open_lesson("gpt_neox", 1), *three = open_lesson("gpt_neox", 3);
    double before[2];
    const double after = run_to_end(one, &paper, &before[0]);
    assert_true(after == run_to_end(three, &paper, &before[1]) && before[0] == before[1]);
    assert_memory_equal(one->s->params, three->s->params, one->s->n_params * sizeof(float));
    close_lesson(one);
    close_lesson(three);
}

/* Cut after k steps, carried over to another student by what lkd.h names as the state. */
static void test_resume(void **state)
{
    (void)state;
    struct lesson *whole = open_lesson("bert", 2);
    double before;
    const double after = run_to_end(whole, &paper, &before);
    for (size_t cut = 0; cut <= paper.n_iterations; cut += 17) {
        struct lesson *first = open_lesson("bert", 2), *second = open_lesson("bert", 2);
        struct zq_lkd run;
        assert_int_equal(zq_lkd_begin(&run, first->s, &first->samples, &paper, NULL), ZQ_OK);
        for (size_t i = 0; i < cut; i++) zq_lkd_step(&run);
        const size_t n = run.s->n_params * sizeof(float);
        memcpy(second->s->params, first->s->params, n);
        memcpy(second->s->start, first->s->start, n);
        memcpy(second->s->moments, first->s->moments, 2 * n);
        run.s = second->s;
        run.samples = second->samples;
        close_lesson(first);
        assert_true(zq_student_quantize(run.s));
        while (run.iteration < paper.n_iterations) zq_lkd_step(&run);
        assert_true(zq_lkd_end(&run) == after);
        assert_memory_equal(run.s->params, whole->s->params, n);
        close_lesson(second);
    }
    close_lesson(whole);
}

/* At rates that destroy the block, or blow it up to infinity, it stays as it came. */
static void test_never_worse(void **state)
{
    (void)state;
    static const double rates[] = {0.5, 1e38};
    for (size_t i = 0; i < ZQ_LEN(rates); i++) {
        struct lesson *l = open_lesson("gpt2", 2);
        struct zq_lkd_options o = paper;
        double before;
        o.rate = rates[i];
        const size_t n = l->s->n_params * sizeof(float);
        float *came = zq_alloc(n);
        memcpy(came, l->s->params, n);
        assert_true(run_to_end(l, &o, &before) == before);
        assert_memory_equal(l->s->params, came, n);
        zq_free(came);
        close_lesson(l);
    }
}

/* The rate found is the best of the five at the end of 20 steps, of longer runs such a share of it that they go as far, and the
 * search leaves no trace. */
static void test_rate(void **state)
{
    (void)state;
    struct lesson *l = open_lesson("gpt2", 2);
    const size_t n = l->s->n_params * sizeof(float);
    float *came = zq_alloc(n);
    memcpy(came, l->s->params, n);
    double rate, best = INFINITY, best_rate = 0;
    struct zq_lkd_options o = paper;
    o.n_iterations = 20;
    assert_int_equal(zq_lkd_rate(&rate, l->s, &l->samples, &o, NULL), ZQ_OK);
    assert_memory_equal(l->s->params, came, n);
    for (double r = 5e-6; r < 2e-3; r *= 4) {
        struct zq_lkd run;
        o.rate = r;
        assert_int_equal(zq_lkd_begin(&run, l->s, &l->samples, &o, NULL), ZQ_OK);
        for (int i = 0; i < 20; i++) zq_lkd_step(&run);
        const double loss = zq_lkd_judge(&run);
        if (loss < best) {
            best = loss;
            best_rate = r;
        }
        memcpy(l->s->params, came, n);
    }
    assert_true(rate == best_rate);
    o.n_iterations = 80;
    assert_int_equal(zq_lkd_rate(&rate, l->s, &l->samples, &o, NULL), ZQ_OK);
    assert_true(rate == best_rate / 4);
    zq_free(came);
    close_lesson(l);
}

/* Each epoch meets every sample that is trained on once: after one epoch of single samples all but the held ones have been read. */
static void test_order(void **state)
{
    (void)state;
    struct lesson *l = open_lesson("gpt2", 1);
    struct zq_lkd_options o = paper;
    struct zq_lkd run;
    o.batch = 1;
    o.holdout = 0.25;
    const size_t n_train = SAMPLES - SAMPLES / 4;
    o.n_iterations = 2 * n_train;
    assert_int_equal(zq_lkd_begin(&run, l->s, &l->samples, &o, NULL), ZQ_OK);
    size_t met[2][SAMPLES] = {0}, order[2][SAMPLES];
    for (size_t i = 0; i < 2 * n_train; i++) {
        zq_lkd_step(&run);
        size_t which = 0;
        while (memcmp(l->s->batch_x, l->x + which * LENGTH * WIDTH, LENGTH * WIDTH * sizeof(float))) which++;
        met[i / n_train][which]++;
        order[i / n_train][i % n_train] = which;
    }
    for (size_t i = 0; i < SAMPLES; i++) assert_true(met[0][i] == (i < n_train) && met[1][i] == (i < n_train));
    assert_memory_not_equal(order[0], order[1], n_train * sizeof(size_t));
    close_lesson(l);
}

static void test_errors(void **state)
{
    (void)state;
    struct lesson *l = open_lesson("gpt2", 1);
    struct zq_lkd run;
    zq_error err = {0};
    struct zq_lkd_options o = paper;
    o.batch = BATCH + 1;
    assert_int_equal(zq_lkd_begin(&run, l->s, &l->samples, &o, &err), ZQ_EINVAL);
    assert_string_equal(err.message, "batches of 7 samples of 12 tokens do not fit a block made for 6 samples, 12 tokens each, 72 in all");
    o = paper;
    o.holdout = NAN;
    assert_int_equal(zq_lkd_begin(&run, l->s, &l->samples, &o, &err), ZQ_EINVAL);
    o = paper;
    struct zq_lkd_samples one = l->samples;
    one.n = 1;
    double rate;
    assert_int_equal(zq_lkd_rate(&rate, l->s, &one, &o, &err), ZQ_EINVAL);
    assert_string_equal(err.message, "of 1 samples 1 are held out, and none is left to train on");
    o.holdout = 0;
    assert_int_equal(zq_lkd_begin(&run, l->s, &one, &o, &err), ZQ_OK);
    close_lesson(l);
}

int main(void)
{
    static char *const families[] = {"gpt2", "bert", "gptj", "gpt_neox", "llama"};
    struct CMUnitTest tests[ZQ_LEN(families) + 9] = {
        cmocka_unit_test(test_adamw), cmocka_unit_test(test_signsgd), cmocka_unit_test(test_kl), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_never_worse), cmocka_unit_test(test_rate), cmocka_unit_test(test_order),
        cmocka_unit_test(test_errors),
    };
    for (size_t i = 0; i < ZQ_LEN(families); i++) tests[i + 9] = (struct CMUnitTest){families[i], test_learns, NULL, NULL, families[i]};
    return cmocka_run_group_tests_name("lkd", tests, NULL, NULL);
}
