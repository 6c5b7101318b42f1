/* From Oniguruma's dialect of regular expressions (Ruby syntax), in which tokenizer files are written, to PCRE2's. */
#ifndef ZQ_TEXT_DIALECT_H
#define ZQ_TEXT_DIALECT_H

#include "text/bytes.h"

/* Appends the pattern p[0..n) as PCRE2 is to read it. *problem says what cannot be expressed, NULL if all is well.
 * false: out of memory. */
bool zq_dialect_translate(struct zq_bytes *out, const char *p, size_t n, const char **problem);

#endif
