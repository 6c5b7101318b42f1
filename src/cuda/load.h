/* Finding and opening the plug-in of a device. */
#ifndef ZQ_CUDA_LOAD_H
#define ZQ_CUDA_LOAD_H

#include "cuda/device.h"
#include "cuda/tune.h"

/* A device that a model lies on. Its queue serves loading; every session opens a queue of its own. */
struct zq_device {
    void *library;
    const struct zq_plugin *plugin;
    struct zq_queue *queue;
    int index;
    struct zq_tuning tuning; /* of this device; its sessions share it */
};

/* Whether a name means this processor: "cpu", or NULL. */
bool zq_device_is_processor(const char *name);

/* "cuda", "cuda:N" or "cuda-host"; *out stays NULL for this processor. ZQ_EINVAL for other names; ZQ_EUNSUPPORTED where the plug-in
 * or the device is missing. */
zq_status zq_device_open(struct zq_device **out, const char *name, zq_error *err);
void zq_device_close(struct zq_device *device); /* accepts NULL */

/* Moves n bytes of host memory (of base/alloc.h) to the device: *p becomes the device's, NULL on failure; the host's is released. Nothing happens
 * without a device or for NULL. */
zq_status zq_device_take(const struct zq_device *device, void **p, size_t n_bytes, zq_error *err);
/* Waits for what take() has sent: sessions have queues of their own, which do not. ZQ_EIO if the device failed. Nothing without a device. */
zq_status zq_device_wait(const struct zq_device *device, zq_error *err);
/* zq_free() or the device's. */
void zq_device_free(const struct zq_device *device, void *p);

#endif
