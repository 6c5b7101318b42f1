/* Sizing and carving the memory of a student. The same code measures and assigns, so that the size printed beforehand is the
 * size taken. */
#include "distill/student.h"

#include "base/alloc.h"
#include "base/carve.h"
#include "base/threads.h"
#include "distill/coded.h"
#include "distill/loss.h"
#include "model/modules.h"
#include "model/session.h"

#include <math.h>

/* Either all parameters or all gradients, in one order. */
static void carve_weights(struct zq_student *s, struct zq_carver *c, bool gradients)
{
    struct zq_student_norm *const norms[] = {&s->norm1, &s->norm2};
    const char *const names[] = {s->config.arch->names.norm1, s->config.arch->names.norm2};
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        struct zq_student_linear *l = &s->linear[r];
        *(gradients ? &l->dw : &l->w) = zq_carve_floats(c, l->n_rows, l->n_cols);
        *(gradients ? &l->dbias : &l->bias) = zq_carve_floats(c, l->n_rows, 1);
    }
    for (size_t i = 0; i < ZQ_LEN(norms); i++) {
        if (!names[i]) continue;
        *(gradients ? &norms[i]->dgamma : &norms[i]->gamma) = zq_carve_floats(c, s->config.width, 1);
        if (!s->config.arch->rms) *(gradients ? &norms[i]->dbeta : &norms[i]->beta) = zq_carve_floats(c, s->config.width, 1);
    }
}

/* Whether training multiplies a map's codes. */
static bool has_codes(const struct zq_student *s, const struct zq_student_linear *l)
{
    return s->trains && s->ops->coded_product && l->layout.spec.w_bits < 16 && l->layout.spec.a_bits == 8;
}

static void carve_codes(struct zq_student *s, struct zq_student_linear *l, struct zq_carver *c)
{
    l->coded = (struct zq_matrix){.n_rows = l->n_rows, .n_cols = l->n_cols, .k_group = l->layout.spec.k_group};
    l->coded.packed = zq_carve(c, zq_coded_bytes(&s->processor.kernels.w8_a8, &l->coded), 1);
    l->scales = zq_carve_floats(c, l->n_rows, zq_spec_n_groups(l->layout.spec, l->n_cols));
}

static void carve_parameters(struct zq_student *s, struct zq_carver *c)
{
    const size_t before = c->used;
    s->params = zq_carve_floats(c, 0, 0);
    carve_weights(s, c, false);
    s->n_params = (c->used - before) / sizeof(float);
    s->grads = zq_carve_floats(c, 0, 0);
    if (s->trains) carve_weights(s, c, true);
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        struct zq_student_linear *l = &s->linear[r];
        l->fake = l->w;
        if (!l->n_rows || l->layout.spec.w_bits == 16) continue;
        l->fake = zq_carve_floats(c, l->n_rows, l->n_cols);
        if (l->layout.row_groups) l->shared = zq_carve_floats(c, l->n_rows, 1);
        if (has_codes(s, l)) carve_codes(s, l, c);
    }
}

/* Sets of maps, one bit for each role. */
enum { INTO_ATTENTION = 1 << ZQ_QKV | 1 << ZQ_Q | 1 << ZQ_K | 1 << ZQ_V, INTO_FFN = 1 << ZQ_GATE | 1 << ZQ_UP };

/* The forms in which the maps of a set read f [T, n] (NULL: the caller's array). keep: the floats are needed after them. */
static struct zq_student_input carve_input(struct zq_student *s, struct zq_carver *c, float *f, size_t n, unsigned maps, bool keep)
{
    struct zq_student_input in = {.f = f, .n = n};
    bool fake = false, codes = false;
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!(maps & 1u << r) || !s->linear[r].n_rows) continue;
        if (s->linear[r].layout.spec.a_bits == 8) fake = true;
        else keep = true;
        codes |= has_codes(s, &s->linear[r]);
    }
    if (fake) in.fake = keep ? zq_carve_floats(c, s->max_tokens, n) : f;
    if (codes) {
        in.q = zq_carve(c, s->max_tokens, n);
        in.q_scale = zq_carve_floats(c, s->max_tokens, 1);
    }
    return in;
}

