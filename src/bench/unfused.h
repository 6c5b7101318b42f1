/* A step without fusion, to see what fusion pays: for comparisons only. */
#ifndef ZQ_BENCH_UNFUSED_H
#define ZQ_BENCH_UNFUSED_H

#include "model/session.h"

/* From now on the operators of a session run with a pass over memory of its own wherever INT8 tokens are made, and wherever the sums of a
 * product become floats: norms, activation functions and attention leave floats, which are then read again and quantized; products leave
 * sums, which are then read again, scaled, and given their bias and residual. Kernels, threads and what they compute are the same.
 * Ends before the session is closed. ZQ_EUNSUPPORTED: a model that is not quantized, or on this processor a width that is no multiple of 16;
 * ZQ_ENOMEM. */
struct zq_unfused;
zq_status zq_unfused_begin(struct zq_unfused **out, struct zq_session *session, zq_error *err);
void zq_unfused_end(struct zq_unfused *u); /* accepts NULL */

/* Of a device: a queue around `inner`, and *own, the plug-in that takes it. NULL: no memory. */
struct zq_queue *zq_unfused_device_begin(const struct zq_plugin *plugin, struct zq_queue *inner, size_t n_tokens, size_t width,
                                         const struct zq_plugin **own);
void zq_unfused_device_end(struct zq_queue *queue); /* accepts NULL */

#endif
