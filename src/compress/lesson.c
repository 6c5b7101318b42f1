/* Three arrays of activations take turns: the teacher's inputs, the student's, and the teacher's outputs, which are the next
 * block's teacher inputs; the array that they leave takes the student's outputs.
 *
 * The student that solves a block is made anew for each, since rules may quantize blocks differently; it is gone before the
 * next one, so that one block is in memory at a time. Biases and norms are rounded to the dtype of the file before the student's
 * stream passes: the streams see what will be read. */
#include "compress/lesson.h"

#include "base/alloc.h"
#include "compress/samples.h"
#include "model/session.h"

#include <math.h>
#include <string.h>

static const double DEFAULT_HOLDOUT = 0.1;

enum { MAX_VECTORS = ZQ_N_LINEARS + 4 };

/* A bias or a norm's vector, or a map that stays float, as the student has it. */
struct vector {
    char *name;
    float *values; /* [n_values] */
};

struct zq_lesson {
    const struct zq_plan *plan;
    const struct zq_means *means;
    zq_model *model;
    float *teacher_x, *student_x, *target; /* [n, length, width] */
    size_t n_values;                       /* of each */
    size_t layer;                          /* of the block in work; SIZE_MAX: none yet */
    struct zq_student *student;
    struct zq_solution solution;
    struct vector vectors[MAX_VECTORS];    /* [n_vectors] */
    size_t n_vectors;
    struct zq_given given;                 /* of the item that was asked for last */
};

/* ---- settings ----------------------------------------------------------------------------------------------------- */

static size_t either(size_t wish, size_t encoder, size_t otherwise) { return wish ? wish : encoder ? encoder : otherwise; }

static zq_status unknown_method(const char *name, zq_error *err)
{
    char names[128] = "off";
    for (const struct zq_method *m = zq_methods; m->name; m++) {
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, ", %s", m->name);
    }
    return zq_fail(err, ZQ_EINVAL, "unknown method of distillation '%s'; valid are %s", name, names);
}

zq_status zq_lesson_settle(struct zq_lesson_settings *out, const zq_quantize_options *o, const struct zq_config *config, zq_error *err)
{
    *out = (struct zq_lesson_settings){0};
    if (!o->lkd || !strcmp(o->lkd, "off")) return ZQ_OK;
    const struct zq_method *m = zq_method_find(o->lkd);
    if (!m) return unknown_method(o->lkd, err);
    const bool encoder = config->kind != ZQ_DECODER;
    *out = (struct zq_lesson_settings){.method = m, .data = o->data ? o->data : "self", .n = o->samples ? o->samples : m->n_samples};
    out->length = either(o->length, encoder ? m->encoder_length : 0, m->length);
    if (!o->length && out->length > config->max_length) out->length = config->max_length;
    if (out->length > config->max_length)
        return zq_fail(err, ZQ_ELIMIT, "samples of %zu ids are above the model's limit of %zu", out->length, config->max_length);
    const double holdout = o->holdout > 0 ? (double)o->holdout : DEFAULT_HOLDOUT;
    if (!(holdout < 1)) return zq_fail(err, ZQ_EINVAL, "a share of %g to hold out, expected one below 1", holdout);
    out->n_held = (size_t)rint(holdout * (double)out->n);
    if (!out->n_held) out->n_held = 1;
    if (out->n_held >= out->n) return zq_fail(err, ZQ_EINVAL, "%zu samples of which %zu are held out leave none to learn from", out->n, out->n_held);
    out->solve = (struct zq_solve_options){.n_iterations = either(o->iterations, encoder ? m->encoder_iterations : 0, m->n_iterations),
                                           .batch = either(o->batch, encoder ? m->encoder_batch : 0, m->batch),
                                           .rate = o->rate < 0 ? 0 : o->rate > 0 ? (double)o->rate : m->rate,
                                           .holdout = holdout, .seed = o->seed};
    if (out->solve.batch > out->n) out->solve.batch = out->n;
    if (!o->loss || !strcmp(o->loss, "mse")) out->solve.loss = ZQ_LOSS_MSE;
    else if (!strcmp(o->loss, "kl")) out->solve.loss = ZQ_LOSS_KL;
    else return zq_fail(err, ZQ_EINVAL, "unknown loss '%s'; valid are mse and kl", o->loss);
    return ZQ_OK;
}

