/* The files of before tokenizer.json: vocab.json + merges.txt (GPT-2 and its relatives, Qwen2, RoBERTa) and vocab.txt (BERT).
 * They hold the vocabulary only; what the tokenizer does with it is known from its class. So a family is described by the
 * components that its tokenizer.json would have, and everything behind this file knows one format only.
 *
 * What tokenizer_config.json and special_tokens_map.json say counts: the class, the special tokens, add_bos_token, do_lower_case. */
#include "text/tokenizer.h"

#include "base/alloc.h"
#include "base/file.h"

#include <stdlib.h>

enum { MAX_FILE_BYTES = 256 << 20 };

/* ---- the families ------------------------------------------------------------------------------------------------- */

#define BYTE_LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}"
#define GPT2_COMPONENTS "\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}"
#define BERT_SPECIAL                                                                                                       \
    "\"special\": {\"unk_token\": \"[UNK]\", \"sep_token\": \"[SEP]\", \"pad_token\": \"[PAD]\", \"cls_token\": \"[CLS]\", " \
    "\"mask_token\": \"[MASK]\"}"
#define QWEN2_REGEX                                                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*" \
    "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

/* The first of each kind of file is what a folder without tokenizer_config.json holds. */
static const struct family {
    const char *class;   /* tokenizer_class without "Fast" */
    bool wordpiece;      /* vocab.txt */
    const char *cls_sep; /* the post-processor that puts cls and sep around a sequence; NULL: none does */
    const char *json;    /* members of the tokenizer.json; "special": special tokens unless the config names others */
} families[] = {
    {"GPT2Tokenizer", false, NULL,
     "{" GPT2_COMPONENTS ", \"special\": {\"bos_token\": \"<|endoftext|>\"}}"},
    {"CodeGenTokenizer", false, NULL,
     "{" GPT2_COMPONENTS ", \"special\": {\"bos_token\": \"<|endoftext|>\"}}"},
    {"GPTNeoXTokenizer", false, NULL,
     "{\"normalizer\": {\"type\": \"NFC\"}, " GPT2_COMPONENTS ", \"special\": {\"bos_token\": \"<|endoftext|>\", \"pad_token\": \"<|padding|>\"}}"},
    {"Qwen2Tokenizer", false, NULL,
     "{\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
     "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" QWEN2_REGEX "\"}, \"behavior\": \"Isolated\"}, "
     "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}, "
     "\"decoder\": {\"type\": \"ByteLevel\"}, \"special\": {\"eos_token\": \"<|endoftext|>\"}}"},
    {"RobertaTokenizer", false, "RobertaProcessing",
     "{" GPT2_COMPONENTS ", \"special\": {\"cls_token\": \"<s>\", \"sep_token\": \"</s>\", \"unk_token\": \"<unk>\", \"pad_token\": \"<pad>\", "
     "\"mask_token\": {\"content\": \"<mask>\", \"lstrip\": true}}}"},
    {"BertTokenizer", true, "BertProcessing", "{\"decoder\": {\"type\": \"WordPiece\"}, " BERT_SPECIAL "}"},
    {"DistilBertTokenizer", true, "BertProcessing", "{\"decoder\": {\"type\": \"WordPiece\"}, " BERT_SPECIAL "}"},
    {"ElectraTokenizer", true, "BertProcessing", "{\"decoder\": {\"type\": \"WordPiece\"}, " BERT_SPECIAL "}"},
};

/* What is being put together. All but family and dir are owned. */
struct legacy {
    const struct family *family;
    const char *dir;
    json_t *config;  /* tokenizer_config.json, {} if there is none */
    json_t *special; /* role -> content or object with "content" and flags */
    json_t *named;   /* the members of special that a file names: they exist even if the vocabulary has them not */
    json_t *vocab;   /* content -> id */
    json_t *root;
};

static zq_status no_memory(const struct legacy *l, zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its tokenizer", l->dir);
}

static zq_status find_family(struct legacy *l, bool wordpiece, zq_error *err)
{
    const char *class;
    zq_status st = zq_json_string(l->config, "tokenizer_class", "", &class, l->dir, err);
    if (st) return st;
    size_t n = strlen(class);
    if (n > 4 && !strcmp(class + n - 4, "Fast")) n -= 4;
    for (size_t i = 0; i < ZQ_LEN(families) && !l->family; i++) {
        const struct family *f = &families[i];
        if (f->wordpiece == wordpiece && (!n || (strlen(f->class) == n && !memcmp(f->class, class, n)))) l->family = f;
    }
    if (l->family) return ZQ_OK;
    return zq_fail(err, ZQ_EUNSUPPORTED, "%s: the tokenizer class \"%.60s\" without a tokenizer.json is not supported", l->dir, class);
}

