/* What one core can compute from registers, by the instructions that the kernels of a level use. */
#ifndef ZQ_BENCH_PEAKS_H
#define ZQ_BENCH_PEAKS_H

#include "base/threads.h"
#include "kernels/kernels.h"

/* Kinds of products. */
enum zq_work { ZQ_WORK_INT8, ZQ_WORK_INT4, ZQ_WORK_BF16, ZQ_WORK_F32, ZQ_N_WORKS };
/* "int8", "int4", "bf16", "f32" */
const char *zq_work_name(enum zq_work work);

/* A loop that does nothing else. */
struct zq_peak {
    unsigned level;
    enum zq_work work;
    double ops;           /* products and sums of one item */
    zq_range_fn *run;     /* items [begin, end); reads no memory */
};
/* [*n]; levels without a row of a kind (INT4 where INT8 instructions serve both) have the peak of another. */
const struct zq_peak *zq_peaks(size_t *n);

#endif
