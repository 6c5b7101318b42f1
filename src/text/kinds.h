/* What tells the ids of a vocabulary apart. */
#ifndef ZQ_TEXT_KINDS_H
#define ZQ_TEXT_KINDS_H

#include "zeroquant.h"

#include <stdbool.h>

/* Whether texts are made of a token: not of special tokens, bytes that stand in for characters which no token has, places left unused, and ids
 * without a token. */
bool zq_tokenizer_is_text(const zq_tokenizer *t, int32_t id);

#endif
