/* Runs of zq_quantize that meet an earlier output, are stopped, or fail at any write: the output appears whole or
 * not at all, nothing is left beside it, and what is resumed ends in the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fault.h"
#include "compress/fingerprint.h"
#include "made_models.h"

#include <errno.h>
#include <sys/file.h>

/* ---- existing outputs and interrupted runs ------------------------------------------------------------------------ */

static void an_existing_output_needs_force(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("out");
    zq_remove_tree(out, NULL);
    assert_int_equal(mkdir(out, 0777), 0);
    put_file(out, "precious", "text");
    assert_refused(source, out, NULL, ZQ_EEXIST, "exists already");
    /* what is no model is not replaced, with force or without */
    assert_refused(source, out, &(zq_quantize_options){.force = true}, ZQ_EEXIST, "no config.json");
    assert_refused(source, out, &(zq_quantize_options){.force = true, .resume = true}, ZQ_EEXIST, "no config.json");
    assert_int_equal(scratch_count(out), 1);
    put_file(out, "config.json", "{}");
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EEXIST, "holds no zq-report.json");
    /* a failing run with force leaves the old output alone */
    const char *bad = make_model("nan", &tiny_llama);
    poke(bad, "model.layers.1.mlp.up_proj.weight", 0, 0x7fc0);
    assert_refused(bad, out, &(zq_quantize_options){.force = true}, ZQ_EFORMAT, "NaN");
    assert_true(exists("%s/precious", out));
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    assert_false(exists("%s/precious", out));
    assert_false(exists("%s.partial", out));
    /* an empty directory is */
    const char *empty = scratch_path("empty");
    assert_int_equal(mkdir(empty, 0777), 0);
    assert_int_equal(zq_quantize(source, empty, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    /* so does a dry run, and it asks for nothing */
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.dry_run = true}, NULL, NULL), ZQ_OK);
    /* a link is replaced, not what it leads to */
    const char *link = scratch_path("link");
    assert_int_equal(symlink(source, link), 0);
    assert_int_equal(zq_quantize(source, link, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    assert_int_equal(scratch_count(source), 2);
    assert_same_tree(out, link);
    /* and a file is no output of ours, with force or without */
    const char *file = scratch_text("file", "precious");
    assert_refused(source, file, &(zq_quantize_options){.force = true}, ZQ_EEXIST, "is no directory");
    assert_true(exists("%s", file) && !exists("%s.partial", file));
}

static void a_finished_output_needs_no_resume(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("out");
    zq_remove_tree(out, NULL);
    zq_quantize_report *first, *second;
    zq_quantize_options o = {.resume = true, .rules = (zq_rule[]){{".*up_proj", "w4a8"}}, .n_rules = 1};
    assert_int_equal(zq_quantize(source, out, &o, &first, NULL), ZQ_OK);
    assert_false(zq_quantize_report_totals(first)->nothing_to_do || zq_quantize_report_totals(first)->resumed);
    struct stat before, after;
    assert_int_equal(stat(out, &before), 0);
    assert_int_equal(zq_quantize(source, out, &o, &second, NULL), ZQ_OK);
    assert_int_equal(stat(out, &after), 0);
    assert_true(zq_quantize_report_totals(second)->nothing_to_do && before.st_ino == after.st_ino);
    for (size_t i = 0; i < zq_quantize_report_totals(first)->n_entries; i++) {
        const double a = zq_quantize_report_entry(first, i)->relative_error, b = zq_quantize_report_entry(second, i)->relative_error;
        assert_true(a == b || (isnan(a) && isnan(b)));
    }
    zq_quantize_report_free(first);
    zq_quantize_report_free(second);
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EINVAL, "rules is [\".*up_proj=w4a8\"] there, [] here");
    o.scheme = "w4a8";
    assert_refused(source, out, &o, ZQ_EINVAL, "scheme is w8a8 there, w4a8 here");
    o.scheme = NULL;
    o.group = "k:32";
    assert_refused(source, out, &o, ZQ_EINVAL, "group is default there, k:32 here");
    o.group = NULL;
    o.embeddings_int8 = true;
    assert_refused(source, out, &o, ZQ_EINVAL, "embeddings is source there, int8 here");
    o.embeddings_int8 = false;
    poke(source, "model.norm.weight", 3, 0x3f80);
    assert_refused(source, out, &o, ZQ_EINVAL, "made from another model");
    assert_false(exists("%s.partial", out));
    o.force = true;
    assert_int_equal(zq_quantize(source, out, &o, &first, NULL), ZQ_OK);
    assert_false(zq_quantize_report_totals(first)->nothing_to_do);
    zq_quantize_report_free(first);
}

