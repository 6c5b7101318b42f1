/* safetensors: what the format forbids is refused by name, what it allows is read, and a written file is the documented bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fault.h"
#include "checkpoint/safetensors.h"
#include "fail_alloc.h"
#include "quotes.h"
#include "scratch.h"
#include "shared.h"

#include <errno.h>

/* ---- reading ------------------------------------------------------------------------------------------------------ */

/* A file in a block of exactly its size, so that the sanitizer sees a read past its end. The header has ' for ". */
static uint8_t *make_file(const char *header, size_t n_data, size_t *n_bytes)
{
    const size_t n_header = strlen(header);
    *n_bytes = 8 + n_header + n_data;
    uint8_t *bytes = malloc(*n_bytes);
    for (size_t i = 0; i < 8; i++) bytes[i] = (uint8_t)(n_header >> 8 * i);
    for (size_t i = 0; i < n_header; i++) bytes[8 + i] = header[i] == '\'' ? '"' : (uint8_t)header[i];
    for (size_t i = 0; i < n_data; i++) bytes[8 + n_header + i] = (uint8_t)(i + 1);
    return bytes;
}

static zq_status view(struct zq_safetensors *file, const char *header, size_t n_data, uint8_t **bytes, zq_error *err)
{
    size_t n;
    *bytes = make_file(header, n_data, &n);
    return zq_safetensors_view(file, *bytes, n, "mem", err);
}

static void tensors_come_in_file_order(void **state)
{
    (void)state;
    struct zq_safetensors f;
    uint8_t *bytes;
    assert_int_equal(view(&f, "{'b':{'dtype':'F16','shape':[2,3],'data_offsets':[4,16]},"
                              "'__metadata__':{'format':'pt','any':'thing'},"
                              "'e':{'dtype':'F32','shape':[7,0],'data_offsets':[4,4]},"
                              "'s':{'dtype':'U8','shape':[],'data_offsets':[16,17]},"
                              "'a':{'data_offsets':[0,4],'shape':[1],'dtype':'I32','later':'key'}}     ", 17, &bytes, NULL), ZQ_OK);
    assert_int_equal(f.n_tensors, 4);
    static const struct { const char *name; enum zq_dtype dtype; size_t n_dims, n_values, n_bytes, at; } want[] = {
        {"a", ZQ_I32, 1, 1, 4, 0}, {"e", ZQ_F32, 2, 0, 0, 4}, {"b", ZQ_F16, 2, 6, 12, 4}, {"s", ZQ_U8, 0, 1, 1, 16}};
    for (size_t i = 0; i < 4; i++) {
        const struct zq_tensor *t = &f.tensors[i];
        assert_string_equal(t->name, want[i].name);
        assert_int_equal(t->dtype, want[i].dtype);
        assert_int_equal(t->n_dims, want[i].n_dims);
        assert_int_equal(t->n_values, want[i].n_values);
        assert_int_equal(t->n_bytes, want[i].n_bytes);
        if (t->n_bytes) assert_int_equal(t->bytes[0], want[i].at + 1);
        zq_map_drop(t->map, t->bytes, t->n_bytes); /* memory of the caller: must not be touched */
        if (t->n_bytes) assert_int_equal(t->bytes[t->n_bytes - 1], want[i].at + t->n_bytes);
    }
    assert_true(f.tensors[2].shape[0] == 2 && f.tensors[2].shape[1] == 3);
    zq_safetensors_close(&f);
    assert_true(!f.tensors && !f.n_tensors);
    zq_safetensors_close(&f);
    free(bytes);
}

static void an_empty_file_is_legal(void **state)
{
    (void)state;
    static const char *const headers[] = {"{}", "{}      ", "{'__metadata__':{}}"};
    for (size_t i = 0; i < ZQ_LEN(headers); i++) {
        struct zq_safetensors f;
        uint8_t *bytes;
        assert_int_equal(view(&f, headers[i], 0, &bytes, NULL), ZQ_OK);
        assert_int_equal(f.n_tensors, 0);
        zq_safetensors_close(&f);
        free(bytes);
    }
}

