/* Training a block: products against plain loops, fake weights and tokens against the codes of the exporter, the forms in which
 * maps read their input, results that do not depend on threads, memory that is as large as announced, and failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "distill/fake.h"
#include "distill/loss.h"
#include "distill/matmul.h"
#include "distill/student.h"
#include "fail_alloc.h"
#include "quant/encode.h"

#include <math.h>
#include <string.h>

static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) x[i] = 2 * zq_rng_float(&seed) - 1;
}

static float *random_floats(size_t n, uint64_t seed)
{
    float *x = zq_alloc_array(n, sizeof *x);
    fill(x, n, seed);
    return x;
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

static void check_product(size_t m, size_t n, size_t k, bool turn_a, bool turn_b, bool add)
{
    const size_t lda = (turn_a ? m : k) + 3, ldb = (turn_b ? k : n) + 1, ldc = n + 2;
    float *a = random_floats((turn_a ? k : m) * lda, 1), *b = random_floats((turn_b ? n : k) * ldb, 2);
    float *c = random_floats(m * ldc, 3), *c1 = random_floats(m * ldc, 3);
    const struct zq_matmul p = {
        .m = m, .n = n, .k = k, .alpha = 0.5f, .a = a, .b = b, .lda = lda, .ldb = ldb, .turn_a = turn_a, .turn_b = turn_b,
        .c = c, .ldc = ldc, .add = add,
    };
    struct zq_matmul one = p;
    one.c = c1;
    zq_matmul_run(3, &p);
    zq_matmul_run(1, &one);
    assert_memory_equal(c, c1, m * ldc * sizeof *c);
    uint64_t seed = 3;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < ldc; j++) {
            const float before = 2 * zq_rng_float(&seed) - 1;
            double want = add || j >= n ? before : 0, size = 1;
            for (size_t l = 0; l < k && j < n; l++) {
                const double term = 0.5 * a[turn_a ? l * lda + i : i * lda + l] * b[turn_b ? j * ldb + l : l * ldb + j];
                want += term;
                size += fabs(term);
            }
            /* k + 2 roundings of at most half a unit in the last place of the sum of magnitudes */
            assert_true(fabs(c[i * ldc + j] - want) <= (double)(k + 2) * 0x1p-24 * size);
        }
    }
    zq_free(a);
    zq_free(b);
    zq_free(c);
    zq_free(c1);
}

static void test_products(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1}, {5, 7, 3}, {300, 40, 17}, {33, 500, 20}, {129, 129, 64}, {4, 3, 0}};
    for (size_t i = 0; i < ZQ_LEN(shapes); i++)
        for (int kind = 0; kind < 6; kind++) check_product(shapes[i][0], shapes[i][1], shapes[i][2], kind % 3 == 1, kind % 3 == 2, kind >= 3);
}

/* ---- fake quantization ------------------------------------------------------------------------------------------------- */

static struct zq_layout layout_of(int w, enum zq_grouping_kind kind, size_t n, size_t n_rows, size_t n_cols, enum zq_dtype dtype)
{
    return zq_recipe_layout((struct zq_recipe){{w, 8}, {kind, n}}, n_rows, n_cols, dtype);
}

/* Each run of weights under one scale: the scale from its largest values, the values on its grid. */
static void check_fake(int bits, const struct zq_layout *layout, size_t n_rows, size_t n_cols)
{
    float *w = random_floats(n_rows * n_cols, 9), *out = zq_alloc_array(n_rows * n_cols, sizeof *out);
    float *shared = zq_alloc_array(n_rows, sizeof *shared);
    memset(w, 0, n_cols * sizeof *w); /* an all-zero row has scale 1 */
    float *scratch = zq_alloc_array(2 * zq_fake_thread_floats(n_cols), sizeof *scratch);
    const struct zq_fake_weights a = {w, out, n_rows, n_cols, layout, shared, NULL};
    assert_true(zq_fake_weights(&a, 2, scratch, zq_fake_thread_floats(n_cols)));
    const size_t length = layout->spec.k_group ? layout->spec.k_group : n_cols;
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t k = 0; k < n_cols; k++) {
            size_t first = r, last = r + 1, from = k / length * length;
            if (layout->row_groups) {
                const size_t g = r * layout->row_groups / n_rows;
                while (first > 0 && (first - 1) * layout->row_groups / n_rows == g) first--;
                while (last < n_rows && last * layout->row_groups / n_rows == g) last++;
            }
            float low = 0, high = 0;
            for (size_t i = first; i < last; i++)
                for (size_t j = from; j < from + length; j++) {
                    low = fminf(low, w[i * n_cols + j]);
                    high = fmaxf(high, w[i * n_cols + j]);
                }
            float scale = bits == 8 ? fmaxf(high, -low) / 127 : fmaxf(high / 7, -low / 8);
            uint8_t bytes[4];
            zq_from_float(bytes, layout->scale_dtype, &scale, 1);
            zq_to_float(&scale, bytes, layout->scale_dtype, 1);
            if (scale == 0) scale = 1;
            const float code = fminf(fmaxf(rintf(w[r * n_cols + k] / scale), bits == 8 ? -127 : -8), bits == 8 ? 127 : 7);
            assert_true(out[r * n_cols + k] == code * scale);
        }
    }
    w[n_rows * n_cols - 1] = NAN;
    assert_false(zq_fake_weights(&a, 2, scratch, zq_fake_thread_floats(n_cols)));
    zq_free(w);
    zq_free(out);
    zq_free(shared);
    zq_free(scratch);
}

