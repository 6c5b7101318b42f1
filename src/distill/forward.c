/* The block forward. What backward reads afterwards (inputs of maps and norms, rotated qkv, inputs of the activation function)
 * stays where it was computed. */
#include "distill/student.h"

static void norm(struct zq_student *s, const struct zq_student_norm *w, const float *x, float *out)
{
    const struct zq_norm_pass pass = {
        .n_tokens = s->n_tokens, .n = s->config.width, .rms = s->config.arch->rms, .eps = (float)s->config.norm_eps,
        .x = x, .stats = w->stats, .gamma = w->gamma, .beta = w->beta,
    };
    s->ops->norm(s->self, &pass, out);
}

static void quantize_input(struct zq_student *s, const struct zq_student_input *in)
{
    if (!s->quantized || !in->fake) return;
    if (s->coded && in->q) s->ops->code_tokens(s->self, in->f, in->fake, in->q, in->q_scale, s->n_tokens, in->n);
    else s->ops->fake_tokens(s->self, in->f, in->fake, s->n_tokens, in->n);
}

/* Values of INT8 codes have more bits than BF16: TF32 where they are not multiplied as codes. */
static enum zq_factors factors_of(const struct zq_student *s, const struct zq_student_linear *l)
{
    const bool codes = s->quantized && s->ops->on_device && l->layout.spec.w_bits < 16 && l->layout.spec.a_bits == 8;
    return codes && s->factors ? ZQ_FACTORS_TF32 : s->factors;
}

/* out [T, ld] = in W^T + bias (+ residual [T, n_rows], which may be out) */
static void run(struct zq_student *s, const struct zq_student_linear *l, const struct zq_student_input *in, const float *residual,
                float *out, size_t ld)
{
    if (s->quantized && s->coded && l->coded.packed) {
        s->ops->coded_product(s->self, &(struct zq_product){
            .w = &l->coded, .n_tokens = s->n_tokens, .q = in->q, .scale = in->q_scale, .ld_x = l->n_cols, .bias = l->bias, .residual = residual,
            .out = out, .ld_out = ld,
        });
        return;
    }
    s->ops->start(s->self, &(struct zq_rows_start){l->bias, residual, out, s->n_tokens, l->n_rows, ld});
    s->ops->product(s->self, &(struct zq_matmul){
        .m = s->n_tokens, .n = l->n_rows, .k = l->n_cols, .alpha = 1, .a = zq_student_read(s, l, in), .lda = l->n_cols,
        .b = zq_student_weights(s, l), .ldb = l->n_cols, .turn_b = true, .c = out, .ldc = ld, .add = true,
        .factors = factors_of(s, l),
    });
}

struct zq_attention_pass zq_student_attention(const struct zq_student *s)
{
    const struct zq_config *c = &s->config;
    return (struct zq_attention_pass){
        .heads = s->heads, .rotary = {s->cos, s->sin, c->n_rotated, c->arch->positions == ZQ_POS_ROTARY_PAIRS},
        .causal = c->arch->causal, .window = c->window, .scale = s->score_scale, .fast = s->factors == ZQ_FACTORS_BF16,
        .n_sequences = s->n_sequences, .n_tokens = s->n_tokens, .max_length = s->max_length,
        .begins = s->there, .positions = s->there + s->max_sequences + 1,
        .qkv = s->qkv, .ld = s->ld_qkv, .attended = s->attended, .stats = s->attention_stats,
        .d_attended = s->d_attended, .d_qkv = s->d_qkv,
    };
}

/* Rotated queries, keys and values, and what attention makes of them. */
static void attend(struct zq_student *s)
{
    size_t at = 0;
    for (int r = ZQ_QKV; r <= ZQ_V; r++) {
        if (!s->linear[r].n_rows) continue;
        run(s, &s->linear[r], &s->attention_in, NULL, s->qkv + at, s->ld_qkv);
        at += s->linear[r].n_rows;
    }
    const struct zq_attention_pass pass = zq_student_attention(s);
    s->ops->attend(s->self, &pass);
    quantize_input(s, &s->o_in);
}

/* mid, and what the feed-forward maps read. */
static void finish_attention(struct zq_student *s)
{
    const enum zq_norm_place place = s->config.norm;
    run(s, &s->linear[ZQ_O], &s->o_in, s->x, s->mid, s->config.width);
    if (place == ZQ_NORM_POST) norm(s, &s->norm1, s->mid, s->normed1);
    else if (s->norm2.gamma) norm(s, &s->norm2, place == ZQ_NORM_PARALLEL ? s->x : s->mid, s->normed2);
    if (s->ffn_in.f != s->attention_in.f) quantize_input(s, &s->ffn_in);
}

/* act(up(in)) or act(gate(in)) * up(in) */
static void activate(struct zq_student *s)
{
    const struct zq_config *c = &s->config;
    run(s, &s->linear[ZQ_UP], &s->ffn_in, NULL, s->up, c->ffn_width);
    if (c->gated) run(s, &s->linear[ZQ_GATE], &s->ffn_in, NULL, s->gate, c->ffn_width);
    const struct zq_activation_pass pass = {c->activation, s->n_tokens * c->ffn_width, c->gated ? s->gate : s->up, c->gated ? s->up : NULL};
    s->ops->activate(s->self, &pass, s->act);
    quantize_input(s, &s->down_in);
}

static void take_batch(struct zq_student *s, const struct zq_student_batch *batch)
{
    size_t n = 0;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        s->begins[i] = (uint32_t)n;
        for (size_t t = 0; t < batch->lengths[i]; t++) s->positions[n++] = (uint32_t)t;
    }
    s->begins[batch->n_sequences] = (uint32_t)n;
    if (s->there != s->begins) s->ops->upload(s->self, s->there, s->begins, (s->max_sequences + 1 + n) * sizeof *s->there);
    s->n_sequences = batch->n_sequences;
    s->n_tokens = n;
    s->x = batch->x;
}

void zq_student_reach(struct zq_student *s, const struct zq_student_batch *batch, bool quantized, enum zq_student_stage stage)
{
    take_batch(s, batch);
    s->quantized = quantized;
    if (s->config.norm == ZQ_NORM_POST) s->attention_in.f = s->x;
    else norm(s, &s->norm1, s->x, s->normed1);
    quantize_input(s, &s->attention_in);
    if (stage >= ZQ_AT_O) attend(s);
    if (stage >= ZQ_AT_FFN) finish_attention(s);
    if (stage >= ZQ_AT_DOWN) activate(s);
}

void zq_student_forward(struct zq_student *s, const struct zq_student_batch *batch, bool quantized, float *out)
{
    const bool post = s->config.norm == ZQ_NORM_POST;
    zq_student_reach(s, batch, quantized, ZQ_AT_DOWN);
    run(s, &s->linear[ZQ_DOWN], &s->down_in, post ? s->normed1 : s->mid, post ? s->last : out, s->config.width);
    if (post) norm(s, &s->norm2, s->last, out);
}

struct zq_student_batch zq_student_samples(struct zq_student *s, const float *x, size_t n, size_t length)
{
    size_t lengths[ZQ_MAX_TEXTS];
    const size_t n_texts = zq_texts(lengths, &s->config, length);
    for (size_t i = 0; i < n * n_texts; i++) s->lengths[i] = lengths[i % n_texts];
    return (struct zq_student_batch){x, s->lengths, n * n_texts};
}

void zq_student_forward_samples(struct zq_student *s, const float *x, size_t n, size_t length, bool quantized, float *out)
{
    const struct zq_student_batch batch = zq_student_samples(s, x, n, length);
    zq_student_forward(s, &batch, quantized, out);
}
