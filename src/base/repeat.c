/* An anonymous file of one period, mapped over and over into one range of addresses. With memory of their own, the pages are private
 * and written to once: the system then copies them. */
#define _GNU_SOURCE /* memfd_create */
#include "base/repeat.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A descriptor of an anonymous file that holds these bytes; -1 with errno. */
static int anonymous_file(const void *bytes, size_t n)
{
    const int fd = memfd_create("zq", MFD_CLOEXEC);
    if (fd < 0) return -1;
    void *p = ftruncate(fd, (off_t)n) ? MAP_FAILED : mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        close(fd);
        return -1;
    }
    memcpy(p, bytes, n);
    munmap(p, n);
    return fd;
}

/* Fills [p, p + n_bytes), addresses that are ours, with maps of the file. */
static bool map_periods(uint8_t *p, int fd, size_t period, size_t n_bytes, bool own)
{
    for (size_t at = 0; at < n_bytes; at += period) {
        const size_t n = n_bytes - at < period ? n_bytes - at : period;
        const int protection = own ? PROT_READ | PROT_WRITE : PROT_READ, flags = own ? MAP_PRIVATE : MAP_SHARED;
        if (mmap(p + at, n, protection, flags | MAP_FIXED, fd, 0) == MAP_FAILED) return false;
    }
    return true;
}

static void write_to_pages(volatile uint8_t *bytes, size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < n; at += page) bytes[at] = bytes[at];
}

zq_status zq_map_repeat(struct zq_map *map, const void *bytes, size_t period, size_t n_bytes, bool own, zq_error *err)
{
    *map = (struct zq_map){0};
    const int fd = anonymous_file(bytes, period);
    if (fd < 0) return zq_fail_errno(err, "cannot hold %zu bytes in an anonymous file", period);
    void *p = mmap(NULL, n_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    zq_status st = ZQ_OK;
    if (p == MAP_FAILED || !map_periods(p, fd, period, n_bytes, own)) {
        st = zq_fail_errno(err, "cannot map %zu bytes", n_bytes);
        if (p != MAP_FAILED) munmap(p, n_bytes);
    } else {
        if (own) write_to_pages(p, n_bytes);
        *map = (struct zq_map){p, n_bytes};
    }
    close(fd);
    return st;
}
