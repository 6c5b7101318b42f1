/* What an earlier run left behind: which model and options it had, and how far it came. Kept as "journal.json" in the directory
 * of work; a finished output tells the same through its zq-report.json. */
#ifndef ZQ_COMPRESS_JOURNAL_H
#define ZQ_COMPRESS_JOURNAL_H

#include "compress/plan.h"

#define ZQ_JOURNAL_NAME "journal.json"
#define ZQ_REPORT_NAME "zq-report.json"

/* What makes two runs write the same bytes: program, source and options, as JSON objects compare. A new reference; NULL if out
 * of memory. */
json_t *zq_run_identity(const struct zq_plan *plan, const char *fingerprint);
/* ZQ_EINVAL names the first difference: "scheme is w8a8 there, w4a8 here". `there` is the record of an earlier run in `path`. */
zq_status zq_run_compare(const json_t *there, const json_t *here, const char *path, zq_error *err);

/* Reads journal.json or zq-report.json of dir; *out is NULL if there is none. */
zq_status zq_journal_read(json_t **out, const char *dir, const char *name, zq_error *err);
/* Takes from a record the number of shards that are done and the relative errors of their items. ZQ_EFORMAT if that does not
 * fit the plan. blocks (an array, may be NULL) receives what distillation said of each block. */
zq_status zq_journal_load(const json_t *record, const struct zq_plan *plan, size_t *n_shards, double *relative_errors, json_t *blocks,
                          const char *path, zq_error *err);
/* Writes dir/journal.json: shards [0, n_shards) are done. */
zq_status zq_journal_write(const char *dir, const json_t *identity, const struct zq_plan *plan, size_t n_shards, const double *relative_errors,
                           const json_t *blocks, zq_error *err);

/* NaN as null; NULL if out of memory. */
json_t *zq_json_error(double relative_error);
#endif