zq_status zq_lesson_describe(json_t *options, const struct zq_lesson_settings *s, zq_error *err)
{
    if (!s->method) return ZQ_OK;
    json_t *data;
    zq_status st = zq_samples_identity(&data, s->data, err);
    if (st) return st;
    json_t *more = json_pack("{s:s, s:O, s:I, s:I, s:I, s:I, s:f, s:s, s:f, s:I}", "lkd", s->method->name, "data", data, "samples", (json_int_t)s->n,
                             "length", (json_int_t)s->length, "iterations", (json_int_t)s->solve.n_iterations, "batch", (json_int_t)s->solve.batch,
                             "rate", s->solve.rate, "loss", s->solve.loss == ZQ_LOSS_KL ? "kl" : "mse", "holdout", s->solve.holdout, "seed",
                             (json_int_t)s->solve.seed);
    const bool ok = more && !json_object_update(options, more);
    json_decref(data);
    json_decref(more);
    return ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for the options of distillation");
}

static struct zq_student_options student_options(const struct zq_plan *plan, size_t layer, int n_threads)
{
    const struct zq_lesson_settings *s = &plan->lesson;
    struct zq_student_options o = {.config = &plan->config, .max_sequences = s->solve.batch, .max_length = s->length,
                                   .max_tokens = s->solve.batch * s->length, .trains = s->method->trains, .adam = s->method->adam,
                                   .n_threads = n_threads};
    for (size_t r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r].spec = ZQ_SPEC_FLOAT;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        if (item->layer == layer && item->module && item->module->in_block) o.layouts[item->module->role] = item->layout;
    }
    return o;
}

static size_t stream_values(const struct zq_plan *plan) { return plan->lesson.n * plan->lesson.length * plan->config.width; }

uint64_t zq_lesson_stream_bytes(const struct zq_plan *plan)
{
    return plan->lesson.method ? 2 * (uint64_t)stream_values(plan) * sizeof(float) : 0;
}

/* Memory that the block in work takes, whichever it is. */
static zq_status block_bytes(uint64_t *n_bytes, const struct zq_plan *plan, int n_threads, zq_error *err)
{
    uint64_t most = 0;
    for (size_t layer = 0; layer < plan->config.n_layers; layer++) {
        struct zq_student shape;
        size_t student;
        const struct zq_student_options o = student_options(plan, layer, n_threads);
        zq_status st = zq_student_shape(&shape, &student, &o, err);
        if (st) return st;
        const uint64_t all = student + zq_solution_bytes(&shape) + plan->lesson.method->bytes(&shape);
        if (all > most) most = all;
    }
    *n_bytes = most;
    return ZQ_OK;
}

static zq_status make_request(struct zq_sample_request *out, const struct zq_plan *plan, int n_threads, zq_error *err)
{
    const struct zq_lesson_settings *set = &plan->lesson;
    uint64_t n_bytes; /* of one thread: samples must not depend on their number */
    zq_status st = block_bytes(&n_bytes, plan, 1, err);
    *out = (struct zq_sample_request){.sources = set->data, .n = set->n, .length = set->length, .seed = set->solve.seed, .n_threads = n_threads,
                                      .cache_bytes = n_bytes};
    return st;
}

static struct zq_sample_file file_of(const struct zq_plan *plan)
{
    struct zq_sample_file f = {.n_bytes = plan->ckpt->n_bytes};
    uint64_t block = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        if (item->module == &plan->modules.items[0]) f.n_embedding_bytes = item->tensor->n_bytes;
        if (item->layer == SIZE_MAX) f.n_outside_bytes += item->tensor->n_bytes;
        else block = (i && plan->items[i - 1].layer == item->layer ? block : 0) + item->tensor->n_bytes;
        if (block > f.n_block_bytes) f.n_block_bytes = block;
    }
    return f;
}

