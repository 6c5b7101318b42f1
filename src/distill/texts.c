/* Halves of halves: a text of every length that an encoder may meet, the longest with as many tokens as all others together. */
#include "distill/texts.h"

size_t zq_texts(size_t lengths[ZQ_MAX_TEXTS], const struct zq_config *config, size_t n_tokens)
{
    enum { SHORT = 32 };
    size_t n = 0;
    for (; config->kind != ZQ_DECODER && n_tokens >= SHORT && n + 1 < ZQ_MAX_TEXTS; n_tokens -= lengths[n++]) lengths[n] = n_tokens / 2;
    lengths[n++] = n_tokens;
    return n;
}
