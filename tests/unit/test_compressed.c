/* quantization_config: what the compressed-tensors library writes is understood, what would change numbers is refused by name,
 * and what we write is read back as what was meant. tests/ecosystem.sh compares with the library itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "checkpoint/compressed.h"
#include "fail_alloc.h"
#include "quotes.h"
#include "shared.h"

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static zq_status parse(struct zq_compressed **out, const char *quantization_config, zq_error *err)
{
    char *text = double_quotes(zq_format("{'quantization_config':%s}", quantization_config));
    json_t *config;
    if (zq_json_parse(&config, text, strlen(text), "config.json", err)) fail_msg("%s in %s", err->message, text);
    zq_free(text);
    const zq_status st = zq_compressed_parse(out, config, "config.json", err);
    single_quotes(err->message);
    json_decref(config);
    return st;
}

#define TOP "'quant_method':'compressed-tensors','format':'int-quantized'"
#define W8 "{'num_bits':8,'strategy':'channel'}"
#define W4 "{'num_bits':4,'strategy':'group','group_size':32}"
#define A8 "{'num_bits':8,'strategy':'token','dynamic':true}"
#define GROUP(weights, activations) "{'targets':['Linear'],'weights':" weights ",'input_activations':" activations "}"
#define CONFIG(group) "{" TOP ",'config_groups':{'group_0':" group "}}"
#define WITH(keys) "{" TOP "," keys ",'config_groups':{'group_0':" GROUP(W8, A8) "}}"

struct expected {
    const char *module, *class_name;
    struct zq_spec spec;
    enum zq_storage storage;
};

static void check_find(const struct zq_compressed *c, const struct expected *want)
{
    struct zq_spec spec = {0};
    enum zq_storage storage = ZQ_STORED_FLOAT;
    zq_error err = {0};
    if (zq_compressed_find(c, want->module, want->class_name, &spec, &storage, &err)) fail_msg("%s", err.message);
    if (!zq_spec_equal(spec, want->spec) || storage != want->storage)
        fail_msg("%s: w%da%d k:%zu storage %d", want->module, spec.w_bits, spec.a_bits, spec.k_group, (int)storage);
}

static const struct zq_spec float_spec = {16, 16, 0}, w8a8 = {8, 8, 0}, w4a8 = {4, 8, 32};

static void no_config_means_float(void **state)
{
    (void)state;
    static char configs[][40] = {"{}", "{'quantization_config':null}", "{'compression_config':null}"};
    for (size_t i = 0; i < ZQ_LEN(configs); i++) {
        json_t *config;
        struct zq_compressed *c = (struct zq_compressed *)&c;
        assert_int_equal(zq_json_parse(&config, double_quotes(configs[i]), strlen(configs[i]), "c", NULL), ZQ_OK);
        assert_int_equal(zq_compressed_parse(&c, config, "c", NULL), ZQ_OK);
        assert_null(c);
        json_decref(config);
    }
    check_find(NULL, &(struct expected){"any", "Linear", float_spec, ZQ_STORED_FLOAT});
    zq_compressed_free(NULL);
}

/* Key sets of library releases from 2024 to 2026, each W8A8 for every Linear but lm_head. */
static void releases_are_understood(void **state)
{
    (void)state;
    static const char *const configs[] = {
        CONFIG(GROUP(W8, A8)),
        "{" TOP ",'quantization_status':'frozen','global_compression_ratio':1.2,'ignore':['lm_head'],"
        "'config_groups':{'group_0':{'targets':['Linear'],"
        "'input_activations':{'block_structure':null,'dynamic':true,'group_size':null,'num_bits':8,'observer':'memoryless','observer_kwargs':{},"
        "'strategy':'token','symmetric':true,'type':'int'},'output_activations':null,"
        "'weights':{'block_structure':null,'dynamic':false,'group_size':null,"
        "'num_bits':8,'observer':'minmax','observer_kwargs':{},'strategy':'channel','symmetric':true,'type':'int'}}}}",
        WITH("'quantization_status':'compressed','kv_cache_scheme':null,'sparsity_config':{},"
             "'transform_config':{},'moe_sparsity_config':null,'version':'0.20.0'"),
        WITH("'sparsity_config':{'format':'dense','global_sparsity':0.1,'ignore':[],'targets':[]},'transform_config':{'config_groups':{}}"),
        WITH("'quantization_status':null,'ignore':null,'some_future_note':{'a':1}"),
        "{'quant_method':'compressed_tensors','format':'naive-quantized','config_groups':{'a':" GROUP(W8, A8) "}}",
        "{'quant_method':'compressed-tensors','format':'mixed-precision','config_groups':{'a':{'format':'int-quantized','targets':['Linear'],"
        "'weights':{'num_bits':8,'group_size':-1,'actorder':'weight','scale_dtype':'torch.bfloat16','zp_dtype':null},"
        "'input_activations':{'strategy':'token','dynamic':true,'actorder':null}}}}",
        CONFIG(GROUP("{'strategy':'channel','actorder':'static'}", A8)),
        CONFIG(GROUP("{'strategy':'channel','actorder':false,'group_size':-1}", A8)),
    };
    for (size_t i = 0; i < ZQ_LEN(configs); i++) {
        struct zq_compressed *c;
        zq_error err = {0};
        if (parse(&c, configs[i], &err)) fail_msg("%zu: %s", i, err.message);
        check_find(c, &(struct expected){"model.layers.0.mlp.up_proj", "Linear", w8a8, ZQ_STORED_INT});
        check_find(c, &(struct expected){"model.embed_tokens", "Embedding", float_spec, ZQ_STORED_FLOAT});
        if (i == 1) check_find(c, &(struct expected){"lm_head", "Linear", float_spec, ZQ_STORED_FLOAT});
        zq_compressed_free(c);
    }
}

