/* Round-to-nearest of rows: one scale for each run of k_group weights, or one for the row. */
#include "quant/encode.h"

bool zq_encode_nearest(void *method, const struct zq_weight_rows *rows, int8_t *codes, float *scales)
{
    (void)method;
    const struct zq_spec spec = rows->layout->spec;
    const size_t n_groups = zq_spec_n_groups(spec, rows->n_cols), length = rows->n_cols / n_groups, n_runs = rows->n * n_groups;
    for (size_t i = 0; i < n_runs; i++) {
        const float *w = rows->w + i * length;
        struct zq_range range;
        if (!zq_range_of(&range, w, length)) return false;
        /* groups of rows exclude K-groups, so that runs are rows where scales are shared */
        scales[i] = rows->shared ? rows->shared[i] : zq_scale_nearest(spec.w_bits, range, rows->layout->scale_dtype);
        zq_codes(codes + i * length, w, length, scales[i], spec.w_bits);
    }
    return true;
}

void zq_weight_deviation(struct zq_deviation *d, const struct zq_weight_rows *rows, const int8_t *codes, const float *scales)
{
    const size_t n_groups = zq_spec_n_groups(rows->layout->spec, rows->n_cols), length = rows->n_cols / n_groups;
    for (size_t i = 0; i < rows->n * n_groups; i++) zq_deviation_add(d, rows->w + i * length, codes + i * length, length, scales[i]);
}
