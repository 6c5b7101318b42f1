/* Golden values of a model directory (golden.safetensors, golden.json), made by Hugging Face transformers in FP32; what each
 * tensor means is written in models/novels/README.md. Shared by the tests of whole models. */
#ifndef ZQ_TESTS_GOLDEN_H
#define ZQ_TESTS_GOLDEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "zeroquant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call)                                                                         \
    do {                                                                                 \
        zq_error e_ = {0};                                                               \
        zq_error *err = &e_;                                                             \
        if (call) fail_msg("%s: %s", #call, e_.message);                                 \
    } while (0)

/* Directory of a model of the shared data: ZQ_SHARED/models/NAME; "novels" is the bundled one. Skips the test if absent. */
static inline void model_dir(const char *name, char *out, size_t n)
{
    const char *shared = getenv("ZQ_SHARED");
    if (!strcmp(name, "novels")) snprintf(out, n, "models/novels");
    else snprintf(out, n, "%s/models/%s", shared ? shared : "../shared", name);
    if (zq_is_directory(out)) return;
    print_message("skipped: no shared data (%s)\n", out);
    skip();
}

struct golden {
    char dir[512];
    struct zq_safetensors file;
    json_t *json; /* NULL for directories without golden.json */
};

static inline void golden_open(struct golden *g, const char *name)
{
    *g = (struct golden){0};
    model_dir(name, g->dir, sizeof g->dir);
    char path[600];
    snprintf(path, sizeof path, "%s/golden.safetensors", g->dir);
    OK(zq_safetensors_open(&g->file, path, err));
    snprintf(path, sizeof path, "%s/golden.json", g->dir);
    if (zq_file_exists(path)) OK(zq_json_read(&g->json, path, 1 << 24, err));
}

static inline void golden_close(struct golden *g)
{
    zq_safetensors_close(&g->file);
    json_decref(g->json);
}

/* NULL if there is none. */
static inline const struct zq_tensor *golden_find(const struct golden *g, const char *name)
{
    for (size_t i = 0; i < g->file.n_tensors; i++)
        if (!strcmp(g->file.tensors[i].name, name)) return &g->file.tensors[i];
    return NULL;
}

static inline const float *golden_floats(const struct golden *g, const char *name)
{
    const struct zq_tensor *t = golden_find(g, name);
    assert_non_null(t);
    assert_int_equal(t->dtype, ZQ_F32);
    return (const float *)(const void *)t->bytes;
}

static inline const int32_t *golden_ids(const struct golden *g, const char *name, size_t *n_sequences, size_t *n)
{
    const struct zq_tensor *t = golden_find(g, name);
    assert_non_null(t);
    *n_sequences = t->shape[0];
    *n = t->shape[1];
    return (const int32_t *)(const void *)t->bytes;
}

/* Largest difference over largest magnitude of the golden values: golden.py's models are compared within 2e-4. */
static inline void assert_close(const char *what, const float *got, const float *want, size_t n)
{
    double largest = 0, off = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - want[i]);
        if (fabs(want[i]) > largest) largest = fabs(want[i]);
        if (!(d <= off)) off = d; /* NaN must not slip through */
    }
    if (!(off <= 2e-4 * largest)) fail_msg("%s: off by %g of %g", what, off, largest);
}

static inline char *read_text(const char *path, size_t *n)
{
    char *text = NULL;
    OK(zq_file_read(&text, n, path, 1 << 26, err));
    return text;
}

/* Mean over rows of KL(p || q), both given as logits. */
static inline double mean_kl(const float *p, const float *q, size_t n_rows, size_t n)
{
    double total = 0;
    for (size_t r = 0; r < n_rows; r++, p += n, q += n) {
        double mp = -INFINITY, mq = -INFINITY, sp = 0, sq = 0;
        for (size_t i = 0; i < n; i++) { mp = fmax(mp, p[i]); mq = fmax(mq, q[i]); }
        for (size_t i = 0; i < n; i++) { sp += exp(p[i] - mp); sq += exp(q[i] - mq); }
        for (size_t i = 0; i < n; i++) {
            const double lp = p[i] - mp - log(sp);
            total += exp(lp) * (lp - (q[i] - mq - log(sq)));
        }
    }
    return total / (double)n_rows;
}

#endif
