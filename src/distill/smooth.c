/* Where channels are made and read. A newcomer may forget that a head of values is read by every query head of its group, and that
 * only functions with f(x / s) = f(x) / s let a scaling pass: ReLU, and the factor beside a gate, but not GELU. */
#include "distill/smooth.h"

#include <math.h>

enum { INTO_ATTENTION = 1 << ZQ_QKV | 1 << ZQ_Q | 1 << ZQ_K | 1 << ZQ_V, INTO_FFN = 1 << ZQ_GATE | 1 << ZQ_UP, MAX_EXPONENT = 10 };

static unsigned readers(const struct zq_student *s, enum zq_smooth_place place)
{
    const bool shared = s->config.norm == ZQ_NORM_PARALLEL && !s->norm2.gamma;
    switch (place) {
    case ZQ_SMOOTH_NORM1: return INTO_ATTENTION | (shared ? INTO_FFN : 0);
    case ZQ_SMOOTH_NORM2: return INTO_FFN;
    case ZQ_SMOOTH_VALUES: return 1 << ZQ_O;
    case ZQ_SMOOTH_UP: return 1 << ZQ_DOWN;
    case ZQ_N_SMOOTH: break;
    }
    return 0;
}

static bool coded(const struct zq_student *s, unsigned maps)
{
    for (int r = 0; r < ZQ_N_LINEARS; r++)
        if (maps & 1u << r && s->linear[r].n_rows && s->linear[r].layout.spec.w_bits == 16) return false;
    return true;
}

size_t zq_smooth_channels(const struct zq_student *s, enum zq_smooth_place place)
{
    const struct zq_config *c = &s->config;
    if (!coded(s, readers(s, place))) return 0;
    switch (place) {
    case ZQ_SMOOTH_NORM1: return c->norm == ZQ_NORM_POST || !s->norm1.gamma ? 0 : c->width;
    case ZQ_SMOOTH_NORM2: return c->norm == ZQ_NORM_POST || !s->norm2.gamma ? 0 : c->width;
    case ZQ_SMOOTH_VALUES: return coded(s, 1 << ZQ_QKV | 1 << ZQ_V) ? c->n_kv_heads * c->head_dim : 0;
    case ZQ_SMOOTH_UP: return coded(s, 1 << ZQ_UP) && (c->gated || c->activation == ZQ_ACT_RELU) ? c->ffn_width : 0;
    case ZQ_N_SMOOTH: break;
    }
    return 0;
}

/* The channel that column i of a reader reads. */
static size_t channel_of(const struct zq_student *s, enum zq_smooth_place place, size_t i)
{
    const struct zq_config *c = &s->config;
    if (place != ZQ_SMOOTH_VALUES) return i;
    return i / c->head_dim / (c->n_heads / c->n_kv_heads) * c->head_dim + i % c->head_dim;
}

static void scale_row(struct zq_student_linear *l, size_t r, float by)
{
    for (size_t k = 0; k < l->n_cols; k++) l->w[r * l->n_cols + k] *= by;
    l->bias[r] *= by;
}

static void scale_maker(struct zq_student *s, enum zq_smooth_place place, size_t i, float by)
{
    const struct zq_config *c = &s->config;
    struct zq_student_norm *norm = place == ZQ_SMOOTH_NORM1 ? &s->norm1 : &s->norm2;
    if (place == ZQ_SMOOTH_UP) {
        scale_row(&s->linear[ZQ_UP], i, by);
    } else if (place == ZQ_SMOOTH_VALUES) {
        struct zq_student_linear *fused = &s->linear[ZQ_QKV];
        if (fused->n_rows) scale_row(fused, s->heads.v_offset + i / c->head_dim * s->heads.kv_stride + i % c->head_dim, by);
        else scale_row(&s->linear[ZQ_V], i, by);
    } else {
        norm->gamma[i] *= by;
        if (norm->beta) norm->beta[i] *= by;
    }
}

