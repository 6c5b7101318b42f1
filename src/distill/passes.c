/* A copy is carved by the code that carves the original, so that parameters lie in the same order and are one piece. */
#include "distill/passes.h"

#include "base/carve.h"

struct zq_student_options zq_passes_options(const struct zq_student *s, const struct zq_trainer *trainer)
{
    struct zq_student_options o = {
        .config = &s->config, .max_sequences = s->max_sequences, .max_length = s->max_length, .max_tokens = s->max_tokens,
        .n_threads = s->n_threads, .trainer = *trainer,
    };
    for (int r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r] = s->linear[r].layout;
    return o;
}

static bool is_copy(const struct zq_passes *p) { return p->s != p->original; }

static void carve(struct zq_passes *p, struct zq_carver *c)
{
    const size_t T = p->original->max_tokens, D = p->original->config.width;
    p->x = zq_carve_floats(c, T, D);
    p->out = zq_carve_floats(c, T, D);
    p->target = zq_carve_floats(c, T, D);
    p->row_sums = zq_carve(c, T, sizeof *p->row_sums);
}

zq_status zq_passes_open(struct zq_passes *out, struct zq_student *original, const struct zq_trainer *trainer, zq_error *err)
{
    struct zq_carver measure = {0}, c = {0};
    *out = (struct zq_passes){.s = original, .original = original};
    if (!trainer->ops) return ZQ_OK;
    const struct zq_student_options o = zq_passes_options(original, trainer);
    zq_status st = zq_student_create(&out->s, &o, err);
    if (st) return st;
    carve(out, &measure);
    out->memory = c.base = out->s->ops->alloc(out->s->self, measure.used);
    if (!out->memory) return zq_fail(err, ZQ_ENOMEM, "no memory on the device for a batch of %zu tokens: %zu bytes", o.max_tokens, measure.used);
    carve(out, &c);
    for (int r = 0; r < ZQ_N_LINEARS; r++) out->s->linear[r].has_bias = original->linear[r].has_bias;
    zq_passes_follow(out);
    return ZQ_OK;
}

void zq_passes_close(struct zq_passes *p)
{
    if (!p->s || !is_copy(p)) return;
    p->s->ops->free(p->s->self, p->memory);
    zq_student_free(p->s);
}

void zq_passes_follow(const struct zq_passes *p)
{
    if (is_copy(p)) p->s->ops->upload(p->s->self, p->s->params, p->original->params, p->s->n_params * sizeof *p->s->params);
}

void zq_passes_follow_codes(const struct zq_passes *p, enum zq_linear_role role)
{
    const struct zq_student_linear *from = &p->original->linear[role];
    if (is_copy(p) && from->fake != from->w)
        p->s->ops->upload(p->s->self, p->s->linear[role].fake, from->fake, from->n_rows * from->n_cols * sizeof *from->fake);
}

void zq_passes_follow_all_codes(const struct zq_passes *p)
{
    for (int r = 0; r < ZQ_N_LINEARS; r++) zq_passes_follow_codes(p, (enum zq_linear_role)r);
}

const float *zq_passes_take(const struct zq_passes *p, const float *x, size_t n)
{
    if (!is_copy(p)) return x;
    p->s->ops->upload(p->s->self, p->x, x, n * sizeof *x);
    return p->x;
}

void zq_passes_run(const struct zq_passes *p, const float *x, size_t n, size_t length, bool quantized, float *out)
{
    const size_t n_values = n * length * p->original->config.width;
    zq_student_forward_samples(p->s, zq_passes_take(p, x, n_values), n, length, quantized, is_copy(p) ? p->out : out);
    if (is_copy(p)) p->s->ops->download(p->s->self, out, p->out, n_values * sizeof *out);
}

void zq_passes_fetch(const struct zq_passes *p, enum zq_student_stage at)
{
    const struct zq_student *to = p->original;
    float *const arrays[] = {to->normed1, to->attended, to->normed2 ? to->normed2 : to->normed1, to->act};
    const struct zq_student_input *from = zq_student_input_at(p->s, at);
    if (!is_copy(p)) return;
    p->original->n_tokens = p->s->n_tokens;
    p->s->ops->download(p->s->self, arrays[at], from->f, p->s->n_tokens * from->n * sizeof(float));
}
