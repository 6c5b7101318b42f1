/* Whole float models of every family against golden values: logits, hidden states of every layer, greedy text, nll; prompts at
 * once, token by token, and several sequences of different lengths in one step. */
#include "golden.h"

static zq_model *open_model(const char *dir)
{
    zq_model *m = NULL;
    OK(zq_model_open(&m, dir, NULL, err));
    return m;
}

static zq_session *open_session(const zq_model *m, size_t n_sequences, size_t batch)
{
    zq_session *s = NULL;
    const zq_session_options o = {
        .n_threads = 2, .n_sequences = n_sequences, .max_length = 256, .max_batch_tokens = batch, .max_logit_rows = batch, .keep_hidden = true};
    OK(zq_session_create(&s, m, &o, err));
    return s;
}

/* Both sequences of "a" in one step, with all hidden states. */
static void check_a(const struct golden *g, const zq_model *m, const char *logits_name, bool typed)
{
    zq_model_info info;
    zq_model_info_get(m, &info);
    size_t n_sequences, n;
    const int32_t *ids = golden_ids(g, "a.ids", &n_sequences, &n);
    uint8_t types[32] = {0};
    for (size_t t = n / 2; t < n && typed; t++) types[t] = 1;
    zq_session *s = open_session(m, n_sequences, n_sequences * n);
    zq_input inputs[2];
    assert_true(n_sequences == 2 && n <= sizeof types);
    for (size_t i = 0; i < 2; i++)
        inputs[i] = (zq_input){.sequence = 1 - i, .ids = ids + i * n, .types = typed ? types : NULL, .n = n, .all_logits = true};
    OK(zq_session_step(s, inputs, 2, err));
    size_t n_rows;
    const float *logits = zq_session_logits(s, &n_rows);
    assert_int_equal(n_rows, info.kind == ZQ_ENCODER_CLASSIFY ? 2 : 2 * n);
    assert_close(logits_name, logits, golden_floats(g, logits_name), n_rows * info.n_outputs);
    for (size_t l = 0; l <= info.n_layers && !typed; l++) {
        char name[32];
        snprintf(name, sizeof name, "a.hidden.%zu", l);
        size_t n_tokens;
        const float *hidden = zq_session_hidden(s, l, &n_tokens);
        assert_int_equal(n_tokens, 2 * n);
        assert_close(name, hidden, golden_floats(g, name), n_tokens * info.width);
    }
    zq_session_close(s);
}

/* "b" (200 ids) beside "a"'s first sequence and "c" (one id) in one step: lengths 200, 16 and 1. */
static void check_mixed_lengths(const struct golden *g, const zq_model *m)
{
    zq_model_info info;
    zq_model_info_get(m, &info);
    size_t one, n_a, n_b, n_c;
    const int32_t *a = golden_ids(g, "a.ids", &one, &n_a), *b = golden_ids(g, "b.ids", &one, &n_b), *c = golden_ids(g, "c.ids", &one, &n_c);
    zq_session *s = open_session(m, 3, n_a + n_b + n_c);
    const zq_input inputs[] = {{.sequence = 2, .ids = b, .n = n_b, .all_logits = true}, {.sequence = 0, .ids = a, .n = n_a, .all_logits = true},
                               {.sequence = 1, .ids = c, .n = n_c}};
    OK(zq_session_step(s, inputs, 3, err));
    size_t n_rows;
    const float *logits = zq_session_logits(s, &n_rows);
    const bool classify = info.kind == ZQ_ENCODER_CLASSIFY;
    const size_t rows_b = classify ? 1 : n_b, tail = classify ? 1 : 4, rows_a = classify ? 1 : n_a;
    assert_close("b.logits", logits + (rows_b - tail) * info.n_outputs, golden_floats(g, "b.logits"), tail * info.n_outputs);
    assert_close("a.logits", logits + rows_b * info.n_outputs, golden_floats(g, "a.logits"), rows_a * info.n_outputs);
    assert_close("c.logits", logits + (rows_b + rows_a) * info.n_outputs, golden_floats(g, "c.logits"), info.n_outputs);
    zq_session_close(s);
}

