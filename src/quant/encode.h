/* From weights to codes: where a method of choosing codes and scales plugs in. The job hands it rows of one matrix, on several
 * threads at once; round-to-nearest is the method that needs no data. */
#ifndef ZQ_QUANT_ENCODE_H
#define ZQ_QUANT_ENCODE_H

#include "quant/codes.h"
#include "quant/scheme.h"

/* Rows [first, first + n) of a matrix, output channels whatever its stored layout. */
struct zq_weight_rows {
    const float *w; /* [n, n_cols] */
    size_t first, n, n_cols;
    const struct zq_layout *layout;
    const float *shared; /* [n] scales settled beforehand, because groups of rows share them; NULL otherwise */
};

/* Writes codes [n, n_cols] within the format's range, and scales [n, n_groups] > 0 that layout->scale_dtype holds exactly.
 * What a row becomes may not depend on which rows come with it. false: a weight is NaN or infinite. */
typedef bool zq_encode_fn(void *method, const struct zq_weight_rows *rows, int8_t *codes, float *scales);

/* Round to nearest; `method` is unused. */
bool zq_encode_nearest(void *method, const struct zq_weight_rows *rows, int8_t *codes, float *scales);

/* Adds the deviation of coded rows, in rising order of rows and groups. */
void zq_weight_deviation(struct zq_deviation *d, const struct zq_weight_rows *rows, const int8_t *codes, const float *scales);

#endif