#define T(dtype, shape, offsets) "{'t':{'dtype':'" dtype "','shape':" shape ",'data_offsets':" offsets "}}"
#define TWO(first, second) \
    "{'t':{'dtype':'I8','shape':[4],'data_offsets':" first "},'u':{'dtype':'I8','shape':[4],'data_offsets':" second "}}"

static void what_the_format_forbids_is_named(void **state)
{
    (void)state;
    static const struct { const char *header; size_t n_data; zq_status status; const char *says; } cases[] = {
        {"", 0, ZQ_EFORMAT, "begin with '{'"},
        {" {}", 0, ZQ_EFORMAT, "'{'"},
        {"[]", 0, ZQ_EFORMAT, "'{'"},
        {"{} {}", 0, ZQ_EFORMAT, "line 1"},
        {"{'t':", 0, ZQ_EFORMAT, "line 1"},
        {"{}", 1, ZQ_EFORMAT, "1 bytes of data"},
        {"{'t':1}", 0, ZQ_EFORMAT, "'t'"},
        {"{'__metadata__':{'a':1}}", 0, ZQ_EFORMAT, "'a'"},
        {"{'__metadata__':[]}", 0, ZQ_EFORMAT, "__metadata__"},
        {"{'__metadata__':{'a':'1','a':'2'}}", 0, ZQ_EFORMAT, "line 1"},
        {"{'t':{'dtype':'U8','shape':[0],'data_offsets':[0,0]},'t':{'dtype':'U8','shape':[0],'data_offsets':[0,0]}}", 0, ZQ_EFORMAT, "line 1"},
        {"{'t':{'shape':[4],'data_offsets':[0,4]}}", 4, ZQ_EFORMAT, "dtype"},
        {"{'t':{'dtype':'I8','data_offsets':[0,4]}}", 4, ZQ_EFORMAT, "shape"},
        {"{'t':{'dtype':'I8','shape':[4]}}", 4, ZQ_EFORMAT, "data_offsets"},
        {T("F8_E4M3", "[4]", "[0,4]"), 4, ZQ_EUNSUPPORTED, "F8_E4M3"},
        {T("F4", "[8]", "[0,4]"), 4, ZQ_EUNSUPPORTED, "F4"},
        {T("I8", "4", "[0,4]"), 4, ZQ_EFORMAT, "shape"},
        {T("I8", "[-4]", "[0,4]"), 4, ZQ_EFORMAT, "dimension 0"},
        {T("I8", "[1,'4']", "[0,4]"), 4, ZQ_EFORMAT, "dimension 1"},
        {T("I8", "[4.0]", "[0,4]"), 4, ZQ_EFORMAT, "dimension 0"},
        {T("I8", "[1,1,1,1,1,1,1,1,4]", "[0,4]"), 4, ZQ_EUNSUPPORTED, "9 dimensions"},
        {T("I8", "[4294967296,4294967297]", "[0,4]"), 4, ZQ_EFORMAT, "too many values"}, /* 2^32 if it wrapped */
        {T("I32", "[4611686018427387905]", "[0,4]"), 4, ZQ_EFORMAT, "too many values"},  /* 4 bytes if it wrapped */
        {T("I8", "[99999999999999999999]", "[0,4]"), 4, ZQ_EFORMAT, "is not a count"},
        {T("I8", "[4]", "[0]"), 4, ZQ_EFORMAT, "data_offsets"},
        {T("I8", "[4]", "[0,4,8]"), 4, ZQ_EFORMAT, "data_offsets"},
        {T("I8", "[4]", "[0,'4']"), 4, ZQ_EFORMAT, "data_offsets"},
        {T("I8", "[4]", "[0,5]"), 5, ZQ_EFORMAT, "room for 5"},
        {T("I32", "[4]", "[0,4]"), 4, ZQ_EFORMAT, "needs 16"},
        {T("I8", "[4]", "[0,4]"), 3, ZQ_EFORMAT, "outside the 3 bytes"},
        {T("I8", "[4]", "[-4,0]"), 4, ZQ_EFORMAT, "outside"},
        {T("I8", "[4]", "[4,0]"), 4, ZQ_EFORMAT, "outside"},
        {T("I8", "[4]", "[1,5]"), 5, ZQ_EFORMAT, "begins at byte 1"},
        {T("I8", "[4]", "[0,4]"), 5, ZQ_EFORMAT, "5 bytes of data"},
        {TWO("[0,4]", "[2,6]"), 8, ZQ_EFORMAT, "'u' begins at byte 2"}, /* the sum of sizes is right */
        {TWO("[0,4]", "[2,6]"), 6, ZQ_EFORMAT, "'u' begins at byte 2"},
        {TWO("[0,4]", "[5,9]"), 9, ZQ_EFORMAT, "'u' begins at byte 5"},
        {TWO("[0,4]", "[0,4]"), 4, ZQ_EFORMAT, "begins at byte 0"},
        {"{'t':{'dtype':'I8','shape':[4],'data_offsets':[0,4]},'u':{'dtype':'I8','shape':[0],'data_offsets':[2,2]}}", 4, ZQ_EFORMAT, "'u'"},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        struct zq_safetensors f;
        uint8_t *bytes;
        zq_error err = {0};
        const zq_status st = view(&f, cases[i].header, cases[i].n_data, &bytes, &err);
        single_quotes(err.message);
        if (st != cases[i].status || !strstr(err.message, cases[i].says) || strncmp(err.message, "mem", 3))
            fail_msg("%s: status %d, '%s'", cases[i].header, (int)st, err.message);
        assert_true(!f.tensors && !f.n_tensors && !f.map.bytes);
        free(bytes);
    }
}

