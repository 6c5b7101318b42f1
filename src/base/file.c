/* File access on POSIX. Every write goes through one function (write_all), which is where tests make the n-th write fail. */
#include "base/file.h"

#include "base/alloc.h"
#include "base/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20 };

zq_status zq_map_open(struct zq_map *map, const char *path, zq_error *err)
{
    *map = (struct zq_map){0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer would hold it up */
    if (fd < 0) return zq_fail_errno(err, "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) || (S_ISDIR(st.st_mode) && (errno = EISDIR))) {
        zq_status s = zq_fail_errno(err, "cannot read %s", path);
        close(fd);
        return s;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return zq_fail(err, ZQ_EIO, "cannot read %s: it is a pipe or a device, a file is needed", path);
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            zq_status s = zq_fail_errno(err, "cannot map %s", path);
            close(fd);
            return s;
        }
        map->bytes = p;
        map->n_bytes = (size_t)st.st_size;
    }
    close(fd);
    return ZQ_OK;
}

void zq_map_close(struct zq_map *map)
{
    if (map->bytes) munmap((void *)(uintptr_t)map->bytes, map->n_bytes);
    *map = (struct zq_map){0};
}

static void advise(const struct zq_map *map, const void *from, size_t n, int advice)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)map->bytes;
    uintptr_t a = (uintptr_t)from, b = a + n;
    if (!n || a < base || b > base + map->n_bytes) return;
    a = a / page * page;
    madvise((void *)a, b - a, advice); /* best effort: a refusal changes no result */
}

void zq_map_drop(const struct zq_map *map, const void *from, size_t n) { advise(map, from, n, MADV_DONTNEED); }
void zq_map_prefetch(const struct zq_map *map, const void *from, size_t n) { advise(map, from, n, MADV_WILLNEED); }

zq_status zq_file_read(char **text, size_t *n_bytes, const char *path, size_t max_bytes, zq_error *err)
{
    *text = NULL;
    struct zq_map map;
    zq_status st = zq_map_open(&map, path, err);
    if (st) return st;
    if (map.n_bytes > max_bytes) {
        st = zq_fail(err, ZQ_ELIMIT, "%s has %zu bytes, the limit for this kind of file is %zu", path, map.n_bytes, max_bytes);
    } else if (!(*text = zq_alloc(map.n_bytes + 1))) {
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for %zu bytes", path, map.n_bytes);
    } else {
        if (map.n_bytes) memcpy(*text, map.bytes, map.n_bytes);
        (*text)[map.n_bytes] = '\0';
        if (n_bytes) *n_bytes = map.n_bytes;
    }
    zq_map_close(&map);
    return st;
}

