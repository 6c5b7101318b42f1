/* zq-report.html: what a run did and cost, for people. One file without scripts that needs no network; pictures are SVG within it. */
#ifndef ZQ_COMPRESS_PAGE_H
#define ZQ_COMPRESS_PAGE_H

#include "compress/report.h"

#define ZQ_PAGE_NAME "zq-report.html"

/* Writes dir/zq-report.html. record: with time and memory of all runs so far, this one among them; they are why this file alone of an output
 * differs from run to run. */
zq_status zq_page_write(const char *dir, const zq_quantize_report *report, const struct zq_plan *plan, const struct zq_record *record, zq_error *err);

#endif