static void a_header_length_is_not_believed(void **state)
{
    (void)state;
    static const struct { uint64_t length; const char *says; } cases[] = {
        {3, "only 2 follow"}, {100000000, "only 2 follow"}, {100000001, "limit is 100000000"}, {UINT64_MAX, "limit"}, {UINT64_MAX - 7, "limit"}};
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        uint8_t bytes[10] = {0};
        for (size_t b = 0; b < 8; b++) bytes[b] = (uint8_t)(cases[i].length >> 8 * b);
        memcpy(bytes + 8, "{}", 2);
        struct zq_safetensors f;
        zq_error err = {0};
        assert_int_equal(zq_safetensors_view(&f, bytes, sizeof bytes, "mem", &err), ZQ_EFORMAT);
        assert_non_null(strstr(err.message, cases[i].says));
        for (size_t n = 0; n < 8; n++) assert_int_equal(zq_safetensors_view(&f, bytes, n, "mem", &err), ZQ_EFORMAT);
        assert_non_null(strstr(err.message, "7 bytes, too few"));
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct zq_safetensors f;
    zq_error err = {0};
    assert_int_equal(zq_safetensors_open(&f, scratch_path("none.safetensors"), &err), ZQ_EIO);
    assert_non_null(strstr(err.message, "none.safetensors"));
    assert_int_equal(zq_safetensors_open(&f, scratch_text("empty.safetensors", ""), &err), ZQ_EFORMAT);
    assert_non_null(strstr(err.message, "empty.safetensors"));
}

