/* What a tokenizer keeps between two calls. */
#ifndef ZQ_TEXT_FORGET_H
#define ZQ_TEXT_FORGET_H

#include "zeroquant.h"

/* Frees the workspaces and caches of words, megabytes, that calls have left for those to come. Other threads may be encoding. */
void zq_tokenizer_forget(const zq_tokenizer *t);

#endif
