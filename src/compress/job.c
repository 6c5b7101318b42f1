/* zq_quantize: plan, place, shards, publication. The order of durable steps is what resume rests on: a shard is synced and
 * renamed before the journal counts it; the report is written when everything else is there, before the journal goes; the
 * directory takes its name last. */
#include "base/alloc.h"
#include "base/threads.h"
#include "compress/budget.h"
#include "compress/fingerprint.h"
#include "compress/journal.h"
#include "compress/lesson.h"
#include "compress/matrix.h"
#include "compress/metadata.h"
#include "compress/page.h"
#include "compress/place.h"
#include "compress/plan.h"
#include "compress/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct job {
    const zq_quantize_options *options;
    struct zq_plan plan;
    struct zq_budget budget;
    struct zq_means means;
    struct zq_sidefiles sidefiles;
    struct zq_place place;
    json_t *identity;
    struct zq_record record; /* how far it has come; n_runs, seconds and memory_bytes are those of earlier runs */
    struct zq_device *device; /* where blocks are trained; NULL: here */
    struct zq_lesson *lesson; /* NULL: no distillation, or not begun */
    size_t first_layer;      /* that this run distils */
    double taught_from;      /* seconds after the start */
    bool began;              /* this run has changed something in the directory of work */
    bool resumed, nothing_to_do;
    struct timespec start;
    zq_quantize_progress progress;
    zq_quantize_report *report;
};

#define STREAMS_NAME "activations-%05zu.bin"

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

