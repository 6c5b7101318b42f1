/* Opening the model that a measuring command is given: as it is, or as a study (--study SPEC, --calibrate FILE). */
#ifndef ZQ_CLI_STUDY_H
#define ZQ_CLI_STUDY_H

#include "console.h"

/* spec NULL: as it is. calibration: a file of text, or NULL. */
zq_status study_open(zq_model **out, const char *dir, const char *spec, const char *calibration, zq_error *err);

#endif
