/* zq_measure_ranges against hidden states (what the query maps of an encoder read) and against the tensors of the file; the picture
 * against the places where its boxes must lie. */
#include "golden.h"

#include "checkpoint/checkpoint.h"
#include "eval/plot.h"
#include "fail_alloc.h"
#include "scratch.h"

static const char words[] = "A dark night on the moor, and the hound of the house was out.\nIt rained all the way from the station to the hall.\n";

static zq_model *open_model(const char *dir)
{
    zq_model *m = NULL;
    const zq_open_options o = {.n_threads = 1};
    OK(zq_model_open(&m, dir, &o, err));
    return m;
}

static int by_value(const void *a, const void *b)
{
    return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}

/* A query map reads the hidden states as they are, because norms of BERT come last. */
static void test_tokens(void **state)
{
    (void)state;
    char dir[512];
    model_dir("bert", dir, sizeof dir);
    zq_model *m = open_model(dir);
    zq_model_info info;
    zq_model_info_get(m, &info);
    zq_ranges r;
    /* one thread, as the session below has: BLAS may add up in another order where the rows of a product are cut elsewhere */
    const zq_ranges_options o = {.n_threads = 1, .regex = ".*\\.query"};
    OK(zq_measure_ranges(m, words, sizeof words - 1, &o, &r, err));
    assert_int_equal(r.n_modules, info.n_layers);
    zq_session *s;
    const zq_session_options so = {.n_threads = 1, .keep_hidden = true};
    OK(zq_session_create(&s, m, &so, err));
    for (size_t l = 0; l < info.n_layers; l++) {
        float want[200];
        size_t n_want = 0, n;
        for (const char *line = words; *line; line = strchr(line, '\n') + 1) {
            zq_ids ids = {0};
            OK(zq_tokenizer_encode(zq_model_tokenizer(m), line, (size_t)(strchr(line, '\n') - line), NULL, 0, true, &ids, err));
            const zq_input in = {.ids = ids.ids, .types = ids.types, .n = ids.n};
            OK(zq_session_step(s, &in, 1, err));
            const float *hidden = zq_session_hidden(s, l, &n);
            for (size_t t = 0; t < n; t++) {
                float min = INFINITY, max = -INFINITY;
                for (size_t i = 0; i < info.width; i++) {
                    min = fminf(min, hidden[t * info.width + i]);
                    max = fmaxf(max, hidden[t * info.width + i]);
                }
                want[n_want++] = max - min;
            }
            zq_ids_free(&ids);
        }
        qsort(want, n_want, sizeof *want, by_value);
        assert_int_equal(r.n_tokens, n_want);
        assert_int_equal(r.modules[l].layer, l);
        assert_memory_equal(r.modules[l].tokens, want, n_want * sizeof *want);
        assert_true(fabs(r.modules[l].token_ratio - (double)want[n_want - 1] / want[0]) < 1e-6);
    }
    zq_session_close(s);
    zq_ranges_free(&r);
    zq_model_close(m);
}

