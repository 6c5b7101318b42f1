/* The place of an output directory: work goes on in "OUT.partial", locked against a second run, and takes the name OUT in one
 * step when it is complete. */
#ifndef ZQ_COMPRESS_PLACE_H
#define ZQ_COMPRESS_PLACE_H

#include "base/status.h"

struct zq_place {
    char *out, *partial; /* without trailing slashes */
    char *parent;        /* the directory that both lie in */
    int lock;            /* descriptor of the locked directory; -1 before zq_place_lock */
};
/* Checks that writing out_dir harms nothing of source_dir (the same directory, one inside the other). *place needs no
 * initialisation; close accepts zero. ZQ_EINVAL or ZQ_EIO (no such parent directory). */
zq_status zq_place_open(struct zq_place *place, const char *out_dir, const char *source_dir, zq_error *err);
void zq_place_close(struct zq_place *place); /* unlocks; removes "OUT.partial" only if it is empty */

/* Creates "OUT.partial" if need be, and locks it. ZQ_EEXIST: another run is at work there, or it is no directory. */
zq_status zq_place_lock(struct zq_place *place, zq_error *err);
/* Removes everything in "OUT.partial" but the names of keep [n_keep]; *removed tells whether there was anything. */
zq_status zq_place_clear(const struct zq_place *place, char *const *keep, size_t n_keep, bool *removed, zq_error *err);
/* ZQ_ENOSPC, with the numbers, if the file system of "OUT.partial" has less than n_bytes free. */
zq_status zq_place_need(const struct zq_place *place, uint64_t n_bytes, zq_error *err);
/* Whether OUT may be removed: a model's directory, an empty one, or a link. A home directory that was named by mistake is none of them. */
bool zq_place_replaceable(const struct zq_place *place);
/* Makes "OUT.partial" durable and renames it to OUT. An existing OUT is replaced in one step and then removed, if `force`;
 * else ZQ_EEXIST. */
zq_status zq_place_publish(const struct zq_place *place, bool force, zq_error *err);
/* Removes "OUT.partial" and what it holds. */
zq_status zq_place_discard(const struct zq_place *place, zq_error *err);

#endif
