/* src/base/file: maps, reading, and outputs that appear whole or not at all whichever write or allocation fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fault.h"
#include "base/file.h"
#include "fail_alloc.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void assert_file_is(const char *path, const char *text)
{
    char *got;
    size_t n;
    assert_int_equal(zq_file_read(&got, &n, path, SIZE_MAX, NULL), ZQ_OK);
    assert_int_equal(n, strlen(text));
    assert_string_equal(got, text);
    zq_free(got);
}

static void maps_show_the_file(void **state)
{
    (void)state;
    char text[10000];
    memset(text, 'a', sizeof text);
    text[9999] = 'z';
    struct zq_map map;
    zq_error err = {0};
    assert_int_equal(zq_map_open(&map, scratch_write("map", text, sizeof text), &err), ZQ_OK);
    assert_int_equal(map.n_bytes, sizeof text);
    assert_memory_equal(map.bytes, text, sizeof text);
    zq_map_prefetch(&map, map.bytes + 5, 9000);
    zq_map_drop(&map, map.bytes + 4097, 4096);
    zq_map_drop(&map, map.bytes, sizeof text);
    zq_map_drop(&map, map.bytes, sizeof text + 1); /* outside: nothing happens */
    assert_memory_equal(map.bytes, text, sizeof text);
    zq_map_close(&map);
    assert_null(map.bytes);
    zq_map_close(&map);

    assert_int_equal(zq_map_open(&map, scratch_write("empty", "", 0), &err), ZQ_OK);
    assert_true(!map.bytes && !map.n_bytes);
    zq_map_drop(&map, NULL, 0);
    zq_map_close(&map);
    assert_int_equal(zq_map_open(&map, scratch_path("nothing"), &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "nothing"));
    assert_int_equal(zq_map_open(&map, scratch_dir, &err), ZQ_EIO);
    assert_non_null(strstr(err.message, scratch_dir));
    const char *pipe = scratch_path("nobody-writes");
    assert_int_equal(mkfifo(pipe, 0666), 0);
    assert_int_equal(zq_map_open(&map, pipe, &err), ZQ_EIO); /* and does not wait */
    assert_non_null(strstr(err.message, "it is a pipe"));
    assert_int_equal(zq_file_write("", "x", 1, &err), ZQ_EINVAL);
    assert_null(map.bytes);
}

static void reading_ends_in_a_zero(void **state)
{
    (void)state;
    char *text;
    size_t n = 7;
    const char *path = scratch_write("text", "ab\0c", 4);
    assert_int_equal(zq_file_read(&text, &n, path, 4, NULL), ZQ_OK);
    assert_int_equal(n, 4);
    assert_memory_equal(text, "ab\0c", 5);
    zq_free(text);
    zq_error err = {0};
    assert_int_equal(zq_file_read(&text, NULL, path, 3, &err), ZQ_ELIMIT);
    assert_null(text);
    assert_non_null(strstr(err.message, "text has 4 bytes"));
    assert_int_equal(zq_file_read(&text, NULL, scratch_write("void", "", 0), 0, NULL), ZQ_OK);
    assert_string_equal(text, "");
    zq_free(text);
}

static void paths_are_told_apart(void **state)
{
    (void)state;
    char *a = zq_path_join("dir", "f"), *b = zq_path_join("dir/", "f"), *c = zq_path_join("/", "f");
    assert_string_equal(a, "dir/f");
    assert_string_equal(b, "dir/f");
    assert_string_equal(c, "/f");
    zq_free(a);
    zq_free(b);
    zq_free(c);
    const char *file = scratch_text("plain", "x");
    assert_true(zq_file_exists(file) && !zq_is_directory(file));
    assert_true(zq_file_exists(scratch_dir) && zq_is_directory(scratch_dir));
    assert_false(zq_file_exists(scratch_path("absent")) || zq_is_directory(scratch_path("absent")));
}

/* Small pieces that share a buffer, one that fills it to the last byte, one above it, an empty one. */
static const size_t pieces[] = {1, 100, 0, (1 << 20) - 101, 1 << 20, 3, (1 << 20) + 1, 70000, 2500000, 9};

static uint8_t pattern_at(size_t i) { return (uint8_t)(i * 2654435761u >> 13); }

