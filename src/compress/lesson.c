/* The student that solves a block is made anew for each, since rules may quantize blocks differently; it is gone before the
 * next one, so that one block is in memory at a time. Biases and norms are rounded to the dtype of the file before the student's
 * stream passes: the streams see what will be read. */
#include "compress/lesson.h"

#include "base/alloc.h"
#include "base/trim.h"
#include "compress/samples.h"
#include "compress/streams.h"
#include "distill/passes.h"
#include "model/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_VECTORS = ZQ_N_LINEARS + 4, N_TICKS = 4 };

/* A bias or a norm's vector, or a map that stays float, as the student has it. */
struct vector {
    char *name;
    float *values; /* [n_values] */
};

struct zq_lesson {
    const struct zq_plan *plan;
    const struct zq_means *means;
    zq_model *model;
    struct zq_streams streams;             /* [n, length, width] each */
    float *token_ranges;                   /* [n * length] */
    double ticks[N_TICKS];                 /* seconds: when the method told of itself, the latest first */
    size_t layer;                          /* of the block in work; SIZE_MAX: none yet */
    struct zq_student *student;
    struct zq_solution solution;
    struct vector vectors[MAX_VECTORS];    /* [n_vectors] */
    size_t n_vectors;
    struct zq_given given;                 /* of the item that was asked for last */
};

/* ---- from the start ----------------------------------------------------------------------------------------------- */

/* x [n, length, width] = embeddings of all samples: what enters the first block. */
static zq_status embed(struct zq_lesson *l, const int32_t *ids, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const size_t width = l->plan->config.width, n_values = set->length * width;
    size_t lengths[ZQ_MAX_TEXTS];
    const size_t n_texts = zq_texts(lengths, &l->plan->config, set->length);
    zq_session *s;
    const zq_session_options so = {.n_threads = l->means->n_threads, .max_length = set->length, .max_batch_tokens = set->length};
    zq_status st = zq_session_create(&s, l->model, &so, err);
    if (st) return st;
    for (size_t i = 0; i < set->n; i++) {
        for (size_t k = 0, at = i * set->length; k < n_texts; at += lengths[k++]) {
            const zq_input input = {.ids = ids + at, .n = lengths[k]};
            s->n_tokens = lengths[k];
            s->spans[0] = (struct zq_span){.row = 0, .n_tokens = lengths[k], .n_keys = lengths[k]};
            zq_embed_inputs(s, &input, 1);
            memcpy(l->streams.teacher + at * width, s->x.f, lengths[k] * width * sizeof(float));
            memcpy(l->streams.student + at * width, s->x.f, lengths[k] * width * sizeof(float));
        }
        zq_streams_drop(&l->streams, l->streams.teacher + i * n_values, n_values);
        zq_streams_drop(&l->streams, l->streams.student + i * n_values, n_values);
    }
    zq_session_close(s);
    return ZQ_OK;
}

/* Of the file of weights nothing stays resident between blocks. */
static void drop_pages(const struct zq_lesson *l)
{
    const struct zq_checkpoint *ckpt = l->model->ckpt;
    for (size_t i = 0; i < ckpt->n_files; i++) zq_map_drop(&ckpt->files[i].map, ckpt->files[i].map.bytes, ckpt->files[i].map.n_bytes);
}

static zq_status start(struct zq_lesson *l, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    struct zq_sample_request request;
    zq_status st = zq_lesson_request(&request, l->plan, l->means->n_threads, err);
    if (st) return st;
    request.tick = l->means->tick;
    request.user = l->means->user;
    int32_t *ids = zq_alloc_array(set->n * set->length, sizeof *ids);
    if (!ids) return zq_fail(err, ZQ_ENOMEM, "no memory for %zu samples of %zu ids", set->n, set->length);
    st = zq_samples_make(ids, &request, l->model, err);
    drop_pages(l);
    if (!st) st = zq_streams_open(&l->streams, zq_lesson_values(l->plan), l->means->scratch_dir, err);
    if (!st) st = embed(l, ids, err);
    drop_pages(l);
    zq_free(ids);
    return st;
}

