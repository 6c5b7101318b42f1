/* Names, locks and renames. The lock is flock() on the directory itself: it needs no file that would have to be removed again,
 * goes when the process goes, and survives the rename. Between opening a directory and locking it another run may have
 * renamed or removed it, so the name is looked at once more under the lock. */
#define _GNU_SOURCE /* renameat2 */
#include "compress/place.h"

#include "base/alloc.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static zq_status no_memory(const char *path, zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its path", path);
}

/* The absolute path without symbolic links, of what exists. *out is released with zq_free. */
static zq_status resolve(char **out, const char *path, zq_error *err)
{
    char buffer[PATH_MAX];
    *out = NULL;
    if (!realpath(path, buffer)) return zq_fail_errno(err, "cannot find %s", path);
    *out = zq_strdup(buffer);
    return *out ? ZQ_OK : no_memory(path, err);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_within(const char *path, const char *dir)
{
    const size_t n = strlen(dir);
    return !strncmp(path, dir, n) && (!path[n] || path[n] == '/' || (n && dir[n - 1] == '/'));
}

static zq_status check_source(const struct zq_place *place, const char *source_dir, zq_error *err)
{
    char *source = NULL, *parent = NULL, *out = NULL, *partial = NULL;
    zq_status st = resolve(&source, source_dir, err);
    if (!st) st = resolve(&parent, place->parent, err);
    if (!st && (!(out = zq_path_join(parent, base_name(place->out))) || !(partial = zq_path_join(parent, base_name(place->partial)))))
        st = no_memory(place->out, err);
    if (!st && !strcmp(out, source))
        st = zq_fail(err, ZQ_EINVAL, "%s is the model itself: the output needs a directory of its own", place->out);
    else if (!st && is_within(out, source))
        st = zq_fail(err, ZQ_EINVAL, "the output %s lies inside the model directory %s", place->out, source_dir);
    else if (!st && is_within(source, out))
        st = zq_fail(err, ZQ_EINVAL, "the model %s lies inside the output directory %s", source_dir, place->out);
    else if (!st && is_within(source, partial))
        st = zq_fail(err, ZQ_EINVAL, "the model %s lies inside %s, where the work would be done", source_dir, place->partial);
    zq_free(source);
    zq_free(parent);
    zq_free(out);
    zq_free(partial);
    return st;
}

/* Whether the descriptor still is what the name leads to. */
static bool is_current(int fd, const char *path)
{
    struct stat open_one, named;
    return !fstat(fd, &open_one) && !stat(path, &named) && open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

void zq_place_close(struct zq_place *place)
{
    if (place->out && place->lock >= 0) {
        if (is_current(place->lock, place->partial)) rmdir(place->partial); /* fails, as it should, if it holds anything */
        close(place->lock);
    }
    zq_free(place->out);
    zq_free(place->partial);
    zq_free(place->parent);
    *place = (struct zq_place){.lock = -1};
}

zq_status zq_place_open(struct zq_place *place, const char *out_dir, const char *source_dir, zq_error *err)
{
    *place = (struct zq_place){.lock = -1};
    size_t n = strlen(out_dir);
    while (n > 1 && out_dir[n - 1] == '/') n--;
    place->out = zq_strndup(out_dir, n);
    if (!place->out) return no_memory(out_dir, err);
    const char *base = base_name(place->out);
    zq_status st = ZQ_OK;
    if (!*base || !strcmp(base, ".") || !strcmp(base, "..")) {
        st = zq_fail(err, ZQ_EINVAL, "\"%s\" does not name a new directory", out_dir);
    } else {
        place->partial = zq_format("%s.partial", place->out);
        const size_t n_parent = (size_t)(base - place->out); /* with its slash, which "/" keeps */
        place->parent = n_parent ? zq_strndup(place->out, n_parent > 1 ? n_parent - 1 : 1) : zq_strdup(".");
        if (!place->partial || !place->parent) st = no_memory(out_dir, err);
    }
    if (!st) st = check_source(place, source_dir, err);
    if (st) zq_place_close(place);
    return st;
}

zq_status zq_place_lock(struct zq_place *place, zq_error *err)
{
    enum { ATTEMPTS = 100 }; /* each needs another run to finish in between */
    for (int i = 0; i < ATTEMPTS; i++) {
        if (mkdir(place->partial, 0777) && errno != EEXIST) return zq_fail_errno(err, "cannot create %s", place->partial);
        const int fd = open(place->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) continue;
        if (fd < 0 && errno == ENOTDIR) return zq_fail(err, ZQ_EEXIST, "%s is in the way: it is no directory", place->partial);
        if (fd < 0) return zq_fail_errno(err, "cannot open %s", place->partial);
        if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
            close(fd);
            return zq_fail(err, ZQ_EEXIST, "another run is writing %s at this moment", place->partial);
        }
        /* any other failure is a file system without locks, where nothing better can be done */
        if (is_current(fd, place->partial)) {
            place->lock = fd;
            return ZQ_OK;
        }
        close(fd);
    }
    return zq_fail(err, ZQ_EIO, "cannot lock %s: it keeps being replaced", place->partial);
}

static bool is_kept(const char *name, char *const *keep, size_t n_keep)
{
    for (size_t i = 0; i < n_keep; i++)
        if (!strcmp(name, keep[i])) return true;
    return false;
}

/* As zq_remove_tree, but of a symbolic link it removes the link and never what it leads to. */
static zq_status remove_entry(const char *path, zq_error *err)
{
    struct stat info;
    if (!lstat(path, &info) && S_ISDIR(info.st_mode)) return zq_remove_tree(path, err);
    return unlink(path) && errno != ENOENT ? zq_fail_errno(err, "cannot remove %s", path) : ZQ_OK;
}

zq_status zq_place_clear(const struct zq_place *place, char *const *keep, size_t n_keep, bool *removed, zq_error *err)
{
    *removed = false;
    DIR *dir = opendir(place->partial);
    if (!dir) return zq_fail_errno(err, "cannot read %s", place->partial);
    zq_status st = ZQ_OK;
    for (struct dirent *e; !st && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || is_kept(e->d_name, keep, n_keep)) continue;
        *removed = true;
        char *path = zq_path_join(place->partial, e->d_name);
        st = path ? remove_entry(path, err) : no_memory(place->partial, err);
        zq_free(path);
    }
    closedir(dir);
    return st;
}

