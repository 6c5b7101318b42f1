/* Tuning tables: what is written is read; what is damaged or from another version is no harm; where they are looked for; which kernel a product
 * takes by them; and what is measured, with a device that only keeps time. */
#include "base/alloc.h"
#include "base/file.h"
#include "cuda/layout.h"
#include "cuda/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

static zq_error error_text;

static void a_table_is_read_as_written(void **state)
{
    (void)state;
    char path[4096], *text = NULL;
    snprintf(path, sizeof path, "%s", scratch_path("table.txt"));
    struct zq_tuning t = {0}, back;
    const struct zq_tuned items[] = {{ZQ_DEVICE_W8A8, 3072, 768, 0, 128, false, ZQ_KERNEL_WIDE},
                                     {ZQ_DEVICE_W4A8, 64, 256, 128, 8, true, ZQ_KERNEL_HOPPER},
                                     {ZQ_DEVICE_W8A8, 3072, 768, 0, 256, false, ZQ_KERNEL_CUTLASS}};
    for (size_t i = 0; i < 3; i++) assert_int_equal(zq_tuning_put(&t, items[i], &error_text), ZQ_OK);
    struct zq_tuned again = items[0];
    again.kernel = ZQ_KERNEL_SMALL;
    assert_int_equal(zq_tuning_put(&t, again, &error_text), ZQ_OK);
    assert_int_equal(t.n, 3);
    assert_int_equal(zq_tuning_write(&t, path, &error_text), ZQ_OK);
    assert_int_equal(zq_file_read(&text, NULL, path, 1 << 20, &error_text), ZQ_OK);
    assert_string_equal(text, "zeroquant tuning 2\nw8a8 rows 3072 columns 768 group 0 tokens 128 residual no kernel small\n"
                              "w4a8 rows 64 columns 256 group 128 tokens 8 residual yes kernel hopper\n"
                              "w8a8 rows 3072 columns 768 group 0 tokens 256 residual no kernel cutlass\n");
    assert_int_equal(zq_tuning_parse(&back, text, path, &error_text), ZQ_OK);
    assert_int_equal(back.n, 3);
    for (size_t i = 0; i < 3; i++) {
        const struct zq_tuned *a = &back.items[i], *b = &t.items[i];
        assert_true(a->format == b->format && a->n_rows == b->n_rows && a->n_cols == b->n_cols && a->k_group == b->k_group &&
                    a->n_tokens == b->n_tokens && a->residual == b->residual && a->kernel == b->kernel);
    }
    zq_free(text);
    zq_tuning_free(&t);
    zq_tuning_free(&back);
}

static void damaged_tables_are_refused_whole(void **state)
{
    (void)state;
    static const char good[] = "w8a8 rows 3072 columns 768 group 0 tokens 128 residual no kernel wide\n";
    static const char *const bad[] = {"", "zeroquant tuning 1\n", "zeroquant tuning 2",
                                      "zeroquant tuning 2\n%sw8a8 rows 3072 columns 768 group 0 tok",
                                      "zeroquant tuning 2\n%sw8a8 rows 0 columns 768 group 0 tokens 8 residual no kernel wide\n",
                                      "zeroquant tuning 2\n%s\n",
                                      "zeroquant tuning 2\n%sw8a8 rows 3072 columns 768 group 0 tokens 128 residual no kernel wide and more\n",
                                      "zeroquant tuning 2\n%sw8a8 rows 99999999999 columns 768 group 0 tokens 128 residual no kernel wide\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[400];
        struct zq_tuning t;
        snprintf(text, sizeof text, bad[i], good);
        if (zq_tuning_parse(&t, text, "table.txt", &error_text) != ZQ_EFORMAT) fail_msg("taken: %s", text);
        assert_int_equal(t.n, 0);
        assert_null(t.items);
        assert_non_null(strstr(error_text.message, "table.txt"));
    }
}