static zq_status restore(struct zq_lesson *l, const char *path, zq_error *err)
{
    const zq_status st = zq_streams_open(&l->streams, zq_lesson_values(l->plan), l->means->scratch_dir, err);
    return st ? st : zq_streams_load(&l->streams, path, err);
}

zq_status zq_lesson_save(const struct zq_lesson *l, const char *path, zq_error *err)
{
    return zq_streams_save(&l->streams, path, err);
}

zq_status zq_lesson_open(struct zq_lesson **out, const struct zq_plan *plan, const char *streams, const struct zq_means *means, zq_error *err)
{
    *out = NULL;
    struct zq_lesson *l = zq_alloc_zero(sizeof *l);
    if (!l) return zq_fail(err, ZQ_ENOMEM, "no memory to distil a model");
    *l = (struct zq_lesson){.plan = plan, .means = means, .layer = SIZE_MAX};
    l->token_ranges = zq_alloc_array(plan->lesson.n * plan->lesson.length, sizeof(float));
    const zq_open_options open = {.n_threads = means->n_threads};
    zq_status st = l->token_ranges ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory to distil a model");
    if (!st) st = zq_model_open(&l->model, plan->ckpt->dir, &open, err);
    zq_trim(); /* of its files' trees */
    if (!st) st = streams ? restore(l, streams, err) : start(l, err);
    if (st) zq_lesson_close(l);
    else *out = l;
    return st;
}

static void forget_block(struct zq_lesson *l)
{
    for (size_t i = 0; i < l->n_vectors; i++) zq_free(l->vectors[i].name);
    l->n_vectors = 0;
    zq_solution_free(&l->solution);
    zq_student_free(l->student);
    l->student = NULL;
}

void zq_lesson_close(struct zq_lesson *l)
{
    if (!l) return;
    forget_block(l);
    zq_model_close(l->model);
    zq_streams_close(&l->streams);
    zq_free(l->token_ranges);
    zq_free(l);
}

/* ---- a block ------------------------------------------------------------------------------------------------------ */

static size_t sample_values(const struct zq_lesson *l) { return l->plan->lesson.length * l->plan->config.width; }

/* Ranges of what the attention output projection reads in the latest pass, token by token. */
static void note_token_ranges(const struct zq_student *s, float *ranges)
{
    for (size_t t = 0; t < s->n_tokens; t++) {
        const float *x = s->o_in.f + t * s->o_in.n;
        float min = x[0], max = x[0];
        for (size_t i = 1; i < s->o_in.n; i++) {
            min = x[i] < min ? x[i] : min;
            max = x[i] > max ? x[i] : max;
        }
        ranges[t] = max - min;
    }
}

/* The original block's outputs become the target. */
static zq_status teach(struct zq_lesson *l, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const size_t batch = set->solve.batch, n_values = sample_values(l);
    struct zq_passes passes;
    zq_status st = zq_passes_open(&passes, l->student, &set->solve.trainer, err);
    for (size_t i = 0; i < set->n && !st; i += batch) {
        const size_t n = set->n - i < batch ? set->n - i : batch;
        const float *x = l->streams.teacher + i * n_values;
        float *out = l->streams.target + i * n_values;
        zq_passes_run(&passes, x, n, set->length, false, out);
        zq_passes_fetch(&passes, ZQ_AT_O);
        note_token_ranges(l->student, l->token_ranges + i * set->length);
        zq_streams_drop(&l->streams, x, n * n_values);
        zq_streams_drop(&l->streams, out, n * n_values);
    }
    if (!st) st = zq_student_check(passes.s, err);
    zq_passes_close(&passes);
    return st;
}

/* Sums of squares of a stream and of its error. */
struct deviation {
    double error, norm;
};

static void add_deviation(struct deviation *d, const float *student, const float *teacher, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        d->error += ((double)student[i] - teacher[i]) * ((double)student[i] - teacher[i]);
        d->norm += (double)teacher[i] * teacher[i];
    }
}

static double relative(struct deviation d) { return d.norm > 0 ? sqrt(d.error / d.norm) : 0; }

