/* Files: read-only maps whose pages can be dropped, and outputs that appear whole or not at all. */
#ifndef ZQ_BASE_FILE_H
#define ZQ_BASE_FILE_H

#include "base/status.h"

/* A read-only map of a whole file. Zero-initialise; close accepts zero. */
struct zq_map {
    const uint8_t *bytes; /* NULL for an empty file */
    size_t n_bytes;
};
zq_status zq_map_open(struct zq_map *map, const char *path, zq_error *err);
void zq_map_close(struct zq_map *map);
/* Tells the kernel that [from, from + n) will not be read again soon: resident memory shrinks, contents stay readable. */
void zq_map_drop(const struct zq_map *map, const void *from, size_t n);
/* Asks for [from, from + n) to be read ahead. */
void zq_map_prefetch(const struct zq_map *map, const void *from, size_t n);

/* The whole file as NUL-terminated text (n_bytes without the NUL, may be NULL); release with zq_free. ZQ_ELIMIT above max_bytes. */
zq_status zq_file_read(char **text, size_t *n_bytes, const char *path, size_t max_bytes, zq_error *err);

bool zq_file_exists(const char *path);
bool zq_is_directory(const char *path);
/* dir + "/" + name; NULL if out of memory. */
char *zq_path_join(const char *dir, const char *name);

/* An output file that is written under a temporary name beside its place and renamed by commit. What exists and is no file (a device, a
 * pipe) is written straight. */
struct zq_output {
    int fd;
    char *path, *temporary; /* temporary NULL: written straight, or renamed already */
    uint64_t written;
    uint8_t *buffer; /* collects small writes */
    size_t buffered;
};
/* Zero-initialise *out before. */
zq_status zq_output_open(struct zq_output *out, const char *path, zq_error *err);
zq_status zq_output_write(struct zq_output *out, const void *bytes, size_t n, zq_error *err);
/* Flush, fsync, rename, fsync of the directory. The output is closed whatever is returned; after a failure nothing is left. */
zq_status zq_output_commit(struct zq_output *out, zq_error *err);
/* Closes and removes the temporary file. Accepts zero and a committed output. */
void zq_output_abandon(struct zq_output *out);

/* Writes text as a whole file, atomically. */
zq_status zq_file_write(const char *path, const void *bytes, size_t n, zq_error *err);
/* Copies a file byte for byte, atomically. */
zq_status zq_file_copy(const char *from, const char *to, zq_error *err);

/* Removes a directory and all files and directories in it; what is missing is no error. */
zq_status zq_remove_tree(const char *path, zq_error *err);
/* fsync of a directory, so that renames and new names in it are durable. */
zq_status zq_sync_directory(const char *path, zq_error *err);

#endif
