/* The four Unicode normalization forms. */
#ifndef ZQ_TEXT_UNICODE_FORM_H
#define ZQ_TEXT_UNICODE_FORM_H

#include "text/bytes.h"

struct zq_form {
    bool compose; /* NFC, NFKC */
    bool compat;  /* NFKC, NFKD */
};

/* How many bytes from the start of s need no work, whatever follows. */
size_t zq_form_prefix(struct zq_form form, const char *s, size_t n);

/* Appends the normal form of s. chars [*capacity] is scratch that grows; release it with zq_free. false: out of memory. */
bool zq_form_put(struct zq_bytes *out, struct zq_form form, const char *s, size_t n, int32_t **chars, size_t *capacity);

#endif
