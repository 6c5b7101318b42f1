/* Quantizes a model of the tests into a folder below the build's temporary directory. */
#ifndef ZQ_TESTS_QUANTIZED_H
#define ZQ_TESTS_QUANTIZED_H

#include "golden.h"

#include <unistd.h>

/* Quantizes `dir` with a scheme; *out is the new directory, removed by drop_quantized. */
static inline void make_quantized(const char *dir, const zq_quantize_options *options, char *out, size_t n)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, n, "%s/zq-test-%ld", tmp ? tmp : "/tmp", (long)getpid());
    zq_quantize_options o = *options;
    o.force = true;
    o.n_threads = 2;
    OK(zq_quantize(dir, out, &o, NULL, err));
}

static inline void drop_quantized(const char *out)
{
    OK(zq_remove_tree(out, err));
}

#endif
