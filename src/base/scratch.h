/* Memory that may lie on disk: zeroed, for arrays that are read and written from one end to the other. */
#ifndef ZQ_BASE_SCRATCH_H
#define ZQ_BASE_SCRATCH_H

#include "base/status.h"

struct zq_scratch {
    void *bytes;    /* [n_bytes] */
    size_t n_bytes;
    bool on_disk;
};
/* dir: where its file lies, which has no name and is gone with the process; NULL: in memory. ZQ_ENOMEM, ZQ_ENOSPC, ZQ_EIO. *out is zero
 * unless ZQ_OK is returned; close accepts zero. */
zq_status zq_scratch_open(struct zq_scratch *out, size_t n_bytes, const char *dir, zq_error *err);
void zq_scratch_close(struct zq_scratch *scratch);
/* Tells the system that [from, from + n) need not be resident for now; contents stay. Nothing happens in memory. */
void zq_scratch_drop(const struct zq_scratch *scratch, const void *from, size_t n);

#endif