static void schemes_are_told_apart(void **state)
{
    (void)state;
    static const struct { const char *group; struct zq_spec spec; enum zq_storage storage; } cases[] = {
        {GROUP(W8, "null"), {8, 16, 0}, ZQ_STORED_INT},
        {GROUP(W4, A8), {4, 8, 32}, ZQ_STORED_INT},
        {"{'targets':['Linear'],'format':'pack-quantized','weights':" W4 "}", {4, 16, 32}, ZQ_STORED_PACKED},
        {"{'targets':['Linear'],'format':'pack-quantized','weights':" W8 ",'input_activations':" A8 "}", {8, 8, 0}, ZQ_STORED_PACKED},
        {GROUP("{'num_bits':4,'group_size':128}", "null"), {4, 16, 128}, ZQ_STORED_INT},
        {"{'targets':['Linear'],'format':'pack-quantized','weights':{'num_bits':3,'strategy':'channel'}}", {3, 16, 0}, ZQ_STORED_PACKED},
        {"{'targets':['Linear'],'format':'pack-quantized','weights':{'num_bits':2,'group_size':64},'input_activations':" A8 "}", {2, 8, 64},
         ZQ_STORED_PACKED},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        struct zq_compressed *c;
        zq_error err = {0};
        const char *method = cases[i].spec.w_bits < 4 ? "zq-study" : "compressed-tensors";
        char *text = zq_format("{'quant_method':'%s','format':'int-quantized','config_groups':{'group_0':%s}}", method, cases[i].group);
        if (parse(&c, text, &err)) fail_msg("%zu: %s", i, err.message);
        check_find(c, &(struct expected){"x", "Linear", cases[i].spec, cases[i].storage});
        zq_compressed_free(c);
        zq_free(text);
    }
}

