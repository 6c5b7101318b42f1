/* A long job: a bar on a terminal, a plain line now and then otherwise, and a way to stop it. */
#ifndef ZQ_CLI_PROGRESS_H
#define ZQ_CLI_PROGRESS_H

#include "console.h"

#include <signal.h>

struct progress {
    const char *what; /* "quantizing" */
    bool terminal;
    bool uneven; /* units of work take times so different that no time left is told */
    double began, last; /* seconds, of now() */
    int last_percent;
    struct sigaction before[2]; /* of SIGINT and SIGTERM, to be restored */
};

/* Also takes over SIGINT and SIGTERM: the first one makes progress_show() return false, a second one ends the program. */
void progress_begin(struct progress *p, const char *what);
/* done of total units; detail may be "". false: the user wants the job to stop. */
bool progress_show(struct progress *p, double done, double total, const char *detail);
/* Removes the bar and gives the signals back. */
void progress_end(struct progress *p);

#endif
