/* Methods that give one block its codes: what they are told, what they leave behind, and the table of them. A method sees one
 * block and knows nothing of models, files or threads beyond its own; compress/lesson.h walks it through a model. */
#ifndef ZQ_DISTILL_SOLVE_H
#define ZQ_DISTILL_SOLVE_H

#include "distill/lkd.h"

struct zq_solve_samples {
    const float *teacher_x; /* [n, length, width] the block's input as the original blocks before it give it */
    const float *student_x; /* [n, length, width] as the quantized ones give it */
    const float *target;    /* [n, length, width] the original block's output for teacher_x */
    size_t n, length;
    size_t n_held;          /* the last n_held are not learned from: they judge. 0: all learn and all judge */
    struct zq_keeper keeper;
};

struct zq_solve_options {
    enum zq_loss loss;
    size_t n_iterations, batch; /* batch: samples of a step, and of a forward pass */
    double rate;                /* 0: the best of several, tried on the block */
    double holdout;             /* the share that n_held came from */
    uint64_t seed;
    struct zq_trainer trainer;  /* where passes over the samples, their sums and training run; ops NULL: this processor. Codes are solved here */
    bool fast;                  /* struct zq_student_options */
    double chance;              /* share of the samples that are random ids: what they say holds for texts only in part */
    /* Told after each step; anything but ZQ_OK ends the work with that status. May be NULL. */
    zq_status (*tick)(void *user, zq_error *err);
    void *user;
};

/* Codes and scales of the maps that are quantized; NULL for the others. */
struct zq_solution {
    int8_t *codes[ZQ_N_LINEARS];  /* [n_rows, n_cols] within the format's range, one per byte */
    float *scales[ZQ_N_LINEARS];  /* [n_rows, n_groups] > 0, held exactly by the layout's scale_dtype; groups of rows: once per row */
    double before, after;         /* loss on the samples that judge: as round-to-nearest has it, and as solved */
    bool fell_back;               /* the solution is no better on them than its start, which was kept */
    void *memory;
};
/* Room for the codes and scales of a student's maps. *out needs no initialisation; free accepts zero. */
zq_status zq_solution_create(struct zq_solution *out, const struct zq_student *s, zq_error *err);
void zq_solution_free(struct zq_solution *solution);
size_t zq_solution_bytes(const struct zq_student *s);
/* Round-to-nearest codes of the student's present weights; brings `fake` up to date with them. false: a weight is NaN or infinite. */
bool zq_solution_nearest(struct zq_solution *solution, struct zq_student *s);
/* The same; ZQ_EFORMAT in place of false. */
zq_status zq_solution_round(struct zq_solution *solution, struct zq_student *s, zq_error *err);

/* ZQ_EINVAL where the samples leave nothing to learn from. */
zq_status zq_solve_check(const struct zq_student *s, const struct zq_solve_samples *samples, zq_error *err);

/* Mean squared error of the student with its present codes, on samples [first, end), and on those that judge. out [max_tokens, width] and
 * sums [max_tokens] are scratch. Products are those of zq_student_judges(). */
double zq_solve_judge(struct zq_student *s, const struct zq_solve_samples *samples, size_t first, size_t end, float *out, double *sums);
double zq_solve_judge_held(struct zq_student *s, const struct zq_solve_samples *samples, float *out, double *sums);

/* The student holds the original block when a method begins. When it ends well, `fake` of every quantized map is codes times
 * scales, and biases and norms are as they are to be written. */
typedef zq_status zq_solve_fn(struct zq_student *s, const struct zq_solve_samples *samples, const struct zq_solve_options *options,
                              struct zq_solution *solution, zq_error *err);

struct zq_method {
    const char *name;
    bool alone;             /* no distillation: `--method` names it, not `--lkd` */
    bool trains, adam;      /* needs gradients; and the optimizer's memory, which also trains maps that stay float: struct zq_student_options */
    bool any_loss;          /* of enum zq_loss; false: mse alone */
    size_t n_samples, length, n_iterations, batch; /* defaults; length also bounded by the model's limit */
    double rate;
    size_t encoder_length, encoder_iterations, encoder_batch; /* 0: the same for encoders */
    /* Memory of this processor that run() takes beside student, samples and solution. away: with a trainer on a device. */
    size_t (*bytes)(const struct zq_student *s, bool away);
    zq_solve_fn *run;
};
/* NULL if there is none of that name. */
const struct zq_method *zq_method_find(const char *name);
/* All rows, ended by one without a name. */
extern const struct zq_method zq_methods[];

/* paper.c: trains all parameters from the teacher's inputs, as the paper describes. */
zq_solve_fn zq_solve_paper;
/* fast.c: solves map by map in closed form, without training. */
zq_solve_fn zq_solve_fast;
size_t zq_fast_bytes(const struct zq_student *s, bool away);
/* full.c: what `fast` gives, then trained roundings, scales and biases. */
zq_solve_fn zq_solve_full;
size_t zq_full_bytes(const struct zq_student *s, bool away);
/* alone.c: published methods without distillation, to compare with. */
zq_solve_fn zq_solve_gptq, zq_solve_awq;
size_t zq_gptq_bytes(const struct zq_student *s, bool away);
size_t zq_awq_bytes(const struct zq_student *s, bool away);

#endif
