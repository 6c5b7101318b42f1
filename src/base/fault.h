/* For tests: makes the n-th write to a file fail. Off unless a test switches it on. */
#ifndef ZQ_BASE_FAULT_H
#define ZQ_BASE_FAULT_H

#include <stdbool.h>
#include <stddef.h>

/* The n-th write from now fails with error number `error` (ENOSPC, EIO), and all after it; 0 switches it off. */
void zq_fault_write_at(size_t n, int error);
/* Writes seen since the last zq_fault_write_at. */
size_t zq_fault_write_count(void);
/* Called before each write: true if it must fail; *error is then set. */
bool zq_fault_write(int *error);

#endif
