/* The JSON parser against jansson's own: both accept the same texts and see the same values, and what is printed is read back. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (memchr(data, 0, size)) return 0; /* jansson's reader skips zero bytes; they are not JSON */
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_error_t e;
    json_t *theirs = json_loadb((const char *)data, size, flags, &e), *ours, *again;
    const bool wide = !theirs && json_error_code(&e) == json_error_numeric_overflow; /* jansson reads such an integer only if all are reals */
    if (wide) theirs = json_loadb((const char *)data, size, flags | JSON_DECODE_INT_AS_REAL, &e);
    zq_error err = {0};
    const zq_status st = zq_json_parse(&ours, (const char *)data, size, "input", &err);
    if ((st == ZQ_OK) != (theirs != NULL) || (st != ZQ_OK) != (ours == NULL)) abort();
    if (st && (st != ZQ_EFORMAT || strncmp(err.message, "input: line ", 12))) abort();
    if (!st && !wide && !json_equal(ours, theirs)) abort();
    json_decref(theirs);
    if (st) return 0;
    char *text;
    size_t n;
    if (zq_json_print(&text, &n, ours, JSON_COMPACT | JSON_REAL_PRECISION(17), NULL)) abort();
    if (zq_json_parse(&again, text, n, "printed", NULL) || !json_equal(ours, again)) abort();
    json_decref(again);
    json_decref(ours);
    zq_free(text);
    return 0;
}