/* As many tensors as a model with hundreds of experts has. */
static void a_large_header_is_read(void **state)
{
    (void)state;
    enum { N = 20000 };
    char *header = malloc(N * 100 + 10);
    size_t n = (size_t)sprintf(header, "{");
    for (int i = N - 1; i >= 0; i--)
        n += (size_t)sprintf(header + n, "%s'model.layers.%d.weight':{'dtype':'BF16','shape':[1,2],'data_offsets':[%d,%d]}",
                             i == N - 1 ? "" : ",", i, 4 * i, 4 * i + 4);
    strcpy(header + n, "}");
    struct zq_safetensors f;
    uint8_t *bytes;
    assert_int_equal(view(&f, header, 4 * N, &bytes, NULL), ZQ_OK);
    assert_int_equal(f.n_tensors, N);
    for (int i = 0; i < N; i++) {
        char name[60];
        sprintf(name, "model.layers.%d.weight", i);
        assert_string_equal(f.tensors[i].name, name);
    }
    zq_safetensors_close(&f);
    free(bytes);
    free(header);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static struct zq_tensor described(const char *name, enum zq_dtype dtype, size_t n_dims, size_t a, size_t b)
{
    return (struct zq_tensor){.name = (char *)(uintptr_t)name, .dtype = dtype, .n_dims = n_dims, .shape = {a, b}};
}

static void a_written_file_is_the_documented_bytes(void **state)
{
    (void)state;
    const struct zq_tensor tensors[] = {described("x", ZQ_I32, 1, 2, 0), described("\xc3\xa9\"\n", ZQ_U8, 0, 0, 0)};
    const char *path = scratch_path("bytes.safetensors");
    struct zq_safetensors_writer w;
    assert_int_equal(zq_safetensors_begin(&w, path, tensors, 2, NULL), ZQ_OK);
    assert_int_equal(zq_safetensors_put(&w, "\1\2\3\4\5\6", 6, NULL), ZQ_OK);
    assert_int_equal(zq_safetensors_put(&w, "\7\10\11", 3, NULL), ZQ_OK);
    assert_false(zq_file_exists(path));
    assert_int_equal(zq_safetensors_end(&w, NULL), ZQ_OK);
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"x\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                 "\"\xc3\xa9\\\"\\n\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}}";
    size_t n_header = sizeof header - 1, n;
    char *text;
    assert_int_equal(zq_file_read(&text, &n, path, 1000, NULL), ZQ_OK);
    assert_memory_equal(text + 8, header, n_header);
    while (n_header % 8) assert_int_equal(text[8 + n_header++], ' ');
    assert_int_equal(n, 8 + n_header + 9);
    for (size_t i = 0; i < 8; i++) assert_int_equal((uint8_t)text[i], n_header >> 8 * i & 0xff);
    assert_memory_equal(text + 8 + n_header, "\1\2\3\4\5\6\7\10\11", 9);
    zq_free(text);
}

/* For a name of every length: the header ends at the next multiple of 8, and not one later. */
static void headers_are_padded_to_eight_bytes(void **state)
{
    (void)state;
    char name[9] = "";
    for (size_t i = 0; i < 8; i++) {
        name[i] = 'n';
        const struct zq_tensor t = described(name, ZQ_U8, 1, 1, 0);
        const char *path = scratch_path("padded.safetensors");
        struct zq_safetensors_writer w;
        assert_int_equal(zq_safetensors_begin(&w, path, &t, 1, NULL), ZQ_OK);
        assert_int_equal(zq_safetensors_put(&w, "!", 1, NULL), ZQ_OK);
        assert_int_equal(zq_safetensors_end(&w, NULL), ZQ_OK);
        char *text;
        size_t n;
        assert_int_equal(zq_file_read(&text, &n, path, 1000, NULL), ZQ_OK);
        assert_int_equal((uint8_t)text[0], n - 9);
        assert_int_equal((n - 9) % 8, 0);
        const char *end = strstr(text + 8, "}}");
        assert_true(end && text + n - 1 - (end + 2) < 8);
        for (const char *p = end + 2; p < text + n - 1; p++) assert_int_equal(*p, ' ');
        assert_int_equal(text[n - 1], '!');
        zq_free(text);
    }
}

static const struct zq_tensor *some_tensors(size_t *n)
{
    static struct zq_tensor tensors[40];
    static char names[40][40];
    for (size_t i = 0; i < 40; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%zu.mlp.up_proj.weight", i * 7 % 40);
        tensors[i] = described(names[i], (enum zq_dtype)(i % ZQ_N_DTYPES), i % 3, i % 5 * 1000, 1 + i % 4);
    }
    *n = 40;
    return tensors;
}

static size_t bytes_of(const struct zq_tensor *t)
{
    size_t n = zq_dtype_bytes(t->dtype);
    for (size_t i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

static zq_status write_some(void *path, zq_error *err)
{
    size_t n;
    const struct zq_tensor *tensors = some_tensors(&n);
    struct zq_safetensors_writer w;
    zq_status st = zq_safetensors_begin(&w, path, tensors, n, err);
    static uint8_t data[1 << 20];
    for (size_t i = 0; !st && i < n; i++) {
        memset(data, (int)i + 1, bytes_of(&tensors[i]));
        st = zq_safetensors_put(&w, data, bytes_of(&tensors[i]), err);
    }
    if (!st) st = zq_safetensors_end(&w, err);
    zq_safetensors_abandon(&w);
    return st;
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("round.safetensors"));
    assert_int_equal(write_some(path, NULL), ZQ_OK);
    size_t n;
    const struct zq_tensor *want = some_tensors(&n);
    struct zq_safetensors f;
    assert_int_equal(zq_safetensors_open(&f, path, NULL), ZQ_OK);
    assert_int_equal(f.n_tensors, n);
    for (size_t i = 0; i < n; i++) {
        const struct zq_tensor *t = &f.tensors[i];
        /* empty tensors at one place have no order of their own */
        if (!bytes_of(&want[i]) || !t->n_bytes) continue;
        assert_string_equal(t->name, want[i].name);
        assert_int_equal(t->dtype, want[i].dtype);
        assert_int_equal(t->n_dims, want[i].n_dims);
        assert_memory_equal(t->shape, want[i].shape, t->n_dims * sizeof *t->shape);
        assert_int_equal(t->n_bytes, bytes_of(&want[i]));
        assert_true(t->bytes[0] == i + 1 && t->bytes[t->n_bytes - 1] == i + 1);
        assert_ptr_equal(t->map, &f.map);
    }
    zq_safetensors_close(&f);
}

static void wrong_descriptions_are_refused(void **state)
{
    (void)state;
    mkdir(scratch_path("wrong"), 0777);
    static const struct { struct zq_tensor tensors[2]; const char *says; } cases[] = {
        {{{.name = "a"}, {.name = "a"}}, "\"a\""},
        {{{.name = "__metadata__"}, {.name = "b"}}, "__metadata__"},
        {{{.name = "a", .n_dims = 2, .shape = {SIZE_MAX, 2}}, {.name = "b"}}, "too large"},
        {{{.name = "a", .n_dims = 9}, {.name = "b"}}, "too large"},
        {{{.name = "a", .dtype = ZQ_U8, .n_dims = 1, .shape = {INT64_MAX}}, {.name = "b"}}, "too large"},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        struct zq_safetensors_writer w;
        zq_error err = {0};
        assert_int_equal(zq_safetensors_begin(&w, scratch_path("wrong/f"), cases[i].tensors, 2, &err), ZQ_EINVAL);
        assert_non_null(strstr(err.message, cases[i].says));
        zq_safetensors_abandon(&w);
    }
    assert_int_equal(scratch_count(scratch_path("wrong")), 0);
}

static void the_announced_bytes_must_come(void **state)
{
    (void)state;
    mkdir(scratch_path("count"), 0777);
    const struct zq_tensor t = described("t", ZQ_I8, 1, 10, 0);
    struct zq_safetensors_writer w;
    zq_error err = {0};
    assert_int_equal(zq_safetensors_begin(&w, scratch_path("count/f"), &t, 1, NULL), ZQ_OK);
    assert_int_equal(zq_safetensors_put(&w, "123456789", 9, NULL), ZQ_OK);
    assert_int_equal(zq_safetensors_put(&w, "ab", 2, &err), ZQ_EINVAL);
    assert_non_null(strstr(err.message, "only 1 are left"));
    assert_int_equal(zq_safetensors_end(&w, &err), ZQ_EINVAL);
    assert_non_null(strstr(err.message, "1 bytes are missing"));
    assert_int_equal(scratch_count(scratch_path("count")), 0);
    zq_safetensors_abandon(&w);
    w = (struct zq_safetensors_writer){0};
    zq_safetensors_abandon(&w);
    assert_int_equal(zq_safetensors_begin(&w, scratch_path("none/f"), &t, 1, &err), ZQ_EIO);
    zq_safetensors_abandon(&w);
}

/* ---- faults ------------------------------------------------------------------------------------------------------- */

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    mkdir(scratch_path("full"), 0777);
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("full/f"));
    size_t n = 0;
    for (bool done = false; !done;) {
        zq_error err = {0};
        zq_fault_write_at(++n, ENOSPC);
        const zq_status st = write_some(path, &err);
        done = zq_fault_write_count() < n;
        zq_fault_write_at(0, 0);
        assert_int_equal(st, done ? ZQ_OK : ZQ_ENOSPC);
        assert_int_equal(scratch_count(scratch_path("full")), done);
    }
    assert_true(n > 1);
}