/* Conv1D: a row of the map is a column of the stored tensor [in, out]. */
static void test_rows(void **state)
{
    (void)state;
    zq_model *m = open_model("models/novels");
    zq_ranges r;
    const zq_ranges_options o = {.n_threads = 1, .regex = ".*h\\.2\\.attn\\.c_attn", .window = 16, .limit = 16};
    OK(zq_measure_ranges(m, words, sizeof words - 1, &o, &r, err));
    assert_int_equal(r.n_modules, 1);
    assert_int_equal(r.n_tokens, 16);
    struct zq_checkpoint *c;
    OK(zq_checkpoint_open(&c, "models/novels", err));
    char name[200];
    snprintf(name, sizeof name, "%s.weight", r.modules[0].name);
    const struct zq_tensor *t = zq_checkpoint_find(c, name);
    assert_non_null(t);
    const size_t n_cols = t->shape[0], n_rows = t->shape[1];
    assert_int_equal(r.modules[0].n_rows, n_rows);
    float *w = zq_alloc_array(n_rows * n_cols, sizeof *w), min_all = 0, max_all = 0;
    zq_to_float(w, t->bytes, t->dtype, n_rows * n_cols);
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        min_all = fminf(min_all, w[i]);
        max_all = fmaxf(max_all, w[i]);
    }
    const float scale = fmaxf(max_all / 7, -min_all / 8);
    float least = INFINITY, largest = 0;
    for (size_t row = 0; row < n_rows; row++) {
        float min = INFINITY, max = -INFINITY;
        bool used[16] = {false};
        size_t n_used = 0;
        for (size_t k = 0; k < n_cols; k++) {
            const float x = w[k * n_rows + row];
            min = fminf(min, x);
            max = fmaxf(max, x);
            used[(int)nearbyintf(x / scale) + 8] = true;
        }
        for (int i = 0; i < 16; i++) n_used += used[i];
        assert_true(r.modules[0].rows[row] == max - min);
        assert_int_equal(r.modules[0].codes[row], n_used);
        least = fminf(least, max - min);
        largest = fmaxf(largest, max - min);
    }
    assert_true(fabs(r.modules[0].row_ratio - (double)largest / least) < 1e-6);
    zq_free(w);
    zq_checkpoint_close(c);
    zq_ranges_free(&r);
    zq_model_close(m);
}

/* A quantized model is measured by its codes: as far from the original as a step of the codes, and the same for any number of threads. */
static void test_quantized(void **state)
{
    (void)state;
    const zq_quantize_options qo = {.n_threads = 1};
    OK(zq_quantize("models/novels", scratch_path("w8a8"), &qo, NULL, err));
    zq_model *models[2] = {open_model("models/novels"), open_model(scratch_path("w8a8"))};
    zq_ranges r[2];
    const zq_ranges_options o = {.n_threads = 1, .regex = ".*\\.c_fc", .window = 16, .limit = 16};
    for (int i = 0; i < 2; i++) OK(zq_measure_ranges(models[i], words, sizeof words - 1, &o, &r[i], err));
    assert_int_equal(r[0].n_modules, 6);
    for (size_t l = 0; l < 6; l++)
        for (size_t t = 0; t < 16; t++) assert_true(fabsf(r[0].modules[l].tokens[t] / r[1].modules[l].tokens[t] - 1) < 0.05f);
    zq_ranges threads;
    const zq_ranges_options three = {.n_threads = 3, .regex = o.regex, .window = 16, .limit = 16};
    OK(zq_measure_ranges(models[1], words, sizeof words - 1, &three, &threads, err));
    for (size_t l = 0; l < 6; l++) assert_memory_equal(threads.modules[l].tokens, r[1].modules[l].tokens, 16 * sizeof(float));
    zq_ranges_free(&threads);
    for (int i = 0; i < 2; i++) {
        zq_ranges_free(&r[i]);
        zq_model_close(models[i]);
    }
}

static zq_model *model; /* of the operation whose memory fails */

static zq_status measure_and_draw(void *argument, zq_error *err)
{
    (void)argument;
    zq_ranges r;
    const zq_ranges_options o = {.n_threads = 1, .window = 4, .limit = 8};
    zq_status st = zq_measure_ranges(model, words, sizeof words - 1, &o, &r, err);
    if (!st) st = zq_ranges_draw(&r, scratch_path("figure.svg"), err);
    zq_ranges_free(&r);
    return st;
}

static void test_failures(void **state)
{
    (void)state;
    model = open_model("models/novels");
    zq_ranges r;
    zq_error err = {0};
    assert_int_equal(zq_measure_ranges(model, words, sizeof words - 1, &(zq_ranges_options){.regex = "nothing"}, &r, &err), ZQ_EINVAL);
    assert_non_null(strstr(err.message, "nothing"));
    assert_int_equal(zq_measure_ranges(model, words, sizeof words - 1, &(zq_ranges_options){.regex = "("}, &r, &err), ZQ_EINVAL);
    assert_int_equal(zq_measure_ranges(model, words, 1, NULL, &r, &err), ZQ_EINVAL);
    assert_null(r.modules);
    assert_true(fail_each_allocation(measure_and_draw, NULL) > 30);
    zq_model_close(model);
}

