/* What --math fast promises, kept with BF16 products: perplexity within 0.1 % of exact, embeddings within a cosine of 0.9999; gradients of a block
 * in training near those of F32, and the same for any number of threads. So that every processor with AVX2 tells, models and blocks get the
 * kernels that zqcheck borrows (tests/CMakeLists.txt wraps zq_kernels_fast() and zq_kernels_fast_attention() in this program). */
#include "golden.h"

#include "base/rng.h"
#include "distill/student.h"
#include "kernels/kernels.h"
#include "model/model.h"

void zq_bf16mul_avx512bf16_borrowed(struct zq_kernels *k);
void zq_bf16mul_amx_borrowed(struct zq_kernels *k);
void zq_attend_avx512bf16_borrowed(struct zq_kernels *k);
void __wrap_zq_kernels_fast(struct zq_kernels *k);
void __wrap_zq_kernels_fast_attention(struct zq_kernels *k);

static void (*fill)(struct zq_kernels *k);
void __wrap_zq_kernels_fast(struct zq_kernels *k)
{
    fill(k);
    k->bf16 = true;
}

void __wrap_zq_kernels_fast_attention(struct zq_kernels *k)
{
    zq_attend_avx512bf16_borrowed(k);
    k->bf16_attention = true;
}

static const struct level {
    const char *name;
    void (*fill)(struct zq_kernels *k);
} levels[] = {{"avx512bf16", zq_bf16mul_avx512bf16_borrowed}, {"amx", zq_bf16mul_amx_borrowed}};

static zq_model *open_model(const char *dir, zq_math math, const struct level *level)
{
    zq_model *m = NULL;
    const zq_open_options o = {.n_threads = 2, .math = math, .kv = ZQ_KV_F32};
    fill = level->fill;
    OK(zq_model_open(&m, dir, &o, err));
    assert_true(m->kernels.bf16 == (math == ZQ_MATH_FAST) && m->blas == (math == ZQ_MATH_EXACT));
    if (math == ZQ_MATH_FAST) assert_non_null(strstr(m->kernels.f32_a16.name, level->name));
    return m;
}

static void perplexity(void **state)
{
    (void)state;
    size_t n;
    char *text = read_text("models/novels/heldout.txt", &n);
    double ppl[1 + ZQ_LEN(levels)];
    for (size_t i = 0; i <= ZQ_LEN(levels); i++) { /* the first one is exact */
        zq_model *m = open_model("models/novels", i ? ZQ_MATH_FAST : ZQ_MATH_EXACT, &levels[i ? i - 1 : 0]);
        const zq_eval_options o = {.n_threads = 2, .window = 128, .limit = 1024};
        zq_eval_result result;
        OK(zq_eval_text(m, text, n, &o, &result, err));
        ppl[i] = result.ppl;
        zq_model_close(m);
    }
    for (size_t i = 0; i < ZQ_LEN(levels); i++) {
        const double change = ppl[1 + i] / ppl[0] - 1;
        print_message("  %s: perplexity %+.4f %%\n", levels[i].name, 100 * change);
        assert_true(fabs(change) <= 0.001 && change != 0);
    }
    free(text);
}

static void embeddings(void **state)
{
    (void)state;
    static const int32_t ids[] = {101, 1037, 4251, 2143, 1010, 2021, 2009, 3084, 2172, 1997, 2049, 5436, 102};
    char dir[512];
    model_dir("minilm-sst2", dir, sizeof dir);
    for (size_t i = 0; i < ZQ_LEN(levels); i++) {
        float out[2][1024];
        zq_model_info info;
        for (int math = ZQ_MATH_EXACT; math <= ZQ_MATH_FAST; math++) {
            zq_model *m = open_model(dir, (zq_math)math, &levels[i]);
            zq_session *s = NULL;
            zq_model_info_get(m, &info);
            assert_true(info.width <= 1024);
            OK(zq_session_create(&s, m, NULL, err));
            OK(zq_session_embed(s, ids, NULL, ZQ_LEN(ids), ZQ_POOL_MEAN, false, out[math], err));
            zq_session_close(s);
            zq_model_close(m);
        }
        double ab = 0, aa = 0, bb = 0;
        for (size_t d = 0; d < info.width; d++) {
            ab += (double)out[0][d] * out[1][d];
            aa += (double)out[0][d] * out[0][d];
            bb += (double)out[1][d] * out[1][d];
        }
        print_message("  %s: cosine %.7f\n", levels[i].name, ab / sqrt(aa * bb));
        assert_true(ab / sqrt(aa * bb) >= 0.9999 && ab / sqrt(aa * bb) < 1);
    }
}

