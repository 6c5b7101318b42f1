/* Layer-by-layer distillation as published: the block learns from the teacher's inputs, although it will see the student's. Weights
 * are trained in float, and their nearest codes are what is written. */
#include "distill/solve.h"

#include "distill/twin.h"

static zq_status train(const struct zq_twin *twin, const struct zq_solve_options *o, struct zq_solution *solution, zq_error *err)
{
    struct zq_student *s = twin->s;
    const struct zq_solve_samples *samples = &twin->samples;
    const struct zq_lkd_samples lkd_samples = {samples->student_x, samples->target, samples->n, samples->length, samples->keeper};
    struct zq_lkd_options lkd = {.loss = o->loss, .n_iterations = o->n_iterations, .batch = o->batch, .rate = o->rate, .holdout = o->holdout,
                                 .seed = o->seed};
    struct zq_lkd run;
    zq_status st = o->rate > 0 ? ZQ_OK : zq_lkd_rate(&lkd.rate, s, &lkd_samples, &lkd, err);
    if (!st) st = zq_lkd_begin(&run, s, &lkd_samples, &lkd, err);
    while (!st && run.iteration < lkd.n_iterations && !run.diverged) {
        zq_lkd_step(&run);
        st = zq_student_check(s, err);
        if (!st && o->tick) st = o->tick(o->user, err);
    }
    if (st) return st;
    solution->before = run.before;
    solution->after = zq_lkd_end(&run);
    solution->fell_back = !(solution->after < solution->before);
    return zq_twin_return(twin, err);
}

zq_status zq_solve_paper(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *o,
                         struct zq_solution *solution, zq_error *err)
{
    struct zq_twin twin;
    zq_status st = zq_twin_open(&twin, s, samples, true, true, o, err);
    if (!st) st = train(&twin, o, solution, err);
    zq_twin_close(&twin);
    return st ? st : zq_solution_round(solution, s, err);
}
