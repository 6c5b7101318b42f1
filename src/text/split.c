/* The pre-tokenizers of tokenizer.json, one function each, and the table that names them.
 *
 * A step gets a piece of text and hands every part of it to the next step; the last hands words to the caller. Matches of a
 * pattern and the text between them pass through an assembler, which applies the "behavior" of the step. */
#include "text/split.h"

#include "base/alloc.h"
#include "text/bytelevel.h"
#include "text/component.h"
#include "text/finder.h"
#include "text/unicode.h"

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

struct zq_splitter {
    const struct kind *kind;
    enum behavior behavior;
    bool invert;
    struct zq_finder pattern;
    bool (*matches)(uint32_t c); /* steps that look at single characters */
    bool add_prefix_space;       /* ByteLevel */
    struct {
        uint32_t replacement;
        enum { ALWAYS, FIRST, NEVER } prepend;
        bool split;
    } metaspace;
};

struct run {
    const struct zq_splitters *list;
    struct zq_split_scratch *s;
    struct zq_regex_scratch *rs;
    zq_word_fn *fn;
    void *user;
    zq_error *err;
    bool raw;
};

/* A piece on its way to step `step`. */
struct piece {
    struct zq_span text;
    size_t step;
    bool at_start;
};

struct kind {
    const char *type;
    zq_status (*read)(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err);
    zq_status (*apply)(const struct zq_splitter *z, struct run *r, struct piece p);
};

static zq_status no_memory(struct run *r)
{
    return zq_fail(r->err, ZQ_ENOMEM, "no memory for cutting text into words");
}

static zq_status pass(struct run *r, struct piece p)
{
    if (!p.text.n) return ZQ_OK;
    if (p.step == r->list->n) return r->fn(r->user, p.text);
    const struct zq_splitter *z = &r->list->steps[p.step];
    return z->kind->apply(z, r, p);
}

/* ---- the assembler ------------------------------------------------------------------------------------------------ */

/* Joins matches and gaps of one piece to parts. One part is held back, because what follows may belong to it. */
struct assembler {
    struct run *run;
    struct piece whole;
    enum behavior behavior;
    bool invert;
    bool held, held_match, previous_match;
    size_t begin, end; /* of the part that is held */
};

static zq_status emit(struct assembler *a, size_t begin, size_t end)
{
    const struct piece part = {{a->whole.text.at + begin, end - begin}, a->whole.step + 1, a->whole.at_start && begin == 0};
    return pass(a->run, part);
}

static zq_status flush(struct assembler *a)
{
    if (!a->held) return ZQ_OK;
    a->held = false;
    return emit(a, a->begin, a->end);
}

/* Whether [begin, end) continues the part that is held. */
static bool continues(const struct assembler *a, bool match)
{
    switch (a->behavior) {
    case CONTIGUOUS: return match == a->previous_match;
    case MERGED_WITH_PREVIOUS: return match && !a->previous_match;
    case MERGED_WITH_NEXT: return !match && a->held_match;
    default: return false;
    }
}

static zq_status feed(struct assembler *a, size_t begin, size_t end, bool match)
{
    match ^= a->invert;
    if (a->behavior == REMOVED) return match ? ZQ_OK : emit(a, begin, end);
    if (a->behavior == ISOLATED) return emit(a, begin, end);
    const bool joins = a->held && continues(a, match);
    a->previous_match = match;
    a->held_match = match && !joins;
    if (joins) {
        a->end = end;
        return ZQ_OK;
    }
    const zq_status st = flush(a);
    a->held = true;
    a->begin = begin;
    a->end = end;
    return st;
}

static zq_status split_pattern(const struct zq_finder *pattern, struct assembler *a)
{
    struct zq_matches m = {0};
    size_t done = 0;
    for (;;) {
        bool found;
        size_t begin, end;
        zq_status st = zq_finder_next(pattern, a->run->rs, a->whole.text, &m, &found, &begin, &end, a->run->err);
        if (st) return st;
        if (!found) break;
        if (begin > done) st = feed(a, done, begin, false);
        if (!st) st = feed(a, begin, end, true);
        if (st) return st;
        done = end;
    }
    zq_status st = ZQ_OK;
    if (done < a->whole.text.n) st = feed(a, done, a->whole.text.n, false);
    return st ? st : flush(a);
}

