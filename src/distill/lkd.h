/* Layer-by-layer knowledge distillation as the paper has it, for one block: all its parameters are trained by AdamW at a constant
 * rate, through the rounding, to give the outputs of the original block for the same inputs.
 *
 * A run is a sequence of steps that can be cut anywhere: the state is struct zq_lkd without its pointers, and params, start and
 * moments of the student. Saved, put back and followed by zq_student_quantize(), it leads to the same bits. */
#ifndef ZQ_DISTILL_LKD_H
#define ZQ_DISTILL_LKD_H

#include "distill/student.h"

enum zq_loss { ZQ_LOSS_MSE, ZQ_LOSS_KL };

struct zq_lkd_options {
    enum zq_loss loss;
    size_t n_iterations, batch; /* batch: samples of a step; fits the student's sizes */
    double rate;
    double holdout;             /* share of the samples, the last ones, that are not trained on but judge: [0, 1); one at least unless 0 */
    uint64_t seed;              /* of the order of samples */
};

/* Who holds the samples may be told which of their values are not needed for now: they can be many more than memory holds. */
struct zq_keeper {
    void (*drop)(void *user, const float *from, size_t n_values); /* NULL: nobody asks */
    void *user;
};
static inline void zq_keeper_drop(const struct zq_keeper *k, const float *from, size_t n_values)
{
    if (k->drop) k->drop(k->user, from, n_values);
}

/* What the block is given and what the teacher made of it. */
struct zq_lkd_samples {
    const float *x, *target; /* [n, length, width] */
    size_t n, length;
    struct zq_keeper keeper;
};

struct zq_lkd {
    struct zq_student *s;
    struct zq_lkd_samples samples;
    struct zq_lkd_options options;
    size_t n_held;   /* samples held out; 0: all are trained on, and all judge */
    size_t iteration; /* steps done */
    double before;   /* loss of the samples that judge, as the student came */
    bool diverged;   /* a weight became infinite or NaN: steps do nothing any more */
};

/* Fills target [n, length, width] with the outputs of s as a float block, `batch` samples at a time; before anything is trained.
 * The student is made with adam and has room for such batches. */
void zq_lkd_teach(struct zq_student *s, const struct zq_lkd_samples *samples, size_t batch, float *target);

/* Begins a run on a student made with adam, from its present weights. ZQ_EINVAL if the options do not fit it or each other. */
zq_status zq_lkd_begin(struct zq_lkd *run, struct zq_student *s, const struct zq_lkd_samples *samples, const struct zq_lkd_options *options,
                       zq_error *err);
/* The next step; nothing once n_iterations are done. */
void zq_lkd_step(struct zq_lkd *run);
/* The loss of the samples that judge, with the present weights. */
double zq_lkd_judge(const struct zq_lkd *run);
/* Ends a run: if the weights are no better on the samples that judge than those it began with, those are put back. Returns
 * their loss. */
double zq_lkd_end(struct zq_lkd *run);

/* Tries five rates, 20 steps each, a factor of four apart from the paper's 5e-6 upwards, and returns the best by the samples that
 * judge, times 20 / n_iterations in longer runs. For what 20 steps find is how far to go: Adam moves a weight by about the rate, and
 * the loss is lowest after a certain rate * steps, whatever the rate; beyond, weights swing across the bounds of their codes and the
 * loss rises again (on a trained block, 5e-6 .. 3e-4: all within 5e-3 .. 8e-3). The student is left as it came. Arguments as for
 * zq_lkd_begin, whose rate is not read. */
zq_status zq_lkd_rate(double *rate, struct zq_student *s, const struct zq_lkd_samples *samples, const struct zq_lkd_options *options,
                      zq_error *err);

#endif
