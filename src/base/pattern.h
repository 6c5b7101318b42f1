/* Regular expressions from outside (config files, command lines): compiled once, matched from the start of a text as Python's
 * re.match does, with a bound on the work of one match. PCRE2 syntax, Unicode classes. */
#ifndef ZQ_BASE_PATTERN_H
#define ZQ_BASE_PATTERN_H

#include "base/status.h"

struct zq_pattern;
/* whole: the match must also reach the end of the text. *out is NULL unless ZQ_OK; ZQ_EINVAL says what is wrong with the
 * expression and where. Immutable afterwards: threads may share it. */
zq_status zq_pattern_compile(struct zq_pattern **out, const char *regex, bool whole, zq_error *err);
/* *matched is false unless ZQ_OK. ZQ_ELIMIT when the expression takes too many steps on this text; ZQ_EINVAL for text that is not UTF-8. */
zq_status zq_pattern_match(const struct zq_pattern *pattern, const char *text, bool *matched, zq_error *err);
void zq_pattern_free(struct zq_pattern *pattern); /* accepts NULL */

#endif
