/* PCRE2 behind a narrow interface. Compiled patterns are shared; match data and limits are per thread. JIT code is used where it
 * exists, the interpreter where it does not or where the JIT runs out of stack. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include "base/alloc.h"
#include "text/dialect.h"

#include <pcre2.h>

enum {
    /* Steps of one search beyond four for every byte of the text (\s*[\r\n]+ tries every end of a run of spaces). Real patterns
     * need less than a hundred; the limit keeps (a+)+b from taking forever. */
    MATCH_LIMIT = 1000000,
    HEAP_LIMIT_KIB = 64 * 1024, /* of the interpreter's backtracking points */
};

struct zq_regex {
    pcre2_code *code;
    bool jit, starved; /* starved: an allocation failed while compiling */
    char *pattern; /* as given, for error sentences */
};

/* owner: the regex that is being compiled, NULL while matching. */
static void *take(size_t n, void *owner)
{
    void *p = zq_alloc(n);
    if (!p && owner) ((struct zq_regex *)owner)->starved = true;
    return p;
}

static void release(void *p, void *unused)
{
    (void)unused;
    zq_free(p);
}

/* ---- compiling ---------------------------------------------------------------------------------------------------- */

static zq_status compile(struct zq_regex *re, const struct zq_bytes *pattern, const char *name, zq_error *err)
{
    pcre2_general_context *general = pcre2_general_context_create(take, release, re);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    if (!context) {
        pcre2_general_context_free(general);
        return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a regular expression", name);
    }
    int code;
    PCRE2_SIZE at;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    re->code = pcre2_compile((PCRE2_SPTR)pattern->data, pattern->n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at,
                             context);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (re->code) re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0; /* fails where executable memory is forbidden */
    if (re->starved) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the regular expression %.200s", name, re->pattern);
    if (re->code) return ZQ_OK;
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(code, why, sizeof why);
    return zq_fail(err, ZQ_EUNSUPPORTED, "%s: the regular expression %.200s cannot be used: %s", name, re->pattern, (const char *)why);
}

zq_status zq_regex_compile(struct zq_regex **out, const char *pattern, size_t n, const char *name, zq_error *err)
{
    *out = NULL;
    struct zq_regex *re = zq_alloc_zero(sizeof *re);
    struct zq_bytes translated = {0};
    const char *problem;
    zq_status st = ZQ_OK;
    if (!re || !(re->pattern = zq_strndup(pattern, n)) || !zq_dialect_translate(&translated, pattern, n, &problem))
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a regular expression", name);
    else if (problem)
        st = zq_fail(err, ZQ_EUNSUPPORTED, "%s: the regular expression %.200s cannot be used: %s", name, pattern, problem);
    else
        st = compile(re, &translated, name, err);
    zq_bytes_free(&translated);
    if (st)
        zq_regex_free(re);
    else
        *out = re;
    return st;
}

void zq_regex_free(struct zq_regex *re)
{
    if (!re) return;
    pcre2_code_free(re->code);
    zq_free(re->pattern);
    zq_free(re);
}

/* ---- matching ----------------------------------------------------------------------------------------------------- */

static bool prepare(struct zq_regex_scratch *s)
{
    if (s->match) return true;
    pcre2_general_context *general = pcre2_general_context_create(take, release, NULL);
    if (!general) return false;
    s->context = pcre2_match_context_create(general);
    s->match = s->context ? pcre2_match_data_create(1, general) : NULL;
    pcre2_general_context_free(general);
    if (!s->match) {
        zq_regex_scratch_free(s);
        return false;
    }
    s->limit = 0;
    pcre2_set_heap_limit(s->context, HEAP_LIMIT_KIB);
    return true;
}

void zq_regex_scratch_free(struct zq_regex_scratch *s)
{
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    *s = (struct zq_regex_scratch){0};
}

zq_status zq_regex_search(const struct zq_regex *re, struct zq_regex_scratch *s, const char *text, size_t n, size_t from, bool *found,
                          size_t *begin, size_t *end, zq_error *err)
{
    *found = false;
    if (!prepare(s)) return zq_fail(err, ZQ_ENOMEM, "no memory for matching a regular expression");
    if (s->limit < MATCH_LIMIT + 4 * n) {
        s->limit = MATCH_LIMIT + 4 * n;
        pcre2_set_match_limit(s->context, s->limit < UINT32_MAX ? (uint32_t)s->limit : UINT32_MAX);
    }
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (re->jit) rc = pcre2_jit_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match, s->context);
    if (rc == PCRE2_ERROR_NOMATCH) return ZQ_OK;
    if (rc < 0) {
        const zq_status st = rc == PCRE2_ERROR_NOMEMORY ? ZQ_ENOMEM : ZQ_ELIMIT;
        return zq_fail(err, st, "the tokenizer's regular expression %.200s gave up on the text near byte %zu", re->pattern, from);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match);
    /* \K may put the start behind the end or before `from` */
    *begin = at[0] < from ? from : at[0];
    *end = at[1] < *begin ? *begin : at[1];
    *found = true;
    return ZQ_OK;
}