bool zq_file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool zq_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *zq_path_join(const char *dir, const char *name)
{
    const size_t n = strlen(dir);
    return zq_format("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

static zq_status write_all(const struct zq_output *out, const uint8_t *bytes, size_t n, zq_error *err)
{
    while (n) {
        ssize_t w;
        if (zq_fault_write(&errno)) w = -1;
        else w = write(out->fd, bytes, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return zq_fail_errno(err, "cannot write %s", out->path);
        bytes += w;
        n -= (size_t)w;
    }
    return ZQ_OK;
}

/* Where an output goes. A file behind a link is replaced, and the link stays. A device or a pipe (/dev/null, /dev/stdout, >(command))
 * must not be replaced by a file: *straight then is true. */
static zq_status find_target(struct zq_output *out, const char *path, bool *straight, zq_error *err)
{
    char resolved[PATH_MAX];
    struct stat info, named;
    if (!*path) return zq_fail(err, ZQ_EINVAL, "the name of a file to write is empty");
    const bool exists = !stat(path, &info), is_link = exists && !lstat(path, &named) && S_ISLNK(named.st_mode);
    if (exists && S_ISDIR(info.st_mode) && (errno = EISDIR)) return zq_fail_errno(err, "cannot write %s", path);
    *straight = exists && (!S_ISREG(info.st_mode) || (is_link && !realpath(path, resolved)));
    out->path = zq_strdup(is_link && !*straight ? resolved : path);
    return out->path ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its path", path);
}

zq_status zq_output_open(struct zq_output *out, const char *path, zq_error *err)
{
    *out = (struct zq_output){.fd = -1};
    bool straight;
    zq_status st = find_target(out, path, &straight, err);
    if (st) return st;
    if (!straight) out->temporary = zq_format("%s.tmp", out->path);
    out->buffer = zq_alloc(BUFFER_BYTES);
    if ((!straight && !out->temporary) || !out->buffer) {
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a write buffer", path);
    } else if (straight) {
        if ((out->fd = open(path, O_WRONLY | O_CLOEXEC)) < 0) st = zq_fail_errno(err, "cannot open %s", path);
    } else if ((out->fd = open(out->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0) {
        st = zq_fail_errno(err, "cannot create %s", out->temporary);
    }
    if (st) zq_output_abandon(out);
    return st;
}

static zq_status flush(struct zq_output *out, zq_error *err)
{
    zq_status st = write_all(out, out->buffer, out->buffered, err);
    out->buffered = 0;
    return st;
}

zq_status zq_output_write(struct zq_output *out, const void *bytes, size_t n, zq_error *err)
{
    zq_status st = ZQ_OK;
    if (out->buffered + n > BUFFER_BYTES) st = flush(out, err);
    if (!st && n > BUFFER_BYTES) st = write_all(out, bytes, n, err);
    else if (!st && n) {
        memcpy(out->buffer + out->buffered, bytes, n);
        out->buffered += n;
    }
    if (!st) out->written += n;
    return st;
}

/* The directory a path lies in; NULL if out of memory. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? zq_strdup(".") : slash == path ? zq_strdup("/") : zq_strndup(path, (size_t)(slash - path));
}

zq_status zq_output_commit(struct zq_output *out, zq_error *err)
{
    char *parent = parent_of(out->path); /* before the rename, after which nothing but the disk may fail */
    zq_status st = parent ? flush(out, err) : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its path", out->path);
    if (!st && out->temporary && fsync(out->fd)) st = zq_fail_errno(err, "cannot write %s", out->path);
    if (!st) {
        const int closed = close(out->fd);
        out->fd = -1;
        if (closed) st = zq_fail_errno(err, "cannot write %s", out->path);
    }
    const bool renames = out->temporary != NULL;
    if (!st && renames && rename(out->temporary, out->path)) st = zq_fail_errno(err, "cannot rename %s to %s", out->temporary, out->path);
    if (!st && renames) {
        zq_free(out->temporary);
        out->temporary = NULL;
        st = zq_sync_directory(parent, err);
    }
    zq_free(parent);
    zq_output_abandon(out);
    return st;
}

void zq_output_abandon(struct zq_output *out)
{
    if (out->path && out->fd >= 0) close(out->fd);
    if (out->temporary) unlink(out->temporary);
    zq_free(out->path);
    zq_free(out->temporary);
    zq_free(out->buffer);
    *out = (struct zq_output){.fd = -1};
}

zq_status zq_file_write(const char *path, const void *bytes, size_t n, zq_error *err)
{
    struct zq_output out;
    zq_status st = zq_output_open(&out, path, err);
    if (!st && !(st = zq_output_write(&out, bytes, n, err))) st = zq_output_commit(&out, err);
    zq_output_abandon(&out);
    return st;
}

zq_status zq_file_copy(const char *from, const char *to, zq_error *err)
{
    struct zq_map map;
    zq_status st = zq_map_open(&map, from, err);
    if (!st) st = zq_file_write(to, map.bytes, map.n_bytes, err);
    zq_map_close(&map);
    return st;
}

zq_status zq_remove_tree(const char *path, zq_error *err)
{
    DIR *dir = opendir(path);
    if (!dir) {
        if (errno == ENOTDIR && unlink(path) == 0) return ZQ_OK;
        return errno == ENOENT ? ZQ_OK : zq_fail_errno(err, "cannot remove %s", path);
    }
    zq_status st = ZQ_OK;
    for (struct dirent *e; !st && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *child = zq_path_join(path, e->d_name);
        struct stat info;
        if (!child) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", path);
        else if (lstat(child, &info) == 0 && S_ISDIR(info.st_mode)) st = zq_remove_tree(child, err);
        else if (unlink(child) && errno != ENOENT) st = zq_fail_errno(err, "cannot remove %s", child);
        zq_free(child);
    }
    closedir(dir);
    if (!st && rmdir(path) && errno != ENOENT) st = zq_fail_errno(err, "cannot remove %s", path);
    return st;
}

zq_status zq_sync_directory(const char *path, zq_error *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return zq_fail_errno(err, "cannot open directory %s", path);
    const int failed = fsync(fd) && errno != EINVAL; /* EINVAL: a file system without directory fsync */
    zq_status st = failed ? zq_fail_errno(err, "cannot sync directory %s", path) : ZQ_OK;
    close(fd);
    return st;
}
