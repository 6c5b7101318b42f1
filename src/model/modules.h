/* The modules of a model: every matrix by name, part and shape, in forward order; what inspect lists, what schemes and
 * --set address, and what the quantizer walks. */
#ifndef ZQ_MODEL_MODULES_H
#define ZQ_MODEL_MODULES_H

#include "checkpoint/checkpoint.h"
#include "model/config.h"

struct zq_module {
    char *name;             /* as in the file, without ".weight" */
    const char *class_name; /* "Linear" or "Embedding" */
    enum zq_part part;
    size_t layer;           /* SIZE_MAX outside the blocks */
    size_t n_rows, n_cols;
    bool in_block;
    bool conv1d;            /* the float weight (and I8 codes) are stored [n_cols, n_rows] */
    enum zq_linear_role role; /* in_block only */
};

struct zq_modules {
    struct zq_module *items; /* [n] */
    size_t n;
    char *prefix;            /* the one of arch->prefixes that this file uses */
};

/* Lists the modules that the configuration and the names in the file call for: the token embedding; per layer the linear maps;
 * then pooler, MLM transform, classifier and head as far as the file has them. A tied head is no module of its own.
 * Checks names only: shapes are the binder's business. ZQ_EFORMAT if no prefix leads to a token embedding. */
zq_status zq_modules_list(struct zq_modules *out, const struct zq_config *config, const struct zq_checkpoint *ckpt, zq_error *err);
void zq_modules_free(struct zq_modules *modules);

/* Shape of a linear map of a block: output and input channels. */
size_t zq_linear_rows(const struct zq_config *config, enum zq_linear_role role);
size_t zq_linear_cols(const struct zq_config *config, enum zq_linear_role role);

/* Name of a tensor of a module or norm: prefix + pattern with the layer filled in + suffix (".weight"); NULL if out of memory. */
char *zq_tensor_name(const char *prefix, const char *pattern, size_t layer, const char *suffix);

#endif
