/* zq_quantize with every single allocation failing: an error that says so, nothing left behind, and no leak (which the
 * sanitizers find). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fail_alloc.h"
#include "made_models.h"

static zq_status quantize_once(void *source, zq_error *err)
{
    const zq_rule rules[] = {{".*up_proj", "w4a8,rows:3"}, {"lm_head", "float"}};
    const zq_quantize_options o = {.scheme = "w4/8a8", .embeddings_int8 = true, .rules = rules, .n_rules = ZQ_LEN(rules), .n_threads = 1};
    char out[300];
    snprintf(out, sizeof out, "%s/memory", scratch_dir);
    zq_quantize_report *report;
    const zq_status st = zq_quantize(source, out, &o, &report, err);
    if (st) {
        assert_null(report);
        assert_nothing_left(out);
    }
    zq_quantize_report_free(report);
    return st;
}

static zq_status resume_once(void *source, zq_error *err)
{
    char out[300];
    snprintf(out, sizeof out, "%s/finished", scratch_dir);
    return zq_quantize(source, out, &(zq_quantize_options){.resume = true, .n_threads = 1}, NULL, err);
}

static void every_failing_allocation_leaves_nothing(void **state)
{
    (void)state;
    struct shape s = tiny_llama;
    s.layers = 1;
    const char *source = make_model("memory-model", &s);
    put_file(source, "tokenizer.json", "{}");
    const size_t n = fail_each_allocation(quantize_once, (void *)(uintptr_t)source);
    assert_true(n > 300);
    assert_int_equal(zq_quantize(source, scratch_path("finished"), NULL, NULL, NULL), ZQ_OK);
    assert_true(fail_each_allocation(resume_once, (void *)(uintptr_t)source) > 100);
}

/* More than a thousand runs, each of which would wait for a disk a dozen times. */
static int open_in_memory(void **state)
{
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 1);
    return scratch_open(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failing_allocation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, open_in_memory, scratch_close);
}