static zq_status split_chars(bool (*matches)(uint32_t c), struct assembler *a)
{
    const struct zq_span text = a->whole.text;
    size_t done = 0, length;
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < text.n; i += length) {
        if (!matches(zq_utf8_decode(text.at + i, &length))) continue;
        if (i > done) st = feed(a, done, i, false);
        if (!st) st = feed(a, i, i + length, true);
        if (st) return st;
        done = i + length;
    }
    if (done < text.n) st = feed(a, done, text.n, false);
    return st ? st : flush(a);
}

static struct assembler assembler_of(const struct zq_splitter *z, struct run *r, struct piece p)
{
    return (struct assembler){.run = r, .whole = p, .behavior = z->behavior, .invert = z->invert};
}

static zq_status apply_pattern(const struct zq_splitter *z, struct run *r, struct piece p)
{
    struct assembler a = assembler_of(z, r, p);
    return split_pattern(&z->pattern, &a);
}

static zq_status apply_chars(const struct zq_splitter *z, struct run *r, struct piece p)
{
    struct assembler a = assembler_of(z, r, p);
    return split_chars(z->matches, &a);
}

/* ---- steps that only cut ------------------------------------------------------------------------------------------ */

static zq_status read_behavior(struct zq_splitter *z, const json_t *json, const char *fallback, const char *name, zq_error *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *behavior;
    const zq_status st = zq_json_string(json, "behavior", fallback, &behavior, name, err);
    if (st) return st;
    for (size_t i = 0; i < ZQ_LEN(names); i++) {
        if (strcmp(names[i], behavior)) continue;
        z->behavior = (enum behavior)i;
        return ZQ_OK;
    }
    return zq_fail(err, ZQ_EUNSUPPORTED, "%s: the behavior \"%.60s\" of a pre-tokenizer is not supported", name, behavior);
}

static zq_status read_split(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err)
{
    zq_status st = read_behavior(z, json, "Isolated", name, err);
    if (!st) st = zq_json_bool(json, "invert", false, &z->invert, name, err);
    return st ? st : zq_finder_read(&z->pattern, json, name, err);
}

static zq_status read_digits(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err)
{
    bool individual;
    const zq_status st = zq_json_bool(json, "individual_digits", false, &individual, name, err);
    z->behavior = individual ? ISOLATED : CONTIGUOUS;
    z->matches = zq_is_numeric;
    return st;
}

static bool is_punctuation(uint32_t c) { return zq_is_punctuation(c); }
static bool is_space(uint32_t c) { return zq_is_space(c); }

static zq_status read_punctuation(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err)
{
    z->matches = is_punctuation;
    return read_behavior(z, json, "Isolated", name, err);
}

static zq_status read_whitespace_split(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err)
{
    (void)json, (void)name, (void)err;
    z->matches = is_space;
    z->behavior = REMOVED;
    return ZQ_OK;
}

/* Spaces are dropped, punctuation stands alone. */
static zq_status apply_bert(const struct zq_splitter *z, struct run *r, struct piece p)
{
    (void)z;
    struct assembler a = {.run = r, .whole = p, .behavior = ISOLATED};
    size_t done = 0, length;
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < p.text.n; i += length) {
        const uint32_t c = zq_utf8_decode(p.text.at + i, &length);
        const bool space = zq_is_space(c);
        if (!space && !zq_is_punctuation(c)) continue;
        if (i > done) st = emit(&a, done, i);
        if (!st && !space) st = emit(&a, i, i + length);
        if (st) return st;
        done = i + length;
    }
    return done < p.text.n ? emit(&a, done, p.text.n) : ZQ_OK;
}

