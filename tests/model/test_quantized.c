/* Whole quantized models, run in integers, against golden values of the same scheme. One activation code that rounds the other
 * way changes everything after it, hence bounds relative to what quantization itself costs: KL(golden quantized || ours) at most
 * a share of KL(golden FP32 || golden quantized). Activations left unquantized would show as 50 to 95 % under w8a8. */
#include "quantized.h"

static const struct {
    const char *scheme;
    double share;
    bool one_sequence; /* golden values of the mixtures cover the first sequence only */
} schemes[] = {
    {"w8a8", 0.30, false},     {"w8a8/16", 0.30, true},  {"w4a8", 0.03, false},
    {"w4/8a8", 0.05, true},    {"w4a16", 0.001, false},  {"w4/8a16", 0.001, true},
};

/* Logits of the first n_sequences of "a" into out. */
static size_t run_a(const struct golden *g, const char *dir, size_t n_sequences, float **out, size_t *n_outputs)
{
    zq_model *m = NULL;
    zq_session *s = NULL;
    OK(zq_model_open(&m, dir, NULL, err));
    zq_model_info info;
    zq_model_info_get(m, &info);
    size_t all, n, rows;
    const int32_t *ids = golden_ids(g, "a.ids", &all, &n);
    const zq_session_options o = {.n_threads = 2, .n_sequences = 2, .max_length = n, .max_batch_tokens = 2 * n, .max_logit_rows = 2 * n};
    OK(zq_session_create(&s, m, &o, err));
    zq_input inputs[2];
    for (size_t i = 0; i < n_sequences; i++) inputs[i] = (zq_input){.sequence = i, .ids = ids + i * n, .n = n, .all_logits = true};
    OK(zq_session_step(s, inputs, n_sequences, err));
    const float *logits = zq_session_logits(s, &rows);
    *n_outputs = info.n_outputs;
    *out = malloc(rows * info.n_outputs * sizeof(float));
    assert_non_null(*out);
    memcpy(*out, logits, rows * info.n_outputs * sizeof(float));
    zq_session_close(s);
    zq_model_close(m);
    return rows;
}

static void check_scheme(const struct golden *g, const char *scheme, double share, bool one_sequence)
{
    char out[256], name[64];
    const zq_quantize_options o = {.scheme = scheme};
    make_quantized(g->dir, &o, out, sizeof out);
    float *got;
    size_t n_outputs;
    const size_t rows = run_a(g, out, one_sequence ? 1 : 2, &got, &n_outputs);
    snprintf(name, sizeof name, "a.%s.logits", scheme);
    const float *golden = golden_floats(g, name), *fp32 = golden_floats(g, "a.logits");
    const double cost = mean_kl(fp32, golden, rows, n_outputs), off = mean_kl(golden, got, rows, n_outputs);
    print_message("  %-8s off by %.3g, quantization costs %.3g: %.4f %% (at most %g %%)\n", scheme, off, cost, 100 * off / cost, 100 * share);
    if (!(off <= share * cost)) fail_msg("%s %s: off by %g, at most %g", g->dir, scheme, off, share * cost);
    free(got);
    drop_quantized(out);
}

static void check_model(void **state)
{
    struct golden g;
    golden_open(&g, *state);
    for (size_t i = 0; i < ZQ_LEN(schemes); i++) check_scheme(&g, schemes[i].scheme, schemes[i].share, schemes[i].one_sequence);
    golden_close(&g);
}

/* Directories that the compressed-tensors library itself wrote; their golden logits were computed from the stored codes and
 * scales, and `llama` is their FP32 original. */
static void check_foreign(void **state)
{
    struct golden g, original;
    golden_open(&g, *state);
    golden_open(&original, "llama");
    float *got;
    size_t n_outputs;
    const size_t rows = run_a(&g, g.dir, 2, &got, &n_outputs);
    const float *golden = golden_floats(&g, "a.logits"), *fp32 = golden_floats(&original, "a.logits");
    const double share = strstr(g.dir, "w4a8") ? 0.03 : strstr(g.dir, "mixed") ? 0.05 : 0.30;
    const double cost = mean_kl(fp32, golden, rows, n_outputs), off = mean_kl(golden, got, rows, n_outputs);
    print_message("  %s off by %.3g, quantization costs %.3g: %.4f %%\n", g.dir, off, cost, 100 * off / cost);
    if (!(off <= share * cost)) fail_msg("%s: off by %g, at most %g", g.dir, off, share * cost);
    free(got);
    golden_close(&g);
    golden_close(&original);
}

