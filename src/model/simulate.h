/* INT8 inputs simulated in a float model: how schemes that no kernel runs are measured (zq_study_open). */
#ifndef ZQ_MODEL_SIMULATE_H
#define ZQ_MODEL_SIMULATE_H

#include "model/session.h"

struct zq_simulation {
    float *scales; /* [n_layers, ZQ_N_LINEARS] of what a map reads: > 0 one for the whole tensor, 0 one per token, NaN: stays float */
    size_t widest; /* input channels of the widest map */
};

/* `in` with every value rounded to its INT8 code and back, in s->simulated; `in` itself where the map's input stays float. */
struct zq_rows zq_simulate_input(struct zq_session *s, size_t layer, enum zq_linear_role role, struct zq_rows in);

#endif
