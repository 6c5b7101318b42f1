/* Opening the model that a measuring command is given: as it is, or as a study (--study SPEC, --activations static:HOW, --calibrate FILE). */
#ifndef ZQ_CLI_STUDY_H
#define ZQ_CLI_STUDY_H

#include "console.h"

struct study_args {
    const char *spec;        /* NULL: as it is */
    const char *activations; /* added to spec; or NULL */
    const char *calibration; /* a file of text, or NULL */
};
zq_status study_open(zq_model **out, const char *dir, const struct study_args *args, zq_error *err);
/* Options of a command whose struct study_args is a. */
#define STUDY_OPTIONS(a, MODEL) \
    {"study", 0, "SPEC", read_text, &(a).spec, "run " MODEL ", a float model, as SCHEME[,GROUP][,static:HOW] would make it; see zq(1)"}, \
    {"activations", 0, "HOW", read_text, &(a).activations, "with --study: static:minmax, static:ema or static:percentile, as in SPEC"}, \
    {"calibrate", 0, "FILE", read_text, &(a).calibration, "with --study: text on which static activation scales are found"}

#endif