enum { WIDTH = 64, LENGTH = 100, N_SEQUENCES = 3, N_TOKENS = N_SEQUENCES * LENGTH };

/* A block of a family in W4A8 with made-up weights. */
static struct zq_student *open_block(const char *family, bool fast, int n_threads)
{
    const struct zq_arch *arch = zq_arch_find(family);
    const struct zq_config c = {
        .arch = arch, .width = WIDTH, .n_heads = 4, .n_kv_heads = arch->keys.n_kv_heads ? 2 : 4, .head_dim = 16, .ffn_width = 200,
        .max_length = LENGTH, .norm = arch->norm, .activation = ZQ_ACT_SILU, .gated = arch->names.linear[ZQ_GATE] != NULL, .norm_eps = 1e-5,
        .n_rotated = arch->positions == ZQ_POS_LEARNED ? 0 : 8, .theta = 10000,
    };
    struct zq_student_options o = {.config = &c, .max_sequences = N_SEQUENCES, .max_length = LENGTH, .max_tokens = N_TOKENS, .trains = true,
                                   .n_threads = n_threads};
    struct zq_student *s = NULL;
    uint64_t seed = 6;
    for (int r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r] = (struct zq_layout){.spec = {4, 8, 0}};
    OK(zq_student_create(&s, &o, err));
    for (size_t i = 0; i < s->n_params; i++) s->params[i] = (2 * zq_rng_float(&seed) - 1) / 4;
    for (int r = 0; r < ZQ_N_LINEARS; r++) s->linear[r].has_bias = true;
    zq_student_begin_training(s, fast);
    assert_true(zq_student_quantize(s));
    return s;
}

/* Gradients of all parameters and of the input, one after the other; the caller frees them. */
static float *gradients(const char *family, bool fast, int n_threads, size_t *n)
{
    static const size_t lengths[N_SEQUENCES] = {LENGTH, LENGTH - 37, 1};
    struct zq_student *s = open_block(family, fast, n_threads);
    const size_t n_values = N_TOKENS * WIDTH;
    *n = s->n_params + n_values;
    float *all = zq_alloc_zero((*n + 3 * n_values) * sizeof *all), *x = all + *n, *dy = x + n_values, *out = dy + n_values;
    assert_non_null(all);
    uint64_t seed = 7;
    for (size_t i = 0; i < 2 * n_values; i++) x[i] = 2 * zq_rng_float(&seed) - 1;
    zq_student_forward(s, &(struct zq_student_batch){x, lengths, N_SEQUENCES}, true, out);
    zq_student_backward(s, dy, all + s->n_params);
    memcpy(all, s->grads, s->n_params * sizeof *all);
    zq_student_free(s);
    return all;
}

static void training(void **state)
{
    (void)state;
    static const char *const families[] = {"gpt2", "bert", "gptj", "mistral"};
    for (size_t i = 0; i < ZQ_LEN(levels) * ZQ_LEN(families); i++) {
        const char *family = families[i / ZQ_LEN(levels)];
        const struct level *level = &levels[i % ZQ_LEN(levels)];
        size_t n;
        fill = level->fill;
        float *exact = gradients(family, false, 2, &n), *fast = gradients(family, true, 1, &n);
        double off = 0, size = 0;
        for (size_t k = 0; k < n; k++) {
            off += ((double)fast[k] - exact[k]) * ((double)fast[k] - exact[k]);
            size += (double)exact[k] * exact[k];
        }
        off = sqrt(off / size);
        print_message("  %s, %s: gradients off by %.5f of their norm\n", level->name, family, off);
        assert_true(off > 0 && off <= 0.02); /* a factor is off by up to 2^-9, and a token's code may become its neighbour */
        for (int n_threads = 2; n_threads <= 7; n_threads += 5) {
            float *again = gradients(family, true, n_threads, &n);
            assert_memory_equal(again, fast, n * sizeof *fast);
            zq_free(again);
        }
        zq_free(exact);
        zq_free(fast);
    }
}

int main(void)
{
    unsigned here;
    OK(zq_levels_detect(&here, err));
    if (!(here & ZQ_LEVEL_AVX2)) {
        print_message("skipped: the emulated levels need AVX2\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(perplexity), cmocka_unit_test(embeddings), cmocka_unit_test(training)};
    return cmocka_run_group_tests_name("bf16", tests, NULL, NULL);
}
