/* What a job will do, settled before anything is written: what each stored tensor becomes, in which shard it goes, and what to
 * tell the user about it. A plan depends on the model and the options alone, never on threads, memory or earlier runs; so
 * does every byte of the output. */
#ifndef ZQ_COMPRESS_PLAN_H
#define ZQ_COMPRESS_PLAN_H

#include "checkpoint/compressed.h"
#include "compress/remarks.h"
#include "distill/solve.h"
#include "model/modules.h"
#include "quant/scheme.h"

enum { ZQ_MAX_PARTS = 3 };

/* One tensor of the source, and the tensors that are written for it. */
struct zq_item {
    const struct zq_tensor *tensor;
    const struct zq_module *module; /* whose weight it is; NULL for other tensors */
    struct zq_layout layout;        /* float: copied byte for byte */
    enum zq_storage storage;
    size_t layer;                   /* of the block it belongs to; SIZE_MAX outside the blocks */
    struct zq_tensor parts[ZQ_MAX_PARTS]; /* [n_parts] names owned, no bytes. Codes, scales; then the shape of
                                           * packed codes, or the scales once more under the name of the tied head */
    size_t n_parts;                 /* 0: left out, because readers take the tied embedding instead */
    uint64_t bytes_out;
};

struct zq_shard {
    char *name;          /* "model-00001-of-00012.safetensors" */
    size_t first, n;     /* items */
    uint64_t bytes_in, bytes_out; /* of the tensors */
};

/* Distillation as it was asked for, defaults settled. */
struct zq_lesson_settings {
    const struct zq_method *method; /* NULL: none */
    const char *data;
    size_t n, length, n_held;       /* samples, ids of each, and how many only judge */
    struct zq_solve_options solve;
    const char *device;             /* where passes, sums and training run; NULL: this processor */
    double budget_s;                /* time that all blocks may take: n_iterations is then the most of each; 0: none */
};

struct zq_plan {
    struct zq_checkpoint *ckpt;
    struct zq_config config;
    struct zq_modules modules;
    struct zq_item *items;   /* [n_items] in the order written: outside the blocks, then block by block */
    size_t n_items;
    struct zq_shard *shards; /* [n_shards] */
    size_t n_shards;
    struct zq_lesson_settings lesson;
    json_t *options;              /* normalised, for comparison with an earlier run: key -> string or list of strings */
    json_t *quantization_config;  /* for config.json */
    struct zq_remarks remarks;
};
/* *plan needs no initialisation and is zero after a failure; free accepts zero. The options' scalars are checked here.
 * ZQ_EUNSUPPORTED for a source that is quantized already, and for what no reader could read. */
zq_status zq_plan_make(struct zq_plan *plan, const char *model_dir, const zq_quantize_options *options, zq_error *err);
void zq_plan_free(struct zq_plan *plan);

/* The item that holds the weight of a module of the plan. */
const struct zq_item *zq_plan_item(const struct zq_plan *plan, const struct zq_module *module);
/* What follows from the plan: sizes, ratios, bits per weight. The rest of *out is zero. */
void zq_plan_totals(const struct zq_plan *plan, zq_quantize_totals *out);

/* Steps of zq_plan_make, each in a file of its own. */
zq_status zq_plan_describe(struct zq_plan *plan, zq_error *err);       /* quantization_config */
zq_status zq_plan_cut_shards(struct zq_plan *plan, zq_error *err);     /* shards */
zq_status zq_plan_remark_readers(struct zq_plan *plan, zq_error *err); /* remarks on who can load the result */

#endif