static void fingerprint(char text[ZQ_FINGERPRINT_TEXT], const char *dir)
{
    struct zq_checkpoint *c;
    struct zq_sidefiles files;
    assert_int_equal(zq_checkpoint_open(&c, dir, NULL), ZQ_OK);
    assert_int_equal(zq_sidefiles_list(&files, dir, NULL), ZQ_OK);
    assert_int_equal(zq_fingerprint(text, c, &files, NULL), ZQ_OK);
    zq_sidefiles_free(&files);
    zq_checkpoint_close(c);
}

/* Exchanges two names of equal length in the header of a model's only file. */
static void swap_names(const char *dir, const char *a, const char *b)
{
    char path[300];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    char *text;
    size_t n;
    assert_int_equal(zq_file_read(&text, &n, path, 1 << 26, NULL), ZQ_OK);
    char *at_a = strstr(text + 8, a), *at_b = strstr(text + 8, b);
    assert_true(at_a && at_b);
    memcpy(at_a, b, strlen(b));
    memcpy(at_b, a, strlen(a));
    assert_int_equal(zq_file_write(path, text, n, NULL), ZQ_OK);
    zq_free(text);
}

static void every_change_of_a_model_shows(void **state)
{
    (void)state;
    const char *source = make_model("print", &tiny_llama), *twin = make_model("twin", &tiny_llama);
    char seen[8][ZQ_FINGERPRINT_TEXT], again[ZQ_FINGERPRINT_TEXT];
    size_t n = 0;
    fingerprint(seen[n++], source);
    fingerprint(again, twin);
    assert_string_equal(seen[0], again); /* the path does not count */
    put_file(source, "tokenizer.json", "{}");
    fingerprint(seen[n++], source);
    put_file(source, "tokenizer.json", "{ }");
    fingerprint(seen[n++], source);
    poke(source, "lm_head.weight", 40 * 64 - 1, 0x3f80); /* the last value of the file */
    fingerprint(seen[n++], source);
    poke(source, "model.layers.1.self_attn.q_proj.weight", 0, 0x3f80);
    fingerprint(seen[n++], source);
    swap_names(source, "layers.0.self_attn.k_proj", "layers.0.self_attn.v_proj");
    fingerprint(seen[n++], source);
    put_file(source, "README.md", "is not copied, so it does not count");
    fingerprint(again, source);
    assert_string_equal(seen[n - 1], again);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strlen(seen[i]), 64);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(seen[i], seen[j]);
    }
}

struct stopper {
    size_t n_calls, stop_at;
    zq_quantize_progress last;
};

static bool stop(void *user, const zq_quantize_progress *p)
{
    struct stopper *s = user;
    assert_true(p->bytes_done <= p->n_bytes && p->tensors_done <= p->n_tensors && p->tensor);
    s->last = *p;
    return ++s->n_calls != s->stop_at;
}

