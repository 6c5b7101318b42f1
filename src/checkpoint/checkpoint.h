/* A model directory as Hugging Face lays it out: config.json, and one or many safetensors files with an index. */
#ifndef ZQ_CHECKPOINT_CHECKPOINT_H
#define ZQ_CHECKPOINT_CHECKPOINT_H

#include "base/json.h"
#include "checkpoint/safetensors.h"

struct zq_checkpoint {
    char *dir;
    json_t *config;               /* config.json */
    struct zq_safetensors *files; /* [n_files] */
    char **file_names;            /* [n_files], relative to dir, sorted */
    size_t n_files;
    const struct zq_tensor **tensors; /* [n_tensors], of all files, in file order; each name once */
    size_t n_tensors;
    uint64_t n_bytes;             /* of all tensors */
    /* private: names sorted, for zq_checkpoint_find */
    const struct zq_tensor **sorted;
};
/* Opens config.json, and model.safetensors.index.json with its shards, else model.safetensors. Every shard must exist and hold
 * the tensors that the index places in it. Tensors of a shard that the index does not know are listed like the others (what to
 * make of extras is the model's business); a second copy in a shard that the index does not name for it is left out.
 * *out is NULL unless ZQ_OK. ZQ_EIO names the file that is missing; ZQ_EUNSUPPORTED, with the way out, if the weights exist only
 * as pytorch_model.bin. */
zq_status zq_checkpoint_open(struct zq_checkpoint **out, const char *dir, zq_error *err);
/* The same of a configuration and files that lie in memory; takes over config and files [n_files] (of zq_alloc), also when it fails.
 * Names of tensors differ. ZQ_ENOMEM. */
zq_status zq_checkpoint_view(struct zq_checkpoint **out, const char *name, json_t *config, struct zq_safetensors *files, size_t n_files,
                             zq_error *err);
void zq_checkpoint_close(struct zq_checkpoint *ckpt); /* accepts NULL */
/* NULL if there is none. */
const struct zq_tensor *zq_checkpoint_find(const struct zq_checkpoint *ckpt, const char *name);

#endif
