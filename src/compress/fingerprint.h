/* What tells one source model from another without reading all of it. */
#ifndef ZQ_COMPRESS_FINGERPRINT_H
#define ZQ_COMPRESS_FINGERPRINT_H

#include "checkpoint/checkpoint.h"
#include "compress/sidefiles.h"

enum { ZQ_FINGERPRINT_TEXT = 65 };

/* SHA-256 as hexadecimal text over config.json, the side files, and of each file of weights its name, size, header and pages
 * spread evenly over it. Paths and times do not enter. */
zq_status zq_fingerprint(char text[ZQ_FINGERPRINT_TEXT], const struct zq_checkpoint *ckpt, const struct zq_sidefiles *files, zq_error *err);

#endif
