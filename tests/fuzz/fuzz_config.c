/* config.json on any bytes: the model's numbers, and quantization_config with the modules it is asked about. */
#include "checkpoint/compressed.h"
#include "model/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void find_modules(const struct zq_compressed *c)
{
    static const char *const names[] = {"model.layers.0.self_attn.q_proj", "model.layers.17.mlp.up_proj", "transformer.h.3.attn.c_attn", "lm_head",
                                        "model.embed_tokens", "a", ""};
    static const char *const classes[] = {"Linear", "Embedding"};
    for (size_t i = 0; i < ZQ_LEN(names); i++) {
        for (size_t k = 0; k < ZQ_LEN(classes); k++) {
            struct zq_spec spec;
            enum zq_storage storage;
            if (zq_compressed_find(c, names[i], classes[k], &spec, &storage, NULL)) continue;
            const bool is_float = zq_spec_equal(spec, ZQ_SPEC_FLOAT);
            if (is_float != (storage == ZQ_STORED_FLOAT)) abort();
            if (!is_float && ((spec.w_bits > 4 ? spec.w_bits != 8 : spec.w_bits < 2) || (spec.a_bits != 8 && spec.a_bits != 16))) abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *config;
    if (zq_json_parse(&config, (const char *)data, size, "input", NULL)) return 0;
    zq_error err = {0};
    struct zq_compressed *c;
    if (zq_compressed_parse(&c, config, "input", &err)) {
        if (c || !err.message[0]) abort();
    } else {
        find_modules(c);
    }
    zq_compressed_free(c);
    struct zq_config numbers;
    err = (zq_error){0};
    if (zq_config_read(&numbers, config, "input", &err) && !err.message[0]) abort();
    json_decref(config);
    return 0;
}
