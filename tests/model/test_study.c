/* Studies against the engine: a scheme that kernels run must come out the same when it is simulated; schemes that only studies have
 * against what defines them. */
#include "golden.h"

#include "fail_alloc.h"
#include "scratch.h"

static const char *const dir = "models/novels";
static char text[6000];
static zq_model *original;
#if defined(__SANITIZE_ADDRESS__) /* thirty times slower: one window sees all code */
static const zq_compare_options window = {.n_threads = 1, .window = 64, .limit = 64};
#else
static const zq_compare_options window = {.n_threads = 1, .window = 64, .limit = 256};
#endif

static int setup(void **state)
{
    FILE *f = fopen("models/novels/heldout.txt", "rb");
    if (scratch_open(state) || !f || fread(text, 1, sizeof text, f) != sizeof text) return -1;
    fclose(f);
    OK(zq_model_open(&original, dir, NULL, err));
    return 0;
}

static int teardown(void **state)
{
    zq_model_close(original);
    return scratch_close(state);
}

/* The first half of the text calibrates, the second is measured. */
static zq_model *open_study(const char *spec)
{
    zq_model *m = NULL;
    const zq_study_options o = {.open = {.n_threads = 1}, .text = text, .n_bytes = sizeof text / 2, .limit = 512};
    OK(zq_study_open(&m, dir, spec, &o, err));
    return m;
}

static zq_comparison compare(const zq_model *a, const zq_model *b)
{
    zq_comparison c;
    OK(zq_compare(a, b, text + sizeof text / 2, sizeof text / 2, &window, &c, err));
    return c;
}

/* Codes and scales are those of the quantizer: study and engine differ by the order of float sums, and by codes that fall the other way. */
static void test_agrees_with_engine(void **state)
{
    (void)state;
    static const struct { const char *scheme, *group, *spec; double largest; } cases[] = {
        {"w8a16", NULL, "w8a16", 1e-8}, {"w4/8a16", "rows:7", "w4/8a16,rows:7", 1e-8}, {"w4a16", "k:32", "w4a16,k:32", 1e-8},
        {"w8a8", NULL, "w8a8", 5e-4}, {"w8a8/16", NULL, "w8a8/16", 5e-4},
        {"w3/8a16", "rows:4", "w3/8a16,rows:4", 1e-8}, {"w2a16", "k:32", "w2a16,k:32", 1e-8}, {"w3a8", NULL, "w3a8", 5e-3},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        const zq_quantize_options o = {.scheme = cases[i].scheme, .group = cases[i].group, .n_threads = 1, .force = true};
        OK(zq_quantize(dir, scratch_path("quantized"), &o, NULL, err));
        zq_model *engine = NULL, *study = open_study(cases[i].spec);
        OK(zq_model_open(&engine, scratch_path("quantized"), NULL, err));
        zq_comparison between = compare(engine, study), lost = compare(original, engine);
        if (!(between.kl.mean <= cases[i].largest)) fail_msg("%s: KL %g", cases[i].spec, between.kl.mean);
        assert_true(lost.kl.mean > 2e-5);
        zq_comparison_free(&between);
        zq_comparison_free(&lost);
        zq_model_close(engine);
        zq_model_close(study);
    }
}

#if !defined(__SANITIZE_ADDRESS__) /* a gate of accuracy, in no code that the rest does not run */
static double study_kl(const char *spec)
{
    zq_model *m = open_study(spec);
    zq_comparison c = compare(original, m);
    const double kl = c.kl.mean;
    zq_comparison_free(&c);
    zq_model_close(m);
    return kl;
}

static void test_what_hurts(void **state)
{
    (void)state;
    const double w8a8 = study_kl("w8a8"), w16a8 = study_kl("w16a8"), w8a16 = study_kl("w8a16"), largest = study_kl("w8a8,tensor,static:minmax");
    assert_true(w16a8 > 0 && w8a16 > 0 && w8a16 < w16a8); /* of the two, activations */
    assert_true(study_kl("w4a16,tensor") > 2 * study_kl("w4a16,channel")); /* one scale for a matrix costs */
    assert_true(largest > 1.5 * w8a8);
    /* rounding grows with the scale, clipping with its reciprocal: the three rules differ, and none is as good as a scale of each token */
    const double average = study_kl("w8a8,tensor,static:ema"), percentile = study_kl("w8a8,tensor,static:percentile");
    assert_true(average != largest && average > w8a8);
    assert_true(percentile != largest && percentile != average && percentile > w8a8);
}
#endif

static void assert_refused(const char *spec, const char *model, const char *calibration, zq_status status, const char *words)
{
    zq_model *m = original;
    zq_error err = {0};
    const zq_study_options o = {.text = calibration, .n_bytes = calibration ? strlen(calibration) : 0};
    const zq_status st = zq_study_open(&m, model, spec, &o, &err);
    if (st != status || !strstr(err.message, words)) fail_msg("%s: status %d, \"%s\"", spec, (int)st, err.message);
    assert_null(m);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_refused("w9a8", dir, NULL, ZQ_EINVAL, "w9a8");
    assert_refused("w8a8,matrix", dir, NULL, ZQ_EINVAL, "matrix");
    assert_refused("w8a8,static:mean", dir, "text", ZQ_EINVAL, "static:percentile");
    assert_refused("w8a8,static:minmax", dir, NULL, ZQ_EINVAL, "calibrate");
    assert_refused("w8a8,static:minmax", dir, "text", ZQ_EINVAL, "fewer than one window");
    const zq_quantize_options o = {.n_threads = 1, .force = true};
    OK(zq_quantize(dir, scratch_path("quantized"), &o, NULL, err));
    assert_refused("w8a8", scratch_path("quantized"), NULL, ZQ_EUNSUPPORTED, "quantized already");
}

static zq_status open_once(void *argument, zq_error *err)
{
    zq_model *m;
    const zq_study_options o = {.open = {.n_threads = 1}, .text = text, .n_bytes = 1500, .limit = 256};
    const zq_status st = zq_study_open(&m, argument, "w4a8,tensor,static:percentile", &o, err);
    zq_model_close(m);
    return st;
}

/* Only the study's own allocations are walked: those of opening come first, and have tests of their own. */
static void test_no_memory(void **state)
{
    (void)state;
    char name[] = "models/novels";
    zq_error err = {0};
    zq_alloc_fail_at(0, false);
    assert_int_equal(open_once(name, &err), ZQ_OK);
    const size_t n = zq_alloc_count();
    assert_true(n > 100);
    for (size_t i = n - 90; i <= n; i += 6) { /* each time opens the model anew, and maps take memory in the same way */
        zq_alloc_fail_at(i, false);
        const zq_status st = open_once(name, &err);
        zq_alloc_fail_at(0, false);
        if (st != ZQ_ENOMEM) fail_msg("allocation %zu of %zu: status %d", i, n, (int)st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#if !defined(__SANITIZE_ADDRESS__)
        cmocka_unit_test(test_what_hurts),
#endif
        cmocka_unit_test(test_agrees_with_engine), cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