static void note(const struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(const struct job *job, const char *format, ...)
{
    char sentence[512];
    if (!job->options->note) return;
    va_list ap;
    va_start(ap, format);
    vsnprintf(sentence, sizeof sentence, format, ap);
    va_end(ap);
    job->options->note(job->options->user, sentence);
}

static zq_status tick(void *user, uint64_t n_bytes, zq_error *err)
{
    struct job *job = user;
    job->progress.bytes_done += n_bytes;
    job->progress.seconds = seconds_since(&job->start);
    if (!job->options->progress || job->options->progress(job->options->user, &job->progress)) return ZQ_OK;
    return zq_fail(err, ZQ_ECANCELLED, "cancelled after %zu of %zu tensors", job->progress.tensors_done, job->progress.n_tensors);
}

/* What journal and page say of all runs together. */
static struct zq_record so_far(const struct job *job)
{
    struct zq_record all = job->record;
    const uint64_t peak = zq_budget_peak();
    all.n_runs++;
    all.seconds += seconds_since(&job->start);
    if (peak > all.memory_bytes) all.memory_bytes = peak;
    return all;
}

static zq_status note_progress(const struct job *job, zq_error *err)
{
    const struct zq_record all = so_far(job);
    return zq_journal_write(job->place.partial, job->identity, &job->plan, &all, err);
}

/* ---- what is there already ---------------------------------------------------------------------------------------- */

static zq_status identify(struct job *job, zq_error *err)
{
    char fingerprint[ZQ_FINGERPRINT_TEXT];
    zq_status st = zq_sidefiles_list(&job->sidefiles, job->plan.ckpt->dir, err);
    if (!st) st = zq_fingerprint(fingerprint, job->plan.ckpt, &job->sidefiles, err);
    if (st) return st;
    job->identity = zq_run_identity(&job->plan, fingerprint);
    return job->identity ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for its identity", job->plan.ckpt->dir);
}

/* Whether the finished output `out` is the one that this run would write; then its relative errors are taken over. */
static zq_status compare_output(struct job *job, const char *out, zq_error *err)
{
    json_t *record;
    zq_status st = zq_journal_read(&record, out, ZQ_REPORT_NAME, err);
    if (!st && !record) return zq_fail(err, ZQ_EEXIST, "%s exists already and holds no " ZQ_REPORT_NAME ": --force replaces it", out);
    if (!st) st = zq_run_compare(record, job->identity, out, err);
    if (!st) st = zq_journal_load(&job->record, record, &job->plan, out, err);
    job->nothing_to_do = !st;
    json_decref(record);
    return st;
}

/* A finished output: the same one is all that resume asks for; any other must not be touched without force. */
static zq_status meet_output(struct job *job, zq_error *err)
{
    const char *out = job->place.out;
    struct stat info;
    if (lstat(out, &info)) return ZQ_OK;
    if (!S_ISDIR(info.st_mode) && !S_ISLNK(info.st_mode))
        return zq_fail(err, ZQ_EEXIST, "%s exists and is no directory: only directories are replaced", out);
    if (job->options->force && !zq_place_replaceable(&job->place))
        return zq_fail(err, ZQ_EEXIST, "%s holds something, and no config.json: only models are replaced", out);
    if (!job->options->resume)
        return job->options->force ? ZQ_OK : zq_fail(err, ZQ_EEXIST, "%s exists already: --force replaces it, --resume compares it", out);
    zq_error reason = {0};
    const zq_status st = compare_output(job, out, &reason);
    if (st && st != ZQ_ENOMEM && job->options->force) return ZQ_OK;
    return st ? zq_fail(err, st, "%s", reason.message) : ZQ_OK;
}

/* Shards whose files are there as they were written; a journal cannot know what was done to them since. */
static zq_status count_intact(struct job *job, zq_error *err)
{
    for (size_t s = 0; s < job->record.n_shards; s++) {
        char *path = zq_path_join(job->place.partial, job->plan.shards[s].name);
        if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", job->place.partial);
        struct stat info;
        const bool intact = !stat(path, &info) && (uint64_t)info.st_size > job->plan.shards[s].bytes_out;
        zq_free(path);
        if (!intact) job->record.n_shards = s;
    }
    return ZQ_OK;
}

/* The block that shard s brings; SIZE_MAX: none. */
static size_t layer_of(const struct job *job, size_t s)
{
    return s < job->plan.n_shards ? job->plan.items[job->plan.shards[s].first].layer : SIZE_MAX;
}

/* The file of activations that block `layer` starts from; the first starts from the samples. */
static char *streams_path(const struct job *job, size_t layer, zq_error *err)
{
    char name[48];
    snprintf(name, sizeof name, STREAMS_NAME, layer);
    char *path = zq_path_join(job->place.partial, name);
    if (!path) zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", job->place.partial);
    return path;
}

/* With distillation, shards count as long as the activations are there that the next block starts from. */
static zq_status count_taught(struct job *job, zq_error *err)
{
    if (!job->plan.lesson.method) return ZQ_OK;
    const size_t layer = layer_of(job, job->record.n_shards);
    if (layer != SIZE_MAX && layer) {
        char *path = streams_path(job, layer, err);
        if (!path) return ZQ_ENOMEM;
        struct stat info;
        if (stat(path, &info) || (uint64_t)info.st_size != zq_lesson_stream_bytes(&job->plan))
            while (job->record.n_shards && layer_of(job, job->record.n_shards)) job->record.n_shards--;
        zq_free(path);
    }
    size_t n_blocks = layer_of(job, job->record.n_shards);
    if (n_blocks == SIZE_MAX) n_blocks = job->record.n_shards == job->plan.n_shards ? job->plan.config.n_layers : 0;
    while (json_array_size(job->record.blocks) > n_blocks) json_array_remove(job->record.blocks, json_array_size(job->record.blocks) - 1);
    return ZQ_OK;
}

/* What an interrupted run of the same model and options has finished. */
static zq_status recover(struct job *job, zq_error *err)
{
    const char *dir = job->place.partial;
    json_t *record = NULL;
    zq_status st = zq_journal_read(&record, dir, ZQ_JOURNAL_NAME, err);
    if (!st && !record) st = zq_journal_read(&record, dir, ZQ_REPORT_NAME, err); /* it was stopped just before its end */
    if (!st && record) st = zq_run_compare(record, job->identity, dir, err);
    if (!st && record) st = zq_journal_load(&job->record, record, &job->plan, dir, err);
    if (!st) st = count_intact(job, err);
    if (!st) st = count_taught(job, err);
    json_decref(record);
    return st;
}

/* Leaves finished shards and their journal in the directory of work, and nothing else. */
static zq_status clear(struct job *job, zq_error *err)
{
    char **keep = zq_alloc_array(job->record.n_shards + 2, sizeof *keep);
    if (!keep) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the list of shards", job->place.partial);
    char journal[] = ZQ_JOURNAL_NAME, streams[48];
    snprintf(streams, sizeof streams, STREAMS_NAME, layer_of(job, job->record.n_shards));
    for (size_t s = 0; s < job->record.n_shards; s++) keep[s] = job->plan.shards[s].name;
    keep[job->record.n_shards] = journal;
    keep[job->record.n_shards + 1] = streams;
    bool removed;
    job->began = true;
    /* a run that was stopped just before its end has a report instead of a journal, and fewer shards may be intact than it says */
    zq_status st = ZQ_OK;
    if (job->record.n_shards)
        st = note_progress(job, err);
    if (!st) st = zq_place_clear(&job->place, keep, job->record.n_shards ? job->record.n_shards + 2 : 0, &removed, err);
    if (!st && removed && !job->options->resume) note(job, "removed what an interrupted run had left in %s", job->place.partial);
    if (!st && job->record.n_shards) note(job, "continuing after %zu of %zu shards", job->record.n_shards, job->plan.n_shards);
    zq_free(keep);
    return st;
}

static zq_status need_space(const struct job *job, zq_error *err)
{
    enum { REST = 1 << 20 }; /* headers, index, report */
    uint64_t n_bytes = REST + 2 * zq_lesson_stream_bytes(&job->plan); /* new ones are there before old ones go */
    if (job->means.scratch_dir) n_bytes += zq_lesson_stream_bytes(&job->plan) / 2 * 3;
    for (size_t s = job->record.n_shards; s < job->plan.n_shards; s++) n_bytes += job->plan.shards[s].bytes_out;
    return zq_place_need(&job->place, n_bytes, err);
}

static zq_status enter(struct job *job, zq_error *err)
{
    zq_status st = zq_place_lock(&job->place, err);
    if (!st && job->options->resume) st = recover(job, err);
    if (!st) st = clear(job, err);
    if (!st) st = need_space(job, err);
    job->resumed = !st && job->record.n_shards;
    return st;
}

/* ---- the work ----------------------------------------------------------------------------------------------------- */

/* All tensors of a shard, as its header announces them. */
static zq_status begin_shard(const struct job *job, const struct zq_shard *shard, const char *path, struct zq_safetensors_writer *out, zq_error *err)
{
    struct zq_tensor *parts = zq_alloc_array(ZQ_MAX_PARTS * shard->n, sizeof *parts);
    if (!parts) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its header", path);
    size_t n = 0;
    for (size_t i = shard->first; i < shard->first + shard->n; i++)
        for (size_t p = 0; p < job->plan.items[i].n_parts; p++) parts[n++] = job->plan.items[i].parts[p];
    zq_status st = zq_safetensors_begin(out, path, parts, n, err);
    zq_free(parts);
    return st;
}

static zq_status remember_block(struct job *job, size_t layer, const struct zq_lesson_block *b, zq_error *err)
{
    json_t *entry = json_pack("{s:I, s:o, s:o, s:b, s:o, s:o, s:o}", "layer", (json_int_t)layer, "before", zq_number_json(b->before), "after",
                              zq_number_json(b->after), "fell_back", b->fell_back, "drift_learned", zq_number_json(b->drift_learned), "drift_held",
                              zq_number_json(b->drift_held), "token_ranges", zq_box_json(&b->tokens));
    if (!entry || json_array_append_new(job->record.blocks, entry)) return zq_fail(err, ZQ_ENOMEM, "no memory for the report of block %zu", layer);
    const size_t n = job->plan.config.n_layers, n_left = n - layer - 1;
    const double seconds = seconds_since(&job->start) - job->taught_from;
    const char *kept = !b->fell_back ? "" : b->after < b->before ? ", training no better: kept as it found it" : ", kept as it began";
    note(job, "block %zu of %zu: loss on held-out samples %.4g -> %.4g (%.0f %%)%s, %.0f s left", layer + 1, n, b->before, b->after,
         b->before > 0 ? 100 * b->after / b->before : 100.0, kept,
         seconds / (double)(layer + 1 - job->first_layer) * (double)n_left);
    return ZQ_OK;
}

/* Settles how many iterations fit into the time that is left, and writes them down before the first block is solved with them. */
static zq_status fit(struct job *job, size_t layer, zq_error *err)
{
    size_t n;
    const double left = job->plan.lesson.budget_s - seconds_since(&job->start);
    zq_status st = zq_lesson_fit(job->lesson, layer, left, &n, err);
    if (st) return st;
    job->record.n_iterations = n;
    note(job, "%zu iterations of each block fit into the time budget", n);
    return note_progress(job, err);
}

/* Solves the block of shard s, which may be the first of this run. */
static zq_status teach(struct job *job, size_t s, zq_error *err)
{
    const size_t layer = layer_of(job, s);
    zq_status st = ZQ_OK;
    if (!job->plan.lesson.method || layer == SIZE_MAX) return ZQ_OK;
    if (!job->lesson) {
        char *path = layer ? streams_path(job, layer, err) : NULL;
        if (layer && !path) return ZQ_ENOMEM;
        job->first_layer = layer;
        job->progress.tensor = "samples";
        st = zq_lesson_open(&job->lesson, &job->plan, path, &job->means, err);
        job->taught_from = seconds_since(&job->start);
        zq_free(path);
    }
    struct zq_lesson_block b;
    job->progress.tensor = job->plan.items[job->plan.shards[s].first].tensor->name;
    if (!st && job->plan.lesson.budget_s > 0 && !job->record.n_iterations) st = fit(job, layer, err);
    if (!st) st = zq_lesson_solve(job->lesson, layer, job->record.n_iterations, &b, err);
    return st ? st : remember_block(job, layer, &b, err);
}

/* The activations that the block after shard s starts from, durable before the journal counts the shard. */
static zq_status save_streams(struct job *job, size_t s, zq_error *err)
{
    const size_t next = layer_of(job, s + 1);
    if (!job->lesson || next == SIZE_MAX) return ZQ_OK;
    char *path = streams_path(job, next, err);
    zq_status st = path ? zq_lesson_save(job->lesson, path, err) : ZQ_ENOMEM;
    zq_free(path);
    return st;
}

/* Those that shard s started from. */
static zq_status drop_streams(const struct job *job, size_t s, zq_error *err)
{
    const size_t layer = layer_of(job, s);
    if (!job->lesson || layer == SIZE_MAX || !layer) return ZQ_OK;
    char *path = streams_path(job, layer, err);
    zq_status st = !path ? ZQ_ENOMEM : unlink(path) && errno != ENOENT ? zq_fail_errno(err, "cannot remove %s", path) : ZQ_OK;
    zq_free(path);
    return st;
}

static zq_status write_shard(struct job *job, const struct zq_shard *shard, zq_error *err)
{
    struct zq_safetensors_writer out = {0};
    char *path = zq_path_join(job->place.partial, shard->name);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", job->place.partial);
    zq_status st = begin_shard(job, shard, path, &out, err);
    const bool begun = !st;
    for (size_t i = shard->first; i < shard->first + shard->n && !st; i++) {
        job->progress.tensor = job->plan.items[i].tensor->name;
        struct zq_means means = job->means;
        if (job->lesson) zq_lesson_give(job->lesson, &job->plan.items[i], &means);
        st = zq_item_write(&job->plan.items[i], &means, &out, &job->record.items[i], err);
        if (!st) job->progress.tensors_done++;
    }
    if (!st) st = zq_safetensors_end(&out, err);
    else if (begun) zq_safetensors_abandon(&out);
    zq_free(path);
    return st;
}

static zq_status count_shard(struct job *job, size_t s, zq_error *err)
{
    job->record.n_shards = s + 1;
    const zq_status st = note_progress(job, err);
    if (st) job->record.n_shards = s; /* what the journal does not count is not there */
    return st;
}

static zq_status write_shards(struct job *job, zq_error *err)
{
    for (size_t s = 0; s < job->record.n_shards; s++) {
        job->progress.tensors_done += job->plan.shards[s].n;
        job->progress.bytes_done += job->plan.shards[s].bytes_in;
    }
    zq_status st = ZQ_OK;
    if (!(job->means.buffers = zq_alloc((size_t)job->budget.buffer_bytes)))
        st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for buffers of %.1f MiB", job->plan.ckpt->dir, (double)job->budget.buffer_bytes / 0x1p20);
    for (size_t s = job->record.n_shards; s < job->plan.n_shards && !st; s++) {
        st = teach(job, s, err);
        if (!st) st = write_shard(job, &job->plan.shards[s], err);
        if (!st) st = save_streams(job, s, err);
        if (!st) st = count_shard(job, s, err);
        if (!st) st = drop_streams(job, s, err);
    }
    return st;
}

/* Fills job->report; *json is what zq-report.json holds. */
static zq_status make_report(struct job *job, json_t **json, uint64_t memory_bytes, double seconds, zq_error *err)
{
    *json = NULL;
    job->report = zq_report_make(&job->plan, &job->record);
    if (job->report) *json = zq_report_json(job->report, &job->plan, job->identity, &job->record);
    json_t *shown = *json ? zq_json_copy(*json) : NULL;
    if (shown) {
        zq_quantize_totals *t = zq_report_totals(job->report);
        t->memory_bytes = memory_bytes;
        t->seconds = seconds;
        t->resumed = job->resumed;
        t->nothing_to_do = job->nothing_to_do;
    }
    const bool ok = shown && zq_report_keep_json(job->report, shown);
    json_decref(shown);
    if (ok) return ZQ_OK;
    json_decref(*json);
    *json = NULL;
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the report", job->plan.ckpt->dir);
}

static zq_status remove_journal(const struct job *job, zq_error *err)
{
    char *path = zq_path_join(job->place.partial, ZQ_JOURNAL_NAME);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", job->place.partial);
    zq_status st = unlink(path) ? zq_fail_errno(err, "cannot remove %s", path) : ZQ_OK;
    zq_free(path);
    return st;
}

/* Everything beside the shards, then the name. */
static zq_status finish(struct job *job, zq_error *err)
{
    const char *dir = job->place.partial;
    json_t *json = NULL;
    zq_status st = zq_sidefiles_copy(&job->sidefiles, job->plan.ckpt->dir, dir, err);
    if (!st) st = zq_config_write(dir, &job->plan, err);
    if (!st) st = zq_index_write(dir, &job->plan, err);
    if (!st) st = make_report(job, &json, zq_budget_peak(), seconds_since(&job->start), err);
    const struct zq_record all = so_far(job);
    if (!st) st = zq_page_write(dir, job->report, &job->plan, &all, err);
    if (!st) st = zq_json_write(dir, ZQ_REPORT_NAME, json, err);
    if (!st) st = remove_journal(job, err);
    if (!st) st = zq_place_publish(&job->place, job->options->force, err);
    json_decref(json);
    return st;
}

/* Removes what a run leaves that is killed after it has replaced an older output: that output, under the name of the directory
 * of work. With a journal it is a run that somebody may want to resume. */
static zq_status tidy(struct job *job, zq_error *err)
{
    json_t *record = NULL;
    if (!zq_file_exists(job->place.partial) || zq_place_lock(&job->place, NULL)) return ZQ_OK;
    zq_status st = zq_journal_read(&record, job->place.partial, ZQ_JOURNAL_NAME, err);
    if (!st && !record) st = zq_place_discard(&job->place, err);
    json_decref(record);
    return st;
}

/* What a failed run leaves: finished shards if someone may want to resume, else nothing. */
static void withdraw(struct job *job, zq_status st)
{
    const bool keep = (st == ZQ_ECANCELLED || job->options->resume) && job->record.n_shards;
    if (!job->began) return;
    if (!keep) zq_place_discard(&job->place, NULL);
}

static zq_status quantize(struct job *job, zq_error *err)
{
    zq_status st = identify(job, err);
    if (!st) st = meet_output(job, err);
    if (!st && job->nothing_to_do) {
        json_t *json = NULL;
        st = tidy(job, err);
        if (!st) st = make_report(job, &json, zq_budget_peak(), seconds_since(&job->start), err);
        json_decref(json);
        return st;
    }
    if (!st) st = enter(job, err);
    if (!st) st = write_shards(job, err);
    if (!st) st = finish(job, err);
    if (st) withdraw(job, st);
    return st;
}

static zq_status dry_run(struct job *job, zq_error *err)
{
    json_t *json;
    double seconds;
    job->identity = json_pack("{s:O}", "options", job->plan.options);
    zq_status st = job->identity ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "%s: no memory for the plan", job->plan.ckpt->dir);
    if (!st) st = zq_budget_seconds(&seconds, &job->plan, job->means.n_threads, err);
    if (!st) st = make_report(job, &json, job->budget.memory_bytes, seconds, err);
    if (!st) json_decref(json);
    return st;
}

