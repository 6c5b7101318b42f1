/* The maps of a block solved one after the other in closed form: from sums over the samples to codes, scales and biases. */
#ifndef ZQ_DISTILL_CLOSED_H
#define ZQ_DISTILL_CLOSED_H

#include "distill/passes.h"
#include "distill/solve.h"

struct zq_closed_options {
    double mix;   /* what a map should give: 0: what the original map gives for the student's input .. 1: for the teacher's */
    double carry; /* share of the residual stream's error that the maps which add to the stream should make up for */
    double damp;  /* share of the mean of H's diagonal that is added to it, pulling codes to the original weights */
    double hold;  /* share of the mean of the inputs that stays in H, where a bias can make up for all of it: pulls as damp does, along the mean */
    int n_sweeps; /* of coordinate descent, at most */
    bool published; /* GPTQ as published: moments of the original block's float inputs, scales as the solution has them; biases stay.
                     * mix, carry, hold and n_sweeps are 0 */
};

/* Leaves codes, scales and `fake` of the original's quantized maps, and in biases [n_rows] (NULL where a map has none; they come as copies of
 * the student's) what the outputs' means call for. The student's parameters stay as they are, and those of a copy are the same. */
zq_status zq_closed_run(const struct zq_passes *passes, const struct zq_solve_samples *samples, const struct zq_closed_options *options,
                        float **biases, struct zq_solution *solution, zq_error *err);
/* Memory of this processor that it takes. away: passes run on a device. */
size_t zq_closed_bytes(const struct zq_student *s, const struct zq_closed_options *options, bool away);

#endif
