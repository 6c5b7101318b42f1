/* Which module is quantized how: the scheme by parts of the block, then the user's rules over it. */
#ifndef ZQ_COMPRESS_CHOOSE_H
#define ZQ_COMPRESS_CHOOSE_H

#include "compress/remarks.h"
#include "model/modules.h"
#include "quant/scheme.h"

/* Fills recipes [modules->n]. ZQ_EINVAL: unknown scheme or group, a rule whose regex is malformed or matches no module;
 * ZQ_EUNSUPPORTED: a rule that would quantize tensors that no reader can load quantized (norms, position embeddings). */
zq_status zq_choose_recipes(struct zq_recipe *recipes, const zq_quantize_options *options, const struct zq_modules *modules,
                            const struct zq_config *config, const struct zq_checkpoint *ckpt, struct zq_remarks *remarks, zq_error *err);

/* The name that the output head has in transformers, without ".weight", whether or not the file holds it; NULL for models
 * without a head over the vocabulary. */
const char *zq_head_name(const struct zq_config *config);

#endif