static void what_changes_numbers_is_refused_by_name(void **state)
{
    (void)state;
    static const struct { const char *config; zq_status status; const char *says; } cases[] = {
        {"7", ZQ_EFORMAT, "not an object"},
        {"{}", ZQ_EUNSUPPORTED, "quant_method"},
        {"{'quant_method':'gptq','bits':4}", ZQ_EUNSUPPORTED, "'gptq'"},
        {"{'quant_method':'awq'}", ZQ_EUNSUPPORTED, "'awq'"},
        {"{'quant_method':7}", ZQ_EFORMAT, "quant_method"},
        {"{" TOP "}", ZQ_EFORMAT, "config_groups"},
        {"{" TOP ",'config_groups':[]}", ZQ_EFORMAT, "config_groups"},
        {"{" TOP ",'config_groups':{'W8A8':['Linear']}}", ZQ_EUNSUPPORTED, "W8A8"},
        {WITH("'kv_cache_scheme':" A8), ZQ_EUNSUPPORTED, "kv_cache_scheme"},
        {WITH("'kv_cache_scheme':{'format':'dense'}"), ZQ_EUNSUPPORTED, "kv_cache_scheme"},
        {WITH("'sparsity_config':{'format':'sparse-24-bitmask'}"), ZQ_EUNSUPPORTED, "sparsity_config"},
        {WITH("'moe_sparsity_config':{'a':1}"), ZQ_EUNSUPPORTED, "moe_sparsity_config"},
        {WITH("'transform_config':{'config_groups':{'R1':{}}}"), ZQ_EUNSUPPORTED, "transform_config"},
        {WITH("'transform_config':{'config_groups':{},'more':1}"), ZQ_EUNSUPPORTED, "transform_config"},
        {WITH("'quantization_status':'calibration'"), ZQ_EUNSUPPORTED, "'calibration'"},
        {WITH("'ignore':'lm_head'"), ZQ_EFORMAT, "ignore"},
        {WITH("'ignore':[7]"), ZQ_EFORMAT, "ignore: entry 0"},
        {WITH("'ignore':['re:a(b']"), ZQ_EFORMAT, "a(b"},
        {"{'quant_method':'compressed-tensors','config_groups':{'g':" GROUP(W8, A8) "}}", ZQ_EFORMAT, "format"},
        {"{'quant_method':'compressed-tensors','format':'mixed-precision','config_groups':{'g':" GROUP(W8, A8) "}}", ZQ_EFORMAT, "format"},
        {"{'quant_method':'compressed-tensors','format':'float-quantized','config_groups':{'g':" GROUP(W8, A8) "}}", ZQ_EUNSUPPORTED,
         "'float-quantized'"},
        {"{'quant_method':'compressed-tensors','format':'dense','config_groups':{'g':" GROUP(W8, A8) "}}", ZQ_EUNSUPPORTED, "'dense'"},
        {CONFIG("7"), ZQ_EUNSUPPORTED, "group_0"},
        {CONFIG("{'targets':['Linear']}"), ZQ_EUNSUPPORTED, "group_0 has no weights"},
        {CONFIG("{'targets':['Linear'],'weights':" W8 ",'output_activations':" A8 "}"), ZQ_EUNSUPPORTED, "output_activations"},
        {CONFIG("{'targets':['Linear'],'weights':" W8 ",'rotation':1}"), ZQ_EUNSUPPORTED, "'rotation'"},
        {CONFIG("{'targets':'Linear','weights':" W8 "}"), ZQ_EFORMAT, "not a list"},
        {CONFIG(GROUP("7", A8)), ZQ_EFORMAT, "weights is not an object"},
        {CONFIG(GROUP("{'type':'float','strategy':'channel'}", A8)), ZQ_EUNSUPPORTED, "'float'"},
        {CONFIG(GROUP("{'symmetric':false,'strategy':'channel'}", A8)), ZQ_EUNSUPPORTED, "zero points"},
        {CONFIG(GROUP("{'num_bits':3,'strategy':'channel'}", A8)), ZQ_EUNSUPPORTED, "3 bits are not supported, only 4 and 8"},
        {"{'quant_method':'zq-study','format':'pack-quantized','config_groups':{'g':" GROUP("{'num_bits':5,'strategy':'channel'}", A8) "}}",
         ZQ_EUNSUPPORTED, "5 bits are not supported, only 2, 3, 4 and 8"},
        {CONFIG(GROUP("{'num_bits':'8','strategy':'channel'}", A8)), ZQ_EFORMAT, "num_bits"},
        {CONFIG(GROUP("{'strategy':'tensor'}", A8)), ZQ_EUNSUPPORTED, "'tensor'"},
        {CONFIG(GROUP("{}", A8)), ZQ_EUNSUPPORTED, "'tensor'"}, /* the library's default */
        {CONFIG(GROUP("{'strategy':'block','block_structure':[128,128]}", A8)), ZQ_EUNSUPPORTED, "block_structure"},
        {CONFIG(GROUP("{'strategy':'group'}", A8)), ZQ_EFORMAT, "group_size 0"},
        {CONFIG(GROUP("{'strategy':'channel','group_size':32}", A8)), ZQ_EFORMAT, "group_size 32"},
        {CONFIG(GROUP("{'strategy':'group','group_size':-2}", A8)), ZQ_EFORMAT, "group_size"},
        {CONFIG(GROUP("{'strategy':'channel','dynamic':true}", A8)), ZQ_EUNSUPPORTED, "dynamic weights"},
        {CONFIG(GROUP("{'strategy':'channel','actorder':'group'}", A8)), ZQ_EUNSUPPORTED, "actorder 'group'"},
        {CONFIG(GROUP("{'strategy':'channel','actorder':true}", A8)), ZQ_EUNSUPPORTED, "actorder"},
        {CONFIG(GROUP("{'strategy':'channel','twist':2}", A8)), ZQ_EUNSUPPORTED, "'twist'"},
        {CONFIG(GROUP(W8, "{'strategy':'tensor'}")), ZQ_EUNSUPPORTED, "static, by tensor"},
        {CONFIG(GROUP(W8, "{'strategy':'tensor','dynamic':true}")), ZQ_EUNSUPPORTED, "by tensor"},
        {CONFIG(GROUP(W8, "{'strategy':'token','dynamic':false}")), ZQ_EUNSUPPORTED, "static"},
        {CONFIG(GROUP(W8, "{'strategy':'token','dynamic':'local'}")), ZQ_EUNSUPPORTED, "local"},
        {CONFIG(GROUP(W8, "{'strategy':'token','dynamic':true,'num_bits':4}")), ZQ_EUNSUPPORTED, "4 bits"},
        {CONFIG(GROUP(W8, "{'strategy':'token','dynamic':true,'symmetric':false}")), ZQ_EUNSUPPORTED, "zero points"},
        {CONFIG(GROUP(W8, "{'strategy':'token','dynamic':true,'type':'float'}")), ZQ_EUNSUPPORTED, "'float'"},
        {CONFIG(GROUP(W8, "{'strategy':'group','group_size':32,'dynamic':true}")), ZQ_EUNSUPPORTED, "by group"},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) {
        struct zq_compressed *c = (struct zq_compressed *)&c;
        zq_error err = {0};
        const zq_status st = parse(&c, cases[i].config, &err);
        if (st != cases[i].status || !strstr(err.message, cases[i].says) || strncmp(err.message, "config.json", 11))
            fail_msg("%s: status %d, '%s', should say %s", cases[i].config, (int)st, err.message, cases[i].says);
        assert_null(c);
    }
}

