/* The compressed-tensors format: which module of a directory is quantized how, and the config that says so.
 * Layouts of X [n_rows, n_cols]: int-quantized = "X.weight" I8 [n_rows, n_cols], 4-bit codes too, one per byte; pack-quantized =
 * "X.weight_packed" I32 [n_rows, n_cols * bits / 32] (offset binary, element 0 in the lowest bits) + "X.weight_shape" I64 [2].
 * Both with "X.weight_scale" [n_rows, 1], or [n_rows, n_cols / k_group].
 * Weights of 2 and 3 bits are pack-quantized as a stream without gaps, which no other reader knows: a directory that has some names
 * another quant_method, "zq-study", so that each refuses it. */
#ifndef ZQ_CHECKPOINT_COMPRESSED_H
#define ZQ_CHECKPOINT_COMPRESSED_H

#include "base/json.h"
#include "quant/types.h"

#define ZQ_STUDY_METHOD "zq-study" /* quant_method of directories with weights of 2 or 3 bits */

enum zq_storage { ZQ_STORED_FLOAT, ZQ_STORED_INT, ZQ_STORED_PACKED };

/* quantization_config of a directory, parsed. */
struct zq_compressed;
/* config: the whole config.json; nothing of it is kept. *out is NULL when it has no quantization_config (not an error).
 * Anything that would change the numbers and is not understood is ZQ_EUNSUPPORTED and named: another quant_method (but
 * "zq-study"), float types,
 * zero points (symmetric false), one scale per tensor, static or grouped activations, activation orders that permute,
 * sparsity, transforms, KV cache schemes, unknown keys of a group. `name` is for error sentences. */
zq_status zq_compressed_parse(struct zq_compressed **out, const json_t *config, const char *name, zq_error *err);
void zq_compressed_free(struct zq_compressed *c); /* accepts NULL */
/* How module `module` of class `class_name` ("Linear", "Embedding") is stored: ignore list first, then exact names, then "re:"
 * patterns (anchored at the start, as re.match), then class names. Float if nothing applies; c may be NULL: everything is float.
 * ZQ_EUNSUPPORTED if two targets of the same rank say different things (readers differ in which one they follow),
 * ZQ_ELIMIT if a pattern takes too many steps. Threads may share c. */
zq_status zq_compressed_find(const struct zq_compressed *c, const char *module, const char *class_name, struct zq_spec *spec,
                             enum zq_storage *storage, zq_error *err);

/* One module of a directory that is being written. */
struct zq_compressed_module {
    const char *name;       /* "model.layers.0.self_attn.q_proj" */
    const char *class_name; /* "Linear" or "Embedding"; "Conv1D" modules count as Linear */
    struct zq_spec spec;    /* float ones too: they go to the ignore list if they are Linear */
};
/* How a spec is stored: 8-bit embeddings and W8A8 per channel -> int-quantized, all other codes -> pack-quantized. */
enum zq_storage zq_compressed_storage(struct zq_spec spec, const char *class_name);
/* Builds the quantization_config object for modules [n]: one config group per distinct spec (embeddings apart from linear maps);
 * a single group that covers all Linear modules but those in `ignore` has targets ["Linear"]; else targets are "re:" patterns
 * over the layer number where every layer agrees, or exact names. The minimal keys that every released reader accepts; equal
 * modules give equal text. *out (a new reference) is NULL if no module is quantized.
 * `modules` must hold every nn.Linear that the model class has in transformers, a tied head among them (as float): what is
 * not listed falls under "Linear". */
zq_status zq_compressed_config(json_t **out, const struct zq_compressed_module *modules, size_t n, zq_error *err);

#endif
