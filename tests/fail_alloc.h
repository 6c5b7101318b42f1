/* Walks every failure path of an operation: its first allocation fails, then its second, and so on until it succeeds.
 * jansson is routed through zq_alloc meanwhile, so that its allocations count and fail too. Include after cmocka.h. */
#ifndef ZQ_TESTS_FAIL_ALLOC_H
#define ZQ_TESTS_FAIL_ALLOC_H

#include "base/alloc.h"
#include "base/status.h"

#include <jansson.h>

/* Does the operation once and cleans up after itself; returns what it returned. */
typedef zq_status operation(void *argument, zq_error *err);

/* Returns the number of allocations that failed. Each failure must be ZQ_ENOMEM with a sentence; leaks are found by the
 * sanitizer. */
static inline size_t fail_each_allocation(operation *run, void *argument)
{
    json_malloc_t old_malloc;
    json_free_t old_free;
    json_get_alloc_funcs(&old_malloc, &old_free);
    json_set_alloc_funcs(zq_alloc, zq_free);
    size_t n = 0;
    for (bool done = false; !done;) {
        zq_error err = {0};
        zq_alloc_fail_at(++n, false);
        const zq_status st = run(argument, &err);
        done = zq_alloc_count() < n;
        zq_alloc_fail_at(0, false);
        if (done) {
            assert_string_equal(err.message, "");
            assert_int_equal(st, ZQ_OK);
        } else {
            if (st != ZQ_ENOMEM) fail_msg("allocation %zu: status %d, \"%s\"", n, (int)st, err.message);
            assert_int_equal(err.status, ZQ_ENOMEM);
            assert_string_not_equal(err.message, "");
        }
    }
    json_set_alloc_funcs(old_malloc, old_free);
    return n - 1;
}

#endif
