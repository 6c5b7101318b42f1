/* The step without fusion on a device: a plug-in around the plug-in. Norms, activation functions and attention leave floats, which a launch of
 * its own turns into tokens. Products finish what they compute, and a launch that reads every output and writes it back stands for the pass
 * that would scale sums: the same bytes, and the same bits of results. */
#include "bench/unfused.h"

#include "base/alloc.h"

struct zq_queue {
    struct zq_plugin own;           /* the device's, but for what is here */
    const struct zq_plugin *plugin; /* the device's */
    struct zq_queue *inner;         /* of that */
    float *floats;                  /* [n_tokens, width] of norms that leave tokens only */
};

static void pass(struct zq_queue *q, const float *x, size_t ld, size_t n, struct zq_rows_out out, size_t n_rows)
{
    const struct zq_activate a = {.x = x, .ld_x = ld, .n = n, .act = ZQ_ACT_NONE, .out = out};
    q->plugin->activate(q->inner, &a, n_rows);
}

static struct zq_rows_out tokens_of(struct zq_rows_out out)
{
    out.f = NULL, out.h = NULL;
    return out;
}

static void norm(struct zq_queue *q, const struct zq_norm *a, size_t n_rows)
{
    struct zq_norm floats = *a;
    floats.out.q = NULL;
    if (!floats.out.f) floats.out.f = q->floats, floats.out.ld_f = a->n;
    q->plugin->norm(q->inner, &floats, n_rows);
    if (a->out.q) pass(q, floats.out.f, floats.out.ld_f, a->n, tokens_of(a->out), n_rows);
}

static void activate(struct zq_queue *q, const struct zq_activate *a, size_t n_rows)
{
    struct zq_activate floats = *a;
    if (!a->out.q || (a->act == ZQ_ACT_NONE && !a->times)) { /* quantizing is all that it does */
        q->plugin->activate(q->inner, a, n_rows);
        return;
    }
    floats.out.q = NULL;
    if (!floats.out.f) floats.out.f = (float *)(uintptr_t)a->x, floats.out.ld_f = a->ld_x;
    q->plugin->activate(q->inner, &floats, n_rows);
    pass(q, floats.out.f, floats.out.ld_f, a->n, tokens_of(a->out), n_rows);
}

static void product(struct zq_queue *q, const struct zq_product *a, enum zq_device_format format)
{
    q->plugin->product(q->inner, a, format);
    if (format == ZQ_DEVICE_W8A8 || format == ZQ_DEVICE_W4A8)
        pass(q, a->out, a->ld_out, a->w->n_rows, (struct zq_rows_out){.f = a->out, .ld_f = a->ld_out}, a->n_tokens);
}

static void attend(struct zq_queue *q, const struct zq_device_attention *a)
{
    struct zq_device_attention floats = *a;
    floats.out.q = NULL;
    q->plugin->attend(q->inner, &floats);
    if (a->out.q) pass(q, a->out.f, a->out.ld_f, a->heads.n_heads * a->heads.head_dim, tokens_of(a->out), a->n_tokens);
}

/* ---- what goes through as it is */

static void upload(struct zq_queue *q, void *to, const void *from, size_t n) { q->plugin->upload(q->inner, to, from, n); }
static void download(struct zq_queue *q, void *to, const void *from, size_t n) { q->plugin->download(q->inner, to, from, n); }
static void copy(struct zq_queue *q, void *to, const void *from, size_t n) { q->plugin->copy(q->inner, to, from, n); }
static const char *finish(struct zq_queue *q) { return q->plugin->finish(q->inner); }
static void keep(struct zq_queue *q, const struct zq_device_attention *a) { q->plugin->keep(q->inner, a); }
static void embed(struct zq_queue *q, const struct zq_device_embed *a) { q->plugin->embed(q->inner, a); }
static void sample(struct zq_queue *q, const struct zq_device_sample *a) { q->plugin->sample(q->inner, a); }
static void gather(struct zq_queue *q, float *to, const float *from, const int32_t *rows, size_t n_rows, size_t n)
{
    q->plugin->gather(q->inner, to, from, rows, n_rows, n);
}
static void begin_graph(struct zq_queue *q) { q->plugin->begin_graph(q->inner); }
static struct zq_graph *end_graph(struct zq_queue *q) { return q->plugin->end_graph(q->inner); }
static void run_graph(struct zq_queue *q, struct zq_graph *graph) { q->plugin->run_graph(q->inner, graph); }

struct zq_queue *zq_unfused_device_begin(const struct zq_plugin *plugin, struct zq_queue *inner, size_t n_tokens, size_t width,
                                         const struct zq_plugin **own)
{
    struct zq_queue *q = zq_alloc_zero(sizeof *q);
    if (!q) return NULL;
    q->plugin = plugin;
    q->inner = inner;
    q->floats = plugin->alloc(inner, n_tokens * width * sizeof *q->floats);
    q->own = (struct zq_plugin){
        .version = plugin->version, .simulated = plugin->simulated, .upload = upload, .download = download, .copy = copy, .finish = finish,
        .norm = norm, .activate = activate, .product = product, .keep = keep, .attend = attend, .embed = embed, .gather = gather, .sample = sample,
        .begin_graph = begin_graph, .end_graph = end_graph, .run_graph = run_graph, .free_graph = plugin->free_graph,
    };
    *own = &q->own;
    if (q->floats) return q;
    zq_free(q);
    return NULL;
}

void zq_unfused_device_end(struct zq_queue *q)
{
    if (!q) return;
    q->plugin->free(q->inner, q->floats);
    zq_free(q);
}
