/* Progress of long jobs. Updates are limited to ten a second on a terminal; elsewhere a line is printed when a tenth of the work
 * is done, but not more often than every two seconds, so that a log of a short job stays empty. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR_WIDTH = 30, MAX_LINE = 256 };

static const int signals[] = {SIGINT, SIGTERM};
enum { N_SIGNALS = sizeof signals / sizeof *signals };

static volatile sig_atomic_t stop_wanted;

static void want_stop(int signal_number)
{
    (void)signal_number;
    stop_wanted = 1;
}

void progress_begin(struct progress *p, const char *what)
{
    stop_wanted = 0;
    *p = (struct progress){.what = what, .terminal = isatty(STDERR_FILENO) != 0, .began = now()};
    p->last = p->began;
    for (size_t i = 0; i < N_SIGNALS; i++) {
        /* SA_RESETHAND: the second signal finds the default action. SA_RESTART: the job ends where it asks, not in the middle of a write. */
        struct sigaction action = {.sa_handler = want_stop, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
        sigaction(signals[i], NULL, &p->before[i]);
        /* a shell that starts us in the background has Ctrl-C ignored, and means it */
        if (p->before[i].sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static int terminal_width(void)
{
    struct winsize size;
    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 20 ? size.ws_col : 80;
}

static void draw_bar(const struct progress *p, double share, double left, const char *detail)
{
    char bar[BAR_WIDTH + 1], line[MAX_LINE];
    for (int i = 0; i < BAR_WIDTH; i++) bar[i] = share * BAR_WIDTH >= i + 1 ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    int n = snprintf(line, sizeof line, "%s [%s] %3.0f %%", p->what, bar, 100 * share);
    /* an estimate from less than a second of work is noise */
    if (now() - p->began > 1 && share > 0 && !p->uneven) n += snprintf(line + n, sizeof line - (size_t)n, "  %.0f s left", left);
    snprintf(line + n, sizeof line - (size_t)n, "  %s", detail);
    const int width = terminal_width() - 1;
    if (width < MAX_LINE) line[width] = 0;
    show_bar(line);
}

bool progress_show(struct progress *p, double done, double total, const char *detail)
{
    const double t = now(), share = total > 0 ? done / total : 1;
    const double left = share > 0 ? (t - p->began) * (1 - share) / share : 0;
    if (settings.quiet) return !stop_wanted;
    if (p->terminal && t - p->last >= 0.1) {
        draw_bar(p, share, left, detail);
        p->last = t;
    } else if (!p->terminal && t - p->last >= 2 && (int)(100 * share) >= p->last_percent + 10) {
        if (p->uneven) say("%s: %.0f %%  %s", p->what, 100 * share, detail);
        else say("%s: %.0f %%, %.0f s left  %s", p->what, 100 * share, left, detail);
        p->last = t;
        p->last_percent = (int)(100 * share);
    }
    return !stop_wanted;
}

void progress_end(struct progress *p)
{
    if (p->terminal) show_bar(NULL);
    for (size_t i = 0; i < N_SIGNALS; i++) sigaction(signals[i], &p->before[i], NULL);
}
