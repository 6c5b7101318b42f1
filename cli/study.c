/* zq eval and zq compare with --study. */
#define _GNU_SOURCE /* asprintf */
#include "study.h"

#include "input.h"
#include "running.h"

#include <stdio.h>
#include <stdlib.h>

zq_status study_open(zq_model **out, const char *dir, const struct study_args *args, zq_error *err)
{
    zq_study_options o = {.open = open_options()};
    char *text = NULL, *spec = NULL;
    *out = NULL;
    if (!args->spec && (args->calibration || args->activations))
        return fail(err, ZQ_EINVAL, "%s belongs to --study", args->calibration ? "--calibrate" : "--activations");
    if (!args->spec) return zq_model_open(out, dir, &o.open, err);
    if (asprintf(&spec, "%s%s%s", args->spec, args->activations ? "," : "", args->activations ? args->activations : "") < 0)
        return fail(err, ZQ_ENOMEM, "out of memory");
    zq_status st = args->calibration ? input_read(args->calibration, &text, &o.n_bytes, err) : ZQ_OK;
    o.text = text;
    if (!st) st = zq_study_open(out, dir, spec, &o, err);
    free(text);
    free(spec);
    return st;
}