static void what_another_version_knows_is_passed_over(void **state)
{
    (void)state;
    struct zq_tuning t;
    static const char text[] = "zeroquant tuning 2\nw8a8 rows 8 columns 8 group 0 tokens 8 residual no kernel wgmma\n"
                               "w2a8 rows 8 columns 8 group 0 tokens 8 residual no kernel wide\n"
                               "w4a8 rows 8 columns 8 group 0 tokens 8 residual no kernel wide\n";
    assert_int_equal(zq_tuning_parse(&t, text, "x", &error_text), ZQ_OK);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.items[0].format, ZQ_DEVICE_W4A8);
    zq_tuning_free(&t);
}

static void the_cache_folder_is_the_users(void **state)
{
    (void)state;
    char want[4200];
    setenv("XDG_CACHE_HOME", scratch_dir, 1);
    char *path = zq_tuning_path("NVIDIA H200, compute capability 9.0", true);
    snprintf(want, sizeof want, "%s/zeroquant/tuning-nvidia-h200.txt", scratch_dir);
    assert_string_equal(path, want);
    assert_int_equal(zq_file_write(path, "zeroquant tuning 2\n", 19, &error_text), ZQ_OK); /* its folder was made */
    zq_free(path);
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    setenv("HOME", "/home/someone", 1);
    path = zq_tuning_path("x/../y", false);
    assert_string_equal(path, "/home/someone/.cache/zeroquant/tuning-x----y.txt");
    zq_free(path);
    unsetenv("HOME");
    assert_null(zq_tuning_path("x", false));
}

/* ---- where a table is looked for */

static void describe(struct zq_queue *q, char *text, size_t n) { (void)q, snprintf(text, n, "A card, of no memory"); }

/* Where a plug-in may lie, and where tables for `a card` do, as seen from the scratch directory. */
enum place { THE_USERS, BESIDE, INSTALLED };
static const char plugins[] = "a/b/lib"; /* deep enough for any ZQ_PLUGIN_TO_DATA */
static const char *const places[] = {[THE_USERS] = "cache/zeroquant", [BESIDE] = "a/b/lib", [INSTALLED] = "a/b/lib/" ZQ_PLUGIN_TO_DATA};

static void shell(const char *format, ...)
{
    char command[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command)) fail_msg("%s", command);
}

/* A table of one shape; kernel NULL: what is no table of this version. */
static void put_table(enum place place, const char *device, const char *kernel)
{
    char path[180], text[200] = "zeroquant tuning 1\n";
    shell("mkdir -p '%s'", scratch_path(places[place]));
    snprintf(path, sizeof path, "%s/tuning-%s.txt", places[place], device);
    if (kernel) snprintf(text, sizeof text, "zeroquant tuning 2\nw8a8 rows 8 columns 8 group 0 tokens 8 residual no kernel %s\n", kernel);
    scratch_text(path, text);
}

static int kernel_found(void)
{
    const struct zq_plugin plugin = {.describe = describe};
    struct zq_tuning t;
    zq_tuning_load(&t, &plugin, NULL, scratch_path(plugins));
    const int kernel = t.n ? (int)t.items[0].kernel : -1;
    zq_tuning_free(&t);
    return kernel;
}

static void the_users_table_comes_before_what_is_shipped(void **state)
{
    (void)state;
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    assert_int_equal(kernel_found(), -1);
    put_table(BESIDE, "another-card", "vendor");
    put_table(INSTALLED, "a-card", "small");
    assert_int_equal(kernel_found(), ZQ_KERNEL_SMALL);
    put_table(BESIDE, "a-card", "wide");
    assert_int_equal(kernel_found(), ZQ_KERNEL_WIDE);
    put_table(THE_USERS, "a-card", "hopper");
    assert_int_equal(kernel_found(), ZQ_KERNEL_HOPPER);
    put_table(THE_USERS, "a-card", NULL);
    assert_int_equal(kernel_found(), ZQ_KERNEL_WIDE);
    put_table(BESIDE, "a-card", NULL);
    assert_int_equal(kernel_found(), ZQ_KERNEL_SMALL);
    put_table(INSTALLED, "a-card", NULL);
    assert_int_equal(kernel_found(), -1);
}

