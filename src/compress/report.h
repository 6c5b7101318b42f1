/* The report of a job: owns everything it shows, so that it outlives the plan. */
#ifndef ZQ_COMPRESS_REPORT_H
#define ZQ_COMPRESS_REPORT_H

#include "compress/record.h"

/* Copies names, sizes, errors and remarks. NULL if out of memory. */
zq_quantize_report *zq_report_make(const struct zq_plan *plan, const struct zq_record *record);
zq_quantize_totals *zq_report_totals(zq_quantize_report *report);

/* The JSON object of zq-report.json: the same for every run that writes the same output. NULL if out of memory. */
json_t *zq_report_json(const zq_quantize_report *report, const struct zq_plan *plan, const json_t *identity, const struct zq_record *record);
/* Keeps the text of zq_report_json and, under "run", what differs from run to run: seconds, memory, resumed. false if out of memory. */
bool zq_report_keep_json(zq_quantize_report *report, json_t *json);

#endif
