/* The file's blocks are taken when it is opened: a full disk is an error then, and no signal later. */
#include "base/scratch.h"

#include "base/alloc.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A file without a name; below 0 with errno set. */
static int nameless_file(const char *dir, size_t n_bytes)
{
    char *path = zq_format("%s/scratch-XXXXXX", dir);
    int fd = path ? mkstemp(path) : -1, error = path ? errno : ENOMEM;
    if (fd >= 0) {
        unlink(path);
        if (!zq_fault_write(&error)) error = posix_fallocate(fd, 0, (off_t)n_bytes);
        if (error) close(fd);
        if (error) fd = -1;
    }
    zq_free(path);
    if (fd < 0) errno = error;
    return fd;
}

zq_status zq_scratch_open(struct zq_scratch *out, size_t n_bytes, const char *dir, zq_error *err)
{
    *out = (struct zq_scratch){0};
    if (!dir || !n_bytes) {
        void *bytes = zq_alloc_zero(n_bytes);
        if (!bytes) return zq_fail(err, ZQ_ENOMEM, "no memory for %zu bytes", n_bytes);
        *out = (struct zq_scratch){bytes, n_bytes, false};
        return ZQ_OK;
    }
    const int fd = nameless_file(dir, n_bytes);
    if (fd < 0) return zq_fail_errno(err, "cannot make a scratch file of %zu bytes in %s", n_bytes, dir);
    void *bytes = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const zq_status st = bytes == MAP_FAILED ? zq_fail_errno(err, "cannot map a scratch file in %s", dir) : ZQ_OK;
    close(fd);
    /* Large folios, which read-ahead makes, are mapped whole by a fault anywhere in them (Linux 6.18), what was dropped among it: no read-ahead
     * but that of zq_scratch_drop(), whose pages are single. */
    if (!st) madvise(bytes, n_bytes, MADV_RANDOM);
    if (!st) *out = (struct zq_scratch){bytes, n_bytes, true};
    return st;
}

void zq_scratch_close(struct zq_scratch *scratch)
{
    if (scratch->on_disk) munmap(scratch->bytes, scratch->n_bytes);
    else zq_free(scratch->bytes);
    *scratch = (struct zq_scratch){0};
}

/* A fault maps what the page cache has of the 64 KiB around it as well: whole windows are dropped, or the edges of one range would come back
 * with the next and stay. */
void zq_scratch_drop(const struct zq_scratch *scratch, const void *from, size_t n)
{
    enum { WINDOW = 1 << 16 };
    const uintptr_t begin = (uintptr_t)scratch->bytes, end = begin + scratch->n_bytes;
    uintptr_t first = (uintptr_t)from / WINDOW * WINDOW, last = ((uintptr_t)from + n + WINDOW - 1) / WINDOW * WINDOW;
    if (!scratch->on_disk || !n) return;
    first = first < begin ? begin : first;
    last = last > end ? end : last;
    madvise((void *)first, last - first, MADV_DONTNEED); /* of a shared map: pages go, data stays */
    if (last < end) madvise((void *)last, n < end - last ? n : end - last, MADV_WILLNEED); /* arrays are walked from end to end */
}
