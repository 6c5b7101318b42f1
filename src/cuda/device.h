/* The border between the C library and a device plug-in: libzq_cuda.so (nvcc) or libzq_cuda_host.so (the same kernels, compiled
 * by g++ and run by a simulator). A plug-in exports one symbol, zq_device_plugin, and is opened with dlopen; nothing else of CUDA
 * or C++ is visible to the library.
 *
 * Operators take the argument structs of kernels/kernels.h with device pointers in them, follow the same contract and give the same
 * bits as the CPU. They are queued: results are there after download() or finish(). What fails is remembered by the queue, whose
 * later calls do nothing, and reported by finish(). */
#ifndef ZQ_CUDA_DEVICE_H
#define ZQ_CUDA_DEVICE_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZQ_PLUGIN_VERSION = 2 };

/* Row stride of INT8 activations on a device, and where rows of codes begin: multiples of this many bytes. */
enum { ZQ_DEVICE_ALIGN = 16 };

/* Which slot of the kernel table a matrix was packed for. */
enum zq_device_format { ZQ_DEVICE_W8A8, ZQ_DEVICE_W4A8, ZQ_DEVICE_W8A16, ZQ_DEVICE_W4A16, ZQ_DEVICE_FLOAT };

struct zq_queue; /* the plug-in's: work in order, one thread at a time */

struct zq_plugin {
    unsigned version;     /* ZQ_PLUGIN_VERSION */
    bool simulated;

    /* Device `index`; 0 and *queue, or nonzero and a sentence in why [n_why]. seed: of the simulator's orders; 0: a fresh one. */
    int (*open)(struct zq_queue **queue, int index, uint64_t seed, char *why, size_t n_why);
    void (*close)(struct zq_queue *queue); /* accepts NULL */
    uint64_t (*seed)(const struct zq_queue *queue);
    void (*describe)(struct zq_queue *queue, char *text, size_t n); /* name, capability, memory, driver, in one line */

    void *(*alloc)(struct zq_queue *queue, size_t n_bytes); /* aligned to 256; NULL: no memory */
    void (*free)(struct zq_queue *queue, void *p);          /* accepts NULL */
    void (*upload)(struct zq_queue *queue, void *to, const void *from, size_t n_bytes); /* `from` may be reused at once */
    void (*download)(struct zq_queue *queue, void *to, const void *from, size_t n_bytes);
    void (*copy)(struct zq_queue *queue, void *to, const void *from, size_t n_bytes); /* within the device */
    const char *(*finish)(struct zq_queue *queue); /* waits; the first failure as a sentence, or NULL */
    /* Milliseconds that the device spent between the two calls, by its own clock; waits. 0 in the simulator, which has no time. */
    void (*start_clock)(struct zq_queue *queue);
    double (*read_clock)(struct zq_queue *queue);

    void (*norm)(struct zq_queue *queue, const struct zq_norm *a, size_t n_rows);
    void (*activate)(struct zq_queue *queue, const struct zq_activate *a, size_t n_rows);
    /* INT8 products: with q NULL and at most 4 tokens x is quantized on the way in, as activate() with ZQ_ACT_NONE does. ld_x is a
     * multiple of ZQ_DEVICE_ALIGN where q is given. */
    void (*product)(struct zq_queue *queue, const struct zq_product *a, enum zq_device_format format);
    void (*keep)(struct zq_queue *queue, const struct zq_keep *a);     /* all tokens */
    void (*attend)(struct zq_queue *queue, const struct zq_attend *a); /* all tokens and heads; scratch is not used */
};

typedef const struct zq_plugin *zq_plugin_fn(void); /* of the symbol zq_device_plugin */

/* Head dimensions that attend() takes. */
enum { ZQ_DEVICE_MAX_HEAD_DIM = 512 };

#ifdef __cplusplus
}
#endif
#endif