/* ---- special tokens ----------------------------------------------------------------------------------------------- */

static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

static const char *content_of(const json_t *token)
{
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

/* Takes over the roles that a file names. A bare string keeps the flags that the family gives to the same content. */
static bool name_roles(struct legacy *l, const json_t *file)
{
    for (size_t i = 0; i < ZQ_LEN(roles); i++) {
        json_t *token = json_object_get(file, roles[i]);
        const char *content = content_of(token), *known = content_of(json_object_get(l->special, roles[i]));
        if (!content) continue;
        if (json_is_string(token) && known && !strcmp(known, content)) token = json_object_get(l->special, roles[i]);
        if (json_object_set(l->special, roles[i], token) || json_object_set(l->named, roles[i], token)) return false;
    }
    return true;
}

static zq_status read_optional(json_t **out, const char *dir, const char *name, zq_error *err)
{
    char *path = zq_path_join(dir, name);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
    zq_status st = ZQ_OK;
    if (zq_file_exists(path))
        st = zq_json_read(out, path, MAX_FILE_BYTES, err);
    else if (!(*out = json_object()))
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory", path);
    if (!st && !json_is_object(*out)) st = zq_fail(err, ZQ_EFORMAT, "%s: not an object", path);
    zq_free(path);
    return st;
}

static bool is_listed(const json_t *list, const char *content)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(content_of(json_array_get(list, i)), content)) return true;
    return false;
}

/* jansson's copy of an object is silently incomplete when memory runs out. */
static json_t *copy_object(const json_t *object)
{
    json_t *copy = json_copy((json_t *)object);
    if (json_object_size(copy) == json_object_size(object)) return copy;
    json_decref(copy);
    return NULL;
}

/* Adds a special token to the list unless it is there. One that no file names must be in the vocabulary. */
static bool list_special(struct legacy *l, json_t *list, const json_t *token, bool named)
{
    const char *content = content_of(token);
    const json_t *id = content ? json_object_get(l->vocab, content) : NULL;
    if (!content || is_listed(list, content) || (!id && !named)) return true;
    json_t *entry = json_is_object(token) ? copy_object(token) : json_object();
    const bool ok = entry && !json_object_set_new(entry, "content", json_string(content)) && !json_object_set_new(entry, "special", json_true()) &&
                    !json_object_set_new(entry, "normalized", json_false());
    if (ok) return !json_array_append_new(list, entry);
    json_decref(entry);
    return false;
}

/* The entries of added_tokens_decoder, "151643": {"content": ..}, with their ids. */
static zq_status list_decoder(struct legacy *l, json_t *list, zq_error *err)
{
    json_t *decoder = json_object_get(l->config, "added_tokens_decoder");
    for (void *at = json_object_iter(decoder); at; at = json_object_iter_next(decoder, at)) {
        const char *key = json_object_iter_key(at);
        json_t *token = json_object_iter_value(at);
        char *end;
        const long id = strtol(key, &end, 10);
        if (!*key || *end || !json_is_object(token) || !content_of(token))
            return zq_fail(err, ZQ_EFORMAT, "%s: added_tokens_decoder has \"%.60s\", which is no id of a token", l->dir, key);
        json_t *entry = copy_object(token);
        if (!entry || json_object_set_new(entry, "id", json_integer(id))) {
            json_decref(entry);
            return no_memory(l, err);
        }
        if (json_array_append_new(list, entry)) return no_memory(l, err);
    }
    return ZQ_OK;
}

static zq_status put_added_tokens(struct legacy *l, zq_error *err)
{
    json_t *list = json_array();
    if (!list || json_object_set_new(l->root, "added_tokens", list)) return no_memory(l, err);
    const zq_status st = list_decoder(l, list, err);
    if (st) return st;
    bool ok = true;
    for (size_t i = 0; i < ZQ_LEN(roles) && ok; i++)
        ok = list_special(l, list, json_object_get(l->special, roles[i]), json_object_get(l->named, roles[i]));
    const json_t *more = json_object_get(l->config, "additional_special_tokens");
    for (size_t i = 0; i < json_array_size(more) && ok; i++) ok = list_special(l, list, json_array_get(more, i), true);
    return ok ? ZQ_OK : no_memory(l, err);
}

/* ---- post-processors ---------------------------------------------------------------------------------------------- */