static void test_weights(void **state)
{
    (void)state;
    static const enum zq_dtype dtypes[] = {ZQ_F32, ZQ_F16, ZQ_BF16};
    for (size_t d = 0; d < ZQ_LEN(dtypes); d++) {
        for (int bits = 4; bits <= 8; bits += 4) {
            const struct zq_layout layouts[] = {
                layout_of(bits, ZQ_BY_CHANNEL, 0, 21, 96, dtypes[d]), layout_of(bits, ZQ_BY_K, 16, 21, 96, dtypes[d]),
                layout_of(bits, ZQ_BY_DEFAULT, 0, 21, 96, dtypes[d]), layout_of(bits, ZQ_BY_ROWS, 5, 21, 96, dtypes[d]),
            };
            for (size_t i = 0; i < ZQ_LEN(layouts); i++) check_fake(bits, &layouts[i], 21, 96);
        }
    }
}

static void test_tokens(void **state)
{
    (void)state;
    enum { T = 20, N = 50 };
    float *x = random_floats(T * N, 4), *out = zq_alloc_array(T * N, sizeof *out);
    float *scratch = zq_alloc_array(2 * zq_fake_thread_floats(N), sizeof *scratch);
    for (size_t i = 0; i < N; i++) x[3 * N + i] = 0;
    x[5 * N + 7] = INFINITY;
    zq_fake_tokens(x, out, T, N, 2, scratch, zq_fake_thread_floats(N));
    for (size_t t = 0; t < T; t++) {
        float top = 0;
        for (size_t i = 0; i < N; i++) top = fmaxf(top, fabsf(x[t * N + i]));
        const float scale = top == 0 ? 1 : top / 127;
        for (size_t i = 0; i < N; i++) assert_true(out[t * N + i] == (t == 5 ? x[t * N + i] : rintf(x[t * N + i] / scale) * scale));
    }
    zq_fake_tokens(x, x, T, N, 1, scratch, zq_fake_thread_floats(N));
    assert_memory_equal(x, out, T * N * sizeof *x);
    zq_free(x);
    zq_free(out);
    zq_free(scratch);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------ */

enum { WIDTH = 32, LENGTH = 100, SEQUENCES = 3, TOKENS = SEQUENCES * LENGTH };

static struct zq_config config_of(const char *model_type)
{
    const struct zq_arch *arch = zq_arch_find(model_type);
    return (struct zq_config){
        .arch = arch, .width = WIDTH, .n_heads = 4, .n_kv_heads = arch->keys.n_kv_heads ? 2 : 4, .head_dim = 8, .ffn_width = 144,
        .max_length = LENGTH, .norm = arch->norm, .activation = ZQ_ACT_SILU, .gated = arch->names.linear[ZQ_GATE] != NULL, .norm_eps = 1e-5,
        .n_rotated = arch->positions == ZQ_POS_LEARNED ? 0 : 4, .theta = 10000,
    };
}

static struct zq_student_options options_of(const struct zq_config *c, int n_threads)
{
    struct zq_student_options o = {
        .config = c, .max_sequences = SEQUENCES, .max_length = LENGTH, .max_tokens = TOKENS, .trains = true, .n_threads = n_threads,
    };
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        o.layouts[r] = (struct zq_layout){.spec = {4, 8, r == ZQ_DOWN ? 16 : 0}, .row_groups = r == ZQ_UP ? 5 : 0};
    return o;
}

static struct zq_student *open_student(const struct zq_student_options *o)
{
    struct zq_student *s = NULL;
    uint64_t seed = 6;
    assert_int_equal(zq_student_create(&s, o, NULL), ZQ_OK);
    for (size_t i = 0; i < s->n_params; i++) s->params[i] = (2 * zq_rng_float(&seed) - 1) / 2;
    for (int r = 0; r < ZQ_N_LINEARS; r++) s->linear[r].has_bias = true;
    assert_true(zq_student_quantize(s));
    return s;
}

/* Output, gradient of the input and all gradients of a step: [2, TOKENS, WIDTH] and [n_params]. */
static float *step(struct zq_student *s, bool quantized, size_t *n)
{
    static const size_t lengths[SEQUENCES] = {LENGTH, LENGTH - 37, 1};
    static float x[TOKENS * WIDTH], dy[TOKENS * WIDTH]; /* the student reads x after the step, too */
    fill(x, TOKENS * WIDTH, 7);
    fill(dy, TOKENS * WIDTH, 8);
    *n = 2 * TOKENS * WIDTH + s->n_params;
    float *all = zq_alloc_array(*n, sizeof *all);
    const struct zq_student_batch batch = {x, lengths, SEQUENCES};
    zq_student_forward(s, &batch, quantized, all);
    zq_student_backward(s, dy, all + TOKENS * WIDTH);
    memcpy(all + 2 * TOKENS * WIDTH, s->grads, s->n_params * sizeof *all);
    return all;
}

static void test_threads(void **state)
{
    (void)state;
    static const char *const families[] = {"gpt2", "bert", "gptj", "gpt_neox", "mistral"};
    for (size_t i = 0; i < ZQ_LEN(families); i++) {
        const struct zq_config c = config_of(families[i]);
        float *first = NULL;
        for (int n_threads = 1; n_threads <= 4; n_threads++) {
            const struct zq_student_options o = options_of(&c, n_threads);
            struct zq_student *s = open_student(&o);
            size_t n;
            zq_student_begin_training(s, true);
            assert_true(zq_student_quantize(s));
            float *got = step(s, true, &n);
            if (first && memcmp(first, got, n * sizeof *got)) fail_msg("%s: %d threads give other bits", families[i], n_threads);
            if (first) zq_free(got);
            else first = got;
            zq_student_free(s);
        }
        zq_free(first);
    }
}

/* Products of codes are those of their values but for the rounding of sums, which may take a token's code to its neighbour. */
static void test_codes(void **state)
{
    (void)state;
    static const char *const families[] = {"gpt2", "bert", "gptj", "mistral"};
    for (size_t i = 0; i < ZQ_LEN(families); i++) {
        const struct zq_config c = config_of(families[i]);
        const struct zq_student_options o = options_of(&c, 2);
        struct zq_student *s = open_student(&o);
        size_t n;
        float *values = step(s, true, &n);
        zq_student_begin_training(s, false);
        assert_true(zq_student_quantize(s));
        float *codes = step(s, true, &n);
        double off = 0, size = 0;
        for (size_t k = 0; k < n; k++) {
            off += ((double)codes[k] - values[k]) * ((double)codes[k] - values[k]);
            size += (double)values[k] * values[k];
        }
        off = sqrt(off / size);
        if (!(off > 0 && off < 1e-4)) fail_msg("%s: a step with products of codes is off by %g of its norm", families[i], off);
        zq_student_end_training(s);
        float *again = step(s, true, &n);
        assert_memory_equal(again, values, n * sizeof *values);
        zq_free(values);
        zq_free(codes);
        zq_free(again);
        zq_student_free(s);
    }
}

/* With float tokens, and weights that lie on their grid already, the student is its teacher. */
static void test_grid(void **state)
{
    (void)state;
    const struct zq_config c = config_of("llama");
    struct zq_student_options o = options_of(&c, 2);
    for (int r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r].spec.a_bits = 16;
    struct zq_student *s = open_student(&o);
    size_t n;
    float *before = step(s, true, &n);
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        memcpy(l->w, l->fake, l->n_rows * l->n_cols * sizeof *l->w);
    }
    float *after = step(s, false, &n);
    assert_memory_equal(before, after, n * sizeof *before);
    zq_free(before);
    zq_free(after);
    zq_student_free(s);
}

