/* A tokenizer.json and a text, separated by a zero byte: opening, encoding and decoding never misbehave, and ids are ids. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_TEXT = 4096 }; /* a regular expression of the file may take quadratic time */

static void check_text(const zq_tokenizer *t, const char *text, size_t n)
{
    zq_ids ids = {0};
    const size_t n_vocab = zq_tokenizer_n_vocab(t);
    for (int variant = 0; variant < 4; variant++) {
        zq_error err = {0};
        const size_t before = ids.n;
        const zq_status st = zq_tokenizer_encode(t, text, n, variant & 1 ? text : NULL, n / 2, variant & 2, &ids, &err);
        if (st && (!err.message[0] || ids.n != before || (st != ZQ_EINVAL && st != ZQ_ELIMIT))) abort();
    }
    for (size_t i = 0; i < ids.n; i++)
        if (ids.ids[i] < 0 || (size_t)ids.ids[i] >= n_vocab) abort();
    for (int skip = 0; skip < 2; skip++) {
        char *decoded;
        size_t n_decoded;
        const zq_status st = zq_tokenizer_decode(t, ids.ids, ids.n, skip, &decoded, &n_decoded, NULL);
        if ((st && st != ZQ_ELIMIT) || (st == ZQ_OK) != (decoded != NULL)) abort();
        if (decoded && (decoded[n_decoded] || zq_utf8_valid(decoded, n_decoded) < n_decoded)) abort();
        zq_free(decoded);
    }
    zq_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    const size_t n_json = end ? (size_t)(end - data) : size, n_text = end ? size - n_json - 1 : 0;
    zq_tokenizer *t;
    zq_error err = {0};
    const zq_status st = zq_tokenizer_parse(&t, (const char *)data, n_json, "input", &err);
    if ((st == ZQ_OK) != (t != NULL) || (st && !err.message[0])) abort();
    if (!t) return 0;
    check_text(t, end ? (const char *)end + 1 : "", n_text < MAX_TEXT ? n_text : MAX_TEXT);
    zq_tokenizer_close(t);
    return 0;
}
