/* What --math fast promises, kept with BF16 products: perplexity within 0.1 % of exact, embeddings within a cosine of 0.9999. So that every
 * processor with AVX2 tells, models get the kernels that zqcheck borrows (tests/CMakeLists.txt wraps zq_kernels_fast() in this program). */
#include "golden.h"

#include "kernels/kernels.h"
#include "model/model.h"

void zq_bf16mul_avx512bf16_borrowed(struct zq_kernels *k);
void zq_bf16mul_amx_borrowed(struct zq_kernels *k);
void zq_attend_avx512bf16_borrowed(struct zq_kernels *k);
void __wrap_zq_kernels_fast(struct zq_kernels *k);

static void (*fill)(struct zq_kernels *k);
void __wrap_zq_kernels_fast(struct zq_kernels *k)
{
    fill(k);
    zq_attend_avx512bf16_borrowed(k);
    k->bf16 = true;
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

int main(void)
{
    unsigned here;
    OK(zq_levels_detect(&here, err));
    if (!(here & ZQ_LEVEL_AVX2)) {
        print_message("skipped: the emulated levels need AVX2\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(perplexity), cmocka_unit_test(embeddings)};
    return cmocka_run_group_tests_name("bf16", tests, NULL, NULL);
}
