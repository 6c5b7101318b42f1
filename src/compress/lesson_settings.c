/* What a lesson will be, before it starts: defaults, what tells two lessons apart, and what one takes. */
#include "compress/lesson.h"

#include "base/alloc.h"
#include "compress/samples.h"
#include "distill/processor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double DEFAULT_HOLDOUT = 0.1;

static size_t either(size_t wish, size_t encoder, size_t otherwise) { return wish ? wish : encoder ? encoder : otherwise; }

/* What --lkd and --method ask for; *out NULL: neither. */
static zq_status find_method(const struct zq_method **out, const zq_quantize_options *o, zq_error *err)
{
    const char *lkd = o->lkd && strcmp(o->lkd, "off") ? o->lkd : NULL, *name = o->method ? o->method : lkd;
    *out = NULL;
    if (o->method && lkd) return zq_fail(err, ZQ_EINVAL, "the method %s stands alone: it is no part of distillation (%s)", o->method, lkd);
    if (!name) return ZQ_OK;
    const struct zq_method *m = zq_method_find(name);
    if (m && m->alone == (o->method != NULL)) {
        *out = m;
        return ZQ_OK;
    }
    char names[128] = "";
    for (m = zq_methods; m->name; m++) {
        const size_t n = strlen(names);
        if (m->alone == (o->method != NULL)) snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : o->method ? "" : "off, ", m->name);
    }
    return zq_fail(err, ZQ_EINVAL, "unknown method %s'%s'; valid are %s", o->method ? "" : "of distillation ", name, names);
}

/* Who distils may do so on a device. */
static zq_status settle_device(struct zq_lesson_settings *out, const zq_quantize_options *o, const struct zq_config *config, zq_error *err)
{
    const bool here = zq_device_is_processor(o->device), trains = out->method && out->method->trains;
    if (o->math != ZQ_MATH_EXACT && !trains) return zq_fail(err, ZQ_EINVAL, "--math fast is for methods of distillation that train, paper and full");
    out->solve.fast = o->math == ZQ_MATH_FAST;
    if (here) return ZQ_OK;
    if (!out->method || out->method->alone)
        return zq_fail(err, ZQ_EINVAL, "--device %s is for distillation, --lkd paper, fast and full: all else is computed on the processor",
                       o->device);
    if (config->head_dim > ZQ_TRAINING_HEAD_DIM)
        return zq_fail(err, ZQ_EUNSUPPORTED, "heads of %zu values: distillation on a GPU takes up to %d", config->head_dim,
                       (int)ZQ_TRAINING_HEAD_DIM);
    out->device = o->device;
    return ZQ_OK;
}

