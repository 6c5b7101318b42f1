/* Opens plug-ins with dlopen: beside the program or library that asks (a build tree), where installing puts libraries beside a program
 * (bin/../lib, under any prefix), where they were configured to be installed, then wherever the system's linker looks. A name without
 * its plug-in, or a plug-in without its GPU, is one sentence. Plug-ins stay mapped: CUDA's runtime in them is made once for the process. */
#define _GNU_SOURCE /* dladdr */
#include "cuda/load.h"

#include "base/alloc.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOW = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE, WHY = 400 };

/* why: what keeps the first file from being opened that is there: it says more than that another place has none. */
static void *open_in(const char *folder, size_t n, const char *file, char why[WHY])
{
    char path[4096];
    const int length = snprintf(path, sizeof path, "%.*s%s", (int)n, folder, file);
    if (length < 0 || (size_t)length >= sizeof path) return NULL;
    void *library = dlopen(path, HOW);
    if (!library && !*why && !access(path, F_OK)) snprintf(why, WHY, "%s", dlerror());
    return library;
}

/* Where this code lies. Of a program that the shell has found dladdr knows the bare name only. */
static void find_self(char *path, size_t room)
{
    Dl_info here = {0};
    if (dladdr((void *)(uintptr_t)find_self, &here) && here.dli_fname && strchr(here.dli_fname, '/')) {
        snprintf(path, room, "%s", here.dli_fname);
        return;
    }
    const ssize_t n = readlink("/proc/self/exe", path, room - 1);
    path[n > 0 ? n : 0] = '\0';
}

static void *find_plugin(const char *file, char why[WHY])
{
    char self[4096], installed[64];
    void *library = NULL;
    find_self(self, sizeof self);
    snprintf(installed, sizeof installed, "%s/%s", ZQ_PROGRAM_TO_PLUGIN, file);
    const char *slash = strrchr(self, '/');
    const size_t n = slash ? (size_t)(slash - self) + 1 : 0;
    *why = '\0';
    if (n) library = open_in(self, n, file, why);
    if (n && !library) library = open_in(self, n, installed, why);
    if (!library) library = open_in(ZQ_PLUGIN_DIR "/", sizeof ZQ_PLUGIN_DIR, file, why);
    if (!library) library = dlopen(file, HOW);
    if (!library && !*why) snprintf(why, WHY, "%s", dlerror());
    return library;
}

/* The folder of an opened plug-in. */
static void find_folder(char *path, size_t room, zq_plugin_fn *entry)
{
    Dl_info there = {0};
    dladdr(*(void **)(void *)&entry, &there);
    snprintf(path, room, "%s", there.dli_fname ? there.dli_fname : "");
    char *slash = strrchr(path, '/');
    if (slash) *slash = '\0';
    else snprintf(path, room, ".");
}

static zq_status open_plugin(struct zq_device *d, const char *name, const char *file, zq_error *err)
{
    char why[WHY], folder[4096];
    zq_plugin_fn *entry = NULL;
    d->library = find_plugin(file, why);
    if (!d->library) return zq_fail(err, ZQ_EUNSUPPORTED, "device %s needs the plug-in %s, which cannot be opened: %s", name, file, why);
    *(void **)(void *)&entry = dlsym(d->library, "zq_device_plugin");
    if (!entry || entry()->version != ZQ_PLUGIN_VERSION)
        return zq_fail(err, ZQ_EUNSUPPORTED, "device %s: %s is of another version of this library", name, file);
    d->plugin = entry();
    if (d->plugin->open(&d->queue, d->index, 0, why, sizeof why)) return zq_fail(err, ZQ_EUNSUPPORTED, "device %s: %s", name, why);
    find_folder(folder, sizeof folder, entry);
    zq_tuning_load(&d->tuning, d->plugin, d->queue, folder);
    return ZQ_OK;
}

bool zq_device_is_processor(const char *name) { return !name || !strcmp(name, "cpu"); }

zq_status zq_device_open(struct zq_device **out, const char *name, zq_error *err)
{
    *out = NULL;
    if (zq_device_is_processor(name)) return ZQ_OK;
    const bool host = !strcmp(name, "cuda-host");
    char *end = NULL;
    const unsigned long index = !strncmp(name, "cuda:", 5) && name[5] >= '0' && name[5] <= '9' ? strtoul(name + 5, &end, 10) : 0;
    if (!host && strcmp(name, "cuda") && (!end || *end || index > 1023))
        return zq_fail(err, ZQ_EINVAL, "unknown device %s; valid are cpu, cuda, cuda:N and cuda-host", name);
    struct zq_device *d = zq_alloc_zero(sizeof *d);
    if (!d) return zq_fail(err, ZQ_ENOMEM, "no memory for device %s", name);
    d->index = (int)index;
    const zq_status st = open_plugin(d, name, host ? "libzq_cuda_host.so" : "libzq_cuda.so", err);
    if (st) zq_device_close(d);
    else *out = d;
    return st;
}

void zq_device_close(struct zq_device *d)
{
    if (!d) return;
    if (d->queue) d->plugin->close(d->queue);
    if (d->library) dlclose(d->library);
    zq_tuning_free(&d->tuning);
    zq_free(d);
}

zq_status zq_device_take(const struct zq_device *d, void **p, size_t n_bytes, zq_error *err)
{
    if (!d || !*p) return ZQ_OK;
    void *there = d->plugin->alloc(d->queue, n_bytes);
    if (there) d->plugin->upload(d->queue, there, *p, n_bytes);
    zq_free(*p);
    *p = there;
    return there ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory on the device for %zu bytes", n_bytes);
}

zq_status zq_device_wait(const struct zq_device *d, zq_error *err)
{
    const char *failure = d ? d->plugin->finish(d->queue) : NULL;
    return failure ? zq_fail(err, ZQ_EIO, "%s", failure) : ZQ_OK;
}

void zq_device_free(const struct zq_device *d, void *p)
{
    if (d) d->plugin->free(d->queue, p);
    else zq_free(p);
}