static double text_nll(const char *dir, const char *text_path, size_t limit, const zq_model *against, double *kl)
{
    zq_model *m = NULL;
    OK(zq_model_open(&m, dir, NULL, err));
    size_t n;
    char *text = read_text(text_path, &n);
    const zq_eval_options o = {.n_threads = 2, .limit = limit, .against = against};
    zq_eval_result r;
    OK(zq_eval_text(m, text, n, &o, &r, err));
    if (kl) *kl = r.kl;
    zq_free(text);
    zq_model_close(m);
    return r.nll;
}

/* nll and kl on 10,240 ids of text, against the golden ones of the same scheme. */
static void check_text(void **state)
{
    struct golden g;
    golden_open(&g, *state);
    char path[600];
    if (strcmp(*state, "novels")) snprintf(path, sizeof path, "%s/test.txt", g.dir);
    else snprintf(path, sizeof path, "models/novels/heldout.txt");
    zq_model *original = NULL;
    OK(zq_model_open(&original, g.dir, NULL, err));
    static const char *const on_text[] = {"w8a8", "w4a8", "w4a16"};
    for (size_t i = 0; i < ZQ_LEN(on_text); i++) {
        char out[256];
        const zq_quantize_options o = {.scheme = on_text[i]};
        make_quantized(g.dir, &o, out, sizeof out);
        double kl;
        const double nll = text_nll(out, path, 10240, original, &kl);
        const double want = json_real_value(json_object_get(json_object_get(g.json, "nll"), on_text[i]));
        const double want_kl = json_real_value(json_object_get(json_object_get(g.json, "kl"), on_text[i]));
        print_message("  %-6s nll %.5f (golden %.5f), kl %.6f (golden %.6f)\n", on_text[i], nll, want, kl, want_kl);
        if (!(fabs(nll - want) <= (i ? 3e-3 : 1.5e-3))) fail_msg("%s: nll %g, expected %g", on_text[i], nll, want);
        if (!(fabs(kl - want_kl) <= 0.05 * want_kl)) fail_msg("%s: kl %g, expected %g", on_text[i], kl, want_kl);
        drop_quantized(out);
    }
    zq_model_close(original);
    golden_close(&g);
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__) /* one of each kind: the rest differs in numbers, not in code */
    static char *const names[] = {"novels", "stories260k", "gptj", "neox", "bert"};
#else
    static char *const names[] = {"novels", "stories260k", "gptj", "neox", "opt", "llama", "llama-rope3", "mistral", "qwen2", "bert", "minilm-sst2"};
#endif
    static char *const foreign[] = {"ct-w8a8", "ct-w4a8", "ct-mixed"};
    static char *const texts[] = {"novels", "stories260k"};
    struct CMUnitTest tests[ZQ_LEN(names) + ZQ_LEN(foreign) + ZQ_LEN(texts)];
    size_t n = 0;
    for (size_t i = 0; i < ZQ_LEN(names); i++) tests[n++] = (struct CMUnitTest){names[i], check_model, NULL, NULL, names[i]};
    for (size_t i = 0; i < ZQ_LEN(foreign); i++) tests[n++] = (struct CMUnitTest){foreign[i], check_foreign, NULL, NULL, foreign[i]};
#if !defined(__SANITIZE_ADDRESS__) /* gates of accuracy; tests/cli/test_cli_compare.sh runs the same code on fewer tokens */
    for (size_t i = 0; i < ZQ_LEN(texts); i++) tests[n++] = (struct CMUnitTest){"text", check_text, NULL, NULL, texts[i]};
#else
    (void)texts, (void)check_text;
#endif
    return _cmocka_run_group_tests("quantized", tests, n, NULL, NULL); /* n: fewer under sanitizers */
}
