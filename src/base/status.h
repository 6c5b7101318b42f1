/* Errors are returned, with one sentence of detail in a struct of the caller. `return zq_fail(err, ZQ_EFORMAT, "..")` is the
 * only way to fail; a caller forwards the status it got and leaves err alone. */
#ifndef ZQ_BASE_STATUS_H
#define ZQ_BASE_STATUS_H

#include "zeroquant.h"

/* Fills *err (may be NULL) with the formatted sentence and returns status. */
zq_status zq_fail(zq_error *err, zq_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As zq_fail for a failed system call: appends strerror(errno), and chooses ZQ_ENOSPC, ZQ_ENOMEM or ZQ_EIO from errno. */
zq_status zq_fail_errno(zq_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ZQ_LEN(array) (sizeof(array) / sizeof((array)[0]))

#endif