static void carve_adam(struct zq_student *s, struct zq_carver *c)
{
    const size_t T = s->max_tokens, D = s->config.width;
    s->start = zq_carve_floats(c, s->n_params, 1);
    s->moments = zq_carve_floats(c, s->n_params, 2);
    s->batch_x = zq_carve_floats(c, T, D);
    s->batch_target = zq_carve_floats(c, T, D);
    s->batch_out = zq_carve_floats(c, T, D);
    s->row_sums = zq_carve(c, T, sizeof *s->row_sums);
}

static void carve_activations(struct zq_student *s, struct zq_carver *c)
{
    const struct zq_config *g = &s->config;
    const size_t T = s->max_tokens, D = g->width, A = g->n_heads * g->head_dim;
    const bool post = g->norm == ZQ_NORM_POST, shared = g->norm == ZQ_NORM_PARALLEL && !g->arch->names.norm2;
    s->norm1.stats = zq_carve_floats(c, T, 2);
    s->norm2.stats = zq_carve_floats(c, T, 2);
    s->normed1 = zq_carve_floats(c, T, D);
    if (!post && g->arch->names.norm2) s->normed2 = zq_carve_floats(c, T, D);
    if (post) s->last = zq_carve_floats(c, T, D);
    s->qkv = zq_carve_floats(c, T, s->ld_qkv);
    s->attended = zq_carve_floats(c, T, A);
    s->mid = zq_carve_floats(c, T, D);
    s->up = zq_carve_floats(c, T, g->ffn_width);
    if (g->gated) s->gate = zq_carve_floats(c, T, g->ffn_width);
    s->act = zq_carve_floats(c, T, g->ffn_width);
    s->attention_in = carve_input(s, c, post ? NULL : s->normed1, D, INTO_ATTENTION | (shared ? INTO_FFN : 0), post);
    s->o_in = carve_input(s, c, s->attended, A, 1 << ZQ_O, s->ops->on_device);
    s->ffn_in = shared ? s->attention_in : carve_input(s, c, post ? s->normed1 : s->normed2, D, INTO_FFN, post);
    s->down_in = carve_input(s, c, s->act, g->ffn_width, 1 << ZQ_DOWN, false);
    if (!s->trains) return;
    s->d_stream = zq_carve_floats(c, T, D);
    s->d_in = zq_carve_floats(c, T, D);
    s->d_qkv = zq_carve_floats(c, T, s->ld_qkv);
    s->d_attended = zq_carve_floats(c, T, A);
    s->d_up = zq_carve_floats(c, T, g->ffn_width);
    if (g->gated) s->d_gate = zq_carve_floats(c, T, g->ffn_width);
}

static size_t largest_row(const struct zq_student *s)
{
    size_t n = 0;
    for (int r = 0; r < ZQ_N_LINEARS; r++) n = s->linear[r].n_cols > n ? s->linear[r].n_cols : n;
    return n;
}

/* Where the tokens of a batch belong; positions follow the begins in one piece. */
static uint32_t *carve_tokens(const struct zq_student *s, struct zq_carver *c)
{
    return zq_carve(c, s->max_sequences + 1 + s->max_tokens, sizeof(uint32_t));
}

/* c: where the operators run; here: on this processor, which may be the same. */
static void carve_all(struct zq_student *s, struct zq_carver *c, struct zq_carver *here)
{
    const size_t half = s->config.n_rotated / 2;
    carve_parameters(s, c);
    carve_activations(s, c);
    if (s->adam) carve_adam(s, c);
    s->cos = zq_carve_floats(c, s->max_length, half);
    s->sin = zq_carve_floats(c, s->max_length, half);
    s->bad = zq_carve(c, 1, sizeof *s->bad);
    s->there = carve_tokens(s, c);
    s->lengths = zq_carve(here, s->max_sequences, sizeof *s->lengths);
    s->begins = s->ops->on_device ? carve_tokens(s, here) : s->there;
    s->positions = s->begins ? s->begins + s->max_sequences + 1 : NULL;
    if (s->ops->on_device) {
        s->attention_stats = zq_carve_floats(c, s->max_tokens, 3 * s->config.n_heads);
        s->sums_here = zq_carve(here, s->max_tokens, sizeof *s->sums_here);
        return;
    }
    s->processor.thread_floats = zq_processor_floats(&s->processor, s->max_length, largest_row(s));
    s->processor.scratch = zq_carve_floats(c, (size_t)s->n_threads, s->processor.thread_floats);
}