/* "a" token by token and in uneven pieces. */
static void check_steps(const struct golden *g, const zq_model *m)
{
    zq_model_info info;
    zq_model_info_get(m, &info);
    if (info.kind != ZQ_DECODER) return;
    size_t n_sequences, n;
    const int32_t *ids = golden_ids(g, "a.ids", &n_sequences, &n);
    const float *want = golden_floats(g, "a.logits");
    zq_session *s = open_session(m, 2, 2 * n);
    for (size_t t = 0; t < n; t++) {
        const zq_input inputs[] = {{.sequence = 0, .ids = ids + t, .n = 1}, {.sequence = 1, .ids = ids + n + t, .n = 1}};
        OK(zq_session_step(s, inputs, 2, err));
        const float *logits = zq_session_logits(s, NULL);
        assert_close("token by token, 0", logits, want + t * info.n_outputs, info.n_outputs);
        assert_close("token by token, 1", logits + info.n_outputs, want + (n + t) * info.n_outputs, info.n_outputs);
    }
    OK(zq_session_rewind(s, 0, 3, err));
    assert_int_equal(zq_session_length(s, 0), 3);
    const zq_input rest = {.sequence = 0, .ids = ids + 3, .n = n - 3, .all_logits = true};
    OK(zq_session_step(s, &rest, 1, err));
    assert_close("after rewind", zq_session_logits(s, NULL), want + 3 * info.n_outputs, (n - 3) * info.n_outputs);
    zq_session_close(s);
}

static void check_greedy(const struct golden *g, const zq_model *m)
{
    const json_t *greedy = json_object_get(g->json, "greedy");
    if (!greedy) return;
    const zq_tokenizer *tokenizer = zq_model_tokenizer(m);
    const char *prompt = json_string_value(json_object_get(greedy, "prompt"));
    const json_t *prompt_ids = json_object_get(greedy, "ids"), *new_ids = json_object_get(greedy, "new_ids");
    zq_ids ids = {0};
    OK(zq_tokenizer_encode(tokenizer, prompt, strlen(prompt), NULL, 0, true, &ids, err));
    assert_int_equal(ids.n, json_array_size(prompt_ids));
    for (size_t i = 0; i < ids.n; i++) assert_int_equal(ids.ids[i], json_integer_value(json_array_get(prompt_ids, i)));
    zq_session *s = open_session(m, 1, 64);
    zq_input input = {.ids = ids.ids, .n = ids.n};
    int32_t out[64], next;
    zq_sampler sampler = {0};
    zq_model_info info;
    zq_model_info_get(m, &info);
    const size_t n = json_array_size(new_ids);
    assert_true(n > 0 && n <= ZQ_LEN(out));
    for (size_t i = 0; i < n; i++) {
        OK(zq_session_step(s, &input, 1, err));
        OK(zq_sample(&sampler, zq_session_logits(s, NULL), info.n_outputs, &next, err));
        out[i] = next;
        assert_int_equal(next, json_integer_value(json_array_get(new_ids, i)));
        input = (zq_input){.ids = &out[i], .n = 1};
    }
    char *text = NULL;
    OK(zq_tokenizer_decode(tokenizer, out, n, false, &text, NULL, err));
    assert_string_equal(text, json_string_value(json_object_get(greedy, "text")));
    zq_free(text);
    zq_ids_free(&ids);
    zq_session_close(s);
}

static void check_nll(const struct golden *g, const zq_model *m, const char *name)
{
    const json_t *nll = json_object_get(g->json, "nll");
    if (!nll) return;
    char path[600];
    if (!strcmp(name, "stories260k")) snprintf(path, sizeof path, "%s/test.txt", g->dir);
    else snprintf(path, sizeof path, "models/novels/heldout.txt");
    size_t n;
    char *text = read_text(path, &n);
    const size_t window = (size_t)json_integer_value(json_object_get(g->json, "window")),
                 windows = (size_t)json_integer_value(json_object_get(g->json, "windows"));
    const zq_eval_options o = {.n_threads = 2, .limit = window * windows};
    zq_eval_result r;
    OK(zq_eval_text(m, text, n, &o, &r, err));
    const double want = json_real_value(json_object_get(nll, "fp32"));
    assert_int_equal(r.n_tokens, windows * (window - 1));
    if (!(fabs(r.nll - want) < 5e-5)) fail_msg("%s: nll %.6f, expected %.6f", name, r.nll, want);
    zq_free(text);
}

static void check_model(void **state)
{
    const char *name = *state;
    struct golden g;
    golden_open(&g, name);
    zq_model *m = open_model(g.dir);
    check_a(&g, m, "a.logits", false);
    if (golden_find(&g, "a.typed.logits")) check_a(&g, m, "a.typed.logits", true);
    check_mixed_lengths(&g, m);
    check_steps(&g, m);
    check_greedy(&g, m);
#if !defined(__SANITIZE_ADDRESS__) /* 10,240 tokens of text: a gate of accuracy, in no code that the rest does not run */
    check_nll(&g, m, name);
#else
    (void)check_nll;
#endif
    zq_model_close(m);
    golden_close(&g);
}

int main(void)
{
    static char *const names[] = {"novels", "stories260k", "gptj", "neox", "opt", "llama", "llama-rope3", "mistral", "qwen2", "bert", "minilm-sst2"};
    struct CMUnitTest tests[ZQ_LEN(names)];
    for (size_t i = 0; i < ZQ_LEN(names); i++) tests[i] = (struct CMUnitTest){names[i], check_model, NULL, NULL, names[i]};
    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
