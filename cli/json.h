/* JSON on standard output. */
#ifndef ZQ_CLI_JSON_H
#define ZQ_CLI_JSON_H

#include "console.h"

#include <jansson.h>

/* A string of any bytes: parts that are not UTF-8 become U+FFFD. NULL if out of memory. */
json_t *json_text(const char *text, size_t n_bytes);
/* null for NaN and infinities, which JSON cannot say. */
json_t *json_number(double x);
json_t *json_floats(const float *x, size_t n);
json_t *json_ids(const int32_t *ids, size_t n);

/* Prints value and a newline, floats with nine digits (enough for every float to be read back exactly), and releases it.
 * indent: spaces, 0 for one line. value may be NULL: ZQ_ENOMEM. */
zq_status json_print(json_t *value, int indent, zq_error *err);

#endif
