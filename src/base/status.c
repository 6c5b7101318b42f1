/* The status table's texts and the two functions that fill a zq_error. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifndef ZQ_VERSION
#error "ZQ_VERSION comes from CMakeLists.txt"
#endif

const char *zq_version(void)
{
    return ZQ_VERSION;
}

const char *zq_status_text(zq_status status)
{
    switch (status) {
#define CASE(code, value, text) case code: return text;
    ZQ_STATUS_TABLE(CASE)
#undef CASE
    }
    return "unknown status";
}

/* Names from files may hold anything: the sentence stays on one line, and one that was cut ends with a whole character. */
static void tidy(zq_error *err)
{
    for (char *s = err->message; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = ' ';
    size_t n = strlen(err->message);
    if (n < sizeof err->message - 1 || !(err->message[n - 1] & 0x80)) return;
    while (n && (err->message[n - 1] & 0xc0) == 0x80) n--;
    err->message[n ? n - 1 : 0] = '\0';
}

zq_status zq_fail(zq_error *err, zq_status status, const char *format, ...)
{
    if (!err) return status;
    err->status = status;
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->message, sizeof err->message, format, ap);
    va_end(ap);
    tidy(err);
    return status;
}

zq_status zq_fail_errno(zq_error *err, const char *format, ...)
{
    const int e = errno;
    const zq_status status = e == ENOSPC || e == EDQUOT ? ZQ_ENOSPC : e == ENOMEM ? ZQ_ENOMEM : ZQ_EIO;
    if (!err) return status;
    err->status = status;
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->message, sizeof err->message, format, ap);
    va_end(ap);
    const size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(e));
    tidy(err);
    return status;
}