static void a_cancelled_run_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    const char *source = make_model("large", &large_llama), *whole = scratch_path("whole"), *out = scratch_path("stopped");
    struct stopper s = {0};
    zq_quantize_options o = {.scheme = "w4/8a8", .progress = stop, .user = &s, .force = true};
    assert_int_equal(zq_quantize(source, whole, &o, NULL, NULL), ZQ_OK);
    const size_t n_calls = s.n_calls;
    bool resumed_once = false;
    o.force = false;
    for (size_t at = 1; at <= n_calls; at += n_calls / 4) {
        s = (struct stopper){.stop_at = at};
        zq_remove_tree(out, NULL);
        assert_refused(source, out, &o, ZQ_ECANCELLED, "cancelled");
        assert_false(exists("%s", out));
        const bool left = exists("%s.partial", out);
        if (left) {
            zq_quantize_options other = o;
            other.scheme = "w8a8";
            other.resume = true;
            assert_refused(source, out, &other, ZQ_EINVAL, "scheme is w4/8a8 there, w8a8 here");
            assert_true(exists("%s.partial/journal.json", out));
        }
        zq_quantize_report *r;
        s = (struct stopper){0};
        zq_quantize_options again = o;
        again.resume = true;
        assert_int_equal(zq_quantize(source, out, &again, &r, NULL), ZQ_OK);
        assert_int_equal(zq_quantize_report_totals(r)->resumed, left);
        assert_true(left ? s.n_calls < n_calls : s.n_calls == n_calls);
        assert_true(s.last.bytes_done == s.last.n_bytes && s.last.tensors_done + 1 == s.last.n_tensors);
        resumed_once |= left;
        zq_quantize_report_free(r);
        assert_same_tree(whole, out);
        assert_false(exists("%s.partial", out));
    }
    assert_true(resumed_once);
    zq_remove_tree(out, NULL);
}

static void count_note(void *user, const char *sentence)
{
    *(size_t *)user += strstr(sentence, "removed what an interrupted run had left") != NULL;
}

static void a_new_run_removes_what_an_interrupted_one_left(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("anew");
    size_t n = 0;
    assert_int_equal(mkdir(scratch_path("anew.partial"), 0777), 0);
    scratch_text("anew.partial/model-00001-of-00009.safetensors.tmp", "torn");
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.note = count_note, .user = &n}, NULL, NULL), ZQ_OK);
    assert_int_equal(n, 1);
    assert_int_equal(scratch_count(out), 5);
    /* resume where nothing was begun, beside torn files: from the beginning */
    zq_remove_tree(out, NULL);
    assert_int_equal(mkdir(scratch_path("anew.partial"), 0777), 0);
    scratch_text("anew.partial/config.json.tmp", "torn");
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, NULL, NULL), ZQ_OK);
    assert_int_equal(scratch_count(out), 5);
    zq_remove_tree(out, NULL);
    /* a journal that is no journal */
    assert_int_equal(mkdir(scratch_path("anew.partial"), 0777), 0);
    scratch_text("anew.partial/journal.json", "{\"program\": 3}");
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EINVAL, "program is 3 there");
    scratch_text("anew.partial/journal.json", "{");
    assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_EFORMAT, "journal.json");
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    assert_false(exists("%s.partial", out));
}

/* The states that a kill leaves at the end: all shards counted; the report written; the journal gone. */
static void a_run_killed_at_its_end_resumes(void **state)
{
    (void)state;
    const char *source = make_model("large", &large_llama), *whole = scratch_path("whole"), *out = scratch_path("late");
    char from[400], to[260];
    zq_remove_tree(out, NULL);
    assert_int_equal(zq_quantize(source, whole, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    snprintf(to, sizeof to, "%s.partial", out);
    assert_int_equal(rename(out, to), 0);
    zq_quantize_report *r;
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, &r, NULL), ZQ_OK);
    assert_true(zq_quantize_report_totals(r)->resumed);
    zq_quantize_report_free(r);
    assert_same_tree(whole, out);
    /* a shard that is gone, and one that was cut, are written again */
    const int n_shards = (int)scratch_count(out) - 4;
    assert_true(n_shards >= 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rename(out, to), 0);
        snprintf(from, sizeof from, "%s/late.partial/model-0000%d-of-0000%d.safetensors", scratch_dir, 2 - i, n_shards);
        assert_int_equal(i ? truncate(from, 1000) : unlink(from), 0);
        assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, NULL, NULL), ZQ_OK);
        assert_same_tree(whole, out);
    }
    /* killed after the exchange with an older output, which is left under the name of the directory of work */
    assert_int_equal(mkdir(to, 0777), 0);
    put_file(to, "config.json", "old");
    assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, &r, NULL), ZQ_OK);
    assert_true(zq_quantize_report_totals(r)->nothing_to_do);
    zq_quantize_report_free(r);
    assert_false(exists("%s", to));
    zq_remove_tree(out, NULL);
}