static zq_status special_id(const struct legacy *l, const char *role, const char **content, json_int_t *id, zq_error *err)
{
    *content = content_of(json_object_get(l->special, role));
    const json_t *found = *content ? json_object_get(l->vocab, *content) : NULL;
    if (!json_is_integer(found))
        return zq_fail(err, ZQ_EFORMAT, "%s: the vocabulary has no %s \"%.60s\"", l->dir, role, *content ? *content : "");
    *id = json_integer_value(found);
    return ZQ_OK;
}

static zq_status put_cls_sep(struct legacy *l, zq_error *err)
{
    const char *cls, *sep;
    json_int_t cls_id, sep_id;
    zq_status st = special_id(l, "cls_token", &cls, &cls_id, err);
    if (!st) st = special_id(l, "sep_token", &sep, &sep_id, err);
    if (st) return st;
    json_t *post = json_pack("{s:s, s:[s,I], s:[s,I]}", "type", l->family->cls_sep, "cls", cls, cls_id, "sep", sep, sep_id);
    return post && !json_object_set_new(l->root, "post_processor", post) ? ZQ_OK : no_memory(l, err);
}

/* OPT: the sequence, or the first of a pair, begins with the bos token. */
static zq_status put_bos(struct legacy *l, zq_error *err)
{
    const char *bos;
    json_int_t id;
    const zq_status st = special_id(l, "bos_token", &bos, &id, err);
    if (st) return st;
    json_t *post = json_pack("{s:s, s:[{s:{s:s}}, {s:{s:s}}], s:[{s:{s:s}}, {s:{s:s}}, {s:{s:s, s:i}}], s:{s:{s:[I]}}}",
                             "type", "TemplateProcessing", "single", "SpecialToken", "id", bos, "Sequence", "id", "A", "pair", "SpecialToken", "id",
                             bos, "Sequence", "id", "A", "Sequence", "id", "B", "type_id", 1, "special_tokens", bos, "ids", id);
    return post && !json_object_set_new(l->root, "post_processor", post) ? ZQ_OK : no_memory(l, err);
}

static zq_status put_post(struct legacy *l, zq_error *err)
{
    if (l->family->cls_sep) return put_cls_sep(l, err);
    bool add_bos;
    const zq_status st = zq_json_bool(l->config, "add_bos_token", false, &add_bos, l->dir, err);
    return st || !add_bos ? st : put_bos(l, err);
}

/* ---- vocabularies ------------------------------------------------------------------------------------------------- */

/* Calls fn for each line of a file, without its line end, with its number from 0. A last line without an end is what a file that was cut off has:
 * its token would be another one. */
static zq_status each_line(const char *path, zq_status (*fn)(void *user, const char *line, size_t number, zq_error *err), void *user, zq_error *err)
{
    char *text;
    size_t n;
    zq_status st = zq_file_read(&text, &n, path, MAX_FILE_BYTES, err);
    if (st) return st;
    if (memchr(text, 0, n) || zq_utf8_valid(text, n) < n) st = zq_fail(err, ZQ_EFORMAT, "%s: not a text file in UTF-8", path);
    if (!st && n && text[n - 1] != '\n') st = zq_fail(err, ZQ_EFORMAT, "%s ends within a line: it was cut off, or lacks its last line end", path);
    char *line = text;
    for (size_t number = 0; !st && line < text + n; number++) {
        char *end = memchr(line, '\n', (size_t)(text + n - line)), *next = end + 1;
        if (end > line && end[-1] == '\r') end--;
        *end = '\0';
        st = fn(user, line, number, err);
        line = next;
    }
    zq_free(text);
    return st;
}

static zq_status take_merge(void *user, const char *line, size_t number, zq_error *err)
{
    (void)number;
    if (!*line || !strncmp(line, "#version", 8)) return ZQ_OK;
    return json_array_append_new(user, json_string(line)) ? zq_fail(err, ZQ_ENOMEM, "no memory for merges") : ZQ_OK;
}

static zq_status take_token(void *user, const char *line, size_t number, zq_error *err)
{
    return json_object_set_new(user, line, json_integer((json_int_t)number)) ? zq_fail(err, ZQ_ENOMEM, "no memory for a vocabulary") : ZQ_OK;
}

static zq_status read_bpe_model(struct legacy *l, const char *vocab_name, const char *merges_name, zq_error *err)
{
    json_t *model = json_pack("{s:s, s:[]}", "type", "BPE", "merges"), *list = json_object_get(model, "merges");
    if (!list || json_object_set_new(l->root, "model", model)) return no_memory(l, err);
    char *vocab = zq_path_join(l->dir, vocab_name), *merges = zq_path_join(l->dir, merges_name);
    zq_status st = vocab && merges ? ZQ_OK : no_memory(l, err);
    if (!st) st = zq_json_read(&l->vocab, vocab, MAX_FILE_BYTES, err);
    if (!st && json_object_set(model, "vocab", l->vocab)) st = no_memory(l, err);
    if (!st) st = each_line(merges, take_merge, list, err);
    zq_free(vocab);
    zq_free(merges);
    return st;
}