static size_t total_bytes(void)
{
    size_t n = 0;
    for (size_t i = 0; i < ZQ_LEN(pieces); i++) n += pieces[i];
    return n;
}

static zq_status write_pieces(void *path, zq_error *err)
{
    static uint8_t bytes[8 << 20];
    for (size_t i = 0; i < total_bytes(); i++) bytes[i] = pattern_at(i);
    struct zq_output out;
    zq_status st = zq_output_open(&out, path, err);
    size_t at = 0;
    for (size_t i = 0; !st && i < ZQ_LEN(pieces); i++) {
        st = zq_output_write(&out, bytes + at, pieces[i], err);
        at += pieces[i];
        if (!st) assert_int_equal(out.written, at);
    }
    if (!st) st = zq_output_commit(&out, err);
    zq_output_abandon(&out);
    return st;
}

static void assert_whole(const char *path)
{
    struct zq_map map;
    assert_int_equal(zq_map_open(&map, path, NULL), ZQ_OK);
    assert_int_equal(map.n_bytes, total_bytes());
    size_t different = 0;
    for (size_t i = 0; i < map.n_bytes; i++) different += map.bytes[i] != pattern_at(i);
    assert_int_equal(different, 0);
    zq_map_close(&map);
}

static void make_directory(const char *name)
{
    assert_int_equal(mkdir(scratch_path(name), 0777), 0);
}

/* For every n the n-th write fails: the old file stays, the temporary one goes. */
static void an_output_is_whole_or_absent(void **state)
{
    (void)state;
    make_directory("out");
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("out/file"));
    static const int errors[] = {ENOSPC, EIO};
    for (size_t e = 0; e < ZQ_LEN(errors); e++) {
        size_t n = 0;
        for (bool done = false; !done;) {
            scratch_text("out/file", "old");
            zq_error err = {0};
            zq_fault_write_at(++n, errors[e]);
            const zq_status st = write_pieces(path, &err);
            done = zq_fault_write_count() < n;
            zq_fault_write_at(0, 0);
            assert_int_equal(scratch_count(scratch_path("out")), 1);
            if (done) {
                assert_int_equal(st, ZQ_OK);
                assert_whole(path);
            } else {
                assert_int_equal(st, errors[e] == ENOSPC ? ZQ_ENOSPC : ZQ_EIO);
                assert_non_null(strstr(err.message, "out/file"));
                assert_file_is(path, "old");
            }
        }
        assert_true(n > 5);
    }
}

static void a_temporary_file_shows_nothing_before_commit(void **state)
{
    (void)state;
    make_directory("early");
    const char *path = scratch_path("early/file");
    struct zq_output out;
    assert_int_equal(zq_output_open(&out, path, NULL), ZQ_OK);
    assert_int_equal(zq_output_write(&out, "abc", 3, NULL), ZQ_OK);
    assert_false(zq_file_exists(path));
    zq_output_abandon(&out);
    assert_int_equal(scratch_count(scratch_path("early")), 0);
    zq_output_abandon(&out);
    out = (struct zq_output){0};
    zq_output_abandon(&out);

    assert_int_equal(zq_output_open(&out, path, NULL), ZQ_OK);
    assert_int_equal(zq_output_commit(&out, NULL), ZQ_OK);
    assert_file_is(path, "");
    zq_output_abandon(&out); /* a committed one stays */
    assert_file_is(path, "");
    zq_error err = {0};
    assert_int_equal(zq_output_open(&out, scratch_path("no/such/dir"), &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "no/such/dir"));
}

/* The target has become a directory: the rename fails after everything was written. One that is there before is seen at once. */
static void a_directory_is_never_replaced(void **state)
{
    (void)state;
    make_directory("blocked");
    struct zq_output out;
    assert_int_equal(zq_output_open(&out, scratch_path("blocked/file"), NULL), ZQ_OK);
    assert_int_equal(zq_output_write(&out, "x", 1, NULL), ZQ_OK);
    make_directory("blocked/file");
    zq_error err = {0};
    assert_int_equal(zq_output_commit(&out, &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "rename"));
    assert_int_equal(scratch_count(scratch_path("blocked")), 1);
    assert_int_equal(zq_output_open(&out, scratch_path("blocked/file"), &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "cannot write"));
    assert_int_equal(scratch_count(scratch_path("blocked")), 1);
}

