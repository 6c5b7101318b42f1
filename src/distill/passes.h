/* Passes forward through a block: by the block itself on this processor, or by a copy of it on a device, to which samples and codes go and from which
 * outputs come. What a pass leaves lies where it ran. */
#ifndef ZQ_DISTILL_PASSES_H
#define ZQ_DISTILL_PASSES_H

#include "distill/student.h"

struct zq_passes {
    struct zq_student *s;        /* runs them: the original, or its copy, which has no gradients */
    struct zq_student *original; /* on this processor */
    float *x, *out, *target;     /* of a copy: [max_tokens, width] there */
    double *row_sums;            /* of a copy: [max_tokens] there */
    void *memory;                /* theirs */
};

/* trainer->ops NULL: here. A copy has the original's parameters. *out needs no initialisation. */
zq_status zq_passes_open(struct zq_passes *out, struct zq_student *original, const struct zq_trainer *trainer, zq_error *err);
void zq_passes_close(struct zq_passes *p); /* accepts zero, and one that could not be opened */

/* The settings of a copy of s. */
struct zq_student_options zq_passes_options(const struct zq_student *s, const struct zq_trainer *trainer);

/* Parameters of the original, or the values of the codes of one map or of all, have changed. */
void zq_passes_follow(const struct zq_passes *p);
void zq_passes_follow_codes(const struct zq_passes *p, enum zq_linear_role role);
void zq_passes_follow_all_codes(const struct zq_passes *p);

/* n values of this processor, at most a batch, where s reads them: valid until the next. */
const float *zq_passes_take(const struct zq_passes *p, const float *x, size_t n);
/* zq_student_forward_samples() from x to out on this processor. */
void zq_passes_run(const struct zq_passes *p, const float *x, size_t n, size_t length, bool quantized, float *out);
/* Puts into the original what the maps of a stage read in the latest pass, a float one; what they read is not the block's own input. */
void zq_passes_fetch(const struct zq_passes *p, enum zq_student_stage at);

#endif
