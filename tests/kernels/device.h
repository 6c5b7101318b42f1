/* Checks of device plug-ins. */
#ifndef ZQ_CHECK_DEVICE_H
#define ZQ_CHECK_DEVICE_H

#include "check.h"

#include "cuda/device.h"

/* A plug-in under test. In the simulator device memory is ours, so operators work in the guarded buffers themselves. */
struct device {
    const struct zq_plugin *plugin;
    struct zq_queue *queue;
    struct zq_kernels layouts; /* plain C, but for packers */
    struct check c;
    struct {
        void *on_device, *host;
        size_t n_bytes;
    } copies[24];
    size_t n_copies;
};

/* The device's view of a buffer of this case; NULL stays NULL. */
void *place(struct device *d, const void *host, size_t n_bytes);
/* Waits, brings back what lies on a device, and ends the case there. */
void fetch(struct device *d);
/* Values [n_rows, n_cols] and scales packed by g, in a buffer of this case. */
void *packed(struct check *c, const struct zq_gemm *g, struct zq_matrix w, const void *values, const float *scales);
/* A copy in a buffer of this case. */
void *copy_of(struct check *c, const void *from, size_t n_bytes, size_t align);
/* Values from the first of a row-wise array to its last. */
size_t row_values(size_t n_rows, size_t ld, size_t n);

/* h is x rounded to the type. */
void check_halves(struct check *c, const uint16_t *h, const float *x, size_t n, enum zq_dtype dtype);

void device_attention(struct device *d);
void device_prompt(struct device *d);
void device_decode(struct device *d);
void device_embed(struct device *d);
void device_gather(struct device *d);
void device_sample(struct device *d);
void device_graph(struct device *d);
void device_train_rows(struct device *d);
void device_train_codes(struct device *d);
void device_train_softmax(struct device *d);

/* Checks every operator of the plug-in at `path` against plain C; the exit code of the program. Other errands: what it is, or how fast. */
enum errand { ERRAND_CHECK, ERRAND_DESCRIBE, ERRAND_BENCH };
int check_device(const char *path, int index, uint64_t seed, const char *filter, enum errand errand);
/* Prints a table of times and rates instead; nonzero if something failed. */
int bench_device(const struct zq_plugin *plugin, struct zq_queue *queue);

#endif
