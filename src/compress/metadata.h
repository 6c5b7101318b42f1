/* The JSON files of an output directory. Each appears whole or not at all. */
#ifndef ZQ_COMPRESS_METADATA_H
#define ZQ_COMPRESS_METADATA_H

#include "compress/plan.h"

/* A copy of an object that shares its values; NULL if out of memory, when json_copy would lose keys without a word. */
json_t *zq_json_copy(const json_t *object);
/* An indented value and a newline as the file dir/name. */
zq_status zq_json_write(const char *dir, const char *name, const json_t *value, zq_error *err);
/* config.json: the source's text as it is, with quantization_config as its last key. */
zq_status zq_config_write(const char *dir, const struct zq_plan *plan, zq_error *err);
/* model.safetensors.index.json. */
zq_status zq_index_write(const char *dir, const struct zq_plan *plan, zq_error *err);

#endif