/* Both streams through the block as it is now: the teacher's is there already, as the target. */
static zq_status pass_on(struct zq_lesson *l, struct zq_lesson_block *out, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const size_t batch = set->solve.batch, n_values = sample_values(l), n_learned = set->n - set->n_held;
    struct deviation deviations[2] = {{0}};
    float *inputs = NULL;
    struct zq_passes passes;
    zq_status st = zq_passes_open(&passes, l->student, &set->solve.trainer, err);
    if (!st) zq_passes_follow_all_codes(&passes);
    if (!st) zq_streams_turn(&l->streams, &inputs);
    for (size_t i = 0; i < set->n && !st; i += batch) {
        const size_t n = set->n - i < batch ? set->n - i : batch;
        float *x = inputs + i * n_values, *y = l->streams.student + i * n_values, *teacher = l->streams.teacher + i * n_values;
        zq_passes_run(&passes, x, n, set->length, true, y);
        for (size_t k = 0; k < n; k++)
            add_deviation(&deviations[i + k >= n_learned], y + k * n_values, teacher + k * n_values, n_values);
        zq_streams_drop(&l->streams, x, n * n_values);
        zq_streams_drop(&l->streams, y, n * n_values);
        zq_streams_drop(&l->streams, teacher, n * n_values);
    }
    out->drift_learned = relative(deviations[0]);
    out->drift_held = relative(deviations[1]);
    if (!st) st = zq_student_check(passes.s, err);
    zq_passes_close(&passes);
    return st;
}

static const struct zq_item *find_item(const struct zq_lesson *l, const char *name)
{
    for (size_t i = 0; i < l->plan->n_items; i++)
        if (l->plan->items[i].layer == l->layer && !strcmp(l->plan->items[i].tensor->name, name)) return &l->plan->items[i];
    return NULL;
}

/* Notes that a tensor of the file takes its values from the student, and rounds them to what the file can hold. */
static zq_status take_vector(struct zq_lesson *l, const char *pattern, const char *suffix, float *values, zq_error *err)
{
    if (!pattern || !values) return ZQ_OK;
    struct vector *v = &l->vectors[l->n_vectors];
    v->name = zq_tensor_name(l->plan->modules.prefix, pattern, l->layer, suffix);
    v->values = values;
    const struct zq_item *item = v->name ? find_item(l, v->name) : NULL;
    if (!v->name) return zq_fail(err, ZQ_ENOMEM, "no memory for the names of block %zu", l->layer);
    l->n_vectors++;
    for (size_t i = 0, n; item && i < item->tensor->n_values; i += n) {
        uint8_t stored[4 * 256];
        n = item->tensor->n_values - i < 256 ? item->tensor->n_values - i : 256;
        zq_from_float(stored, item->tensor->dtype, values + i, n);
        zq_to_float(values + i, stored, item->tensor->dtype, n);
    }
    return ZQ_OK;
}

static zq_status take_vectors(struct zq_lesson *l, zq_error *err)
{
    const struct zq_tensor_names *names = &l->plan->config.arch->names;
    struct zq_student *s = l->student;
    zq_status st = ZQ_OK;
    for (size_t r = 0; r < ZQ_N_LINEARS && !st; r++) {
        if (s->linear[r].n_rows && s->linear[r].has_bias) st = take_vector(l, names->linear[r], ".bias", s->linear[r].bias, err);
    }
    if (!st) st = take_vector(l, names->norm1, ".weight", s->norm1.gamma, err);
    if (!st) st = take_vector(l, names->norm1, ".bias", s->norm1.beta, err);
    if (!st) st = take_vector(l, names->norm2, ".weight", s->norm2.gamma, err);
    if (!st) st = take_vector(l, names->norm2, ".bias", s->norm2.beta, err);
    return st;
}

/* Maps that stay float are written from the file: they are put back after training. */
static zq_status put_back(struct zq_lesson *l, struct zq_student *original, zq_error *err)
{
    zq_status st = zq_student_load(original, l->model, l->layer, err);
    for (size_t r = 0; r < ZQ_N_LINEARS && !st; r++) {
        struct zq_student_linear *to = &l->student->linear[r];
        if (to->n_rows && to->fake == to->w) memcpy(to->w, original->linear[r].w, to->n_rows * to->n_cols * sizeof(float));
    }
    return st;
}

