/* The distance that one linear map is from what it should give, as a quadratic function of its weights:
 *     loss(W) = sum over tokens of |W x - y|^2 = tr(W H W^T) - 2 tr(W T^T) + const,  H = sum of x x^T,  T = sum of y x^T,
 * x the quantized input of the student, y the wanted output. Whatever the number of tokens, H and T are all that is kept of them.
 *
 * Memory is what limits the size of a map (H of a down projection of 24576 columns takes 2.4 GB), so H is kept once: above the
 * diagonal as it is, on and below the diagonal its factor L, L L^T = H. The diagonal of H has an array of its own. */
#ifndef ZQ_DISTILL_QUADRATIC_H
#define ZQ_DISTILL_QUADRATIC_H

#include "kernels/training.h"

/* Maps that read the same input share it. */
struct zq_gram {
    size_t n;
    float *h;    /* [n, n] */
    float *diag; /* [n] */
    double *mean; /* [n] sum of x, then its mean */
    int n_threads;
};

/* Adds tokens x [n_tokens, n] to the upper triangle, the diagonal among it, and to mean: all of them where these operators compute. */
void zq_gram_add(const struct zq_gram *g, const struct zq_trainer *trainer, const float *x, size_t n_tokens);
/* Ends the sums: makes `mean` a mean; takes the share `centre` of it out of the moments (1: they become those about the mean); adds
 * damp * (mean of the diagonal) to the diagonal, copies it to diag and mirrors the triangle. Returns what was added; 1 where all inputs are 0. */
float zq_gram_finish(struct zq_gram *g, size_t n_tokens, double centre, double damp);
/* out [n_rows, n] = w [n_rows, n] H, while the matrix is not factored. */
void zq_gram_multiply(const struct zq_gram *g, const float *w, size_t n_rows, float *out);
/* Puts L in place. false: the matrix is not positive definite in this precision. */
bool zq_gram_factor(struct zq_gram *g);

/* One map. scales are representable in layout->scale_dtype; groups of rows have theirs once per row. */
struct zq_quadratic {
    const struct zq_gram *gram;
    const struct zq_layout *layout; /* integer codes */
    size_t n_rows, n_cols;
    const float *t; /* [n_rows, n_cols] */
    float *w;       /* [n_rows, n_cols] codes times scales: what is sought */
    float *scales;  /* [n_rows, n_groups] */
    float *panel;   /* [n_rows, ZQ_PANEL] scratch */
    double *sums;   /* [n_rows, 2] scratch */
};
enum { ZQ_PANEL = 128 };

/* scales.c: a scale for each group of `weights` [n_rows, n_cols]: of a row of candidates, each corrected by least squares, the one
 * with the smallest sum of diag * (weight - code * scale)^2. */
void zq_scales_search(const struct zq_quadratic *q, const float *weights);
/* Multiplies the scales (and w) by what minimises the loss with the codes as they are; a scale that its dtype would round to
 * something no better stays, and so do scales of more than ZQ_PANEL columns of a row, which the search has left good enough. */
void zq_scales_refit(struct zq_quadratic *q);
/* The new value of one scale whose codes, at the old one, have cross = <w, T> - (what else w does) and square = <w, H w>. */
float zq_scale_refit(float scale, double cross, double square, enum zq_dtype dtype);
/* w = nearest codes of `weights` under the scales. */
void zq_scales_round(const struct zq_quadratic *q, const float *weights);

/* gptq.c: GPTQ, read as the nearest-plane method for the lattice of codes: columns are rounded from the last to the first, and
 * those before it make up for the error of each as well as they can. gram is factored. */
void zq_gptq(struct zq_quadratic *q);

/* descent.c: one sweep of coordinate descent: each code in turn becomes the one that minimises the loss with all others as they
 * are, so that the loss never rises. Returns the number of codes that changed. */
size_t zq_descent_sweep(struct zq_quadratic *q);
/* The same with scales fitted before: those of groups of columns within the sweep, for the gradient that it computes anyway. */
size_t zq_descent_fit(struct zq_quadratic *q);

/* tr(W H W^T) - 2 tr(W T^T) */
double zq_quadratic_loss(struct zq_quadratic *q);
/* panel [n_rows, n] = w H[:, first .. first + n), n <= ZQ_PANEL */
void zq_quadratic_panel(const struct zq_quadratic *q, size_t first, size_t n);

#endif
