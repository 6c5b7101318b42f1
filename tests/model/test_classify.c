/* The real sentence classifier on the SST-2 development set: answers and accuracy of the float model and of every scheme,
 * against those of transformers. */
#include "quantized.h"

/* How good answers are, the release build tells; sanitizers see all code in a few sentences. */
#if defined(__SANITIZE_ADDRESS__)
enum { MAX_ROWS = 12 };
#else
enum { MAX_ROWS = 872 };
#endif

/* Sentences of one step: their rows of logits come in the same order. */
enum { BATCH = 16, MAX_IDS = 128 };

struct answers {
    const float *golden; /* [872, 2] */
    size_t n, other, right;
    float worst, largest;
};

static void count_answer(struct answers *a, const float *l, char label)
{
    const float *want = a->golden + 2 * a->n++;
    a->other += (l[1] > l[0]) != (want[1] > want[0]);
    a->right += (l[1] > l[0]) == (label == '1');
    for (int i = 0; i < 2; i++) {
        a->worst = fmaxf(a->worst, fabsf(l[i] - want[i]));
        a->largest = fmaxf(a->largest, fabsf(want[i]));
    }
}

/* Runs the next lines of text, each "sentence TAB label"; returns what follows them. */
static char *answer_batch(struct answers *a, const zq_model *m, zq_session *s, char *line)
{
    zq_ids ids[BATCH] = {0};
    zq_input inputs[BATCH];
    char labels[BATCH];
    size_t n = 0;
    for (; n < BATCH && a->n + n < MAX_ROWS && *line; n++) {
        char *tab = strchr(line, '\t'), *end = strchr(tab, '\n');
        OK(zq_tokenizer_encode(zq_model_tokenizer(m), line, (size_t)(tab - line), NULL, 0, true, &ids[n], err));
        assert_true(ids[n].n <= MAX_IDS);
        inputs[n] = (zq_input){.sequence = n, .ids = ids[n].ids, .types = ids[n].types, .n = ids[n].n};
        labels[n] = tab[1];
        line = end + 1;
    }
    OK(zq_session_step(s, inputs, n, err));
    for (size_t i = 0; i < n; i++) {
        count_answer(a, zq_session_logits(s, NULL) + 2 * i, labels[i]);
        zq_ids_free(&ids[i]);
    }
    return line;
}

/* Answers of the model at `dir` compared with golden logits. */
static void check_answers(const char *dir, const char *tsv, const float *golden, double golden_accuracy, bool close)
{
    zq_model *m = NULL;
    zq_session *s = NULL;
    OK(zq_model_open(&m, dir, NULL, err));
    const zq_session_options so = {.n_threads = 2, .n_sequences = BATCH, .max_length = MAX_IDS, .max_batch_tokens = BATCH * MAX_IDS};
    OK(zq_session_create(&s, m, &so, err));
    size_t n_bytes;
    char *text = read_text(tsv, &n_bytes), *line = text;
    struct answers a = {.golden = golden};
    while (a.n < MAX_ROWS && *line) line = answer_batch(&a, m, s, line);
    print_message("  %s: %zu of %zu answers differ, accuracy %.4f (golden %.4f), logits off by %g of %g\n", dir, a.other, a.n,
                  (double)a.right / (double)a.n, golden_accuracy, (double)a.worst, (double)a.largest);
    assert_true(a.n == MAX_ROWS);
    assert_true(a.other <= MAX_ROWS / 200); /* 4 of 872 */
    if (a.n == 872) assert_true(fabs((double)a.right / 872 - golden_accuracy) <= 4.0 / 872);
    if (close) assert_true(a.worst <= 2e-4f * a.largest);
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
