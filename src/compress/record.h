/* How far a job has come: what journal and report keep of it. */
#ifndef ZQ_COMPRESS_RECORD_H
#define ZQ_COMPRESS_RECORD_H

#include "compress/plan.h"
#include "eval/plot.h"

/* What was seen of an item while it was written. */
struct zq_measured {
    double relative_error; /* ||W - Wq|| / ||W||; 0 for a matrix of zeros, NaN for an item that is copied */
    struct zq_box rows;    /* of max - min of each row's weights; NaN for an item that is copied */
};

struct zq_record {
    size_t n_items;
    struct zq_measured *items; /* [n_items] */
    size_t n_shards;           /* that are durable */
    json_t *blocks;            /* what distillation said of each block */
    size_t n_iterations;       /* of each block, where a time budget has chosen it; 0: the options say */
    size_t n_runs;             /* earlier ones; with their time and largest memory. Of the journal only: */
    double seconds;
    uint64_t memory_bytes;
};
/* free accepts zero. ZQ_ENOMEM. */
zq_status zq_record_create(struct zq_record *out, const struct zq_plan *plan, zq_error *err);
void zq_record_free(struct zq_record *record);

/* Numbers, null for NaN; NULL if out of memory. */
json_t *zq_number_json(double x);
double zq_number_of(const json_t *value);
/* [least, quartile, median, quartile, largest], or null. */
json_t *zq_box_json(const struct zq_box *box);
struct zq_box zq_box_of_json(const json_t *value);

#endif