/* The share of values of x [n_tokens, n] that are multiples of their token's INT8 scale. */
static double share_on_grid(const float *x, size_t n_tokens, size_t n)
{
    size_t count = 0;
    for (size_t t = 0; t < n_tokens; t++, x += n) {
        float top = 0;
        for (size_t k = 0; k < n; k++) top = fmaxf(top, fabsf(x[k]));
        for (size_t k = 0; k < n; k++) count += fabsf(x[k] / (top / 127) - rintf(x[k] / (top / 127))) < 1e-4f;
    }
    return (double)count / (double)(n_tokens * n);
}

/* Which maps quantize their input decides whether floats and tokens share an array. Where two maps of 8 and 16 bits read the
 * same input, one must see INT8 tokens and the other floats. */
static void test_mixed_inputs(void **state)
{
    (void)state;
    static const char *const families[] = {"bert", "gptj", "llama"};
    for (size_t i = 0; i < ZQ_LEN(families); i++) {
        const struct zq_config c = config_of(families[i]);
        struct zq_student_options o = options_of(&c, 2);
        for (int r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r].spec = (struct zq_spec){16, 16, 0};
        o.layouts[ZQ_Q].spec.a_bits = o.layouts[ZQ_UP].spec.a_bits = 8;
        struct zq_student *s = open_student(&o);
        size_t n;
        zq_free(step(s, true, &n));
        for (int r = ZQ_Q; r <= ZQ_UP; r++) {
            const struct zq_student_linear *l = &s->linear[r];
            const struct zq_student_input *in = r <= ZQ_V ? &s->attention_in : r == ZQ_O ? &s->o_in : &s->ffn_in;
            if (!l->n_rows) continue;
            const double share = share_on_grid(zq_student_read(s, l, in), s->n_tokens, in->n);
            if (l->layout.spec.a_bits == 8) assert_true(share == 1);
            else assert_true(share < 0.5); /* the largest value of a token is always on the grid, the others by chance */
        }
        zq_student_free(s);
    }
}