zq_status zq_lesson_settle(struct zq_lesson_settings *out, const zq_quantize_options *o, const struct zq_config *config, zq_error *err)
{
    *out = (struct zq_lesson_settings){0};
    const struct zq_method *m;
    zq_status st = find_method(&m, o, err);
    if (st || !m) return st ? st : settle_device(out, o, config, err);
    const bool encoder = config->kind != ZQ_DECODER;
    *out = (struct zq_lesson_settings){.method = m, .data = o->data ? o->data : "self", .n = o->samples ? o->samples : m->n_samples};
    out->length = either(o->length, encoder ? m->encoder_length : 0, m->length);
    if (!o->length && out->length > config->max_length) out->length = config->max_length;
    if (out->length > config->max_length)
        return zq_fail(err, ZQ_ELIMIT, "samples of %zu ids are above the model's limit of %zu", out->length, config->max_length);
    const double holdout = o->holdout != 0 ? (double)o->holdout : DEFAULT_HOLDOUT;
    if (!(holdout > 0 && holdout < 1)) return zq_fail(err, ZQ_EINVAL, "a share of %g to hold out, expected one above 0 and below 1", holdout);
    out->n_held = (size_t)rint(holdout * (double)out->n);
    if (!out->n_held) out->n_held = 1;
    if (out->n_held >= out->n) return zq_fail(err, ZQ_EINVAL, "%zu samples of which %zu are held out leave none to learn from", out->n, out->n_held);
    out->solve = (struct zq_solve_options){.n_iterations = either(o->iterations, encoder ? m->encoder_iterations : 0, m->n_iterations),
                                           .batch = either(o->batch, encoder ? m->encoder_batch : 0, m->batch),
                                           .rate = o->rate < 0 ? 0 : o->rate > 0 ? (double)o->rate : m->rate,
                                           .holdout = holdout, .seed = o->seed, .chance = zq_samples_chance(out->data, config->kind)};
    if (out->solve.batch > out->n) out->solve.batch = out->n;
    out->budget_s = 60 * (double)o->time_budget;
    if (o->time_budget < 0) return zq_fail(err, ZQ_EINVAL, "a time budget of %g minutes", (double)o->time_budget);
    if (o->time_budget > 0 && m->n_iterations < 2)
        return zq_fail(err, ZQ_EINVAL, "%s has no iterations that could be fitted into a time budget", m->name);
    if (!o->loss || !strcmp(o->loss, "mse")) out->solve.loss = ZQ_LOSS_MSE;
    else if (!strcmp(o->loss, "kl")) out->solve.loss = ZQ_LOSS_KL;
    else return zq_fail(err, ZQ_EINVAL, "unknown loss '%s'; valid are mse and kl", o->loss);
    if (out->solve.loss != ZQ_LOSS_MSE && !m->any_loss)
        return zq_fail(err, ZQ_EINVAL, "%s knows one loss, mse: its closed form is of squares", m->name);
    return settle_device(out, o, config, err);
}

zq_status zq_lesson_remark_unused(struct zq_remarks *remarks, const struct zq_lesson_settings *s, const zq_quantize_options *o, zq_error *err)
{
    const bool steps = o->iterations || o->rate != 0;
    if (!s->method && (o->data || o->samples || o->length || o->batch || steps || o->loss || o->holdout != 0 || o->time_budget != 0))
        return zq_remark(remarks, err, "Nothing is learned without --lkd or --method: --data, --samples, --iters and their like change nothing.");
    if (s->method && s->method->n_iterations < 2 && steps)
        return zq_remark(remarks, err, "%s is solved and makes no steps: --iters and --lr change nothing.", s->method->name);
    return ZQ_OK;
}

zq_status zq_lesson_describe(json_t *options, const struct zq_lesson_settings *s, zq_error *err)
{
    if (!s->method) return ZQ_OK;
    json_t *data;
    zq_status st = zq_samples_identity(&data, s->data, err);
    if (st) return st;
    json_t *more = json_pack("{s:s, s:O, s:I, s:I, s:I, s:I, s:f, s:s, s:f, s:I}", s->method->alone ? "method" : "lkd", s->method->name,
                             "data", data, "samples", (json_int_t)s->n,
                             "length", (json_int_t)s->length, "iterations", (json_int_t)s->solve.n_iterations, "batch", (json_int_t)s->solve.batch,
                             "rate", s->solve.rate, "loss", s->solve.loss == ZQ_LOSS_KL ? "kl" : "mse", "holdout", s->solve.holdout, "seed",
                             (json_int_t)s->solve.seed);
    bool ok = more && !json_object_update(options, more);
    if (ok && s->solve.fast && !s->device) ok = !json_object_set_new(options, "math", json_string("fast"));
    if (ok && s->budget_s > 0) ok = !json_object_set_new(options, "time_budget_s", json_real(s->budget_s));
    json_decref(data);
    json_decref(more);
    return ok ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory for the options of distillation");
}

/* --math fast on this processor. */
static zq_status remark_fast(struct zq_plan *plan, zq_error *err)
{
    struct zq_processor here;
    zq_status st = zq_processor_kernels(&here, err);
    if (st || here.kernels.matmul) return st;
    return zq_remark(&plan->remarks, err, "this processor has no units for BF16 products: training is that of --math exact");
}