/* This program, started as open_device(), from the folder of a plug-in. */
static void a_device_has_the_table_that_lies_with_its_plugin(void **state)
{
    (void)state;
    static const char device[] = "a-simulated-gpu-on-this-processor";
    const char *build = getenv("LD_LIBRARY_PATH"), *folder = scratch_path(plugins);
    char plugin[4096], self[4096] = "";
    snprintf(plugin, sizeof plugin, "%s/libzq_cuda_host.so", build ? build : "");
    if (!build || !zq_file_exists(plugin)) skip();
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    shell("mkdir -p '%s' && cp '%s' '%s' '%s'", folder, plugin, self, folder);
    shell("'%s/test_tuning' none", folder);
    put_table(INSTALLED, device, "small");
    shell("'%s/test_tuning' small", folder);
    put_table(BESIDE, device, "wide");
    shell("'%s/test_tuning' wide", folder);
    put_table(THE_USERS, device, "vendor");
    shell("'%s/test_tuning' vendor", folder);
}

/* A file that is there and no plug-in. Another plug-in may be installed, which is then opened. */
static void what_keeps_a_plugin_from_being_opened_is_said(void **state)
{
    (void)state;
    const char *folder = scratch_path("broken");
    char self[4096] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    shell("mkdir -p '%s' && cp '%s' '%s'", folder, self, folder);
    scratch_text("broken/libzq_cuda_host.so", "no library");
    shell("cd '%s' && { LD_LIBRARY_PATH= ./test_tuning none 2> said || grep -q 'be opened: ./libzq_cuda_host.so: file too short' said; }", folder);
}

/* Whether the table of a simulated device has one shape, for this kernel (none: is empty). The exit code. */
static int open_device(const char *kernel)
{
    static const char *const names[] = {"none", "small", "wide", "hopper", "cutlass", "vendor"};
    struct zq_device *d = NULL;
    if (zq_device_open(&d, "cuda-host", &error_text)) {
        fprintf(stderr, "%s\n", error_text.message);
        return 1;
    }
    const bool right = d->tuning.n <= 1 && !strcmp(kernel, names[d->tuning.n ? d->tuning.items[0].kernel : 0]);
    zq_device_close(d);
    return right ? 0 : 1;
}

/* ---- which kernel a product takes by a table: on the simulated device, whose operators are those of a GPU */

static enum zq_device_kernel kernel_of(const struct zq_device *d, struct zq_product *p, size_t n_tokens, bool residual)
{
    p->n_tokens = n_tokens;
    p->residual = residual ? p->out : NULL;
    d->plugin->product(d->queue, p, ZQ_DEVICE_W8A8);
    assert_null(d->plugin->finish(d->queue));
    return d->plugin->took(d->queue);
}