static struct zq_heads heads_of(const struct zq_config *c)
{
    const size_t n = c->head_dim, q = c->n_heads * n;
    if (c->arch->qkv_rows == ZQ_QKV_BY_HEAD) return (struct zq_heads){c->n_heads, c->n_kv_heads, n, 0, n, 2 * n, 3 * n, 3 * n};
    return (struct zq_heads){c->n_heads, c->n_kv_heads, n, 0, q, q + c->n_kv_heads * n, n, n};
}

static zq_status check(const struct zq_student_options *o, zq_error *err)
{
    enum { MAX_TOKENS = 1 << 24 }; /* keeps the sizes that BLAS takes as int far from overflow */
    if (!o->max_sequences || !o->max_length || !o->max_tokens) return zq_fail(err, ZQ_EINVAL, "a batch needs at least one sequence of one token");
    if (o->max_length > o->config->max_length)
        return zq_fail(err, ZQ_ELIMIT, "sequences of %zu tokens are above the model's limit of %zu", o->max_length, o->config->max_length);
    if (o->max_tokens > MAX_TOKENS || o->max_sequences > MAX_TOKENS)
        return zq_fail(err, ZQ_ELIMIT, "a batch of %zu sequences and %zu tokens, the limit is %d", o->max_sequences, o->max_tokens, (int)MAX_TOKENS);
    struct zq_processor unused;
    return zq_processor_kernels(&unused, err);
}

/* Everything but the memory: sizes, and pointers as offsets from `base`. */
static void plan(struct zq_student *s, const struct zq_student_options *o, struct zq_carver *c, struct zq_carver *here)
{
    *s = (struct zq_student){
        .ops = o->trainer.ops ? o->trainer.ops : &zq_processor_ops, .self = o->trainer.ops ? o->trainer.self : &s->processor,
        .processor = {.n_threads = o->n_threads}, .factors = o->fast ? ZQ_FACTORS_BF16 : ZQ_FACTORS_F32,
        .config = *o->config, .n_threads = o->n_threads, .trains = o->trains, .adam = o->trains && o->adam,
        .max_sequences = o->max_sequences, .max_length = o->max_length, .max_tokens = o->max_tokens,
        .heads = heads_of(o->config), .ld_qkv = (o->config->n_heads + 2 * o->config->n_kv_heads) * o->config->head_dim,
        .score_scale = (float)(1 / sqrt((double)o->config->head_dim)),
    };
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        if (!o->config->arch->names.linear[r]) continue;
        s->linear[r].n_rows = zq_linear_rows(o->config, (enum zq_linear_role)r);
        s->linear[r].n_cols = zq_linear_cols(o->config, (enum zq_linear_role)r);
        s->linear[r].layout = o->layouts[r];
    }
    zq_processor_kernels(&s->processor, NULL);
    carve_all(s, c, s->ops->on_device ? here : c);
}

zq_status zq_student_shape(struct zq_student *out, size_t *n_bytes, const struct zq_student_options *options, zq_error *err)
{
    *n_bytes = 0;
    zq_status st = check(options, err);
    if (st) return st;
    struct zq_carver c = {0}, here = {0};
    plan(out, options, &c, &here);
    if (c.overflow || here.overflow) return zq_fail(err, ZQ_ELIMIT, "the memory to train a block on %zu tokens is no number", options->max_tokens);
    *n_bytes = c.used;
    return ZQ_OK;
}

zq_status zq_student_bytes(size_t *n_bytes, const struct zq_student_options *options, zq_error *err)
{
    struct zq_student unused;
    return zq_student_shape(&unused, n_bytes, options, err);
}