zq_status zq_lesson_device(struct zq_device **device, struct zq_plan *plan, zq_error *err)
{
    struct zq_lesson_settings *set = &plan->lesson;
    char text[256];
    zq_status st = zq_device_open(device, set->device, err);
    if (st) return st;
    if (!*device) return set->solve.fast ? remark_fast(plan, err) : ZQ_OK;
    const struct zq_plugin *plugin = (*device)->plugin;
    struct zq_queue *queue = (*device)->queue;
    set->solve.trainer = (struct zq_trainer){plugin->training(queue), queue};
    if (!set->solve.trainer.ops)
        return zq_fail(err, ZQ_EUNSUPPORTED, "device %s: distillation needs NVIDIA's library libcublasLt.so, which cannot be opened", set->device);
    plugin->describe(queue, text, sizeof text);
    if (json_object_set_new(plan->options, "device", json_string(text)) ||
        json_object_set_new(plan->options, "math", json_string(set->solve.fast ? "fast" : "exact")))
        return zq_fail(err, ZQ_ENOMEM, "no memory for the options of distillation");
    return zq_remark(&plan->remarks, err, "blocks are distilled on %s: its memory and time are in no estimate, and --resume needs the same device",
                     text);
}

struct zq_student_options zq_lesson_student(const struct zq_plan *plan, size_t layer, int n_threads)
{
    const struct zq_lesson_settings *s = &plan->lesson;
    size_t lengths[ZQ_MAX_TEXTS];
    const size_t n_texts = zq_texts(lengths, &plan->config, s->length);
    struct zq_student_options o = {.config = &plan->config, .max_sequences = s->solve.batch * n_texts, .max_length = s->length,
                                   .max_tokens = s->solve.batch * s->length, .trains = s->method->trains && !s->device,
                                   .adam = s->method->adam && !s->device, .n_threads = n_threads};
    for (size_t r = 0; r < ZQ_N_LINEARS; r++) o.layouts[r].spec = ZQ_SPEC_FLOAT;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        if (item->layer == layer && item->module && item->module->in_block) o.layouts[item->module->role] = item->layout;
    }
    return o;
}

size_t zq_lesson_values(const struct zq_plan *plan) { return plan->lesson.n * plan->lesson.length * plan->config.width; }

uint64_t zq_lesson_stream_bytes(const struct zq_plan *plan)
{
    return plan->lesson.method ? 2 * (uint64_t)zq_lesson_values(plan) * sizeof(float) : 0;
}

/* Memory that the block in work takes, whichever it is, if all is done here. */
static zq_status block_bytes(uint64_t *n_bytes, const struct zq_plan *plan, int n_threads, zq_error *err)
{
    uint64_t most = 0;
    for (size_t layer = 0; layer < plan->config.n_layers; layer++) {
        struct zq_student shape;
        size_t student;
        struct zq_student_options o = zq_lesson_student(plan, layer, n_threads);
        o.trains = plan->lesson.method->trains;
        o.adam = plan->lesson.method->adam;
        zq_status st = zq_student_shape(&shape, &student, &o, err);
        if (st) return st;
        const uint64_t all = student + zq_solution_bytes(&shape) + plan->lesson.method->bytes(&shape, false);
        if (all > most) most = all;
    }
    *n_bytes = most;
    return ZQ_OK;
}

zq_status zq_lesson_request(struct zq_sample_request *out, const struct zq_plan *plan, int n_threads, zq_error *err)
{
    const struct zq_lesson_settings *set = &plan->lesson;
    const uint64_t most = 512 << 20, file = 2 * plan->ckpt->n_bytes < most ? 2 * plan->ckpt->n_bytes : most;
    uint64_t n_bytes; /* of one thread: samples must not depend on their number, nor on a device */
    zq_status st = block_bytes(&n_bytes, plan, 1, err);
    if (n_bytes < file) n_bytes = file; /* sequences side by side pay where reading the weights takes long */
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
        if (item->layer == SIZE_MAX) f.n_outside_bytes += item->tensor->n_bytes;
        else block = (i && plan->items[i - 1].layer == item->layer ? block : 0) + item->tensor->n_bytes;
        if (block > f.n_block_bytes) f.n_block_bytes = block;
    }
    return f;
}

