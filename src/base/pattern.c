/* PCRE2 behind three functions. Its memory comes from zq_alloc through a general context, so that tests can make it fail;
 * the limits keep an expression like (a+)+$ from running for ever. */
#include "base/pattern.h"

#include "base/alloc.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

/* Far above what matching a module name needs (hundreds of steps), and still only milliseconds. */
enum { MAX_STEPS = 1000000, MAX_DEPTH = 10000, MAX_HEAP_KIB = 20000 };

struct zq_pattern {
    char *regex; /* for error sentences */
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *code;
};

static void *allocate(size_t n, void *unused)
{
    (void)unused;
    return zq_alloc(n);
}

static void release(void *p, void *unused)
{
    (void)unused;
    zq_free(p);
}

void zq_pattern_free(struct zq_pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    pcre2_general_context_free(p->memory);
    zq_free(p->regex);
    zq_free(p);
}

static zq_status compile(struct zq_pattern *p, bool whole, zq_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(p->memory);
    if (!context) return zq_fail(err, ZQ_ENOMEM, "no memory for the expression \"%s\"", p->regex);
    int code;
    size_t at;
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | (whole ? PCRE2_ENDANCHORED : 0);
    p->code = pcre2_compile((PCRE2_SPTR)p->regex, PCRE2_ZERO_TERMINATED, options, &code, &at, context);
    pcre2_compile_context_free(context);
    if (p->code) return ZQ_OK;
    if (code == PCRE2_ERROR_HEAP_FAILED) return zq_fail(err, ZQ_ENOMEM, "no memory for the expression \"%s\"", p->regex);
    PCRE2_UCHAR text[120];
    pcre2_get_error_message(code, text, sizeof text);
    return zq_fail(err, ZQ_EINVAL, "\"%.200s\" is not a regular expression: %s (at byte %zu)", p->regex, (const char *)text, at);
}

zq_status zq_pattern_compile(struct zq_pattern **out, const char *regex, bool whole, zq_error *err)
{
    *out = NULL;
    struct zq_pattern *p = zq_alloc_zero(sizeof *p);
    if (p) p->regex = zq_strdup(regex);
    if (p && p->regex) p->memory = pcre2_general_context_create(allocate, release, NULL);
    if (p && p->memory) p->limits = pcre2_match_context_create(p->memory);
    zq_status st = p && p->limits ? compile(p, whole, err) : zq_fail(err, ZQ_ENOMEM, "no memory for the expression \"%s\"", regex);
    if (st) {
        zq_pattern_free(p);
        return st;
    }
    pcre2_set_match_limit(p->limits, MAX_STEPS);
    pcre2_set_depth_limit(p->limits, MAX_DEPTH);
    pcre2_set_heap_limit(p->limits, MAX_HEAP_KIB);
    *out = p;
    return ZQ_OK;
}

zq_status zq_pattern_match(const struct zq_pattern *p, const char *text, bool *matched, zq_error *err)
{
    *matched = false;
    pcre2_match_data *data = pcre2_match_data_create(1, p->memory);
    if (!data) return zq_fail(err, ZQ_ENOMEM, "no memory to match \"%s\"", p->regex);
    const int found = pcre2_match(p->code, (PCRE2_SPTR)text, strlen(text), 0, 0, data, p->limits);
    pcre2_match_data_free(data);
    switch (found) {
    case PCRE2_ERROR_NOMATCH: return ZQ_OK;
    case PCRE2_ERROR_NOMEMORY: return zq_fail(err, ZQ_ENOMEM, "no memory to match \"%s\"", p->regex);
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
    case PCRE2_ERROR_HEAPLIMIT: return zq_fail(err, ZQ_ELIMIT, "the expression \"%.200s\" takes too many steps on \"%.200s\"", p->regex, text);
    default: break;
    }
    /* 0: matched, more groups than the match data has room for; the groups do not matter here */
    if (found < 0) return zq_fail(err, ZQ_EINVAL, "the expression \"%.200s\" cannot be matched with \"%.200s\"", p->regex, text);
    *matched = true;
    return ZQ_OK;
}
