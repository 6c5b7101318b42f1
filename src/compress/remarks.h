/* Sentences for the user that collect while a job is planned. */
#ifndef ZQ_COMPRESS_REMARKS_H
#define ZQ_COMPRESS_REMARKS_H

#include "base/status.h"

struct zq_remarks {
    char **sentences; /* [n] */
    size_t n, capacity;
};
zq_status zq_remark(struct zq_remarks *remarks, zq_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
void zq_remarks_free(struct zq_remarks *remarks); /* accepts zero */

#endif