static void a_product_takes_the_kernel_of_its_row(void **state)
{
    (void)state;
    enum { ROWS = 8, COLS = 32, MOST = 130 };
    static const struct zq_tuned items[] = {
        {ZQ_DEVICE_W8A8, ROWS, COLS, 0, 16, false, ZQ_KERNEL_HOPPER}, {ZQ_DEVICE_W8A8, ROWS, COLS, 0, 16, true, ZQ_KERNEL_SMALL},
        {ZQ_DEVICE_W8A8, ROWS, COLS, 0, 64, true, ZQ_KERNEL_WIDE},    {ZQ_DEVICE_W8A8, ROWS, COLS, 0, 64, false, ZQ_KERNEL_VENDOR},
        {ZQ_DEVICE_W8A8, ROWS, COLS, 0, 96, true, ZQ_KERNEL_VENDOR},  {ZQ_DEVICE_W8A8, 2 * ROWS, COLS, 0, 8, false, ZQ_KERNEL_WIDE},
        {ZQ_DEVICE_W4A8, ROWS, COLS, 0, 8, false, ZQ_KERNEL_WIDE},    {ZQ_DEVICE_W8A8, ROWS, COLS, 32, 8, false, ZQ_KERNEL_WIDE},
    };
    static const int8_t codes[ROWS * COLS];
    static const float scales[ROWS];
    static struct zq_kernels layouts;
    struct zq_device *d = NULL;
    if (zq_device_open(&d, "cuda-host", &error_text)) skip(); /* no C++ compiler, no simulated device */
    zq_device_layouts(&layouts);
    struct zq_matrix w = {.n_rows = ROWS, .n_cols = COLS, .dtype = ZQ_I8};
    w.packed = d->plugin->alloc(d->queue, layouts.w8_a8.packed_bytes(&w));
    layouts.w8_a8.pack(&w, 0, ROWS, codes, scales);
    int8_t *q = d->plugin->alloc(d->queue, MOST * COLS);
    float *scale = d->plugin->alloc(d->queue, MOST * sizeof *scale), *out = d->plugin->alloc(d->queue, MOST * ROWS * sizeof *out);
    memset(q, 0, MOST * COLS);
    memset(scale, 0, MOST * sizeof *scale);
    memset(out, 0, MOST * ROWS * sizeof *out);
    struct zq_product p = {.w = &w, .q = q, .scale = scale, .ld_x = COLS, .out = out, .ld_out = ROWS};

    assert_int_equal(kernel_of(d, &p, 16, false), ZQ_KERNEL_SMALL); /* the rule */
    d->plugin->tuned(d->queue, items, sizeof items / sizeof *items);
    assert_int_equal(kernel_of(d, &p, 4, false), ZQ_KERNEL_BY_TABLE);
    for (size_t n = 5; n <= 16; n += 11) {
        assert_int_equal(kernel_of(d, &p, n, false), ZQ_KERNEL_HOPPER);
        assert_int_equal(kernel_of(d, &p, n, true), ZQ_KERNEL_SMALL);
    }
    assert_int_equal(kernel_of(d, &p, 17, false), ZQ_KERNEL_VENDOR);
    assert_int_equal(kernel_of(d, &p, 17, true), ZQ_KERNEL_WIDE);
    assert_int_equal(kernel_of(d, &p, 65, true), ZQ_KERNEL_SMALL); /* the vendor's cannot serve with a residual: the rule */
    assert_int_equal(kernel_of(d, &p, 65, false), ZQ_KERNEL_SMALL);
    assert_int_equal(kernel_of(d, &p, MOST, false), ZQ_KERNEL_WIDE);
    d->plugin->prefer(d->queue, ZQ_KERNEL_WIDE);
    assert_int_equal(kernel_of(d, &p, 16, false), ZQ_KERNEL_WIDE);

    void *const all[] = {w.packed, q, scale, out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) d->plugin->free(d->queue, all[i]);
    zq_device_close(d);
}

/* ---- a device that keeps time: products take what their kernel takes */

