/* Iterating over matches. The rule for empty matches is Oniguruma's binding's: one is accepted, unless it touches the end of
 * the match before it; then the search goes on one character later. */
#define _GNU_SOURCE /* memmem */
#include "text/finder.h"

#include "base/alloc.h"
#include "text/component.h"

zq_status zq_finder_read(struct zq_finder *p, const json_t *json, const char *name, zq_error *err)
{
    const json_t *pattern = json_object_get(json, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    if (json_is_string(regex)) return zq_regex_compile(&p->regex, json_string_value(regex), json_string_length(regex), name, err);
    if (!json_is_string(json_object_get(pattern, "String")))
        return zq_fail(err, ZQ_EUNSUPPORTED, "%s: a \"pattern\" that is neither {\"String\": ..} nor {\"Regex\": ..}", name);
    return zq_component_string(&p->literal, pattern, "String", name, err);
}

void zq_finder_free(struct zq_finder *p)
{
    zq_free((char *)p->literal.at);
    zq_regex_free(p->regex);
    *p = (struct zq_finder){0};
}

static void search_literal(struct zq_span literal, struct zq_span text, size_t from, bool *found, size_t *begin, size_t *end)
{
    const char *hit = literal.n ? memmem(text.at + from, text.n - from, literal.at, literal.n) : text.at + from;
    *found = hit != NULL;
    if (!hit) return;
    *begin = (size_t)(hit - text.at);
    *end = *begin + literal.n;
}

zq_status zq_finder_next(const struct zq_finder *p, struct zq_regex_scratch *rs, struct zq_span text, struct zq_matches *m, bool *found,
                          size_t *begin, size_t *end, zq_error *err)
{
    *found = false;
    while (m->at <= text.n) {
        zq_status st = ZQ_OK;
        if (p->regex)
            st = zq_regex_search(p->regex, rs, text.at, text.n, m->at, found, begin, end, err);
        else
            search_literal(p->literal, text, m->at, found, begin, end);
        if (st || !*found) return st;
        if (*begin == *end && m->any && m->last_end == *end) {
            m->at = *end < text.n ? *end + zq_utf8_length(text.at[*end]) : text.n + 1;
            *found = false;
            continue;
        }
        m->at = m->last_end = *end;
        m->any = true;
        return ZQ_OK;
    }
    return ZQ_OK;
}
