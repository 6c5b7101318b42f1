/* Checks of device plug-ins. */
#ifndef ZQ_CHECK_DEVICE_H
#define ZQ_CHECK_DEVICE_H

#include <stdint.h>

struct zq_plugin;
struct zq_queue;

/* Checks every operator of the plug-in at `path` against plain C; the exit code of the program. other
 * errands: what it is, or how fast. */
enum errand { ERRAND_CHECK, ERRAND_DESCRIBE, ERRAND_BENCH };
int check_device(const char *path, int index, uint64_t seed, const char *filter, enum errand errand);
/* Prints a table of times and rates instead; nonzero if something failed. */
int bench_device(const struct zq_plugin *plugin, struct zq_queue *queue);

#endif
