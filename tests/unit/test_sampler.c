/* Sampling: greedy ties, the sets that top-k and top-p leave, frequencies that follow the softmax, and one text per seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/status.h"

#include <math.h>

static const float logits[] = {1.0f, 3.0f, -2.0f, 3.0f, 2.0f, 0.0f};
enum { N = 6, DRAWS = 20000 };

static void draw(zq_sampler s, size_t *counts)
{
    for (int i = 0; i < DRAWS; i++) {
        int32_t id;
        assert_int_equal(zq_sample(&s, logits, N, &id, NULL), ZQ_OK);
        assert_in_range(id, 0, N - 1);
        counts[id]++;
    }
}

static void test_greedy(void **state)
{
    (void)state;
    zq_sampler s = {0};
    int32_t id;
    assert_int_equal(zq_sample(&s, logits, N, &id, NULL), ZQ_OK);
    assert_int_equal(id, 1); /* 1 and 3 tie: the smaller id */
    assert_int_equal(zq_sample(&s, logits, 0, &id, NULL), ZQ_EINVAL);
}

static void test_frequencies(void **state)
{
    (void)state;
    size_t counts[N] = {0};
    const double t = 1.5;
    double p[N], total = 0;
    draw((zq_sampler){.temperature = (float)t, .state = 7}, counts);
    for (int i = 0; i < N; i++) total += p[i] = exp(logits[i] / t);
    for (int i = 0; i < N; i++) {
        const double want = p[i] / total, deviation = sqrt(want * (1 - want) / DRAWS);
        assert_true(fabs((double)counts[i] / DRAWS - want) < 5 * deviation);
    }
}

static void test_top_k(void **state)
{
    (void)state;
    size_t counts[N] = {0};
    draw((zq_sampler){.temperature = 1, .top_k = 3, .state = 1}, counts);
    assert_true(counts[1] && counts[3] && counts[4]);
    assert_int_equal(counts[0] + counts[2] + counts[5], 0);
    size_t one[N] = {0};
    draw((zq_sampler){.temperature = 5, .top_k = 1, .state = 1}, one);
    assert_int_equal(one[1], DRAWS);
}

static void test_top_p(void **state)
{
    (void)state;
    size_t counts[N] = {0};
    /* softmax: 1 and 3 have 0.39 each, 4 has 0.14: two reach 0.7, three are needed for 0.8 */
    draw((zq_sampler){.temperature = 1, .top_p = 0.7f, .state = 1}, counts);
    assert_true(counts[1] && counts[3]);
    assert_int_equal(counts[1] + counts[3], DRAWS);
    size_t three[N] = {0};
    draw((zq_sampler){.temperature = 1, .top_p = 0.8f, .state = 1}, three);
    assert_true(three[4] > 0);
    assert_int_equal(three[1] + three[3] + three[4], DRAWS);
}

static void test_seed(void **state)
{
    (void)state;
    zq_sampler a = {.temperature = 1, .state = 42}, b = a, c = {.temperature = 1, .state = 43};
    int different = 0;
    for (int i = 0; i < 100; i++) {
        int32_t x, y, z;
        assert_int_equal(zq_sample(&a, logits, N, &x, NULL), ZQ_OK);
        assert_int_equal(zq_sample(&b, logits, N, &y, NULL), ZQ_OK);
        assert_int_equal(zq_sample(&c, logits, N, &z, NULL), ZQ_OK);
        assert_int_equal(x, y);
        different += x != z;
    }
    assert_true(different > 10);
}

static void test_strange_logits(void **state)
{
    (void)state;
    const float strange[] = {NAN, -INFINITY, 1.0f, NAN};
    zq_sampler s = {.temperature = 1, .state = 3};
    int32_t id;
    for (int i = 0; i < 50; i++) {
        assert_int_equal(zq_sample(&s, strange, 4, &id, NULL), ZQ_OK);
        assert_int_equal(id, 2);
    }
    zq_alloc_fail_at(1, false);
    assert_int_equal(zq_sample(&s, strange, 4, &id, NULL), ZQ_ENOMEM);
    zq_alloc_fail_at(0, false);
    static const float hopeless[][2] = {{NAN, NAN}, {NAN, -INFINITY}, {INFINITY, 1.0f}};
    for (int greedy = 0; greedy < 2; greedy++) {
        s.temperature = greedy ? 0 : 1;
        assert_int_equal(zq_sample(&s, strange, 4, &id, NULL), ZQ_OK);
        assert_int_equal(id, 2);
        for (size_t i = 0; i < 3; i++) assert_int_equal(zq_sample(&s, hopeless[i], 2, &id, NULL), ZQ_EFORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy), cmocka_unit_test(test_frequencies), cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),  cmocka_unit_test(test_seed),        cmocka_unit_test(test_strange_logits),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
