/* Maps of one input that run together: the same bytes as one by one, whatever their formats, tiles of rows and numbers of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/rng.h"
#include "ops/ops.h"

#include <string.h>

enum { COLS = 96, TOKENS = 9, MAPS = 3, MOST_ROWS = 301, LD_OUT = 700 };

static int8_t codes[MOST_ROWS * COLS], q[TOKENS * COLS];
static float values[MOST_ROWS * COLS], scales[MOST_ROWS], x[TOKENS * COLS], x_scale[TOKENS], bias[MOST_ROWS];

static void fill_inputs(void)
{
    uint64_t rng = 1;
    for (size_t i = 0; i < ZQ_LEN(codes); i++) {
        codes[i] = (int8_t)(zq_rng_next(&rng) % 15) - 7;
        values[i] = (float)codes[i] / 8;
    }
    for (size_t i = 0; i < ZQ_LEN(q); i++) x[i] = q[i] = (int8_t)(zq_rng_next(&rng) % 255) - 127;
    for (size_t i = 0; i < MOST_ROWS; i++) scales[i] = bias[i] = 1 + (float)i / 7;
    for (size_t i = 0; i < TOKENS; i++) x_scale[i] = 1 + (float)i;
}

static void make_map(struct zq_linear *l, const struct zq_gemm *gemm, size_t n_rows, struct zq_spec spec)
{
    *l = (struct zq_linear){.spec = spec, .w = {.n_rows = n_rows, .n_cols = COLS, .dtype = ZQ_F32}, .gemm = gemm, .bias = bias};
    l->w.packed = zq_alloc_pages(gemm->packed_bytes(&l->w));
    assert_non_null(l->w.packed);
    if (spec.w_bits == 16) gemm->pack(&l->w, 0, n_rows, values, NULL);
    else gemm->pack(&l->w, 0, n_rows, codes, scales);
}

static void together_and_apart(void **state)
{
    static float out[2][TOKENS * LD_OUT];
    struct zq_kernels kernels;
    struct zq_linear maps[MAPS];
    zq_kernels_init(&kernels, *(unsigned *)*state);
    fill_inputs();
    make_map(&maps[0], &kernels.w8_a8, 301, (struct zq_spec){8, 8, 0});
    make_map(&maps[1], &kernels.f32_a16, 70, ZQ_SPEC_FLOAT);
    make_map(&maps[2], &kernels.w4_a8, 253, (struct zq_spec){4, 8, 0});
    const struct zq_rows in = {.f = x, .q = q, .scale = x_scale, .ld = COLS};
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        struct zq_ops ops = {.kernels = &kernels, .team = zq_team_create(n_threads)};
        for (size_t n_maps = 1; n_maps <= MAPS; n_maps++) {
            struct zq_linear_output list[MAPS];
            memset(out, 0x55, sizeof out);
            for (size_t i = 0, at = 0; i < n_maps; at += maps[i++].w.n_rows) {
                list[i] = (struct zq_linear_output){&maps[i], out[0] + at};
                zq_linear_run(&ops, &maps[i], in, TOKENS, NULL, out[1] + at, LD_OUT);
            }
            zq_linear_run_all(&ops, list, n_maps, in, TOKENS, LD_OUT);
            assert_memory_equal(out[0], out[1], sizeof out[0]);
        }
        zq_team_free(ops.team);
    }
    for (size_t i = 0; i < MAPS; i++) zq_free(maps[i].w.packed);
}

int main(void)
{
    unsigned here;
    zq_error err;
    if (zq_levels_detect(&here, &err)) return 1;
    unsigned none = ZQ_LEVEL_C;
    const struct CMUnitTest tests[] = {{"plain C", together_and_apart, NULL, NULL, &none}, {"this processor", together_and_apart, NULL, NULL, &here}};
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
