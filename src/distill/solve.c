/* The table of methods, how they are judged, and solutions: codes and scales of one block in one piece of memory. */
#include "distill/solve.h"

#include "base/alloc.h"
#include "base/threads.h"
#include "quant/encode.h"

#include <stdatomic.h>
#include <string.h>

static size_t no_bytes(const struct zq_student *s, bool away)
{
    (void)s, (void)away;
    return 0;
}

const struct zq_method zq_methods[] = {
    /* numbers of the paper: section 5 and appendix */
    {.name = "paper", .trains = true, .adam = true, .any_loss = true, .n_samples = 128, .length = 512, .n_iterations = 400, .batch = 8, .rate = 5e-6,
     .encoder_length = 128, .encoder_iterations = 100, .encoder_batch = 32, .bytes = no_bytes, .run = zq_solve_paper},
    {.name = "fast", .n_samples = 64, .length = 256, .n_iterations = 1, .batch = 8, .bytes = zq_fast_bytes, .run = zq_solve_fast},
    {.name = "full", .trains = true, .n_samples = 64, .length = 256, .n_iterations = 200, .batch = 8, .bytes = zq_full_bytes, .run = zq_solve_full},
    {.name = "gptq", .alone = true, .n_samples = 64, .length = 256, .n_iterations = 1, .batch = 8, .bytes = zq_gptq_bytes, .run = zq_solve_gptq},
    {.name = "awq", .alone = true, .n_samples = 64, .length = 256, .n_iterations = 1, .batch = 8, .bytes = zq_awq_bytes, .run = zq_solve_awq},
    {0},
};

const struct zq_method *zq_method_find(const char *name)
{
    const struct zq_method *m = zq_methods;
    while (m->name && strcmp(m->name, name)) m++;
    return m->name ? m : NULL;
}

static size_t round_up(size_t n) { return (n + 63) / 64 * 64; }

static bool is_coded(const struct zq_student_linear *l) { return l->n_rows && l->layout.spec.w_bits < 16; }

static size_t n_scales(const struct zq_student_linear *l) { return l->n_rows * zq_spec_n_groups(l->layout.spec, l->n_cols); }

size_t zq_solution_bytes(const struct zq_student *s)
{
    size_t n = 0;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        if (is_coded(l)) n += round_up(l->n_rows * l->n_cols) + round_up(n_scales(l) * sizeof(float));
    }
    return n;
}

zq_status zq_solution_create(struct zq_solution *out, const struct zq_student *s, zq_error *err)
{
    *out = (struct zq_solution){.memory = zq_alloc(zq_solution_bytes(s))};
    uint8_t *at = out->memory;
    if (!at) return zq_fail(err, ZQ_ENOMEM, "no memory for the codes of a block: %zu bytes", zq_solution_bytes(s));
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        if (!is_coded(l)) continue;
        out->codes[r] = (int8_t *)at;
        at += round_up(l->n_rows * l->n_cols);
        out->scales[r] = (float *)(void *)at;
        at += round_up(n_scales(l) * sizeof(float));
    }
    return ZQ_OK;
}

void zq_solution_free(struct zq_solution *solution)
{
    zq_free(solution->memory);
    *solution = (struct zq_solution){0};
}

struct nearest_work {
    const struct zq_student_linear *l;
    int8_t *codes;
    float *scales;
    atomic_bool bad;
};

/* zq_student_quantize() has settled the scales that rows share. */
static void nearest_rows(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    struct nearest_work *w = work;
    const struct zq_student_linear *l = w->l;
    const struct zq_weight_rows rows = {l->w + begin * l->n_cols, begin, end - begin, l->n_cols, &l->layout,
                                        l->layout.row_groups ? l->shared + begin : NULL};
    const size_t n_groups = zq_spec_n_groups(l->layout.spec, l->n_cols);
    if (!zq_encode_nearest(NULL, &rows, w->codes + begin * l->n_cols, w->scales + begin * n_groups)) atomic_store(&w->bad, true);
}

bool zq_solution_nearest(struct zq_solution *solution, struct zq_student *s)
{
    bool finite = zq_student_quantize(s);
    for (int r = 0; r < ZQ_N_LINEARS && finite; r++) {
        if (!solution->codes[r]) continue;
        struct nearest_work work = {.l = &s->linear[r], .codes = solution->codes[r], .scales = solution->scales[r]};
        atomic_init(&work.bad, false);
        zq_parallel(s->n_threads, s->linear[r].n_rows, 8, nearest_rows, &work);
        finite = !atomic_load(&work.bad);
    }
    return finite;
}

zq_status zq_solution_round(struct zq_solution *solution, struct zq_student *s, zq_error *err)
{
    if (zq_solution_nearest(solution, s)) return ZQ_OK;
    return zq_fail(err, ZQ_EFORMAT, "a weight of the block is NaN or infinite, which has no integer code");
}

zq_status zq_solve_check(const struct zq_student *s, const struct zq_solve_samples *samples, zq_error *err)
{
    if (samples->n && samples->length <= s->max_tokens && samples->n_held < samples->n) return ZQ_OK;
    return zq_fail(err, ZQ_EINVAL, "%zu samples of %zu tokens, %zu of them held out, leave nothing to learn from", samples->n, samples->length,
                   samples->n_held);
}

double zq_solve_judge(struct zq_student *s, const struct zq_solve_samples *samples, size_t first, size_t end, float *out, double *sums)
{
    const size_t n_values = samples->length * s->config.width, fit = s->max_tokens / samples->length;
    const size_t at_once = fit < s->max_sequences ? fit : s->max_sequences;
    const enum zq_factors factors = zq_student_judges(s);
    double total = 0;
    for (size_t i = first; i < end; i += at_once) {
        const size_t n = end - i < at_once ? end - i : at_once;
        zq_student_forward_samples(s, samples->student_x + i * n_values, n, samples->length, true, out);
        const struct zq_loss_pass loss = {false, out, samples->target + i * n_values, s->n_tokens, s->config.width, NULL, sums};
        total += (double)n * zq_student_loss(s, &loss);
        zq_keeper_drop(&samples->keeper, samples->student_x + i * n_values, n * n_values);
        zq_keeper_drop(&samples->keeper, samples->target + i * n_values, n * n_values);
    }
    s->factors = factors;
    return total / (double)(end - first);
}

double zq_solve_judge_held(struct zq_student *s, const struct zq_solve_samples *samples, float *out, double *sums)
{
    return zq_solve_judge(s, samples, samples->n_held ? samples->n - samples->n_held : 0, samples->n, out, sums);
}