static enum zq_device_kernel preferred;
static double clock_ms;
static bool serves(struct zq_queue *q, enum zq_device_kernel k, const struct zq_matrix *w, enum zq_device_format format, bool residual)
{
    (void)q, (void)w;
    return k != ZQ_KERNEL_HOPPER && ((k != ZQ_KERNEL_CUTLASS && k != ZQ_KERNEL_VENDOR) || (format == ZQ_DEVICE_W8A8 && !residual));
}
static void note_prefer(struct zq_queue *q, enum zq_device_kernel k) { (void)q, preferred = k; }
/* CUTLASS serves, but not 32 tokens, which the rule then has. */
static enum zq_device_kernel taken;
static enum zq_device_kernel took(const struct zq_queue *q) { return (void)q, taken; }
static void run_product(struct zq_queue *q, const struct zq_product *p, enum zq_device_format format)
{
    (void)q, (void)format;
    assert_int_not_equal(preferred, ZQ_KERNEL_HOPPER);
    if (preferred == ZQ_KERNEL_CUTLASS || preferred == ZQ_KERNEL_VENDOR) assert_null(p->residual);
    if (p->residual) assert_ptr_equal(p->residual, p->out);
    const bool refused = preferred == ZQ_KERNEL_CUTLASS && p->n_tokens == 32;
    taken = refused ? ZQ_KERNEL_SMALL : preferred;
    if (refused) clock_ms += 0.01;
    else clock_ms += taken == ZQ_KERNEL_SMALL ? 0.1 * (double)p->n_tokens : taken == ZQ_KERNEL_WIDE ? 3 : 1.5 + 0.01 * (double)p->n_tokens;
}
static void start_clock(struct zq_queue *q) { (void)q, clock_ms = 0; }
static double read_clock(struct zq_queue *q) { return (void)q, clock_ms; }
static void *take(struct zq_queue *q, size_t n) { return (void)q, malloc(n); }
static void drop(struct zq_queue *q, void *p) { (void)q, free(p); }

static void the_fastest_kernel_wins(void **state)
{
    (void)state;
    struct zq_plugin plugin = {.serves = serves, .prefer = note_prefer, .product = run_product, .took = took, .start_clock = start_clock,
                               .read_clock = read_clock, .alloc = take, .free = drop};
    const struct zq_matrix w = {.n_rows = 32, .n_cols = 48, .dtype = ZQ_I8};
    struct zq_tuning t = {0};
    assert_int_equal(zq_tune_matrix(&t, &plugin, NULL, &w, ZQ_DEVICE_W8A8, 256, &error_text), ZQ_OK);
    assert_int_equal(t.n, 12);
    for (size_t i = 0; i < t.n; i++) {
        const uint32_t n = t.items[i].n_tokens;
        assert_int_equal(n, 8u << i / 2);
        assert_int_equal(t.items[i].residual, i % 2);
        if (i % 2) assert_int_equal(t.items[i].kernel, n <= 16 ? ZQ_KERNEL_SMALL : ZQ_KERNEL_WIDE);
        else if (n == 32) assert_int_equal(t.items[i].kernel, ZQ_KERNEL_VENDOR);
        else assert_int_equal(t.items[i].kernel, n <= 16 ? ZQ_KERNEL_SMALL : n <= 128 ? ZQ_KERNEL_CUTLASS : ZQ_KERNEL_WIDE);
    }
    assert_int_equal(preferred, ZQ_KERNEL_BY_TABLE);
    assert_int_equal(zq_tune_matrix(&t, &plugin, NULL, &w, ZQ_DEVICE_W4A8, 8, &error_text), ZQ_OK); /* which CUTLASS does not serve */
    assert_int_equal(t.items[12].kernel, ZQ_KERNEL_SMALL);
    zq_tuning_free(&t);
    plugin.simulated = true;
    assert_int_equal(zq_tune_matrix(&t, &plugin, NULL, &w, ZQ_DEVICE_W8A8, 256, &error_text), ZQ_OK);
    assert_int_equal(t.n, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2) return open_device(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_read_as_written),
        cmocka_unit_test(damaged_tables_are_refused_whole),
        cmocka_unit_test(what_another_version_knows_is_passed_over),
        cmocka_unit_test(the_cache_folder_is_the_users),
        cmocka_unit_test(the_users_table_comes_before_what_is_shipped),
        cmocka_unit_test(a_device_has_the_table_that_lies_with_its_plugin),
        cmocka_unit_test(what_keeps_a_plugin_from_being_opened_is_said),
        cmocka_unit_test(a_product_takes_the_kernel_of_its_row),
        cmocka_unit_test(the_fastest_kernel_wins),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