static void test_box(void **state)
{
    (void)state;
    const float x[] = {1, 2, 3, 4, 6};
    const struct zq_box b = zq_box_of(x, 5), one = zq_box_of(x + 4, 1), even = zq_box_of(x, 4);
    assert_true(b.min == 1 && b.low == 2 && b.middle == 3 && b.high == 4 && b.max == 6);
    assert_true(one.min == 6 && one.low == 6 && one.middle == 6 && one.max == 6);
    assert_true(even.low == 1.75 && even.middle == 2.5 && even.high == 3.25);
}

/* Axis 0 .. 10 over 280 pixels below y = 46; 0 .. 15 on the left, where a legend stands above the bars. */
static void test_picture(void **state)
{
    (void)state;
    static const double bars[] = {10, 5, NAN}, line[] = {0, 2.5, 10};
    static const struct zq_box boxes[] = {{1, 2, 3, 4, 10}, {0, 0, 0, 0, 0}, {5, 5, 5, 5, 5}};
    static const char *const labels[] = {"a<b", "c&d", "e"};
    const struct zq_series series[] = {{.kind = ZQ_PLOT_BARS, .name = "bars", .values = bars}, {.kind = ZQ_PLOT_LINE, .values = line}};
    const struct zq_series of_boxes = {.kind = ZQ_PLOT_BOXES, .boxes = boxes};
    const struct zq_panel panels[] = {{"left", "x", "y", labels, 0, 3, series, 2}, {"right", "x", "y", NULL, 1, 3, &of_boxes, 1}};
    char *svg;
    OK(zq_plot_svg(&svg, panels, 2, err));
    assert_non_null(strstr(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1120 380\""));
    assert_non_null(strstr(svg, "height=\"186.7\" fill=\"#3b82c4\"")); /* the bar of 10 */
    assert_non_null(strstr(svg, "height=\"93.3\" fill=\"#3b82c4\"")); /* of 5 */
    assert_non_null(strstr(svg, "cy=\"279.3\""));                      /* the line at 2.5: 46 + 280 * 12.5 / 15 */
    assert_non_null(strstr(svg, "height=\"56.0\" fill=\"#3b82c4\" fill-opacity=\"0.35\"")); /* the box from 2 to 4 */
    assert_non_null(strstr(svg, ">a&lt;b</text>"));
    assert_non_null(strstr(svg, ">c&amp;d</text>"));
    assert_null(strstr(svg, "nan"));
    assert_string_equal(svg + strlen(svg) - 7, "</svg>\n");
    zq_free(svg);
}

/* Lines of as many series as a block has maps are told apart. */
static void test_colours(void **state)
{
    (void)state;
    enum { N = 7 };
    static const double values[] = {1, 2};
    struct zq_series series[N];
    char colours[N][8];
    size_t n = 0;
    for (size_t i = 0; i < N; i++) series[i] = (struct zq_series){.kind = ZQ_PLOT_LINE, .values = values};
    const struct zq_panel panel = {"lines", "x", "y", NULL, 0, 2, series, N};
    char *svg;
    OK(zq_plot_svg(&svg, &panel, 1, err));
    for (const char *at = svg; (at = strstr(at, "<circle")); at++) {
        const char *fill = strstr(at, "fill=\"#");
        assert_non_null(fill);
        size_t i = 0;
        while (i < n && strncmp(colours[i], fill + 6, 7)) i++;
        if (i < n) continue;
        assert_true(n < N);
        snprintf(colours[n++], 8, "%s", fill + 6);
    }
    assert_int_equal(n, N);
    zq_free(svg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens), cmocka_unit_test(test_rows), cmocka_unit_test(test_quantized), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_box), cmocka_unit_test(test_picture), cmocka_unit_test(test_colours),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