zq_status zq_place_need(const struct zq_place *place, uint64_t n_bytes, zq_error *err)
{
    struct statvfs fs;
    if (statvfs(place->partial, &fs)) return zq_fail_errno(err, "cannot ask for the free space of %s", place->partial);
    const uint64_t n_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (n_free >= n_bytes) return ZQ_OK;
    return zq_fail(err, ZQ_ENOSPC, "%s needs %.1f MiB, and its file system has %.1f MiB free", place->out, (double)n_bytes / 0x1p20,
                   (double)n_free / 0x1p20);
}

/* Puts "OUT.partial" in the place of what is named OUT, and removes the latter. Where the file system cannot exchange two names
 * the old output steps aside first. */
static zq_status replace(const struct zq_place *place, zq_error *err)
{
    if (!renameat2(AT_FDCWD, place->partial, AT_FDCWD, place->out, RENAME_EXCHANGE)) {
        zq_status st = zq_sync_directory(place->parent, err);
        return st ? st : remove_entry(place->partial, err);
    }
    if (errno != EINVAL && errno != ENOSYS) return zq_fail_errno(err, "cannot replace %s", place->out);
    char *aside = zq_format("%s.replaced", place->out);
    if (!aside) return no_memory(place->out, err);
    zq_status st = remove_entry(aside, err);
    if (!st && rename(place->out, aside)) st = zq_fail_errno(err, "cannot rename %s", place->out);
    if (!st && rename(place->partial, place->out)) {
        st = zq_fail_errno(err, "cannot rename %s to %s", place->partial, place->out);
        if (rename(aside, place->out)) st = zq_fail_errno(err, "cannot rename %s back to %s", aside, place->out);
    }
    if (!st) st = zq_sync_directory(place->parent, err);
    if (!st) st = remove_entry(aside, err);
    zq_free(aside);
    return st;
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = dir != NULL;
    for (struct dirent *e; empty && (e = readdir(dir));) empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    if (dir) closedir(dir);
    return empty;
}

bool zq_place_replaceable(const struct zq_place *place)
{
    struct stat info;
    if (!lstat(place->out, &info) && S_ISLNK(info.st_mode)) return true;
    char *config = zq_path_join(place->out, "config.json");
    const bool model = config && zq_file_exists(config);
    zq_free(config);
    return model || is_empty(place->out);
}

zq_status zq_place_publish(const struct zq_place *place, bool force, zq_error *err)
{
    zq_status st = zq_sync_directory(place->partial, err);
    if (st) return st;
    if (!renameat2(AT_FDCWD, place->partial, AT_FDCWD, place->out, RENAME_NOREPLACE)) return zq_sync_directory(place->parent, err);
    const int error = errno;
    const bool exists = zq_file_exists(place->out);
    if (exists && force) return replace(place, err);
    if (exists) return zq_fail(err, ZQ_EEXIST, "%s has appeared meanwhile", place->out);
    errno = error;
    if (error != EINVAL && error != ENOSYS) return zq_fail_errno(err, "cannot rename %s to %s", place->partial, place->out);
    if (rename(place->partial, place->out)) return zq_fail_errno(err, "cannot rename %s to %s", place->partial, place->out);
    return zq_sync_directory(place->parent, err);
}

zq_status zq_place_discard(const struct zq_place *place, zq_error *err)
{
    return remove_entry(place->partial, err);
}
