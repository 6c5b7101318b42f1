/* Which kernel a product of many tokens takes on a device: a table of shapes, one file a device. The user's, measured on the device itself and kept
 * in the cache folder, comes before one that is shipped (src/cuda/tuned); for shapes that are not in it the rules of device.h. */
#ifndef ZQ_CUDA_TUNE_H
#define ZQ_CUDA_TUNE_H

#include "cuda/device.h"

#include "base/status.h"

struct zq_tuning {
    struct zq_tuned *items; /* [n], of base/alloc.h */
    size_t n;
};
void zq_tuning_free(struct zq_tuning *t);

/* Adds a shape, or replaces what is known of it. */
zq_status zq_tuning_put(struct zq_tuning *t, struct zq_tuned item, zq_error *err);

/* Lines such as "w8a8 rows 3072 columns 768 group 0 tokens 128 residual no kernel wide" behind a first line that names the format. Kernels
 * and formats that this version does not know are passed over: another version's table is no error. ZQ_EFORMAT: it is no table; *t is empty then. */
zq_status zq_tuning_parse(struct zq_tuning *t, const char *text, const char *path, zq_error *err);
zq_status zq_tuning_write(const struct zq_tuning *t, const char *path, zq_error *err);

/* $XDG_CACHE_HOME (or ~/.cache)/zeroquant/tuning-DEVICE.txt, to be released with zq_free; folders are made if `make` is set. NULL: there is no
 * such place. device: as describe() says it; what is before its first comma counts. */
char *zq_tuning_path(const char *device, bool make);

/* The table of this device: that of zq_tuning_path(), else one of the same name in `folder`, where the plug-in lies (a build tree, a bundle), else
 * in share/zeroquant as seen from there (installed). What cannot be read is passed over; empty if nothing is left. */
void zq_tuning_load(struct zq_tuning *t, const struct zq_plugin *plugin, struct zq_queue *queue, const char *folder);

/* Times every kernel on a product of `w` (packed on the device) for 8, 16, 32, ... up to most_tokens, with a residual in the place of the
 * output and without one, and puts the fastest of each into the table. In the simulator, which has no time, nothing is put. */
zq_status zq_tune_matrix(struct zq_tuning *t, const struct zq_plugin *plugin, struct zq_queue *queue, const struct zq_matrix *w,
                         enum zq_device_format format, size_t most_tokens, zq_error *err);

#endif
