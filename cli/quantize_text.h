/* What a person reads of a quantization: the plan before, the report after. */
#ifndef ZQ_CLI_QUANTIZE_TEXT_H
#define ZQ_CLI_QUANTIZE_TEXT_H

#include "console.h"

#include <stdio.h>

/* Every tensor (layers folded), sizes, and the estimates of memory and time; with remarks if they will not come later. */
zq_status print_plan(const zq_quantize_report *plan, bool distils, bool remarks, FILE *to, zq_error *err);
/* Sizes and ratios, bits per weight, the tensors with the largest errors, remarks, time and memory. */
void print_report(const zq_quantize_report *report, const char *out_dir, FILE *to);

#endif
