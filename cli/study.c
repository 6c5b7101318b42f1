/* zq eval and zq compare with --study. */
#include "study.h"

#include "input.h"
#include "running.h"

#include <stdlib.h>

zq_status study_open(zq_model **out, const char *dir, const char *spec, const char *calibration, zq_error *err)
{
    zq_study_options o = {.open = open_options()};
    *out = NULL;
    if (!spec && calibration) return fail(err, ZQ_EINVAL, "--calibrate belongs to --study");
    if (!spec) return zq_model_open(out, dir, &o.open, err);
    char *text = NULL;
    zq_status st = calibration ? input_read(calibration, &text, &o.n_bytes, err) : ZQ_OK;
    o.text = text;
    if (!st) st = zq_study_open(out, dir, spec, &o, err);
    free(text);
    return st;
}
