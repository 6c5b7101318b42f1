/* zq_compare against the same values computed here from logits and hidden states of plain sessions: means over windows, standard
 * errors of paired differences, errors of layers; lines of an encoder; failures. */
#include "golden.h"

#include "fail_alloc.h"
#include "scratch.h"

enum { WINDOW = 24, N_WINDOWS = 3 };

static char *text; /* a few hundred bytes of the bundled text */
static size_t text_bytes;
static zq_model *original, *quantized;

static zq_model *open_model(const char *dir)
{
    zq_model *m = NULL;
    const zq_open_options o = {.n_threads = 1};
    OK(zq_model_open(&m, dir, &o, err));
    return m;
}

/* The bundled model and its W4A8 form. */
static int open_pair(void **state)
{
    if (scratch_open(state)) return -1;
    const zq_quantize_options o = {.scheme = "w4a8", .n_threads = 1};
    const char *out = scratch_path("w4a8");
    OK(zq_quantize("models/novels", out, &o, NULL, err));
    original = open_model("models/novels");
    quantized = open_model(out);
    text = zq_alloc(600);
    text_bytes = 600;
    FILE *f = fopen("models/novels/heldout.txt", "rb");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, text_bytes, f), text_bytes);
    fclose(f);
    return 0;
}

static int close_pair(void **state)
{
    zq_model_close(original);
    zq_model_close(quantized);
    zq_free(text);
    return scratch_close(state);
}

/* -log p of an id, in double, the long way round. */
static double nll_of(const float *row, size_t n, int32_t id)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) total += exp((double)row[i] - row[id]);
    return log(total);
}

struct expected {
    double nll[2][N_WINDOWS], kl[N_WINDOWS], top1[N_WINDOWS];
    double error[7], norm[7]; /* squares, by layer */
};

static void expect_values(struct expected *x)
{
    const zq_model *models[2] = {original, quantized};
    zq_session *s[2];
    zq_model_info info;
    zq_model_info_get(original, &info);
    assert_int_equal(info.n_layers, 6);
    const zq_session_options o = {.n_threads = 1, .max_length = WINDOW, .max_logit_rows = WINDOW, .keep_hidden = true};
    for (int i = 0; i < 2; i++) OK(zq_session_create(&s[i], models[i], &o, err));
    zq_ids ids = {0};
    OK(zq_tokenizer_encode(zq_model_tokenizer(original), text, text_bytes, NULL, 0, false, &ids, err));
    assert_true(ids.n >= WINDOW * N_WINDOWS);
    for (size_t w = 0; w < N_WINDOWS; w++) {
        const zq_input input = {.ids = ids.ids + w * WINDOW, .n = WINDOW - 1, .all_logits = true};
        const float *logits[2];
        for (int i = 0; i < 2; i++) {
            OK(zq_session_rewind(s[i], 0, 0, err));
            OK(zq_session_step(s[i], &input, 1, err));
            logits[i] = zq_session_logits(s[i], NULL);
        }
        for (size_t t = 0; t < WINDOW - 1; t++) {
            const float *a = logits[0] + t * info.vocab, *b = logits[1] + t * info.vocab;
            int32_t top_a = 0, top_b = 0;
            double kl = 0;
            for (int32_t v = 0; v < (int32_t)info.vocab; v++) {
                if (a[v] > a[top_a]) top_a = v;
                if (b[v] > b[top_b]) top_b = v;
            }
            const double base_a = nll_of(a, info.vocab, top_a) + a[top_a], base_b = nll_of(b, info.vocab, top_b) + b[top_b];
            for (size_t v = 0; v < info.vocab; v++) kl += exp(a[v] - base_a) * (a[v] - base_a - b[v] + base_b);
            x->nll[0][w] += nll_of(a, info.vocab, input.ids[t + 1]) / (WINDOW - 1);
            x->nll[1][w] += nll_of(b, info.vocab, input.ids[t + 1]) / (WINDOW - 1);
            x->kl[w] += kl / (WINDOW - 1);
            x->top1[w] += (top_a == top_b) / (double)(WINDOW - 1);
        }
        for (size_t l = 0; l <= info.n_layers; l++) {
            const float *a = zq_session_hidden(s[0], l, NULL), *b = zq_session_hidden(s[1], l, NULL);
            for (size_t i = 0; i < (WINDOW - 1) * info.width; i++) {
                x->error[l] += pow((double)a[i] - b[i], 2);
                x->norm[l] += pow(a[i], 2);
            }
        }
    }
    zq_ids_free(&ids);
    for (int i = 0; i < 2; i++) zq_session_close(s[i]);
}

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want)))) fail_msg("%.12g instead of %.12g", got, want);
}