/* What a link leads to is replaced, and a pipe or a device is written: neither gives way to a file. */
static void links_and_devices_stay(void **state)
{
    (void)state;
    make_directory("links");
    make_directory("elsewhere");
    char link[400], pipe[400], text[8] = "";
    snprintf(link, sizeof link, "%s", scratch_path("links/link"));
    snprintf(pipe, sizeof pipe, "%s", scratch_path("links/pipe"));
    struct stat info;
    assert_int_equal(symlink(scratch_text("elsewhere/file", "old"), link), 0);
    assert_int_equal(zq_file_write(link, "new", 3, NULL), ZQ_OK);
    assert_file_is(scratch_path("elsewhere/file"), "new");
    assert_true(!lstat(link, &info) && S_ISLNK(info.st_mode));
    assert_int_equal(scratch_count(scratch_path("elsewhere")), 1);

    assert_int_equal(mkfifo(pipe, 0666), 0);
    const int fd = open(pipe, O_RDWR | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(zq_file_write(pipe, "data", 4, NULL), ZQ_OK);
    assert_int_equal(read(fd, text, sizeof text), 4);
    assert_string_equal(text, "data");
    close(fd);
    assert_true(!lstat(pipe, &info) && S_ISFIFO(info.st_mode));
    assert_int_equal(scratch_count(scratch_path("links")), 2);
}

/* The old file has 3 bytes. Looking with stat, since reading would count as an allocation of the operation. */
static void assert_size(const char *path, size_t n)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, n);
    assert_int_equal(scratch_count(scratch_path("copy")), 2);
}

static zq_status write_once(void *path, zq_error *err)
{
    scratch_text("copy/to", "old");
    const zq_status st = write_pieces(path, err);
    assert_size(path, st ? 3 : total_bytes());
    return st;
}

static zq_status copy_once(void *path, zq_error *err)
{
    scratch_text("copy/to", "old");
    const zq_status st = zq_file_copy(scratch_path("copy/from"), path, err);
    assert_size(path, st ? 3 : 5);
    return st;
}

static void outputs_survive_failing_allocations(void **state)
{
    (void)state;
    make_directory("copy");
    scratch_text("copy/from", "newer");
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("copy/to"));
    assert_true(fail_each_allocation(write_once, path) >= 3);
    assert_true(fail_each_allocation(copy_once, path) >= 3);
    assert_file_is(path, "newer");
    zq_error err = {0};
    assert_int_equal(zq_file_copy(scratch_path("copy/none"), path, &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "copy/none"));
}

static zq_status remove_once(void *path, zq_error *err)
{
    return zq_remove_tree(path, err);
}

static void trees_are_removed(void **state)
{
    (void)state;
    make_directory("tree");
    make_directory("tree/a");
    make_directory("tree/a/b");
    make_directory("outside");
    scratch_text("tree/a/b/f", "x");
    scratch_text("tree/a/.hidden", "x");
    scratch_text("outside/kept", "x");
    assert_int_equal(symlink(scratch_path("outside"), scratch_path("tree/link")), 0);
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("tree"));
    assert_true(fail_each_allocation(remove_once, path) >= 2);
    assert_false(zq_file_exists(path));
    assert_true(zq_file_exists(scratch_path("outside/kept"))); /* links are removed, not followed */
    assert_int_equal(zq_remove_tree(path, NULL), ZQ_OK);
    const char *file = scratch_text("single", "x");
    assert_int_equal(zq_remove_tree(file, NULL), ZQ_OK);
    assert_false(zq_file_exists(file));
}

static void directories_are_synced(void **state)
{
    (void)state;
    assert_int_equal(zq_sync_directory(scratch_dir, NULL), ZQ_OK);
    zq_error err = {0};
    assert_int_equal(zq_sync_directory(scratch_path("nowhere"), &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "nowhere"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_show_the_file),
        cmocka_unit_test(reading_ends_in_a_zero),
        cmocka_unit_test(paths_are_told_apart),
        cmocka_unit_test(an_output_is_whole_or_absent),
        cmocka_unit_test(a_temporary_file_shows_nothing_before_commit),
        cmocka_unit_test(a_directory_is_never_replaced),
        cmocka_unit_test(links_and_devices_stay),
        cmocka_unit_test(outputs_survive_failing_allocations),
        cmocka_unit_test(trees_are_removed),
        cmocka_unit_test(directories_are_synced),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