bool zq_lesson_puts_back(const struct zq_plan *plan, const struct zq_student *s)
{
    bool some = false;
    for (int r = 0; r < ZQ_N_LINEARS; r++) some |= s->linear[r].n_rows && s->linear[r].layout.spec.w_bits == 16;
    return some && plan->lesson.method->adam;
}

/* The token table. */
static uint64_t embedding_bytes(const struct zq_plan *plan)
{
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].module == &plan->modules.items[0]) return plan->items[i].tensor->n_bytes;
    return 0;
}

zq_status zq_lesson_sample_bytes(uint64_t *n_bytes, const struct zq_plan *plan, int n_threads, bool on_disk, zq_error *err)
{
    const struct zq_lesson_settings *set = &plan->lesson;
    *n_bytes = 0;
    if (!set->method) return ZQ_OK;
    struct zq_sample_request request;
    const struct zq_sample_file file = file_of(plan);
    zq_status st = zq_lesson_request(&request, plan, n_threads, err);
    if (!st) st = zq_samples_bytes(n_bytes, &plan->config, &request, &file, err);
    const uint64_t n = on_disk ? set->length * plan->config.width : zq_lesson_values(plan);
    const uint64_t embedded = set->n * set->length * sizeof(int32_t) + embedding_bytes(plan) + 2 * n * sizeof(float);
    if (embedded > *n_bytes) *n_bytes = embedded;
    return st;
}

/* A matrix of the file is mapped while a student reads it. */
static uint64_t largest_matrix(const struct zq_plan *plan, size_t layer)
{
    uint64_t most = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        if (item->layer == layer && item->module && item->tensor->n_bytes > most) most = item->tensor->n_bytes;
    }
    return most;
}

zq_status zq_lesson_bytes(struct zq_lesson_bytes *out, const struct zq_plan *plan, size_t layer, int n_threads, bool on_disk, zq_error *err)
{
    *out = (struct zq_lesson_bytes){0};
    if (!plan->lesson.method) return ZQ_OK;
    struct zq_student shape;
    struct zq_student_options o = zq_lesson_student(plan, layer, n_threads);
    size_t student, original;
    zq_status st = zq_student_shape(&shape, &student, &o, err);
    o.trains = o.adam = false;
    if (!st) st = zq_student_bytes(&original, &o, err);
    if (st) return st;
    /* on disk a batch of each stream is resident */
    const uint64_t n = on_disk ? plan->lesson.solve.batch * plan->lesson.length * plan->config.width : zq_lesson_values(plan);
    const uint64_t mapped = largest_matrix(plan, layer), solution = zq_solution_bytes(&shape);
    uint64_t most = solution + plan->lesson.method->bytes(&shape, plan->lesson.device != NULL);
    if (zq_lesson_puts_back(plan, &shape) && solution + original + mapped > most) most = solution + original + mapped;
    if (mapped > most) most = mapped; /* before there is a solution */
    out->waiting = 3 * n * sizeof(float) + student + solution;
    out->solving = 3 * n * sizeof(float) + student + most;
    return ZQ_OK;
}

double zq_lesson_seconds(const struct zq_plan *plan, int n_threads)
{
    /* float operations per second and thread, of products as large as a block's, measured on Zen 3; passes of `fast` over the samples, products of
     * their moments among them, measured as well: a quarter of it stays here where a device has the passes */
    const struct zq_lesson_settings *set = &plan->lesson;
    const double per_s = 55e9, closed_passes = set->device ? 3 : 12, training_passes = 4;
    double weights = 0;
    if (!set->method) return 0;
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].layer != SIZE_MAX && plan->items[i].module) weights += (double)plan->items[i].tensor->n_values;
    const double tokens = (double)set->n * (double)set->length, batch = (double)set->solve.batch * (double)set->length;
    const double trained = set->method->trains && !set->device ? (double)set->solve.n_iterations * batch * training_passes : 0;
    const double all = (!set->method->adam ? closed_passes : set->device ? 0 : 2) * tokens + trained;
    return 2 * weights * all / (per_s * n_threads);
}
