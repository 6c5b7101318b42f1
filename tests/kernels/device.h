/* Checks of device plug-ins. */
#ifndef ZQ_CHECK_DEVICE_H
#define ZQ_CHECK_DEVICE_H

#include <stdint.h>

/* Checks every operator of the plug-in at `path` against plain C; the exit code of the program. */
int check_device(const char *path, int index, uint64_t seed, const char *filter);

#endif