zq_status zq_lesson_bytes(uint64_t *n_bytes, const struct zq_plan *plan, int n_threads, zq_error *err)
{
    *n_bytes = 0;
    if (!plan->lesson.method) return ZQ_OK;
    struct zq_sample_request request;
    uint64_t block;
    zq_status st = make_request(&request, plan, n_threads, err);
    if (!st) st = block_bytes(&block, plan, n_threads, err);
    if (st) return st;
    const struct zq_sample_file file = file_of(plan);
    const uint64_t samples = zq_samples_bytes(&plan->config, &request, &file), all = block + 3 * (uint64_t)stream_values(plan) * sizeof(float);
    *n_bytes = samples > all ? samples : all;
    return ZQ_OK;
}

/* ---- from the start ----------------------------------------------------------------------------------------------- */

/* x [n, length, width] = embeddings of all samples: what enters the first block. */
static zq_status embed(struct zq_lesson *l, const int32_t *ids, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const size_t n_values = set->length * l->plan->config.width;
    zq_session *s;
    const zq_session_options so = {.n_threads = l->means->n_threads, .max_length = set->length, .max_batch_tokens = set->length};
    zq_status st = zq_session_create(&s, l->model, &so, err);
    if (st) return st;
    for (size_t i = 0; i < set->n; i++) {
        const zq_input input = {.ids = ids + i * set->length, .n = set->length};
        s->n_tokens = set->length;
        s->spans[0] = (struct zq_span){.row = 0, .n_tokens = set->length, .n_keys = set->length};
        zq_embed_inputs(s, &input, 1);
        memcpy(l->teacher_x + i * n_values, s->x.f, n_values * sizeof(float));
    }
    memcpy(l->student_x, l->teacher_x, l->n_values * sizeof(float));
    zq_session_close(s);
    return ZQ_OK;
}

/* Of the file of weights nothing stays resident between blocks. */
static void drop_pages(const struct zq_lesson *l)
{
    const struct zq_checkpoint *ckpt = l->model->ckpt;
    for (size_t i = 0; i < ckpt->n_files; i++) zq_map_drop(&ckpt->files[i].map, ckpt->files[i].map.bytes, ckpt->files[i].map.n_bytes);
}

/* Arrays for the streams, when nothing of making samples is in memory any more. */
static zq_status take_streams(struct zq_lesson *l, zq_error *err)
{
    l->teacher_x = zq_alloc(l->n_values * sizeof(float));
    l->student_x = zq_alloc(l->n_values * sizeof(float));
    l->target = zq_alloc(l->n_values * sizeof(float));
    if (l->teacher_x && l->student_x && l->target) return ZQ_OK;
    return zq_fail(err, ZQ_ENOMEM, "no memory for the activations of %zu samples", l->plan->lesson.n);
}

static zq_status start(struct zq_lesson *l, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    struct zq_sample_request request;
    zq_status st = make_request(&request, l->plan, l->means->n_threads, err);
    if (st) return st;
    request.tick = l->means->tick;
    request.user = l->means->user;
    int32_t *ids = zq_alloc_array(set->n * set->length, sizeof *ids);
    if (!ids) return zq_fail(err, ZQ_ENOMEM, "no memory for %zu samples of %zu ids", set->n, set->length);
    st = zq_samples_make(ids, &request, l->model, err);
    drop_pages(l);
    if (!st) st = take_streams(l, err);
    if (!st) st = embed(l, ids, err);
    drop_pages(l);
    zq_free(ids);
    return st;
}

static zq_status restore(struct zq_lesson *l, const char *path, zq_error *err)
{
    struct zq_map map = {0};
    const size_t n_bytes = l->n_values * sizeof(float);
    zq_status st = take_streams(l, err);
    if (!st) st = zq_map_open(&map, path, err);
    if (st) return st;
    if (map.n_bytes == 2 * n_bytes) {
        memcpy(l->teacher_x, map.bytes, n_bytes);
        memcpy(l->student_x, map.bytes + n_bytes, n_bytes);
    } else {
        st = zq_fail(err, ZQ_EFORMAT, "%s has %zu bytes, expected %zu: remove its directory to start anew", path, map.n_bytes, 2 * n_bytes);
    }
    zq_map_close(&map);
    return st;
}

