/* Sizes in bytes, for people. */
#ifndef ZQ_CLI_SIZE_H
#define ZQ_CLI_SIZE_H

#include <stdbool.h>
#include <stdint.h>

enum { SIZE_TEXT = 16 };

/* "11.8 MB", powers of 1000, three digits; out has room for SIZE_TEXT characters. Returns out. */
char *size_text(uint64_t bytes, char *out);
/* "7", "512M", "2G", "1.5GiB", "100MB": K, M, G, T alone or followed by iB are powers of 1024, followed by B powers of 1000. */
bool size_parse(const char *text, uint64_t *bytes);

#endif
