/* The real sentence classifier on the SST-2 development set: answers and accuracy of the float model and of every scheme,
 * against those of transformers. */
#include "quantized.h"

/* How good answers are, the release build tells; sanitizers see all code in a few sentences. */
#if defined(__SANITIZE_ADDRESS__)
enum { MAX_ROWS = 12 };
#else
enum { MAX_ROWS = 872 };
#endif

/* Answers of the model at `dir` compared with golden logits [872, 2]. */
static void check_answers(const char *dir, const char *tsv, const float *golden, double golden_accuracy, bool close)
{
    zq_model *m = NULL;
    zq_session *s = NULL;
    OK(zq_model_open(&m, dir, NULL, err));
    OK(zq_session_create(&s, m, &(zq_session_options){.n_threads = 2, .max_length = 128}, err));
    size_t n_bytes, n = 0, other = 0, right = 0;
    char *text = read_text(tsv, &n_bytes), *line = text;
    float worst = 0, largest = 0;
    for (; n < MAX_ROWS && *line; n++) {
        char *tab = strchr(line, '\t'), *end = strchr(tab, '\n');
        zq_ids ids = {0};
        OK(zq_tokenizer_encode(zq_model_tokenizer(m), line, (size_t)(tab - line), NULL, 0, true, &ids, err));
        assert_true(ids.n <= 128);
        OK(zq_session_step(s, &(zq_input){.ids = ids.ids, .types = ids.types, .n = ids.n}, 1, err));
        const float *l = zq_session_logits(s, NULL), *want = golden + 2 * n;
        other += (l[1] > l[0]) != (want[1] > want[0]);
        right += (l[1] > l[0]) == (tab[1] == '1');
        for (int i = 0; i < 2; i++) {
            worst = fmaxf(worst, fabsf(l[i] - want[i]));
            largest = fmaxf(largest, fabsf(want[i]));
        }
        zq_ids_free(&ids);
        line = end + 1;
    }
    print_message("  %s: %zu of %zu answers differ, accuracy %.4f (golden %.4f), logits off by %g of %g\n", dir, other, n,
                  (double)right / (double)n, golden_accuracy, (double)worst, (double)largest);
    assert_true(n == MAX_ROWS);
    assert_true(other <= MAX_ROWS / 200); /* 4 of 872 */
    if (n == 872) assert_true(fabs((double)right / 872 - golden_accuracy) <= 4.0 / 872);
    if (close) assert_true(worst <= 2e-4f * largest);
    zq_free(text);
    zq_session_close(s);
    zq_model_close(m);
}

static void check_dev(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g, "minilm-sst2");
    char tsv[600], out[256];
    const char *shared = getenv("ZQ_SHARED");
    snprintf(tsv, sizeof tsv, "%s/data/glue/SST-2/dev.tsv", shared ? shared : "../shared");
    const json_t *accuracy = json_object_get(g.json, "accuracy");
    check_answers(g.dir, tsv, golden_floats(&g, "dev.logits"), json_real_value(json_object_get(accuracy, "fp32")), true);
    static const char *const schemes[] = {"w8a8", "w4a8", "w4/8a8", "w4a16"};
    for (size_t i = 0; i < ZQ_LEN(schemes); i++) {
        char name[64];
        snprintf(name, sizeof name, "dev.%s.logits", schemes[i]);
        make_quantized(g.dir, &(zq_quantize_options){.scheme = schemes[i]}, out, sizeof out);
        check_answers(out, tsv, golden_floats(&g, name), json_real_value(json_object_get(accuracy, schemes[i])), false);
        drop_quantized(out);
    }
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(check_dev)};
    return cmocka_run_group_tests_name("classify", tests, NULL, NULL);
}
