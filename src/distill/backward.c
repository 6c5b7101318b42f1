/* The block backward: forward.c read from bottom to top. Rounding is passed straight through: a map's gradients are those of
 * the numbers it multiplied, handed on to the float weights and the float input. */
#include "distill/student.h"

/* dw and dbias of a map from dy [T, ld]; and, unless it is NULL, dx [T, n_cols] = dy W (+ dx). */
static void back(struct zq_student *s, const struct zq_student_linear *l, const struct zq_student_input *in, const float *dy, size_t ld,
                 float *dx, bool add)
{
    s->ops->product(s->self, &(struct zq_matmul){
        .m = l->n_rows, .n = l->n_cols, .k = s->n_tokens, .alpha = 1, .a = dy, .lda = ld, .turn_a = true, .b = zq_student_read(s, l, in),
        .ldb = l->n_cols, .c = l->dw, .ldc = l->n_cols, .factors = s->factors,
    });
    if (l->has_bias) s->ops->column_sums(s->self, dy, ld, s->n_tokens, l->n_rows, l->dbias);
    if (dx)
        s->ops->product(s->self, &(struct zq_matmul){
            .m = s->n_tokens, .n = l->n_cols, .k = l->n_rows, .alpha = 1, .a = dy, .lda = ld, .b = zq_student_weights(s, l), .ldb = l->n_cols,
            .c = dx, .ldc = l->n_cols, .add = add, .factors = s->factors,
        });
}

/* dx = gradient through the norm of x, plus `sum` */
static void norm_back(struct zq_student *s, const struct zq_student_norm *w, const float *x, const float *dy, const float *sum, float *dx)
{
    const struct zq_norm_pass pass = {
        .n_tokens = s->n_tokens, .n = s->config.width, .rms = s->config.arch->rms, .eps = (float)s->config.norm_eps,
        .x = x, .stats = w->stats, .gamma = w->gamma, .beta = w->beta,
    };
    s->ops->norm_back(s->self, &(struct zq_norm_back){pass, dy, sum, w->dgamma, w->dbeta, dx});
}

/* dx = gradient of the FFN's input, from that of its output. */
static void ffn_back(struct zq_student *s, const float *dy, float *dx)
{
    const struct zq_config *c = &s->config;
    const size_t n = c->ffn_width;
    back(s, &s->linear[ZQ_DOWN], &s->down_in, dy, c->width, s->d_up, false);
    const struct zq_activation_pass pass = {c->activation, s->n_tokens * n, c->gated ? s->gate : s->up, c->gated ? s->up : NULL};
    s->ops->activate_back(s->self, &pass, s->d_up, c->gated ? s->d_gate : s->d_up, s->d_up);
    back(s, &s->linear[ZQ_UP], &s->ffn_in, s->d_up, n, dx, false);
    if (c->gated) back(s, &s->linear[ZQ_GATE], &s->ffn_in, s->d_gate, n, dx, true);
}

/* dx = gradient of the attention's input (+ dx); dx may be NULL. */
static void attention_back(struct zq_student *s, const float *dy, float *dx, bool add)
{
    size_t at = 0;
    back(s, &s->linear[ZQ_O], &s->o_in, dy, s->config.width, s->d_attended, false);
    const struct zq_attention_pass pass = zq_student_attention(s);
    s->ops->attend_back(s->self, &pass);
    for (int r = ZQ_QKV; r <= ZQ_V; r++) {
        if (!s->linear[r].n_rows) continue;
        back(s, &s->linear[r], &s->attention_in, s->d_qkv + at, s->ld_qkv, dx, add);
        add = true;
        at += s->linear[r].n_rows;
    }
}

static void back_pre(struct zq_student *s, const float *dy, float *dx)
{
    ffn_back(s, dy, s->d_in);
    norm_back(s, &s->norm2, s->mid, s->d_in, dy, s->d_stream);
    attention_back(s, s->d_stream, s->d_in, false);
    norm_back(s, &s->norm1, s->x, s->d_in, s->d_stream, dx);
}

static void back_parallel(struct zq_student *s, const float *dy, float *dx)
{
    const float *sum = dy;
    ffn_back(s, dy, s->d_in);
    if (s->norm2.gamma) {
        norm_back(s, &s->norm2, s->x, s->d_in, dy, s->d_stream);
        sum = s->d_stream;
    }
    attention_back(s, dy, s->d_in, !s->norm2.gamma);
    norm_back(s, &s->norm1, s->x, s->d_in, sum, dx);
}

static void back_post(struct zq_student *s, const float *dy, float *dx)
{
    const size_t n = s->n_tokens * s->config.width;
    norm_back(s, &s->norm2, s->last, dy, NULL, s->d_stream);
    ffn_back(s, s->d_stream, s->d_in);
    s->ops->add(s->self, s->d_in, s->d_stream, n);
    norm_back(s, &s->norm1, s->mid, s->d_in, NULL, s->d_stream);
    attention_back(s, s->d_stream, dx, false);
    if (dx) s->ops->add(s->self, dx, s->d_stream, n);
}

void zq_student_backward(struct zq_student *s, const float *dy, float *dx)
{
    switch (s->config.norm) {
    case ZQ_NORM_PRE: back_pre(s, dy, dx ? dx : s->d_stream); break;
    case ZQ_NORM_PARALLEL: back_parallel(s, dy, dx ? dx : s->d_stream); break;
    case ZQ_NORM_POST: back_post(s, dy, dx);
    }
}
