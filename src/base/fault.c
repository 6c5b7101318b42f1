/* Planted write failures. Not thread-safe: tests that use it write from one thread. */
#include "base/fault.h"

static size_t n_writes, fail_at;
static int fail_error;

void zq_fault_write_at(size_t n, int error)
{
    n_writes = 0;
    fail_at = n;
    fail_error = error;
}

size_t zq_fault_write_count(void)
{
    return n_writes;
}

bool zq_fault_write(int *error)
{
    n_writes++;
    if (!fail_at || n_writes < fail_at) return false;
    *error = fail_error;
    return true;
}
