/* Row operators: each row is one output unit, so any cut into threads gives the same bits. */
#include "ops/ops.h"

static struct zq_rows_out wanted(const struct zq_ops *ops, struct zq_rows r, struct zq_forms forms)
{
    return (struct zq_rows_out){.f = forms.f ? r.f : NULL, .q = forms.q ? r.q : NULL, .scale = r.scale,
                                 .ld_f = r.ld, .ld_q = zq_codes_ld(ops->plugin, r.ld), .h = forms.h ? r.h : NULL, .h_dtype = r.h_dtype};
}

struct norm_work {
    const struct zq_kernels *kernels;
    struct zq_norm args;
};

static void norm_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct norm_work *w = work;
    w->kernels->norm(&w->args, begin, end);
}

void zq_norm_run(const struct zq_ops *ops, const struct zq_norm_weights *w, bool rms, float eps, const float *x, size_t ld_x, size_t n_rows, size_t n,
                 struct zq_rows out, struct zq_forms forms)
{
    struct norm_work work = {
        ops->kernels,
        {.x = x, .ld_x = ld_x, .n = n, .gamma = w->gamma, .beta = w->beta, .eps = eps, .rms = rms, .out = wanted(ops, out, forms)},
    };
    zq_watch_see(ops, NULL);
    if (ops->plugin) ops->plugin->norm(ops->queue, &work.args, n_rows);
    else zq_team_run(ops->team, n_rows, 8, norm_range, &work);
    zq_watch_see(ops, &(struct zq_event){.op = ZQ_OP_NORM, .n_rows = n_rows, .n = n, .f = forms.f, .q = forms.q});
}

struct embed_work {
    const struct zq_kernels *kernels;
    struct zq_embed args;
};

static void embed_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct embed_work *w = work;
    w->kernels->embed(&w->args, begin, end);
}

void zq_embed_run(const struct zq_ops *ops, const struct zq_embed *e, size_t n_rows, struct zq_rows out, struct zq_forms forms)
{
    struct embed_work work = {ops->kernels, *e};
    forms.f = true;
    work.args.out = wanted(ops, out, forms);
    zq_watch_see(ops, NULL);
    zq_team_run(ops->team, n_rows, 8, embed_range, &work);
    zq_watch_see(ops, &(struct zq_event){.op = ZQ_OP_EMBED, .embed = e, .n_rows = n_rows, .n = e->n, .f = true, .q = forms.q});
}

struct activate_work {
    const struct zq_kernels *kernels;
    struct zq_activate args;
};

static void activate_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct activate_work *w = work;
    w->kernels->activate(&w->args, begin, end);
}

void zq_activate_run(const struct zq_ops *ops, enum zq_activation act, const float *x, const float *times, size_t ld, size_t n_rows, size_t n,
                     struct zq_rows out, struct zq_forms forms)
{
    struct activate_work work = {
        ops->kernels,
        {.x = x, .times = times, .ld_x = ld, .ld_times = ld, .n = n, .act = act, .out = wanted(ops, out, forms)},
    };
    zq_watch_see(ops, NULL);
    if (ops->plugin) ops->plugin->activate(ops->queue, &work.args, n_rows);
    else zq_team_run(ops->team, n_rows, 4, activate_range, &work);
    zq_watch_see(ops, &(struct zq_event){.op = ZQ_OP_ACTIVATE, .n_rows = n_rows, .n = n, .f = forms.f, .q = forms.q});
}
