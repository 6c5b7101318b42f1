/* Reading the word model: the vocabulary is common to all kinds, the rest belongs to bpe.c and wordpiece.c. */
#include "text/word.h"

#include "base/alloc.h"
#include "text/component.h"

static const struct zq_word_kind *const kinds[] = {&zq_word_bpe, &zq_word_wordpiece};

bool zq_id_list_grow(struct zq_id_list *l, size_t more)
{
    size_t capacity, n_bytes;
    if (!zq_add(l->n, more, &capacity) || !zq_mul(capacity, 2, &capacity) || !zq_mul(capacity, sizeof *l->ids, &n_bytes)) return false;
    int32_t *ids = zq_realloc(l->ids, l->n * sizeof *ids, n_bytes);
    if (!ids) return false;
    l->ids = ids;
    l->capacity = capacity;
    return true;
}

static zq_status read_vocab(struct zq_vocab *v, const json_t *json, const char *name, zq_error *err)
{
    const json_t *vocab = json_object_get(json, "vocab");
    if (!json_is_object(vocab)) return zq_fail(err, ZQ_EFORMAT, "%s: the model's \"vocab\" is not an object", name);
    void *at = json_object_iter((json_t *)vocab);
    for (; at; at = json_object_iter_next((json_t *)vocab, at)) {
        const char *content = json_object_iter_key(at);
        const json_t *id = json_object_iter_value(at);
        if (!json_is_integer(id)) return zq_fail(err, ZQ_EFORMAT, "%s: the id of token \"%.60s\" is not an integer", name, content);
        const zq_status st = zq_vocab_add(v, content, strlen(content), json_integer_value(id), name, err);
        if (st) return st;
    }
    return ZQ_OK;
}

/* Files of before 2021 have no "type": only BPE has merges, only WordPiece a limit of characters. */
static const char *guess_type(const json_t *json)
{
    if (json_object_get(json, "merges")) return "BPE";
    if (json_object_get(json, "max_input_chars_per_word")) return "WordPiece";
    return "without a type";
}

zq_status zq_word_model_read(struct zq_word_model *m, const json_t *json, const char *name, zq_error *err)
{
    if (!json_is_object(json)) return zq_fail(err, ZQ_EFORMAT, "%s: it has no \"model\"", name);
    const char *type;
    zq_status st = zq_json_string(json, "type", guess_type(json), &type, name, err);
    if (st) return st;
    const struct zq_word_kind *kind = NULL;
    for (size_t i = 0; i < ZQ_LEN(kinds); i++)
        if (!strcmp(kinds[i]->type, type)) kind = kinds[i];
    if (!kind) return zq_component_unknown("model", type, name, err);
    st = read_vocab(&m->vocab, json, name, err);
    if (st) return st;
    m->kind = kind;
    return kind->read(m, json, name, err);
}

void zq_word_model_free(struct zq_word_model *m)
{
    if (m->kind) m->kind->free(m);
    zq_vocab_free(&m->vocab);
    m->kind = NULL;
}

void zq_word_scratch_free(struct zq_word_scratch *s)
{
    zq_bytes_free(&s->text);
    zq_free(s->symbols);
    zq_free(s->heap);
    *s = (struct zq_word_scratch){0};
}