/* Runs of word characters, and runs of what is neither word nor space: \w+|[^\w\s]+ */
static zq_status apply_whitespace(const struct zq_splitter *z, struct run *r, struct piece p)
{
    (void)z;
    enum class { SPACE, WORD, OTHER } class, previous = SPACE;
    struct assembler a = {.run = r, .whole = p, .behavior = ISOLATED};
    size_t begin = 0, length;
    for (size_t i = 0; i < p.text.n; i += length, previous = class) {
        const uint32_t c = zq_utf8_decode(p.text.at + i, &length);
        class = zq_is_word(c) ? WORD : zq_is_space(c) ? SPACE : OTHER;
        if (class == previous) continue;
        const zq_status st = previous == SPACE ? ZQ_OK : emit(&a, begin, i);
        if (st) return st;
        begin = i;
    }
    return previous == SPACE ? ZQ_OK : emit(&a, begin, p.text.n);
}

/* ---- steps that also rewrite -------------------------------------------------------------------------------------- */

static zq_status read_bytelevel(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err)
{
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    bool use_regex;
    zq_status st = zq_json_bool(json, "add_prefix_space", true, &z->add_prefix_space, name, err);
    if (!st) st = zq_json_bool(json, "use_regex", true, &use_regex, name, err);
    z->behavior = ISOLATED;
    return st || !use_regex ? st : zq_regex_compile(&z->pattern.regex, gpt2, sizeof gpt2 - 1, name, err);
}

/* The words of a ByteLevel that is not the last step: mapped, then passed on. */
static zq_status map_word(struct run *r, struct piece p)
{
    struct zq_bytes *mapped = &r->s->text[2 * p.step + 1];
    mapped->n = 0;
    if (!zq_bytelevel_put(mapped, p.text.at, p.text.n)) return no_memory(r);
    return pass(r, (struct piece){{mapped->data, mapped->n}, p.step + 1, p.at_start});
}

static zq_status apply_bytelevel(const struct zq_splitter *z, struct run *r, struct piece p)
{
    if (z->add_prefix_space && p.text.at[0] != ' ') {
        struct zq_bytes *spaced = &r->s->text[2 * p.step];
        spaced->n = 0;
        if (!zq_bytes_put(spaced, " ", 1) || !zq_bytes_put(spaced, p.text.at, p.text.n)) return no_memory(r);
        p.text = (struct zq_span){spaced->data, spaced->n};
    }
    const bool maps = !(r->raw && p.step + 1 == r->list->n);
    if (!z->pattern.regex) return maps ? map_word(r, p) : pass(r, (struct piece){p.text, p.step + 1, p.at_start});
    struct zq_matches m = {0};
    for (;;) { /* the regex matches every character, so there are no gaps */
        bool found;
        size_t begin, end;
        zq_status st = zq_finder_next(&z->pattern, r->rs, p.text, &m, &found, &begin, &end, r->err);
        if (st || !found) return st;
        const struct piece word = {{p.text.at + begin, end - begin}, p.step + !maps, p.at_start && begin == 0};
        st = maps ? map_word(r, word) : pass(r, word);
        if (st) return st;
    }
}

static zq_status read_metaspace(struct zq_splitter *z, const json_t *json, const char *name, zq_error *err)
{
    const char *replacement, *scheme;
    bool legacy; /* older files say add_prefix_space */
    zq_status st = zq_json_string(json, "replacement", "\xe2\x96\x81", &replacement, name, err);
    if (!st) st = zq_json_bool(json, "add_prefix_space", true, &legacy, name, err);
    if (!st) st = zq_json_string(json, "prepend_scheme", legacy ? "always" : "never", &scheme, name, err);
    if (!st) st = zq_json_bool(json, "split", true, &z->metaspace.split, name, err);
    if (st) return st;

    size_t length = 0;
    if (*replacement) z->metaspace.replacement = zq_utf8_decode(replacement, &length);
    if (!length || replacement[length]) return zq_fail(err, ZQ_EFORMAT, "%s: the replacement of a Metaspace is not one character", name);
    static const char *const schemes[] = {"always", "first", "never"};
    for (size_t i = 0; i < ZQ_LEN(schemes); i++) {
        if (strcmp(schemes[i], scheme)) continue;
        z->metaspace.prepend = i;
        return ZQ_OK;
    }
    return zq_fail(err, ZQ_EUNSUPPORTED, "%s: the prepend_scheme \"%.60s\" of a Metaspace is not supported", name, scheme);
}

