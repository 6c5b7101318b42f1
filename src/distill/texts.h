/* What a sample is made of. A decoder learns from one text as long as the sample: it comes by all shorter ones on the way. An encoder sees a
 * text as a whole, and one of fifteen tokens, two of them special, has other activations than one of 256: codes that are solved for
 * the long are bad for the short, and the other way round. So a sample of an encoder holds texts of several lengths. */
#ifndef ZQ_DISTILL_TEXTS_H
#define ZQ_DISTILL_TEXTS_H

#include "model/config.h"

enum { ZQ_MAX_TEXTS = 32 };
/* Lengths of the texts in a sample of n_tokens, one after the other; each begins at position 0. Returns how many. Encoders: each takes
 * half of what is left, until that is less than 32 tokens and the last. */
size_t zq_texts(size_t lengths[ZQ_MAX_TEXTS], const struct zq_config *config, size_t n_tokens);

#endif