static void assert_spread(const zq_spread *got, const double *x, double tolerance)
{
    double mean = 0, squares = 0, min = x[0], max = x[0];
    for (int i = 0; i < N_WINDOWS; i++) {
        mean += x[i] / N_WINDOWS;
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    for (int i = 0; i < N_WINDOWS; i++) squares += (x[i] - mean) * (x[i] - mean);
    assert_near(got->mean, mean, tolerance);
    assert_near(got->min, min, tolerance);
    assert_near(got->max, max, tolerance);
    assert_near(got->error, sqrt(squares / (N_WINDOWS - 1) / N_WINDOWS), tolerance);
}

/* tolerance: of what depends on the original, a float model. */
static void check_values(const struct expected *x, int n_threads, double tolerance)
{
    zq_comparison c;
    const zq_compare_options o = {.n_threads = n_threads, .window = WINDOW, .limit = WINDOW * N_WINDOWS + 5};
    OK(zq_compare(original, quantized, text, text_bytes, &o, &c, err));
    assert_int_equal(c.kind, ZQ_DECODER);
    assert_int_equal(c.n_sequences, N_WINDOWS);
    assert_int_equal(c.n_tokens, N_WINDOWS * (WINDOW - 1));
    assert_spread(&c.nll[0], x->nll[0], tolerance);
    assert_spread(&c.nll[1], x->nll[1], 1e-9);
    double difference[N_WINDOWS];
    for (int w = 0; w < N_WINDOWS; w++) difference[w] = x->nll[1][w] - x->nll[0][w];
    assert_spread(&c.nll_difference, difference, tolerance);
    assert_true(c.nll_difference.error < c.nll[0].error / 3); /* the point of pairing */
    assert_spread(&c.kl, x->kl, tolerance);
    assert_spread(&c.top1, x->top1, tolerance);
    assert_true(isnan(c.cosine.mean));
    for (size_t l = 0; l <= c.n_layers; l++) {
        assert_near(c.layers[l].relative, sqrt(x->error[l] / x->norm[l]), tolerance);
        /* |b - a|^2 = |a|^2 + |b|^2 - 2ab: for states of nearly the same length the cosine follows from the error */
        assert_near(c.layers[l].cosine, 1 - x->error[l] / x->norm[l] / 2, 5e-3);
    }
    assert_true(c.layers[0].relative == 0 && c.layers[0].cosine == 1 && c.layers[6].relative > 0.01);
    zq_comparison_free(&c);
    assert_null(c.layers);
}

/* With as many threads as the plain sessions have, products of the float model are cut into the same strips. Another cut lets BLAS add up
 * in another order: sums of 256 to 1024 products then differ by some sqrt(1024) * 2^-24 = 2e-6 of the largest, as do logits. Those of the
 * quantized model stay the same. */
static void test_decoder(void **state)
{
    (void)state;
    struct expected x = {0};
    expect_values(&x);
    check_values(&x, 1, 1e-9);
    check_values(&x, 2, 2e-5);
}

static void test_itself(void **state)
{
    (void)state;
    zq_comparison c;
    const zq_compare_options o = {.n_threads = 1, .window = 100, .limit = 100};
    OK(zq_compare(quantized, quantized, text, text_bytes, &o, &c, err));
    assert_int_equal(c.n_sequences, 1);
    assert_true(isnan(c.kl.error)); /* one window has no spread */
    assert_true(c.kl.mean == 0 && c.top1.mean == 1 && c.nll_difference.mean == 0 && c.nll[0].mean == c.nll[1].mean);
    for (size_t l = 0; l <= c.n_layers; l++) assert_true(c.layers[l].relative == 0 && fabs(c.layers[l].cosine - 1) < 1e-12);
    zq_comparison_free(&c);
}

static void test_encoder(void **state)
{
    (void)state;
    static const char lines[] = "A dark night on the moor.\n\nThe hound ran past the house and was gone.\nIt rained.";
    char dir[512];
    model_dir("bert", dir, sizeof dir);
    zq_model *a = open_model(dir);
    const zq_quantize_options o = {.n_threads = 1};
    OK(zq_quantize(dir, scratch_path("bert"), &o, NULL, err));
    zq_model *b = open_model(scratch_path("bert"));
    zq_model_info info;
    zq_model_info_get(a, &info);
    zq_comparison c;
    OK(zq_compare(a, b, lines, sizeof lines - 1, NULL, &c, err));
    assert_int_equal(c.n_sequences, 3);
    assert_true(isnan(c.nll[0].mean));
    assert_true(c.cosine.mean > 0.9 && c.cosine.mean < 1 && c.cosine.min < c.cosine.mean && c.cosine.max > c.cosine.mean);
    assert_true(c.layers[info.n_layers].relative > 0);
    zq_comparison_free(&c);
    const zq_compare_options one = {.limit = 2};
    OK(zq_compare(a, a, lines, sizeof lines - 1, &one, &c, err));
    assert_int_equal(c.n_sequences, 1); /* whole lines, until `limit` ids are reached */
    assert_near(c.cosine.mean, 1, 1e-12);
    zq_comparison_free(&c);
    assert_int_equal(zq_compare(a, b, "\n\n", 2, NULL, &c, NULL), ZQ_EINVAL);
    assert_null(c.layers);
    zq_model_close(a);
    zq_model_close(b);
}

static bool cancel(void *user, size_t done, size_t total)
{
    (void)user;
    return done < total / 2;
}

static void assert_fails(const zq_model *a, const zq_model *b, const zq_compare_options *o, zq_status status, const char *words)
{
    zq_comparison c = {.n_tokens = 1};
    zq_error err = {0};
    const zq_status st = zq_compare(a, b, text, text_bytes, o, &c, &err);
    if (st != status || !strstr(err.message, words)) fail_msg("status %d, \"%s\" instead of %d, \"%s\"", (int)st, err.message, (int)status, words);
    assert_true(!c.layers && !c.n_tokens);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_fails(original, quantized, &(zq_compare_options){.window = 1}, ZQ_EINVAL, "window");
    assert_fails(original, quantized, &(zq_compare_options){.window = 513}, ZQ_ELIMIT, "513");
    assert_fails(original, quantized, &(zq_compare_options){.window = 500}, ZQ_EINVAL, "fewer than one window");
    assert_fails(original, quantized, &(zq_compare_options){.window = 8, .progress = cancel}, ZQ_ECANCELLED, "cancelled");
    char dir[512];
    model_dir("stories260k", dir, sizeof dir);
    zq_model *other = open_model(dir);
    assert_fails(original, other, NULL, ZQ_EINVAL, "different vocabularies");
    zq_model_close(other);
}

static zq_status compare_once(void *argument, zq_error *err)
{
    (void)argument;
    zq_comparison c;
    const zq_compare_options o = {.n_threads = 1, .window = 8, .limit = 16};
    const zq_status st = zq_compare(original, quantized, text, 100, &o, &c, err);
    zq_comparison_free(&c);
    return st;
}

static void test_no_memory(void **state)
{
    (void)state;
    assert_true(fail_each_allocation(compare_once, NULL) > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoder), cmocka_unit_test(test_itself), cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