static zq_status create(void *argument, zq_error *err)
{
    struct zq_student *s;
    const zq_status st = zq_student_create(&s, argument, err);
    assert_true((s != NULL) == (st == ZQ_OK));
    zq_student_free(s);
    return st;
}

static void test_memory(void **state)
{
    (void)state;
    const struct zq_config c = config_of("bert");
    struct zq_student_options o = options_of(&c, 2);
    assert_int_equal(fail_each_allocation(create, &o), 2);
    zq_student_free(NULL);

    size_t trains, runs, n;
    assert_int_equal(zq_student_bytes(&trains, &o, NULL), ZQ_OK);
    o.trains = false;
    assert_int_equal(zq_student_bytes(&runs, &o, NULL), ZQ_OK);
    struct zq_student *s = NULL;
    assert_int_equal(zq_student_create(&s, &o, NULL), ZQ_OK);
    assert_true(trains - runs >= s->n_params * sizeof(float)); /* the gradients at least */
    /* the last array ends where the memory ends */
    assert_ptr_equal(s->processor.scratch + (size_t)s->n_threads * s->processor.thread_floats, (float *)s->memory + runs / sizeof(float));
    zq_student_free(s);

    zq_error err = {0};
    o.max_length = LENGTH + 1;
    assert_int_equal(zq_student_bytes(&n, &o, &err), ZQ_ELIMIT);
    assert_string_equal(err.message, "sequences of 101 tokens are above the model's limit of 100");
    assert_int_equal(zq_student_create(&s, &o, &err), ZQ_ELIMIT);
    assert_null(s);
    o.max_length = 0;
    assert_int_equal(zq_student_bytes(&n, &o, &err), ZQ_EINVAL);
    o.max_length = LENGTH;
    o.max_tokens = (size_t)1 << 40;
    assert_int_equal(zq_student_bytes(&n, &o, &err), ZQ_ELIMIT);
    assert_int_equal(n, 0);
}

static void test_not_finite(void **state)
{
    (void)state;
    const struct zq_config c = config_of("gpt2");
    const struct zq_student_options o = options_of(&c, 2);
    struct zq_student *s = open_student(&o);
    s->linear[ZQ_UP].w[17] = INFINITY;
    assert_false(zq_student_quantize(s));
    s->linear[ZQ_UP].w[17] = 0;
    assert_true(zq_student_quantize(s));
    zq_student_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products), cmocka_unit_test(test_weights), cmocka_unit_test(test_tokens), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_codes), cmocka_unit_test(test_grid), cmocka_unit_test(test_mixed_inputs), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests_name("distill", tests, NULL, NULL);
}
