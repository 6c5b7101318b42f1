/* What work must cost at least: operations, and bytes that have to be read. */
#ifndef ZQ_BENCH_COST_H
#define ZQ_BENCH_COST_H

#include "bench/machine.h"
#include "model/session.h"

struct zq_cost {
    double ops[ZQ_N_WORKS]; /* products and sums, two for each weight and token */
    double weight_bytes;    /* codes and scales as stored, once however many tokens there are */
    double other_bytes;     /* keys and values, activations */
};
void zq_cost_add(struct zq_cost *to, const struct zq_cost *from);

/* Of a linear map on n_tokens: its weights and products, of float tokens in BF16 if bf16. Activations are not counted here. */
struct zq_cost zq_cost_of_map(const struct zq_stored *w, size_t n_tokens, bool bf16);
/* Of one step: n_tokens of each of `batch` sequences whose first new token is at `position`: all maps, logits for the last token of each
 * sequence, and the keys and values before. kv_value_bytes: of one value in the cache. Attention's own products are left out. */
struct zq_cost zq_cost_of_step(const struct zq_model *m, size_t batch, size_t n_tokens, size_t position, double kv_value_bytes);

/* Bytes of one value in the caches of a session, scales included. */
double zq_cost_kv_value_bytes(const struct zq_session *s);

/* The least time of a cost on a machine, and what it is bound by: "int8 avx2", "memory", "cache". Weights come from the last-level cache if
 * weights_in_cache. NaN and "" if a rate is unknown. Work of several kinds adds up; operations and bytes overlap. */
struct zq_limit {
    double seconds;
    char bound[32];
};
struct zq_limit zq_limit_of(const struct zq_cost *cost, const struct zq_machine *machine, unsigned levels, bool weights_in_cache);

/* Bytes of all weights that a step reads: whether they fit a cache. */
double zq_model_bytes(const struct zq_model *m);
/* The same of all matrices, embeddings that are looked up among them: what a device has to hold, but for vectors. */
double zq_model_all_bytes(const struct zq_model *m);

#endif
