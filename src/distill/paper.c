/* Layer-by-layer distillation as published: the block learns from the teacher's inputs, although it will see the student's. Weights
 * are trained in float, and their nearest codes are what is written. */
#include "distill/solve.h"

zq_status zq_solve_paper(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *o,
                         struct zq_solution *solution, zq_error *err)
{
    const struct zq_lkd_samples lkd_samples = {samples->teacher_x, samples->target, samples->n, samples->length, samples->keeper};
    struct zq_lkd_options lkd = {.loss = o->loss, .n_iterations = o->n_iterations, .batch = o->batch, .rate = o->rate, .holdout = o->holdout,
                                 .seed = o->seed};
    struct zq_lkd run;
    zq_status st = o->rate > 0 ? ZQ_OK : zq_lkd_rate(&lkd.rate, s, &lkd_samples, &lkd, err);
    if (!st) st = zq_lkd_begin(&run, s, &lkd_samples, &lkd, err);
    while (!st && run.iteration < lkd.n_iterations && !run.diverged) {
        zq_lkd_step(&run);
        if (o->tick) st = o->tick(o->user, err);
    }
    if (st) return st;
    solution->before = run.before;
    solution->after = zq_lkd_end(&run);
    solution->fell_back = !(solution->after < solution->before);
    return zq_solution_round(solution, s, err);
}
