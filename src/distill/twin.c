/* Both blocks are carved by the same code, so that their parameters lie in the same order and are one piece. */
#include "distill/twin.h"

#include "distill/passes.h"

/* *to = n samples of `from`, on the device. */
static zq_status send(struct zq_twin *t, float **to, const float *from, const struct zq_solve_samples *samples, zq_error *err)
{
    const struct zq_student *s = t->s;
    const size_t n_values = samples->length * s->config.width, n_bytes = samples->n * n_values * sizeof(float);
    *to = s->ops->alloc(s->self, n_bytes);
    if (!*to)
        return zq_fail(err, ZQ_ENOMEM, "no memory on the device for %zu samples of %zu tokens: %zu bytes", samples->n, samples->length, n_bytes);
    for (size_t i = 0; i < samples->n; i++) {
        s->ops->upload(s->self, *to + i * n_values, from + i * n_values, n_values * sizeof(float));
        zq_keeper_drop(&samples->keeper, from + i * n_values, n_values);
    }
    return ZQ_OK;
}

zq_status zq_twin_open(struct zq_twin *out, struct zq_student *original, const struct zq_solve_samples *samples, bool by_teacher, bool adam,
                       const struct zq_solve_options *options, zq_error *err)
{
    const float *x = by_teacher ? samples->teacher_x : samples->student_x;
    *out = (struct zq_twin){.s = original, .original = original, .samples = *samples};
    out->samples.student_x = x;
    if (!options->trainer.ops) {
        zq_student_begin_training(original, options->fast);
        return ZQ_OK;
    }
    struct zq_student_options o = zq_passes_options(original, &options->trainer);
    o.trains = true;
    o.adam = adam;
    o.fast = options->fast;
    zq_status st = zq_student_create(&out->s, &o, err);
    if (!st) st = send(out, &out->inputs, x, samples, err);
    if (!st) st = send(out, &out->targets, samples->target, samples, err);
    if (st) return st;
    struct zq_student *s = out->s;
    out->samples.teacher_x = NULL;
    out->samples.student_x = out->inputs;
    out->samples.target = out->targets;
    out->samples.keeper = (struct zq_keeper){0};
    for (int r = 0; r < ZQ_N_LINEARS; r++) s->linear[r].has_bias = original->linear[r].has_bias;
    s->ops->upload(s->self, s->params, original->params, s->n_params * sizeof *s->params);
    return ZQ_OK;
}

zq_status zq_twin_return(const struct zq_twin *t, zq_error *err)
{
    const struct zq_student *s = t->s;
    if (s != t->original) s->ops->download(s->self, t->original->params, s->params, s->n_params * sizeof *s->params);
    return zq_student_check(s, err);
}

void zq_twin_close(struct zq_twin *t)
{
    if (t->original) zq_student_end_training(t->original);
    if (!t->s || t->s == t->original) return;
    t->s->ops->free(t->s->self, t->inputs);
    t->s->ops->free(t->s->self, t->targets);
    zq_student_free(t->s);
}