static zq_status read_wordpiece_model(struct legacy *l, const char *path, zq_error *err)
{
    l->vocab = json_object();
    json_t *model = l->vocab ? json_pack("{s:s, s:O}", "type", "WordPiece", "vocab", l->vocab) : NULL;
    if (!model || json_object_set_new(l->root, "model", model)) return no_memory(l, err);
    zq_status st = each_line(path, take_token, l->vocab, err);
    const char *unknown = content_of(json_object_get(l->special, "unk_token"));
    if (!st && json_object_set_new(model, "unk_token", json_string(unknown))) st = no_memory(l, err);
    return st;
}

/* ---- all together ------------------------------------------------------------------------------------------------- */

/* The configuration, the family, its components and its special tokens. */
static zq_status begin(struct legacy *l, bool wordpiece, zq_error *err)
{
    json_t *map = NULL;
    zq_status st = read_optional(&l->config, l->dir, "tokenizer_config.json", err);
    if (!st) st = find_family(l, wordpiece, err);
    if (!st) st = zq_json_parse(&l->root, l->family->json, strlen(l->family->json), l->family->class, err);
    if (!st) st = read_optional(&map, l->dir, "special_tokens_map.json", err);
    if (!st) {
        l->special = json_incref(json_object_get(l->root, "special"));
        l->named = json_object();
        if (!l->named || !name_roles(l, map) || !name_roles(l, l->config)) st = no_memory(l, err);
    }
    json_decref(map);
    return st;
}

static zq_status finish(struct legacy *l, zq_status st, json_t **root, zq_error *err)
{
    if (!st) st = put_post(l, err);
    if (!st) st = put_added_tokens(l, err);
    if (!st) *root = json_incref(l->root);
    json_decref(l->config);
    json_decref(l->special);
    json_decref(l->named);
    json_decref(l->vocab);
    json_decref(l->root);
    return st;
}

/* "add_prefix_space" of the configuration goes to the ByteLevel of the GPT-2 family. */
static zq_status put_prefix_space(struct legacy *l, zq_error *err)
{
    bool add;
    const zq_status st = zq_json_bool(l->config, "add_prefix_space", false, &add, l->dir, err);
    if (st || !add) return st;
    return json_object_set_new(json_object_get(l->root, "pre_tokenizer"), "add_prefix_space", json_true()) ? no_memory(l, err) : ZQ_OK;
}

/* BertNormalizer as the configuration wants it; uncased unless it says otherwise. */
static zq_status put_bert_normalizer(struct legacy *l, zq_error *err)
{
    bool lower, chinese;
    zq_status st = zq_json_bool(l->config, "do_lower_case", true, &lower, l->dir, err);
    if (!st) st = zq_json_bool(l->config, "tokenize_chinese_chars", true, &chinese, l->dir, err);
    if (st) return st;
    json_t *normalizer = json_pack("{s:s, s:b, s:b}", "type", "BertNormalizer", "lowercase", lower, "handle_chinese_chars", chinese);
    json_t *splitter = json_pack("{s:s}", "type", "BertPreTokenizer"), *strip = json_object_get(l->config, "strip_accents");
    const bool ok = normalizer && (!strip || !json_object_set(normalizer, "strip_accents", strip)) &&
                    !json_object_set(l->root, "normalizer", normalizer) && !json_object_set(l->root, "pre_tokenizer", splitter);
    json_decref(normalizer);
    json_decref(splitter);
    return ok ? ZQ_OK : no_memory(l, err);
}

zq_status zq_legacy_bpe(json_t **root, const char *dir, const char *vocab_name, const char *merges_name, zq_error *err)
{
    struct legacy l = {.dir = dir};
    *root = NULL;
    zq_status st = begin(&l, false, err);
    if (!st) st = put_prefix_space(&l, err);
    if (!st) st = read_bpe_model(&l, vocab_name, merges_name, err);
    return finish(&l, st, root, err);
}

zq_status zq_legacy_wordpiece(json_t **root, const char *dir, const char *vocab_path, zq_error *err)
{
    struct legacy l = {.dir = dir};
    *root = NULL;
    zq_status st = begin(&l, true, err);
    if (!st) st = put_bert_normalizer(&l, err);
    if (!st) st = read_wordpiece_model(&l, vocab_path, err);
    return finish(&l, st, root, err);
}