static zq_status fit_memory(struct job *job, zq_error *err)
{
    const uint64_t bound = job->options->memory_bytes;
    zq_status st = zq_budget_fit(&job->means, &job->plan, false, bound, &job->budget, err);
    if (st != ZQ_ENOMEM || !job->plan.lesson.method || !bound) return st;
    st = zq_budget_fit(&job->means, &job->plan, true, bound, &job->budget, err); /* streams need not be resident */
    job->means.scratch_dir = job->place.partial ? job->place.partial : ".";
    if (!st) note(job, "the activations of all samples are kept on disk, so that the job stays within the bound on memory");
    return st;
}

static zq_status prepare(struct job *job, const char *model_dir, const char *out_dir, zq_error *err)
{
    zq_status st = zq_plan_make(&job->plan, model_dir, job->options, err);
    if (!st) st = zq_lesson_device(&job->device, &job->plan, err);
    if (!st && !job->options->dry_run) st = zq_place_open(&job->place, out_dir, model_dir, err);
    if (!st) st = zq_record_create(&job->record, &job->plan, err);
    if (!st) st = fit_memory(job, err);
    job->progress.n_tensors = job->plan.n_items;
    job->progress.n_bytes = st ? 0 : job->plan.ckpt->n_bytes;
    return st;
}

zq_status zq_quantize(const char *model_dir, const char *out_dir, const zq_quantize_options *options, zq_quantize_report **report, zq_error *err)
{
    static const zq_quantize_options defaults = {0};
    struct job job = {.options = options ? options : &defaults, .place.lock = -1};
    if (report) *report = NULL;
    clock_gettime(CLOCK_MONOTONIC, &job.start);
    job.means = (struct zq_means){.n_threads = zq_thread_count(job.options->n_threads), .encode = zq_encode_nearest, .tick = tick, .user = &job};
    zq_status st = prepare(&job, model_dir, out_dir, err);
    if (!st) st = job.options->dry_run ? dry_run(&job, err) : quantize(&job, err);
    if (!st && report) *report = job.report;
    else zq_quantize_report_free(job.report);
    zq_place_close(&job.place);
    zq_sidefiles_free(&job.sidefiles);
    zq_lesson_close(job.lesson);
    zq_device_close(job.device);
    zq_free(job.means.buffers);
    zq_record_free(&job.record);
    json_decref(job.identity);
    zq_plan_free(&job.plan);
    return st;
}
