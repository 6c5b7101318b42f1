/* tokenizer.json: from the tree to the stages. Every stage reads its own part; here is the order (added tokens need the model's
 * vocabulary and the normalizer) and what concerns the whole. */
#include "text/tokenizer.h"

#include "base/alloc.h"

static zq_status read_head(zq_tokenizer *t, const json_t *root, const char *name, zq_error *err)
{
    const char *version;
    int64_t max_length = 0;
    if (!json_is_object(root)) return zq_fail(err, ZQ_EFORMAT, "%s: not a tokenizer.json: it is not an object", name);
    zq_status st = zq_json_string(root, "version", "1.0", &version, name, err);
    if (st) return st;
    if (strcmp(version, "1.0")) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: version \"%.60s\" of tokenizer.json is not supported", name, version);
    const json_t *truncation = json_object_get(root, "truncation");
    if (json_is_object(truncation)) st = zq_json_int(truncation, "max_length", 0, INT64_MAX, 0, &max_length, name, err);
    t->max_length = (size_t)max_length;
    return st;
}

/* Ids that the post-processor adds must be tokens: they go to the model unchecked later. */
static zq_status check_post(const zq_tokenizer *t, const char *name, zq_error *err)
{
    const struct zq_post_template *templates[] = {&t->post.single, &t->post.pair};
    for (size_t k = 0; k < ZQ_LEN(templates); k++) {
        for (size_t i = 0; i < templates[k]->n; i++) {
            const struct zq_post_piece *p = &templates[k]->pieces[i];
            if (p->what == ZQ_POST_TOKEN && (size_t)p->id >= t->n_vocab)
                return zq_fail(err, ZQ_EFORMAT, "%s: the post-processor adds id %d, but there are only %zu", name, (int)p->id, t->n_vocab);
        }
    }
    return ZQ_OK;
}

static zq_status read_all(zq_tokenizer *t, const json_t *root, bool trust_ids, const char *name, zq_error *err)
{
    zq_status st = read_head(t, root, name, err);
    if (!st) st = zq_normalizers_read(&t->normalizers, json_object_get(root, "normalizer"), name, err);
    if (!st) st = zq_splitters_read(&t->splitters, json_object_get(root, "pre_tokenizer"), name, err);
    if (!st) st = zq_word_model_read(&t->model, json_object_get(root, "model"), name, err);
    if (!st) st = zq_added_read(&t->added, json_object_get(root, "added_tokens"), &t->model.vocab, &t->normalizers, trust_ids, name, err);
    if (!st) st = zq_post_read(&t->post, json_object_get(root, "post_processor"), name, err);
    if (!st) st = zq_decoders_read(&t->decoders, json_object_get(root, "decoder"), name, err);
    if (!st) st = zq_workspaces_create(&t->workspaces, err);
    if (st) return st;
    t->n_vocab = t->added.vocab.n_ids > t->model.vocab.n_ids ? t->added.vocab.n_ids : t->model.vocab.n_ids;
    return check_post(t, name, err);
}

zq_status zq_tokenizer_build(zq_tokenizer **out, const json_t *root, bool trust_ids, const char *name, zq_error *err)
{
    *out = NULL;
    zq_tokenizer *t = zq_alloc_zero(sizeof *t);
    if (!t) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a tokenizer", name);
    const zq_status st = read_all(t, root, trust_ids, name, err);
    if (st)
        zq_tokenizer_close(t);
    else
        *out = t;
    return st;
}

zq_status zq_tokenizer_parse(zq_tokenizer **out, const char *text, size_t n_bytes, const char *name, zq_error *err)
{
    *out = NULL;
    json_t *root;
    zq_status st = zq_json_parse(&root, text, n_bytes, name, err);
    if (st) return st;
    st = zq_tokenizer_build(out, root, false, name, err);
    json_decref(root);
    return st;
}