zq_status zq_lesson_save(const struct zq_lesson *l, const char *path, zq_error *err)
{
    struct zq_output out = {0};
    const size_t n_bytes = l->n_values * sizeof(float);
    zq_status st = zq_output_open(&out, path, err);
    if (!st) st = zq_output_write(&out, l->teacher_x, n_bytes, err);
    if (!st) st = zq_output_write(&out, l->student_x, n_bytes, err);
    if (!st) return zq_output_commit(&out, err);
    zq_output_abandon(&out);
    return st;
}

zq_status zq_lesson_open(struct zq_lesson **out, const struct zq_plan *plan, const char *streams, const struct zq_means *means, zq_error *err)
{
    *out = NULL;
    struct zq_lesson *l = zq_alloc_zero(sizeof *l);
    if (!l) return zq_fail(err, ZQ_ENOMEM, "no memory to distil a model");
    *l = (struct zq_lesson){.plan = plan, .means = means, .n_values = stream_values(plan), .layer = SIZE_MAX};
    const zq_open_options open = {.n_threads = means->n_threads};
    zq_status st = zq_model_open(&l->model, plan->ckpt->dir, &open, err);
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
    zq_free(l->teacher_x);
    zq_free(l->student_x);
    zq_free(l->target);
    zq_free(l);
}

/* ---- a block ------------------------------------------------------------------------------------------------------ */

static void forward(struct zq_lesson *l, const float *x, bool quantized, float *out)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const size_t batch = set->solve.batch, n_values = set->length * l->plan->config.width;
    for (size_t i = 0; i < set->n; i += batch) {
        const size_t n = set->n - i < batch ? set->n - i : batch;
        zq_student_forward_even(l->student, x + i * n_values, n, set->length, quantized, out + i * n_values);
    }
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
    bool some = false;
    for (size_t r = 0; r < ZQ_N_LINEARS; r++) some |= l->student->linear[r].n_rows && l->student->linear[r].fake == l->student->linear[r].w;
    if (!some || !l->plan->lesson.method->adam) return ZQ_OK;
    struct zq_student *original;
    struct zq_student_options o = student_options(l->plan, l->layer, l->means->n_threads);
    o.trains = o.adam = false;
    zq_status st = zq_student_create(&original, &o, err);
    if (!st) st = put_back(l, original, err);
    zq_student_free(original);
    return st;
}

static zq_status tick(void *user, zq_error *err)
{
    const struct zq_lesson *l = user;
    return l->means->tick ? l->means->tick(l->means->user, 0, err) : ZQ_OK;
}

zq_status zq_lesson_solve(struct zq_lesson *l, size_t layer, struct zq_lesson_block *out, zq_error *err)
{
    const struct zq_lesson_settings *set = &l->plan->lesson;
    const struct zq_student_options o = student_options(l->plan, layer, l->means->n_threads);
    struct zq_solve_options solve = set->solve;
    solve.tick = tick;
    solve.user = l;
    forget_block(l);
    l->layer = layer;
    zq_status st = zq_student_create(&l->student, &o, err);
    if (!st) st = zq_student_load(l->student, l->model, layer, err);
    drop_pages(l);
    if (!st) st = zq_solution_create(&l->solution, l->student, err);
    if (st) return st;
    forward(l, l->teacher_x, false, l->target);
    const struct zq_solve_samples samples = {l->teacher_x, l->student_x, l->target, set->n, set->length, set->n_held};
    st = set->method->run(l->student, &samples, &solve, &l->solution, err);
    if (!st) st = keep_float_maps(l, err);
    if (!st) st = take_vectors(l, err);
    if (st) return st;
    float *free_array = l->teacher_x;
    l->teacher_x = l->target;
    forward(l, l->student_x, true, free_array);
    l->target = l->student_x;
    l->student_x = free_array;
    *out = (struct zq_lesson_block){l->solution.before, l->solution.after, l->solution.fell_back};
    return ZQ_OK;
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
