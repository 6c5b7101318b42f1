/* All post-processors come down to two templates, one for a single sequence and one for a pair: a row of sequences and tokens
 * with their token types. Without special tokens the same row is used and its tokens are left out, so that the types stay. */
#include "text/post.h"

#include "base/alloc.h"
#include "text/component.h"

static zq_status put(struct zq_post_template *t, struct zq_post_piece piece, const char *name, zq_error *err)
{
    if (!zq_grow((void **)&t->pieces, t->n, &t->capacity, sizeof *t->pieces))
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its post-processor", name);
    t->pieces[t->n++] = piece;
    return ZQ_OK;
}

static zq_status put_all(struct zq_post_template *t, const struct zq_post_piece *pieces, size_t n, const char *name, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < n && !st; i++) st = put(t, pieces[i], name, err);
    return st;
}

/* ---- TemplateProcessing ------------------------------------------------------------------------------------------- */

static zq_status read_id(const json_t *json, int32_t *id, const char *name, zq_error *err)
{
    const json_int_t v = json_is_integer(json) ? json_integer_value(json) : -1;
    if (v < 0 || v >= ZQ_VOCAB_MAX_IDS)
        return zq_fail(err, ZQ_EFORMAT, "%s: the post-processor has a token without id or with one above %d", name, ZQ_VOCAB_MAX_IDS - 1);
    *id = (int32_t)v;
    return ZQ_OK;
}

static zq_status read_tokens(struct zq_post_template *t, const char *token, const json_t *tokens, uint8_t type, const char *name, zq_error *err)
{
    const json_t *ids = json_object_get(json_object_get(tokens, token), "ids");
    if (!json_is_array(ids)) return zq_fail(err, ZQ_EFORMAT, "%s: the post-processor gives no ids for \"%.60s\"", name, token);
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < json_array_size(ids) && !st; i++) {
        struct zq_post_piece piece = {.what = ZQ_POST_TOKEN, .type = type};
        st = read_id(json_array_get(ids, i), &piece.id, name, err);
        if (!st) st = put(t, piece, name, err);
    }
    return st;
}

static zq_status read_piece(struct zq_post_template *t, const json_t *json, const json_t *tokens, bool pair, const char *name, zq_error *err)
{
    const json_t *sequence = json_object_get(json, "Sequence"), *special = json_object_get(json, "SpecialToken");
    const json_t *piece = sequence ? sequence : special;
    const char *id;
    int64_t type;
    if (!json_is_object(piece)) return zq_fail(err, ZQ_EFORMAT, "%s: the post-processor has a piece that is neither Sequence nor SpecialToken", name);
    zq_status st = zq_json_string(piece, "id", "", &id, name, err);
    if (!st) st = zq_json_int(piece, "type_id", 0, UINT8_MAX, 0, &type, name, err);
    if (st) return st;
    if (special && !sequence) return read_tokens(t, id, tokens, (uint8_t)type, name, err);
    if (strcmp(id, "A") && (strcmp(id, "B") || !pair))
        return zq_fail(err, ZQ_EFORMAT, "%s: the post-processor asks for sequence \"%.60s\" of %s", name, id, pair ? "a pair" : "one");
    return put(t, (struct zq_post_piece){.what = *id == 'A' ? ZQ_POST_A : ZQ_POST_B, .type = (uint8_t)type}, name, err);
}

static zq_status read_template(struct zq_post *p, const json_t *json, const char *name, zq_error *err)
{
    const json_t *tokens = json_object_get(json, "special_tokens");
    zq_status st = ZQ_OK;
    for (int pair = 0; pair < 2; pair++) {
        const json_t *pieces = json_object_get(json, pair ? "pair" : "single");
        if (!json_is_array(pieces)) return zq_fail(err, ZQ_EFORMAT, "%s: the post-processor has no template \"%s\"", name, pair ? "pair" : "single");
        for (size_t i = 0; i < json_array_size(pieces) && !st; i++)
            st = read_piece(pair ? &p->pair : &p->single, json_array_get(pieces, i), tokens, pair, name, err);
    }
    return st;
}

/* ---- BertProcessing, RobertaProcessing ---------------------------------------------------------------------------- */

/* "sep" and "cls" are ["[SEP]", 102]. */
static zq_status read_sep_cls(const json_t *json, struct zq_post_piece *sep, struct zq_post_piece *cls, const char *name, zq_error *err)
{
    sep->what = cls->what = ZQ_POST_TOKEN;
    const zq_status st = read_id(json_array_get(json_object_get(json, "sep"), 1), &sep->id, name, err);
    return st ? st : read_id(json_array_get(json_object_get(json, "cls"), 1), &cls->id, name, err);
}