static zq_status keep_float_maps(struct zq_lesson *l, zq_error *err)
{
    if (!zq_lesson_puts_back(l->plan, l->student)) return ZQ_OK;
    struct zq_student *original;
    struct zq_student_options o = zq_lesson_student(l->plan, l->layer, l->means->n_threads);
    o.trains = o.adam = false;
    zq_status st = zq_student_create(&original, &o, err);
    if (!st) st = put_back(l, original, err);
    zq_student_free(original);
    return st;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static zq_status tick(void *user, zq_error *err)
{
    struct zq_lesson *l = user;
    memmove(l->ticks + 1, l->ticks, (N_TICKS - 1) * sizeof *l->ticks);
    l->ticks[0] = now();
    return l->means->tick ? l->means->tick(l->means->user, 0, err) : ZQ_OK;
}

/* The student of block `layer`, and what the original block makes of the samples. */
static zq_status begin(struct zq_lesson *l, size_t layer, zq_error *err)
{
    const struct zq_student_options o = zq_lesson_student(l->plan, layer, l->means->n_threads);
    forget_block(l);
    l->layer = layer;
    zq_status st = zq_student_create(&l->student, &o, err);
    if (!st) st = zq_student_load(l->student, l->model, layer, err);
    drop_pages(l);
    if (!st) st = zq_solution_create(&l->solution, l->student, err);
    if (!st) st = teach(l, err);
    return st;
}

static void drop(void *streams, const float *from, size_t n_values) { zq_streams_drop(streams, from, n_values); }

static zq_status run_method(struct zq_lesson *l, size_t n_iterations, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const struct zq_solve_samples samples = {l->streams.teacher, l->streams.student, l->streams.target, set->n, set->length, set->n_held,
                                             {drop, &l->streams}};
    struct zq_solve_options solve = set->solve;
    if (n_iterations) solve.n_iterations = n_iterations;
    solve.tick = tick;
    solve.user = l;
    return set->method->run(l->student, &samples, &solve, &l->solution, err);
}

zq_status zq_lesson_fit(struct zq_lesson *l, size_t layer, double seconds, size_t *n_iterations, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const size_t n_blocks = l->plan->config.n_layers - layer;
    const double start = now();
    *n_iterations = 1;
    zq_status st = begin(l, layer, err);
    const double taught = now() - start;
    if (!st) st = run_method(l, N_TICKS, err);
    forget_block(l);
    l->layer = SIZE_MAX;
    if (st) return st;
    const double step = (l->ticks[0] - l->ticks[N_TICKS - 1]) / (N_TICKS - 1), rest = now() - start + taught - N_TICKS * step;
    const double fits = step > 0 ? (seconds / (double)n_blocks - rest) / step : (double)set->solve.n_iterations;
    *n_iterations = fits >= (double)set->solve.n_iterations ? set->solve.n_iterations : fits >= 1 ? (size_t)fits : 1;
    return ZQ_OK;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

zq_status zq_lesson_solve(struct zq_lesson *l, size_t layer, size_t n_iterations, struct zq_lesson_block *out, zq_error *err)
{
    const size_t n_tokens = l->plan->lesson.n * l->plan->lesson.length;
    zq_status st = begin(l, layer, err);
    if (!st) st = run_method(l, n_iterations, err);
    if (!st) st = keep_float_maps(l, err);
    if (!st) st = take_vectors(l, err);
    if (st) return st;
    *out = (struct zq_lesson_block){.before = l->solution.before, .after = l->solution.after, .fell_back = l->solution.fell_back};
    qsort(l->token_ranges, n_tokens, sizeof *l->token_ranges, by_value);
    out->tokens = zq_box_of(l->token_ranges, n_tokens);
    return pass_on(l, out, err);
}

void zq_lesson_give(struct zq_lesson *l, const struct zq_item *item, struct zq_means *means)
{
    if (item->layer != l->layer || !l->student) return;
    if (item->module && item->storage != ZQ_STORED_FLOAT) {
        l->given = (struct zq_given){.codes = l->solution.codes[item->module->role], .scales = l->solution.scales[item->module->role]};
        means->given = &l->given;
        return;
    }
    for (size_t i = 0; i < l->n_vectors; i++) {
        if (strcmp(l->vectors[i].name, item->tensor->name)) continue;
        l->given = (struct zq_given){.floats = l->vectors[i].values};
        means->given = &l->given;
    }
}
