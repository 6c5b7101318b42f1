/* zq inspect --ranges: ranges of tokens and rows as a table, as JSON, as a picture. */
#ifndef ZQ_CLI_RANGES_TEXT_H
#define ZQ_CLI_RANGES_TEXT_H

#include "console.h"

struct ranges_request {
    const char *text, *picture, *regex; /* files, NULL: none; regex: see zq_ranges_options */
    size_t window, limit;
    bool json;
};
/* Measures and prints; the model was opened to run. */
zq_status ranges_show(const zq_model *model, const struct ranges_request *request, zq_error *err);

#endif