static void two_runs_at_once_are_refused(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("busy");
    assert_int_equal(mkdir(scratch_path("busy.partial"), 0777), 0);
    scratch_text("busy.partial/model-00001-of-00001.safetensors.tmp", "in work");
    const int fd = open(scratch_path("busy.partial"), O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_refused(source, out, NULL, ZQ_EEXIST, "another run");
    assert_refused(source, out, &(zq_quantize_options){.resume = true, .force = true}, ZQ_EEXIST, "another run");
    assert_int_equal(scratch_count(scratch_path("busy.partial")), 1);
    close(fd);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
}

/* ---- faults ------------------------------------------------------------------------------------------------------- */

static void every_failing_write_leaves_nothing(void **state)
{
    (void)state;
    const char *source = make_model("llama", &tiny_llama), *out = scratch_path("full"), *old = scratch_path("old");
    put_file(source, "tokenizer.json", "{}");
    zq_remove_tree(old, NULL);
    assert_int_equal(mkdir(old, 0777), 0);
    zq_fault_write_at(0, 0);
    assert_int_equal(zq_quantize(source, out, NULL, NULL, NULL), ZQ_OK);
    const size_t n_writes = zq_fault_write_count();
    assert_true(n_writes >= 6); /* shard, journal, tokenizer, config, index, report */
    zq_remove_tree(out, NULL);
    for (size_t n = 1; n <= n_writes; n++) {
        for (int resume = 0; resume < 2; resume++) {
            zq_fault_write_at(n, n % 2 ? ENOSPC : EIO);
            assert_refused(source, out, &(zq_quantize_options){.resume = resume}, n % 2 ? ZQ_ENOSPC : ZQ_EIO, "cannot write");
            zq_fault_write_at(0, 0);
            assert_false(exists("%s", out));
            /* the only shard is finished, and counted, after the second write */
            assert_int_equal(exists("%s.partial", out), resume && n > 2);
            if (resume) {
                assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, NULL, NULL), ZQ_OK);
                zq_remove_tree(out, NULL);
            }
        }
        zq_fault_write_at(n, ENOSPC);
        assert_refused(source, old, &(zq_quantize_options){.force = true}, ZQ_ENOSPC, "cannot write");
        zq_fault_write_at(0, 0);
        assert_int_equal(scratch_count(old), 0); /* still the empty directory of before */
        assert_false(exists("%s.partial", old));
    }
}

static void a_full_disk_keeps_finished_shards_for_resume(void **state)
{
    (void)state;
    const char *source = make_model("large", &large_llama), *whole = scratch_path("whole"), *out = scratch_path("full");
    zq_fault_write_at(0, 0);
    assert_int_equal(zq_quantize(source, whole, &(zq_quantize_options){.force = true}, NULL, NULL), ZQ_OK);
    const size_t n_writes = zq_fault_write_count();
    size_t n_resumed = 0;
    for (size_t n = 1; n <= n_writes; n += n_writes / 3) {
        zq_fault_write_at(n, ENOSPC);
        assert_refused(source, out, &(zq_quantize_options){.resume = true}, ZQ_ENOSPC, "No space left");
        zq_fault_write_at(0, 0);
        zq_quantize_report *r;
        assert_int_equal(zq_quantize(source, out, &(zq_quantize_options){.resume = true}, &r, NULL), ZQ_OK);
        n_resumed += zq_quantize_report_totals(r)->resumed;
        zq_quantize_report_free(r);
        assert_same_tree(whole, out);
        zq_remove_tree(out, NULL);
    }
    assert_true(n_resumed >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_existing_output_needs_force), cmocka_unit_test(a_finished_output_needs_no_resume),
        cmocka_unit_test(every_change_of_a_model_shows), cmocka_unit_test(a_cancelled_run_resumes_to_the_same_bytes),
        cmocka_unit_test(a_new_run_removes_what_an_interrupted_one_left), cmocka_unit_test(a_run_killed_at_its_end_resumes),
        cmocka_unit_test(two_runs_at_once_are_refused), cmocka_unit_test(every_failing_write_leaves_nothing),
        cmocka_unit_test(a_full_disk_keeps_finished_shards_for_resume),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
