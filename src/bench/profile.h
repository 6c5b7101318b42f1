/* Where the time of a step goes: one line for each fused operator. */
#ifndef ZQ_BENCH_PROFILE_H
#define ZQ_BENCH_PROFILE_H

#include "bench/cost.h"
#include "bench/samples.h"
#include "model/session.h"

/* Embeddings, norms, maps by role, attention, activation functions, the maps around the blocks, and what is no operator (choosing rows; on a
 * device embeddings). */
enum { ZQ_PROFILE_EMBED, ZQ_PROFILE_NORM, ZQ_PROFILE_ATTENTION, ZQ_PROFILE_ACTIVATE, ZQ_PROFILE_HEAD, ZQ_PROFILE_OTHER, ZQ_PROFILE_MAPS,
       ZQ_PROFILE_LINES = ZQ_PROFILE_MAPS + ZQ_N_LINEARS };

struct zq_profile_line {
    struct zq_samples samples; /* seconds of one step, all layers together */
    double seconds;            /* of the step in work */
    struct zq_cost cost;       /* of one step */
    size_t n_calls;            /* of one step */
};

struct zq_profile {
    const struct zq_session *session;
    struct zq_profile_line lines[ZQ_PROFILE_LINES];
    double began, step_began, in_operators;
    struct zq_samples steps;   /* whole steps */
};
/* A step begins and ends; in between the session's operators are watched. begin() sets the session's watch. false: out of memory. */
void zq_profile_begin(struct zq_profile *p, struct zq_session *session);
bool zq_profile_end(struct zq_profile *p, struct zq_session *session);
void zq_profile_free(struct zq_profile *p); /* accepts zero */

/* "embed", "norm", "qkv", "attention", "up", "activate", "head", "other", ... */
const char *zq_profile_name(int line);

#endif
