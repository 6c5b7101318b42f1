/* The block forward. What backward reads afterwards (inputs of maps and norms, rotated qkv, inputs of the activation function)
 * stays where it was computed. */
#include "distill/student.h"

#include "base/threads.h"
#include "distill/activation.h"
#include "distill/fake.h"
#include "distill/matmul.h"
#include "distill/norm.h"

#include <string.h>

static void norm(struct zq_student *s, const struct zq_student_norm *w, const float *x, float *out)
{
    const struct zq_norm_pass pass = {
        .n_tokens = s->n_tokens, .n = s->config.width, .rms = s->config.arch->rms, .eps = (float)s->config.norm_eps,
        .x = x, .stats = w->stats, .gamma = w->gamma, .beta = w->beta,
    };
    zq_norm_forward(&pass, out, s->n_threads);
}

static void quantize_input(struct zq_student *s, const struct zq_student_input *in)
{
    if (s->quantized && in->fake) zq_fake_tokens(in->f, in->fake, s->n_tokens, in->n, s->n_threads, s->scratch, s->thread_floats);
}

struct start_work {
    const float *bias, *residual;
    float *out;
    size_t n, ld;
};

static void start_range(void *work, size_t begin, size_t end, int thread)
{
    (void)thread;
    const struct start_work *w = work;
    for (size_t t = begin; t < end; t++) {
        float *out = w->out + t * w->ld;
        if (w->residual)
            for (size_t i = 0; i < w->n; i++) out[i] = w->residual[t * w->n + i] + w->bias[i];
        else memcpy(out, w->bias, w->n * sizeof *out);
    }
}

/* out [T, ld] = in W^T + bias (+ residual [T, n_rows], which may be out) */
static void run(struct zq_student *s, const struct zq_student_linear *l, const struct zq_student_input *in, const float *residual,
                float *out, size_t ld)
{
    struct start_work start = {l->bias, residual, out, l->n_rows, ld};
    zq_parallel(s->n_threads, s->n_tokens, 8, start_range, &start);
    zq_matmul_run(s->n_threads, &(struct zq_matmul){
        .m = s->n_tokens, .n = l->n_rows, .k = l->n_cols, .alpha = 1, .a = zq_student_read(s, l, in), .lda = l->n_cols,
        .b = zq_student_weights(s, l), .ldb = l->n_cols, .turn_b = true, .c = out, .ldc = ld, .add = true,
    });
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
    zq_student_attend(s);
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
    zq_activation_forward(&pass, s->act, s->n_threads);
    quantize_input(s, &s->down_in);
}

static void take_batch(struct zq_student *s, const struct zq_student_batch *batch)
{
    size_t n = 0;
    for (size_t i = 0; i < batch->n_sequences; i++) {
        s->begins[i] = n;
        for (size_t t = 0; t < batch->lengths[i]; t++) s->positions[n++] = t;
    }
    s->begins[batch->n_sequences] = n;
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

void zq_student_forward_even(struct zq_student *s, const float *x, size_t n, size_t length, bool quantized, float *out)
{
    for (size_t i = 0; i < n; i++) s->lengths[i] = length;
    zq_student_forward(s, &(struct zq_student_batch){x, s->lengths, n}, quantized, out);
}