static void the_most_specific_target_counts(void **state)
{
    (void)state;
    struct zq_compressed *c;
    zq_error err = {0};
    assert_int_equal(parse(&c, "{" TOP ",'ignore':['lm_head','re:.*gate$','Embedding'],'config_groups':{"
                               "'a':{'targets':['Linear'],'weights':" W8 ",'input_activations':" A8 "},"
                               "'b':{'targets':['re:.*mlp','re:.*up$'],'weights':" W4 ",'input_activations':" A8 ",'format':'pack-quantized'},"
                               "'c':{'targets':['h.0.mlp','re:h\\\\.1\\\\.mlp','h.2.gate','emb'],'weights':" W8 "}}}", &err), ZQ_OK);
    static const struct expected cases[] = {
        {"h.0.attn", "Linear", {8, 8, 0}, ZQ_STORED_INT},
        {"h.3.mlp", "Linear", {4, 8, 32}, ZQ_STORED_PACKED},
        {"h.3.mlp.more", "Linear", {4, 8, 32}, ZQ_STORED_PACKED}, /* re.match does not anchor the end */
        {"h.3.mlp.up", "Linear", {4, 8, 32}, ZQ_STORED_PACKED},   /* two patterns that agree */
        {"h.3.mlp", "Conv9", {4, 8, 32}, ZQ_STORED_PACKED},
        {"h.3.attn", "Conv9", {16, 16, 0}, ZQ_STORED_FLOAT},
        {"h.0.mlp", "Linear", {8, 16, 0}, ZQ_STORED_INT},
        {"lm_head", "Linear", {16, 16, 0}, ZQ_STORED_FLOAT},
        {"lm_head2", "Linear", {8, 8, 0}, ZQ_STORED_INT},
        {"h.0.gate", "Linear", {16, 16, 0}, ZQ_STORED_FLOAT},
        {"h.2.gate", "Linear", {16, 16, 0}, ZQ_STORED_FLOAT}, /* ignored, though named */
        {"emb", "Embedding", {16, 16, 0}, ZQ_STORED_FLOAT},
    };
    for (size_t i = 0; i < ZQ_LEN(cases); i++) check_find(c, &cases[i]);
    struct zq_spec spec;
    enum zq_storage storage;
    assert_int_equal(zq_compressed_find(c, "h.1.mlp", "Linear", &spec, &storage, &err), ZQ_EUNSUPPORTED);
    assert_non_null(strstr(single_quotes(err.message), "'h.1.mlp' matches 're:.*mlp' and 're:h\\.1\\.mlp'"));
    assert_true(zq_spec_equal(spec, float_spec) && storage == ZQ_STORED_FLOAT);
    zq_compressed_free(c);
}

