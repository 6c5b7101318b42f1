/* What the program says: data goes to standard output, everything else to standard error. */
#ifndef ZQ_CLI_CONSOLE_H
#define ZQ_CLI_CONSOLE_H

#include "zeroquant.h"

/* The options that every command has. */
struct settings {
    int n_threads; /* --threads; 0: one per available core */
    const char *device; /* --device of commands that run models; NULL: this processor */
    bool quiet;    /* --quiet: errors only */
};
extern struct settings settings;

/* Fills *err with one sentence and returns status. */
zq_status fail(zq_error *err, zq_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* As fail(), for a failed system call: appends the text of errno; ZQ_ENOSPC, ZQ_ENOMEM or ZQ_EIO. */
zq_status fail_errno(zq_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A line on standard error, unless --quiet. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A zq_note_fn: a line "note: ..." unless --quiet. */
void print_note(void *user, const char *sentence);
/* "zq: ..." on standard error, always. */
void print_error(const char *sentence);

/* The last line of the terminal: a bar that say() and the others move out of their way. NULL removes it. */
void show_bar(const char *line);

/* Hands what was printed to the operating system; a full disk or a closed file is an error, not a short output. */
zq_status flush_output(zq_error *err);

/* Seconds of a clock that only goes forward. */
double now(void);

#endif