/* A header that does not fit the write buffer fails in begin, which then cleans up by itself. */
static void a_disk_full_at_the_header_leaves_nothing(void **state)
{
    (void)state;
    enum { N = 20000 };
    mkdir(scratch_path("header"), 0777);
    struct zq_tensor *tensors = calloc(N, sizeof *tensors);
    char (*names)[60] = calloc(N, sizeof *names);
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "transformer.h.%zu.attn.c_attn.weight", i);
        tensors[i] = described(names[i], ZQ_U8, 1, 0, 0);
    }
    struct zq_safetensors_writer w;
    zq_error err = {0};
    zq_fault_write_at(1, ENOSPC);
    assert_int_equal(zq_safetensors_begin(&w, scratch_path("header/f"), tensors, N, &err), ZQ_ENOSPC);
    zq_fault_write_at(0, 0);
    assert_int_equal(scratch_count(scratch_path("header")), 0);
    assert_null(w.out.buffer);
    free(tensors);
    free(names);
}

static zq_status open_once(void *path, zq_error *err)
{
    struct zq_safetensors f;
    const zq_status st = zq_safetensors_open(&f, path, err);
    zq_safetensors_close(&f);
    return st;
}

static void failing_allocations_are_survived(void **state)
{
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("alloc.safetensors"));
    assert_true(fail_each_allocation(write_some, path) > 100);
    assert_true(fail_each_allocation(open_once, path) > 100);
}