static void a_slow_pattern_is_an_error(void **state)
{
    (void)state;
    struct zq_compressed *c;
    zq_error err = {0};
    assert_int_equal(parse(&c, WITH("'ignore':['re:(a|aa|a)+$']"), &err), ZQ_OK);
    struct zq_spec spec;
    enum zq_storage storage;
    assert_int_equal(zq_compressed_find(c, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaay", "Linear", &spec, &storage, &err), ZQ_ELIMIT);
    zq_compressed_free(c);
}

static zq_status parse_and_find_once(void *config, zq_error *err)
{
    struct zq_compressed *c;
    zq_status st = zq_compressed_parse(&c, config, "config.json", err);
    struct zq_spec spec;
    enum zq_storage storage;
    if (!st) st = zq_compressed_find(c, "model.layers.3.mlp.up_proj", "Linear", &spec, &storage, err);
    zq_compressed_free(c);
    return st;
}

static void reading_survives_failing_allocations(void **state)
{
    (void)state;
    static char text[] = "{'quantization_config':{" TOP ",'ignore':['lm_head','re:.*gate$'],'config_groups':{'g':"
                               "{'targets':['re:.*up_proj','re:a','Linear'],'weights':" W8 ",'input_activations':" A8 "}}}}";
    json_t *config;
    assert_int_equal(zq_json_parse(&config, double_quotes(text), sizeof text - 1, "c", NULL), ZQ_OK);
    assert_true(fail_each_allocation(parse_and_find_once, config) > 20);
    json_decref(config);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

enum { MAX_MODULES = 400 };

struct modules {
    struct zq_compressed_module items[MAX_MODULES];
    char names[MAX_MODULES][80];
    size_t n;
};

static void add(struct modules *m, const char *class_name, struct zq_spec spec, const char *format, size_t layer)
{
    snprintf(m->names[m->n], sizeof m->names[0], format, layer);
    m->items[m->n] = (struct zq_compressed_module){m->names[m->n], class_name, spec};
    m->n++;
}

/* Linear maps of one layer, embedding, head. */
static const struct family {
    const char *linear[8], *embedding, *head;
} families[] = {
    {{"model.layers.%zu.self_attn.q_proj", "model.layers.%zu.self_attn.k_proj", "model.layers.%zu.self_attn.v_proj",
      "model.layers.%zu.self_attn.o_proj",
      "model.layers.%zu.mlp.gate_proj", "model.layers.%zu.mlp.up_proj", "model.layers.%zu.mlp.down_proj"}, "model.embed_tokens", "lm_head"},
    {{"transformer.h.%zu.attn.c_attn", "transformer.h.%zu.attn.c_proj", "transformer.h.%zu.mlp.c_fc", "transformer.h.%zu.mlp.c_proj"},
     "transformer.wte", "lm_head"},
    {{"transformer.h.%zu.attn.q_proj", "transformer.h.%zu.attn.k_proj", "transformer.h.%zu.attn.v_proj", "transformer.h.%zu.attn.out_proj",
      "transformer.h.%zu.mlp.fc_in", "transformer.h.%zu.mlp.fc_out"}, "transformer.wte", "lm_head"},
    {{"gpt_neox.layers.%zu.attention.query_key_value", "gpt_neox.layers.%zu.attention.dense", "gpt_neox.layers.%zu.mlp.dense_h_to_4h",
      "gpt_neox.layers.%zu.mlp.dense_4h_to_h"}, "gpt_neox.embed_in", "embed_out"},
    {{"model.decoder.layers.%zu.self_attn.q_proj", "model.decoder.layers.%zu.self_attn.k_proj", "model.decoder.layers.%zu.self_attn.v_proj",
      "model.decoder.layers.%zu.self_attn.out_proj", "model.decoder.layers.%zu.fc1", "model.decoder.layers.%zu.fc2"},
     "model.decoder.embed_tokens", "lm_head"},
    {{"bert.encoder.layer.%zu.attention.self.query", "bert.encoder.layer.%zu.attention.self.key", "bert.encoder.layer.%zu.attention.self.value",
      "bert.encoder.layer.%zu.attention.output.dense", "bert.encoder.layer.%zu.intermediate.dense", "bert.encoder.layer.%zu.output.dense"},
     "bert.embeddings.word_embeddings", "classifier"},
    {{"h.%zu.attn.c_attn", "h.%zu.attn.c_proj", "h.%zu.mlp.c_fc", "h.%zu.mlp.c_proj"}, "wte", "h.head"},
};

static const struct zq_spec specs[] = {{16, 16, 0}, {8, 8, 0}, {4, 8, 64}, {4, 16, 0}, {8, 16, 0}, {8, 8, 128}, {4, 8, 32}, {3, 8, 64}, {2, 16, 0}};

/* Modules of a family with specs that depend on little (all equal), on the kind of map, on the layer, or on both. */
static void assign(struct modules *m, const struct family *f, uint64_t *seed)
{
    const uint64_t style = zq_rng_next(seed) % 5, salt = zq_rng_next(seed);
    const size_t n_layers = 1 + zq_rng_next(seed) % 30;
    m->n = 0;
    add(m, "Embedding", specs[zq_rng_next(seed) % 3 ? 0 : 4], f->embedding, 0);
    for (size_t layer = 0; layer < n_layers; layer++) {
        for (size_t i = 0; i < 8 && f->linear[i]; i++) {
            uint64_t key = salt + (style == 1 || style == 3 ? i : 0) * 1000 + (style == 2 || style == 3 ? layer : 0) * 77;
            if (style == 4 && zq_rng_next(seed) % 40 == 0) key++; /* a few exceptions */
            add(m, "Linear", specs[zq_rng_next(&key) % ZQ_LEN(specs)], f->linear[i], layer);
        }
    }
    add(m, "Linear", specs[zq_rng_next(seed) % 3 ? 0 : 4], f->head, 0);
}

static json_t *whole_config(json_t *quantization_config)
{
    json_t *config = json_pack("{s:s, s:o*}", "model_type", "any", "quantization_config", quantization_config);
    assert_non_null(config);
    return config;
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static struct modules m;
    uint64_t seed = 11;
    size_t n_quantized = 0;
    for (int round = 0; round < 300; round++) {
        assign(&m, &families[(size_t)round % ZQ_LEN(families)], &seed);
        json_t *q, *again;
        assert_int_equal(zq_compressed_config(&q, m.items, m.n, NULL), ZQ_OK);
        assert_int_equal(zq_compressed_config(&again, m.items, m.n, NULL), ZQ_OK);
        char *a = q ? json_dumps(q, 0) : NULL, *b = again ? json_dumps(again, 0) : NULL;
        if (a) assert_string_equal(a, b);
        free(a);
        free(b);
        json_decref(again);
        json_t *config = whole_config(q);
        struct zq_compressed *c;
        zq_error err = {0};
        if (zq_compressed_parse(&c, config, "config.json", &err)) fail_msg("%s", err.message);
        bool any = false;
        for (size_t i = 0; i < m.n; i++) {
            any |= m.items[i].spec.w_bits < 16;
            const struct zq_compressed_module *want = &m.items[i];
            check_find(c, &(struct expected){want->name, want->class_name, want->spec, zq_compressed_storage(want->spec, want->class_name)});
        }
        assert_int_equal(any, c != NULL);
        n_quantized += any;
        /* nothing else may be touched, but by class where one group takes every Linear */
        check_find(c, &(struct expected){"some.other.0.module", "Embedding", float_spec, ZQ_STORED_FLOAT});
        zq_compressed_free(c);
        json_decref(config);
    }
    assert_true(n_quantized > 200);
}

static json_t *config_of(const struct modules *m)
{
    json_t *q;
    assert_int_equal(zq_compressed_config(&q, m->items, m->n, NULL), ZQ_OK);
    return q;
}

static void assert_json(const json_t *value, const char *want)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_string_equal(single_quotes(text), want);
    free(text);
}

static void storage_follows_scheme_and_class(void **state)
{
    (void)state;
    static const struct { struct zq_spec spec; const char *class_name; enum zq_storage storage; } cases[] = {
        {{16, 16, 0}, "Linear", ZQ_STORED_FLOAT}, {{8, 8, 0}, "Linear", ZQ_STORED_INT}, {{8, 16, 0}, "Linear", ZQ_STORED_PACKED},
        {{8, 8, 64}, "Linear", ZQ_STORED_PACKED}, {{4, 8, 0}, "Linear", ZQ_STORED_PACKED}, {{4, 16, 64}, "Linear", ZQ_STORED_PACKED},
        {{3, 8, 0}, "Linear", ZQ_STORED_PACKED}, {{2, 16, 64}, "Linear", ZQ_STORED_PACKED},
        {{8, 16, 0}, "Embedding", ZQ_STORED_INT}, {{16, 16, 0}, "Embedding", ZQ_STORED_FLOAT}};
    for (size_t i = 0; i < ZQ_LEN(cases); i++) assert_int_equal(zq_compressed_storage(cases[i].spec, cases[i].class_name), cases[i].storage);
}

static void one_scheme_is_written_by_class(void **state)
{
    (void)state;
    static struct modules m;
    m.n = 0;
    for (size_t i = 0; i < 3; i++) add(&m, "Linear", w8a8, families[0].linear[0], i);
    add(&m, "Linear", float_spec, "lm_head", 0);
    add(&m, "Embedding", float_spec, "model.embed_tokens", 0);
    json_t *q = config_of(&m);
    assert_json(q, "{'quant_method':'compressed-tensors','format':'int-quantized','quantization_status':'compressed','global_compression_ratio':null,"
                   "'kv_cache_scheme':null,'ignore':['lm_head'],'config_groups':{'group_0':{'targets':['Linear'],"
                   "'weights':{'num_bits':8,'type':'int','symmetric':true,'strategy':'channel','group_size':null,'block_structure':null,"
                   "'dynamic':false,'actorder':null,'observer':'minmax','observer_kwargs':{}},"
                   "'input_activations':{'num_bits':8,'type':'int','symmetric':true,'strategy':'token','group_size':null,'block_structure':null,"
                   "'dynamic':true,'actorder':null,'observer':null,'observer_kwargs':{}},'output_activations':null,"
                   "'format':'int-quantized'}},'version':'0.10.2'}");
    json_decref(q);
}

/* No other reader may take its three bits for what compressed-tensors packs ten to a word. */
static void studies_have_a_method_of_their_own(void **state)
{
    (void)state;
    static struct modules m;
    for (int bits = 2; bits <= 4; bits++) {
        m.n = 0;
        add(&m, "Linear", w8a8, "model.layers.%zu.self_attn.q_proj", 0);
        add(&m, "Linear", (struct zq_spec){bits, 8, 32}, "model.layers.%zu.mlp.up_proj", 0);
        json_t *q = config_of(&m);
        assert_json(json_object_get(q, "quant_method"), bits < 4 ? "'zq-study'" : "'compressed-tensors'");
        json_decref(q);
    }
}

static void mixtures_are_written_by_pattern(void **state)
{
    (void)state;
    static struct modules m;
    m.n = 0;
    for (size_t i = 0; i < 3; i++) {
        add(&m, "Linear", w8a8, "model.layers.%zu.self_attn.q_proj", i);
        add(&m, "Linear", i == 1 ? w8a8 : w4a8, "model.layers.%zu.mlp.up_proj", i);
        add(&m, "Linear", w4a8, "model.layers.%zu.mlp.down_proj", i);
        add(&m, "Linear", float_spec, "model.layers.%zu.mlp.gate", i);
    }
    add(&m, "Linear", float_spec, "lm_head", 0);
    add(&m, "Embedding", specs[4], "model.embed_tokens", 0);
    json_t *q = config_of(&m), *groups = json_object_get(q, "config_groups");
    assert_json(json_object_get(q, "format"), "'mixed-precision'");
    assert_json(json_object_get(q, "ignore"), "['re:^model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.gate$','lm_head']");
    assert_int_equal(json_object_size(groups), 3);
    static const struct { const char *targets, *format; } want[] = {
        {"['re:^model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.q_proj$','model.layers.1.mlp.up_proj']", "'int-quantized'"},
        {"['model.layers.0.mlp.up_proj','re:^model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.down_proj$','model.layers.2.mlp.up_proj']", "'pack-quantized'"},
        {"['model.embed_tokens']", "'int-quantized'"}};
    for (size_t i = 0; i < ZQ_LEN(want); i++) {
        char key[20];
        snprintf(key, sizeof key, "group_%zu", i);
        assert_json(json_object_get(json_object_get(groups, key), "targets"), want[i].targets);
        assert_json(json_object_get(json_object_get(groups, key), "format"), want[i].format);
    }
    assert_json(json_object_get(json_object_get(groups, "group_2"), "input_activations"), "null");
    json_decref(q);
}

static void nothing_quantized_gives_no_config(void **state)
{
    (void)state;
    static struct modules m;
    m.n = 0;
    json_t *q = (json_t *)&q;
    assert_int_equal(zq_compressed_config(&q, NULL, 0, NULL), ZQ_OK);
    assert_null(q);
    add(&m, "Linear", float_spec, "a.%zu", 1);
    assert_null(config_of(&m));
}

static zq_status write_once(void *modules, zq_error *err)
{
    const struct modules *m = modules;
    json_t *q;
    const zq_status st = zq_compressed_config(&q, m->items, m->n, err);
    assert_int_equal(st == ZQ_OK, q != NULL);
    json_decref(q);
    return st;
}

static void writing_survives_failing_allocations(void **state)
{
    (void)state;
    static struct modules m;
    m.n = 0;
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) add(&m, "Linear", specs[k + (k == i)], families[0].linear[k], i);
    assert_true(fail_each_allocation(write_once, &m) > 100);
}

/* ---- what the library wrote --------------------------------------------------------------------------------------- */

static size_t n_library; /* configs with a quantization_config among the shared ones */

static void check_library(const char *path)
{
    json_t *config;
    struct zq_compressed *c;
    zq_error err = {0};
    assert_int_equal(zq_json_read(&config, path, 1 << 20, NULL), ZQ_OK);
    if (zq_compressed_parse(&c, config, path, &err)) fail_msg("%s", err.message);
    json_decref(config);
    if (!c) return;
    n_library++;
    const bool w8 = strstr(path, "ct-w8a8"), w4 = strstr(path, "ct-w4a8");
    assert_true(w8 || w4 || strstr(path, "ct-mixed"));
    const struct expected wide = {"model.layers.3.self_attn.o_proj", "Linear", w8a8, ZQ_STORED_INT};
    const struct expected narrow = {"model.layers.3.mlp.up_proj", "Linear", {4, 8, w4 ? 64 : 32}, ZQ_STORED_PACKED};
    struct expected want = w4 ? narrow : wide;
    want.module = wide.module;
    check_find(c, &want);
    want = w8 ? wide : narrow;
    want.module = narrow.module;
    check_find(c, &want);
    check_find(c, &(struct expected){"lm_head", "Linear", float_spec, ZQ_STORED_FLOAT});
    check_find(c, &(struct expected){"model.embed_tokens", "Embedding", float_spec, ZQ_STORED_FLOAT});
    zq_compressed_free(c);
}

static void the_librarys_directories_are_understood(void **state)
{
    (void)state;
    if (!shared_each_file("models", "/config.json", check_library)) {
        print_message("skipped: no shared data\n");
        skip();
    }
    assert_int_equal(n_library, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_config_means_float),
        cmocka_unit_test(releases_are_understood),
        cmocka_unit_test(schemes_are_told_apart),
        cmocka_unit_test(what_changes_numbers_is_refused_by_name),
        cmocka_unit_test(the_most_specific_target_counts),
        cmocka_unit_test(a_slow_pattern_is_an_error),
        cmocka_unit_test(reading_survives_failing_allocations),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(storage_follows_scheme_and_class),
        cmocka_unit_test(one_scheme_is_written_by_class),
        cmocka_unit_test(studies_have_a_method_of_their_own),
        cmocka_unit_test(mixtures_are_written_by_pattern),
        cmocka_unit_test(nothing_quantized_gives_no_config),
        cmocka_unit_test(writing_survives_failing_allocations),
        cmocka_unit_test(the_librarys_directories_are_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