static zq_status read_bert(struct zq_post *p, const json_t *json, const char *name, zq_error *err)
{
    struct zq_post_piece sep = {0}, cls = {0};
    zq_status st = read_sep_cls(json, &sep, &cls, name, err);
    if (st) return st;
    struct zq_post_piece sep_b = sep;
    sep_b.type = 1;
    const struct zq_post_piece pieces[] = {cls, {.what = ZQ_POST_A}, sep, {.what = ZQ_POST_B, .type = 1}, sep_b};
    st = put_all(&p->single, pieces, 3, name, err);
    return st ? st : put_all(&p->pair, pieces, ZQ_LEN(pieces), name, err);
}

/* All token types are 0, and two separators stand between the sequences. */
static zq_status read_roberta(struct zq_post *p, const json_t *json, const char *name, zq_error *err)
{
    struct zq_post_piece sep = {0}, cls = {0};
    zq_status st = read_sep_cls(json, &sep, &cls, name, err);
    if (st) return st;
    const struct zq_post_piece pieces[] = {cls, {.what = ZQ_POST_A}, sep, sep, {.what = ZQ_POST_B}, sep};
    st = put_all(&p->single, pieces, 3, name, err);
    return st ? st : put_all(&p->pair, pieces, ZQ_LEN(pieces), name, err);
}

/* ---- the list ----------------------------------------------------------------------------------------------------- */

static const struct kind {
    const char *type;
    zq_status (*read)(struct zq_post *p, const json_t *json, const char *name, zq_error *err); /* NULL: concerns offsets only */
} kinds[] = {
    {"ByteLevel", NULL},
    {"TemplateProcessing", read_template},
    {"BertProcessing", read_bert},
    {"RobertaProcessing", read_roberta},
};

static zq_status add(void *list, const json_t *json, const char *type, const char *name, zq_error *err)
{
    struct zq_post *p = list;
    for (size_t i = 0; i < ZQ_LEN(kinds); i++) {
        if (strcmp(kinds[i].type, type)) continue;
        if (!kinds[i].read) return ZQ_OK;
        if (p->set) return zq_fail(err, ZQ_EUNSUPPORTED, "%s: two post-processors that both add tokens are not supported", name);
        p->set = true;
        return kinds[i].read(p, json, name, err);
    }
    return zq_component_unknown("post-processor", type, name, err);
}

zq_status zq_post_read(struct zq_post *p, const json_t *json, const char *name, zq_error *err)
{
    const zq_status st = zq_component_walk(json, "post_processor", "processors", add, p, name, err);
    if (st || p->set) return st;
    const struct zq_post_piece pieces[] = {{.what = ZQ_POST_A}, {.what = ZQ_POST_B, .type = 1}};
    const zq_status single = put_all(&p->single, pieces, 1, name, err);
    return single ? single : put_all(&p->pair, pieces, 2, name, err);
}

void zq_post_free(struct zq_post *p)
{
    zq_free(p->single.pieces);
    zq_free(p->pair.pieces);
    *p = (struct zq_post){0};
}

/* ---- applying ----------------------------------------------------------------------------------------------------- */

static bool reserve(zq_ids *out, size_t more)
{
    size_t needed, capacity, n_bytes;
    if (!zq_add(out->n, more, &needed)) return false;
    if (needed <= out->capacity && out->ids) return true;
    if (!zq_mul(needed, 2, &capacity) || !zq_add(capacity, 8, &capacity) || !zq_mul(capacity, sizeof *out->ids, &n_bytes)) return false;
    int32_t *ids = zq_alloc(n_bytes);
    uint8_t *types = zq_alloc(capacity);
    if (!ids || !types) {
        zq_free(ids);
        zq_free(types);
        return false;
    }
    if (out->n) {
        memcpy(ids, out->ids, out->n * sizeof *ids);
        memcpy(types, out->types, out->n);
    }
    zq_free(out->ids);
    zq_free(out->types);
    out->ids = ids;
    out->types = types;
    out->capacity = capacity;
    return true;
}

bool zq_post_apply(const struct zq_post *p, const struct zq_id_list *a, const struct zq_id_list *b, bool add_special, zq_ids *out)
{
    const struct zq_post_template *t = b ? &p->pair : &p->single;
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        const struct zq_post_piece *piece = &t->pieces[i];
        const size_t more = piece->what == ZQ_POST_A ? a->n : piece->what == ZQ_POST_B ? b->n : 1;
        if (!zq_add(n, more, &n)) return false;
    }
    if (!reserve(out, n)) return false;
    for (size_t i = 0; i < t->n; i++) {
        const struct zq_post_piece *piece = &t->pieces[i];
        if (piece->what == ZQ_POST_TOKEN && !add_special) continue;
        const struct zq_id_list token = {(int32_t *)&piece->id, 1, 1};
        const struct zq_id_list *l = piece->what == ZQ_POST_A ? a : piece->what == ZQ_POST_B ? b : &token;
        if (l->n) memcpy(out->ids + out->n, l->ids, l->n * sizeof *l->ids);
        memset(out->types + out->n, piece->type, l->n);
        out->n += l->n;
    }
    return true;
}