static zq_status apply_metaspace(const struct zq_splitter *z, struct run *r, struct piece p)
{
    char mark[4];
    const size_t mark_bytes = zq_utf8_encode(z->metaspace.replacement, mark);
    const bool starts = p.text.n >= mark_bytes && !memcmp(p.text.at, mark, mark_bytes);
    const bool prepend = p.text.at[0] != ' ' && !starts && (z->metaspace.prepend == ALWAYS || (z->metaspace.prepend == FIRST && p.at_start));
    struct zq_bytes *out = &r->s->text[2 * p.step];
    out->n = 0;
    if (prepend && !zq_bytes_put(out, mark, mark_bytes)) return no_memory(r);
    for (size_t i = 0; i < p.text.n;) {
        const char *space = memchr(p.text.at + i, ' ', p.text.n - i);
        const size_t end = space ? (size_t)(space - p.text.at) : p.text.n;
        if (!zq_bytes_put(out, p.text.at + i, end - i) || (space && !zq_bytes_put(out, mark, mark_bytes))) return no_memory(r);
        i = end + (space != NULL);
    }
    p.text = (struct zq_span){out->data, out->n};
    if (!z->metaspace.split) return pass(r, (struct piece){p.text, p.step + 1, p.at_start});
    const struct zq_finder pattern = {.literal = {mark, mark_bytes}};
    struct assembler a = {.run = r, .whole = p, .behavior = MERGED_WITH_NEXT};
    return split_pattern(&pattern, &a);
}

/* ---- the list ----------------------------------------------------------------------------------------------------- */

static const struct kind kinds[] = {
    {"ByteLevel", read_bytelevel, apply_bytelevel},
    {"BertPreTokenizer", NULL, apply_bert},
    {"Split", read_split, apply_pattern},
    {"Digits", read_digits, apply_chars},
    {"Whitespace", NULL, apply_whitespace},
    {"WhitespaceSplit", read_whitespace_split, apply_chars},
    {"Punctuation", read_punctuation, apply_chars},
    {"Metaspace", read_metaspace, apply_metaspace},
};

static zq_status add(void *p, const json_t *json, const char *type, const char *name, zq_error *err)
{
    struct zq_splitters *list = p;
    for (size_t i = 0; i < ZQ_LEN(kinds); i++) {
        if (strcmp(kinds[i].type, type)) continue;
        if (!zq_grow((void **)&list->steps, list->n, &list->capacity, sizeof *list->steps))
            return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its pre-tokenizer", name);
        struct zq_splitter *z = &list->steps[list->n++];
        *z = (struct zq_splitter){.kind = &kinds[i]};
        return z->kind->read ? z->kind->read(z, json, name, err) : ZQ_OK;
    }
    return zq_component_unknown("pre-tokenizer", type, name, err);
}

zq_status zq_splitters_read(struct zq_splitters *list, const json_t *json, const char *name, zq_error *err)
{
    return zq_component_walk(json, "pre_tokenizer", "pretokenizers", add, list, name, err);
}

void zq_splitters_free(struct zq_splitters *list)
{
    for (size_t i = 0; i < list->n; i++) zq_finder_free(&list->steps[i].pattern);
    zq_free(list->steps);
    *list = (struct zq_splitters){0};
}

bool zq_splitters_raw(const struct zq_splitters *list)
{
    return list->n && list->steps[list->n - 1].kind->apply == apply_bytelevel;
}

zq_status zq_split(const struct zq_splitters *list, struct zq_split_scratch *s, struct zq_regex_scratch *rs, struct zq_span text, bool at_start,
                   zq_word_fn *fn, void *user, zq_error *err)
{
    struct run r = {list, s, rs, fn, user, err, zq_splitters_raw(list)};
    if (s->n < 2 * list->n) {
        struct zq_bytes *more = zq_alloc_array(2 * list->n, sizeof *more);
        if (!more) return no_memory(&r);
        zq_split_scratch_free(s);
        s->text = more;
        s->n = 2 * list->n;
    }
    return pass(&r, (struct piece){text, 0, at_start});
}

void zq_split_scratch_free(struct zq_split_scratch *s)
{
    for (size_t i = 0; i < s->n; i++) zq_bytes_free(&s->text[i]);
    zq_free(s->text);
    *s = (struct zq_split_scratch){0};
}
