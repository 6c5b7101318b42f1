/* What an earlier run left behind: which model and options it had, and how far it came. Kept as "journal.json" in the directory
 * of work; a finished output tells the same through its zq-report.json. */
#ifndef ZQ_COMPRESS_JOURNAL_H
#define ZQ_COMPRESS_JOURNAL_H

#include "compress/record.h"

#define ZQ_JOURNAL_NAME "journal.json"
#define ZQ_REPORT_NAME "zq-report.json"

/* What makes two runs write the same bytes: program, source and options, as JSON objects compare. A new reference; NULL if out
 * of memory. */
json_t *zq_run_identity(const struct zq_plan *plan, const char *fingerprint);
/* ZQ_EINVAL names the first difference: "scheme is w8a8 there, w4a8 here". `there` is the record of an earlier run in `path`. */
zq_status zq_run_compare(const json_t *there, const json_t *here, const char *path, zq_error *err);

/* Reads journal.json or zq-report.json of dir; *out is NULL if there is none. */
zq_status zq_journal_read(json_t **out, const char *dir, const char *name, zq_error *err);
/* Fills *record from journal.json or zq-report.json. ZQ_EFORMAT if that does not fit the plan. */
zq_status zq_journal_load(struct zq_record *record, const json_t *there, const struct zq_plan *plan, const char *path, zq_error *err);
/* Writes dir/journal.json: shards [0, record->n_shards) are done. */
zq_status zq_journal_write(const char *dir, const json_t *identity, const struct zq_plan *plan, const struct zq_record *record, zq_error *err);

#endif