/* By what columns are multiplied: values, or powers of two. */
struct factors {
    const float *values;
    const signed char *exponents;
    bool undo;
};

static float factor_of(const struct factors *f, size_t channel)
{
    return f->values ? f->values[channel] : ldexpf(1, f->undo ? -f->exponents[channel] : f->exponents[channel]);
}

static void apply(struct zq_student *s, enum zq_smooth_place place, const struct factors *f)
{
    const size_t n = zq_smooth_channels(s, place);
    const unsigned maps = readers(s, place);
    for (size_t i = 0; i < n; i++) scale_maker(s, place, i, 1 / factor_of(f, i));
    for (int r = 0; r < ZQ_N_LINEARS && n; r++) {
        struct zq_student_linear *l = &s->linear[r];
        if (!(maps & 1u << r)) continue;
        for (size_t i = 0; i < l->n_cols; i++) {
            const float by = factor_of(f, channel_of(s, place, i));
            if (by == 1) continue;
            for (size_t k = i; k < l->n_rows * l->n_cols; k += l->n_cols) l->w[k] *= by;
        }
    }
}

void zq_smooth_apply(struct zq_student *s, enum zq_smooth_place place, const signed char *exponents, bool undo)
{
    apply(s, place, &(struct factors){.exponents = exponents, .undo = undo});
}

void zq_smooth_scale(struct zq_student *s, enum zq_smooth_place place, const float *factors)
{
    apply(s, place, &(struct factors){.values = factors});
}

static const struct zq_student_input *input_of(const struct zq_student *s, enum zq_smooth_place place)
{
    return place == ZQ_SMOOTH_NORM1 ? &s->attention_in : place == ZQ_SMOOTH_NORM2 ? &s->ffn_in : place == ZQ_SMOOTH_VALUES ? &s->o_in : &s->down_in;
}

void zq_smooth_largest(const struct zq_student *s, enum zq_smooth_place place, float *largest)
{
    const struct zq_student_input *in = input_of(s, place);
    for (size_t t = 0; t < s->n_tokens; t++) {
        for (size_t i = 0; i < in->n; i++) {
            const size_t channel = channel_of(s, place, i);
            const float size = fabsf(in->f[t * in->n + i]);
            if (size > largest[channel]) largest[channel] = size;
        }
    }
}

void zq_smooth_sums(const struct zq_student *s, enum zq_smooth_place place, double *sums)
{
    const struct zq_student_input *in = input_of(s, place);
    for (size_t t = 0; t < s->n_tokens; t++)
        for (size_t i = 0; i < in->n; i++) sums[channel_of(s, place, i)] += (double)fabsf(in->f[t * in->n + i]);
}

void zq_smooth_exponents(const struct zq_student *s, enum zq_smooth_place place, const float *largest, double share, float *weights,
                         signed char *exponents)
{
    const size_t n = zq_smooth_channels(s, place);
    const unsigned maps = readers(s, place);
    double middle = 0;
    for (size_t i = 0; i < n; i++) weights[i] = 0;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        for (size_t k = 0; maps & 1u << r && k < l->n_rows * l->n_cols; k += l->n_cols) {
            for (size_t i = 0; i < l->n_cols; i++) {
                const size_t channel = channel_of(s, place, i);
                const float size = fabsf(l->w[k + i]);
                if (size > weights[channel]) weights[channel] = size;
            }
        }
    }
    for (int pass = 0; pass < 2; pass++) { /* the mean of the logarithms first: what matters is how channels differ */
        for (size_t i = 0; i < n; i++) {
            const bool idle = !(largest[i] > 0 && weights[i] > 0);
            const double wanted = idle ? 0 : share * log2(largest[i]) - (1 - share) * log2(weights[i]), e = idle ? 0 : rint(wanted - middle);
            if (!pass) middle += wanted / (double)n;
            else exponents[i] = (signed char)(e > MAX_EXPONENT ? MAX_EXPONENT : e < -MAX_EXPONENT ? -MAX_EXPONENT : e);
        }
    }
}