/* Each prefix of the file, in a block of its own size. */
static void a_cut_file_is_an_error(void **state)
{
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s", scratch_path("cut.safetensors"));
    assert_int_equal(write_some(path, NULL), ZQ_OK);
    char *text;
    size_t n;
    assert_int_equal(zq_file_read(&text, &n, path, SIZE_MAX, NULL), ZQ_OK);
    for (size_t cut = 0; cut < n; cut += cut < 5000 ? 1 : n / 100) {
        uint8_t *bytes = malloc(cut + !cut);
        memcpy(bytes, text, cut);
        struct zq_safetensors f;
        zq_error err = {0};
        if (zq_safetensors_view(&f, bytes, cut, "cut", &err) != ZQ_EFORMAT) fail_msg("cut at %zu of %zu", cut, n);
        assert_ptr_equal(strstr(err.message, "cut"), err.message);
        free(bytes);
    }
    zq_free(text);
}

static void check_real_file(const char *path)
{
    struct zq_safetensors f;
    zq_error err = {0};
    if (zq_safetensors_open(&f, path, &err)) fail_msg("%s", err.message);
    struct zq_map map;
    assert_int_equal(zq_map_open(&map, path, NULL), ZQ_OK);
    assert_true(f.n_tensors > 0);
    for (size_t i = 0; i < 100; i++) {
        struct zq_safetensors cut;
        assert_int_equal(zq_safetensors_view(&cut, map.bytes, map.n_bytes * i / 100, path, NULL), ZQ_EFORMAT);
    }
    zq_map_close(&map);
    zq_safetensors_close(&f);
}

static void real_files_are_read(void **state)
{
    (void)state;
    const size_t n = shared_each_file("models", ".safetensors", check_real_file);
    if (!n) {
        print_message("skipped: no shared data\n");
        skip();
    }
    assert_true(n >= 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_in_file_order),
        cmocka_unit_test(an_empty_file_is_legal),
        cmocka_unit_test(what_the_format_forbids_is_named),
        cmocka_unit_test(a_header_length_is_not_believed),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_large_header_is_read),
        cmocka_unit_test(a_written_file_is_the_documented_bytes),
        cmocka_unit_test(headers_are_padded_to_eight_bytes),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(wrong_descriptions_are_refused),
        cmocka_unit_test(the_announced_bytes_must_come),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(a_disk_full_at_the_header_leaves_nothing),
        cmocka_unit_test(failing_allocations_are_survived),
        cmocka_unit_test(a_cut_file_is_an_error),
        cmocka_unit_test(real_files_are_read),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
