/* Messages, the bar at the bottom of the terminal, and the check that output has really been written.
 * Nothing here prints to standard output: commands do that themselves and end with flush_output(). */
#include "console.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct settings settings;
static bool bar_shown;

zq_status fail(zq_error *err, zq_status status, const char *format, ...)
{
    err->status = status;
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->message, sizeof err->message, format, ap);
    va_end(ap);
    return status;
}

zq_status fail_errno(zq_error *err, const char *format, ...)
{
    const int e = errno;
    char what[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    const zq_status status = e == ENOSPC || e == EDQUOT ? ZQ_ENOSPC : e == ENOMEM ? ZQ_ENOMEM : ZQ_EIO;
    return fail(err, status, "%s: %s", what, strerror(e));
}

void show_bar(const char *line)
{
    if (!line && !bar_shown) return;
    fprintf(stderr, "\r%s\033[K", line ? line : ""); /* ESC [ K: erase to the end of the line */
    fflush(stderr);
    bar_shown = line != NULL;
}

void say(const char *format, ...)
{
    if (settings.quiet) return;
    show_bar(NULL);
    va_list ap;
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void print_note(void *user, const char *sentence)
{
    (void)user;
    say("note: %s", sentence);
}

void print_error(const char *sentence)
{
    show_bar(NULL);
    fprintf(stderr, "zq: %s\n", sentence);
}

zq_status flush_output(zq_error *err)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout)) return ZQ_OK;
    if (!errno && write(STDOUT_FILENO, "\n", 1) >= 0) errno = EIO; /* an earlier write failed: its reason, unless it is gone */
    return fail_errno(err, "standard output");
}

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
