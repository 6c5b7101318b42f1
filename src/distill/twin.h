/* The block that is trained: the one on this processor, or its twin on a device, with the samples beside it. Only samples and weights go there, once
 * for each block, and what was learned comes back. */
#ifndef ZQ_DISTILL_TWIN_H
#define ZQ_DISTILL_TWIN_H

#include "distill/solve.h"

struct zq_twin {
    struct zq_student *s;
    struct zq_solve_samples samples; /* for s */
    struct zq_student *original;     /* on this processor; s itself where training runs here */
    float *inputs, *targets;         /* on the device: what samples point at */
};

/* From an original that holds the weights to begin with. by_teacher: student_x and target are what the samples call teacher_x and target, else
 * student_x. adam: struct zq_student_options. options->trainer says where. *out needs no initialisation. */
zq_status zq_twin_open(struct zq_twin *out, struct zq_student *original, const struct zq_solve_samples *samples, bool by_teacher, bool adam,
                       const struct zq_solve_options *options, zq_error *err);
/* Parameters of the original = those of the twin. ZQ_EIO if the device failed. */
zq_status zq_twin_return(const struct zq_twin *twin, zq_error *err);
void zq_twin_close(struct zq_twin *twin); /* accepts zero, and one that could not be opened */

#endif