/* Memory of both kinds; false: there is not enough. */
static bool take(struct zq_student *s, const struct zq_student_options *o)
{
    struct zq_carver c = {0}, here = {0};
    plan(s, o, &c, &here);
    void *memory = s->ops->alloc(s->self, c.used);
    if (memory && here.used && !(here.base = zq_alloc_zero(here.used))) {
        s->ops->free(s->self, memory);
        return false;
    }
    c.base = memory;
    c.used = here.used = 0;
    if (memory) plan(s, o, &c, &here);
    s->memory = memory;
    s->here = here.base;
    return memory;
}

static bool make_rotary_tables(struct zq_student *s)
{
    const size_t n = s->max_length * (s->config.n_rotated / 2);
    if (!s->ops->on_device) {
        zq_rotary_tables(&s->config, s->max_length, s->cos, s->sin);
        return true;
    }
    float *tables = zq_alloc_array(2 * n + 1, sizeof *tables);
    if (!tables) return false;
    zq_rotary_tables(&s->config, s->max_length, tables, tables + n);
    s->ops->upload(s->self, s->cos, tables, n * sizeof *tables);
    s->ops->upload(s->self, s->sin, tables + n, n * sizeof *tables);
    zq_free(tables);
    return true;
}

zq_status zq_student_create(struct zq_student **out, const struct zq_student_options *options, zq_error *err)
{
    size_t n_bytes;
    *out = NULL;
    zq_status st = zq_student_bytes(&n_bytes, options, err);
    if (st) return st;
    struct zq_student *s = zq_alloc_zero(sizeof *s);
    if (s) zq_parallel_keep();
    if (!s || !take(s, options) || !make_rotary_tables(s)) {
        zq_student_free(s);
        return zq_fail(err, ZQ_ENOMEM, "no memory to train a block: %zu bytes%s", n_bytes, options->trainer.ops ? " of the device" : "");
    }
    *out = s;
    return ZQ_OK;
}

void zq_student_free(struct zq_student *s)
{
    if (!s) return;
    zq_parallel_release();
    if (s->memory) s->ops->free(s->self, s->memory);
    zq_free(s->here);
    zq_free(s);
}

double zq_student_loss(struct zq_student *s, const struct zq_loss_pass *a)
{
    s->ops->loss(s->self, a);
    if (!s->ops->on_device) return zq_loss_total(a, a->row_sums);
    s->ops->download(s->self, s->sums_here, a->row_sums, a->n_tokens * sizeof *s->sums_here);
    return zq_loss_total(a, s->sums_here);
}

zq_status zq_student_check(const struct zq_student *s, zq_error *err)
{
    const char *failure = s->ops->check(s->self);
    return failure ? zq_fail(err, ZQ_EIO, "%s", failure) : ZQ_OK;
}

void zq_student_begin_training(struct zq_student *s, bool fast)
{
    s->factors = fast ? ZQ_FACTORS_BF16 : ZQ_FACTORS_F32;
    s->coded = true;
}

void zq_student_end_training(struct zq_student *s)
{
    s->factors = ZQ_FACTORS_F32;
    s->coded = false;
}

enum zq_factors zq_student_judges(struct zq_student *s)
{
    const enum zq_factors factors = s->factors;
    s->factors = factors && s->ops->on_device ? ZQ_FACTORS_TF32 : ZQ_FACTORS_F32;
    return factors;
}

void zq_student_pack(struct zq_student *s, enum zq_linear_role role, const float *scales)
{
    const struct zq_student_linear *l = &s->linear[role];
    if (s->coded && l->coded.packed) s->ops->pack(s->self, &(struct zq_coded_map){l->coded, l->fake, scales});
}

bool zq_student_quantize(struct zq_student *s)
{
    uint32_t bad = 0;
    s->ops->clear(s->self, s->bad, sizeof *s->bad);
    for (int r = 0; r < ZQ_N_LINEARS; r++) {
        const struct zq_student_linear *l = &s->linear[r];
        if (l->fake == l->w) continue;
        s->ops->fake_weights(s->self, &(struct zq_fake_weights){l->w, l->fake, l->n_rows, l->n_cols, &l->layout, l->shared, l->scales}, s->bad);
    }
    s->ops->download(s->self, &bad, s->bad, sizeof bad);
    for (int r = 0; r < ZQ_N_LINEARS && !bad; r++) zq_student_pack(s, (enum zq_linear_role)r, s->linear[r].scales);
    return !bad;
}
