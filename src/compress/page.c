/* Sections of the page, in their order. What was not measured leaves its section out: a run without distillation has no losses. */
#include "compress/page.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char style[] =
    ":root{color-scheme:light dark;--text:#1f2328;--soft:#59636e;--line:#d1d9e0;--back:#fff;--card:#f6f8fa}\n"
    "@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9198a1;--line:#3d444d;--back:#0d1117;--card:#151b23}}\n"
    "body{margin:0 auto;max-width:1160px;padding:24px;background:var(--back);color:var(--text)}\n"
    "body{font:15px/1.5 system-ui,'DejaVu Sans',Arial,sans-serif}\n"
    "h1{font-size:24px;margin:0}h2{font-size:18px;margin:36px 0 8px}p{color:var(--soft);margin:4px 0 12px;max-width:90ch}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:4px 14px 4px 0;border-bottom:1px solid var(--line);text-align:left}\n"
    "th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right}.wide{overflow-x:auto}svg{max-width:100%;height:auto}\n"
    ".cards{display:flex;flex-wrap:wrap;gap:10px;margin:16px 0}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 14px}\n"
    ".card b{display:block;font-size:20px}.card span{color:var(--soft)}details{margin:8px 0}summary{cursor:pointer;color:var(--soft)}\n";

/* ---- words and numbers */

struct words {
    char text[64];
};

/* printf's number with a point, whatever the caller's locale. */
static struct words number(const char *format, double x)
{
    struct words w;
    snprintf(w.text, sizeof w.text, format, x);
    for (char *c = w.text; *c; c++)
        if (*c == ',') *c = '.';
    return w;
}

static struct words size(uint64_t n_bytes)
{
    static const char *const formats[] = {"%.3g kB", "%.3g MB", "%.3g GB", "%.3g TB"};
    double x = (double)n_bytes / 1000;
    size_t i = 0;
    for (; x >= 1000 && i + 1 < ZQ_LEN(formats); i++) x /= 1000;
    return number(formats[i], x);
}

static struct words duration(double seconds)
{
    struct words w;
    const long long s = llround(seconds);
    if (seconds < 100) return number("%.1f s", seconds);
    snprintf(w.text, sizeof w.text, "%lld min %lld s", s / 60, s % 60);
    return w;
}

static void card(struct zq_buffer *b, const char *value, const char *name)
{
    zq_put(b, "<div class=\"card\"><b>%s</b><span>%s</span></div>\n", value, name);
}

static void row(struct zq_buffer *b, const char *name, const char *value)
{
    zq_put(b, "<tr><th>%s</th><td>", name);
    zq_put_escaped(b, value);
    zq_put(b, "</td></tr>\n");
}

static void cell(struct zq_buffer *b, const char *text) { zq_put(b, "<td class=\"n\">%s</td>", text); }

static void section(struct zq_buffer *b, const char *title, const char *text) { zq_put(b, "<h2>%s</h2>\n<p>%s</p>\n", title, text); }

static zq_status picture(struct zq_buffer *b, const struct zq_panel *panels, size_t n, zq_error *err)
{
    char *svg;
    const zq_status st = zq_plot_svg(&svg, panels, n, err);
    if (!st) zq_put(b, "<div class=\"wide\">\n%s</div>\n", svg);
    zq_free(svg);
    return st;
}

/* ---- the run */

static void put_summary(struct zq_buffer *b, const zq_quantize_totals *t, const struct zq_plan *plan, const struct zq_record *record)
{
    const struct zq_config *c = &plan->config;
    const char *scheme = json_string_value(json_object_get(plan->options, "scheme"));
    zq_put(b, "<h1>%s, %zu layers, width %zu: %s</h1>\n", c->arch->model_type, c->n_layers, c->width, scheme);
    zq_put(b, "<p>quantized by zeroquant %s</p>\n<div class=\"cards\">\n", zq_version());
    char sizes[160];
    snprintf(sizes, sizeof sizes, "%s &rarr; %s", size(t->bytes_in).text, size(t->bytes_out).text);
    card(b, sizes, "all tensors");
    card(b, number("%.2fx", t->file_ratio).text, "smaller than FP16");
    card(b, number("%.2fx", t->block_ratio).text, "smaller inside the blocks");
    card(b, number("%.3f", t->bits_per_weight).text, "bits per weight, scales included");
    card(b, duration(record->seconds).text, record->n_runs > 1 ? "time, all runs together" : "time");
    card(b, size(record->memory_bytes).text, "peak memory");
    zq_put(b, "</div>\n");
}

static const char *text_of(const struct zq_plan *plan, const char *key) { return json_string_value(json_object_get(plan->options, key)); }

static void put_data(struct zq_buffer *b, const struct zq_plan *plan)
{
    const struct zq_lesson_settings *s = &plan->lesson;
    char text[200];
    row(b, "data", s->data);
    snprintf(text, sizeof text, "%zu samples of %zu tokens, %zu tokens in all; %zu samples held out; no labels", s->n, s->length, s->n * s->length,
             s->n_held);
    row(b, "samples", text);
}

static void put_method(struct zq_buffer *b, const struct zq_plan *plan, const struct zq_record *record)
{
    const struct zq_lesson_settings *s = &plan->lesson;
    char text[200];
    section(b, "Method", "What was asked for, and what it took.");
    zq_put(b, "<table>\n");
    row(b, "scheme", text_of(plan, "scheme"));
    row(b, "groups", text_of(plan, "group"));
    row(b, "embeddings", text_of(plan, "embeddings"));
    row(b, "distillation", s->method ? s->method->name : "none: round to nearest");
    if (s->method) put_data(b, plan);
    else row(b, "data", "none");
    if (s->method && s->method->trains) {
        const size_t n = record->n_iterations ? record->n_iterations : s->solve.n_iterations;
        snprintf(text, sizeof text, "%zu%s, each with %zu samples; loss: %s", n, record->n_iterations ? " (fitted into the time budget)" : "",
                 s->solve.batch, s->solve.loss == ZQ_LOSS_KL ? "KL divergence" : "mean squared error");
        row(b, "steps of each block", text);
        row(b, "learning rate", s->solve.rate > 0 ? number("%g", s->solve.rate).text : "chosen by the method");
    }
    snprintf(text, sizeof text, "%s%s", duration(record->seconds).text, record->n_runs > 1 ? ", over several runs" : "");
    row(b, "time", text);
    row(b, "peak memory", size(record->memory_bytes).text);
    zq_put(b, "</table>\n");
}

/* ---- blocks */

enum { BEFORE, AFTER, SHARE, LEARNED, HELD, N_LINES };

struct curves {
    double *values[N_LINES]; /* [n] */
    struct zq_box *tokens, *rows; /* [n] */
    size_t n;
};

static double of(const json_t *block, const char *key) { return zq_number_of(json_object_get(block, key)); }

static bool take_curves(struct curves *c, const struct zq_plan *plan, const struct zq_record *record)
{
    static const char *const keys[] = {[BEFORE] = "before", [AFTER] = "after", [LEARNED] = "drift_learned", [HELD] = "drift_held"};
    const size_t n = plan->config.n_layers;
    *c = (struct curves){.n = n, .tokens = zq_alloc_array(n, sizeof *c->tokens), .rows = zq_alloc_array(n, sizeof *c->rows)};
    bool ok = c->tokens && c->rows;
    for (int i = 0; i < N_LINES; i++) ok = (c->values[i] = zq_alloc_array(n, sizeof(double))) && ok;
    for (size_t l = 0; l < n && ok; l++) {
        const json_t *block = json_array_get(record->blocks, l);
        for (int i = 0; i < N_LINES; i++) c->values[i][l] = keys[i] ? of(block, keys[i]) : (double)NAN;
        c->values[SHARE][l] = c->values[BEFORE][l] > 0 ? 100 * c->values[AFTER][l] / c->values[BEFORE][l] : (double)NAN;
        c->tokens[l] = zq_box_of_json(json_object_get(block, "token_ranges"));
        c->rows[l].min = NAN;
    }
    for (size_t i = 0; i < plan->n_items && ok; i++) {
        const struct zq_module *m = plan->items[i].module;
        if (m && m->in_block && m->role == ZQ_O) c->rows[m->layer] = record->items[i].rows;
    }
    return ok;
}

static void free_curves(struct curves *c)
{
    for (int i = 0; i < N_LINES; i++) zq_free(c->values[i]);
    zq_free(c->tokens);
    zq_free(c->rows);
}

static void put_block_table(struct zq_buffer *b, const struct curves *c, const json_t *blocks)
{
    zq_put(b, "<details><summary>all numbers</summary>\n<table><tr><th class=\"n\">block</th><th class=\"n\">loss before</th>"
              "<th class=\"n\">after</th><th class=\"n\">%%</th><th class=\"n\">stream, learned</th><th class=\"n\">held out</th><th></th></tr>\n");
    for (size_t l = 0; l < c->n; l++) {
        zq_put(b, "<tr><td class=\"n\">%zu</td>", l);
        cell(b, number("%.4g", c->values[BEFORE][l]).text);
        cell(b, number("%.4g", c->values[AFTER][l]).text);
        cell(b, number("%.1f", c->values[SHARE][l]).text);
        cell(b, number("%.4f", c->values[LEARNED][l]).text);
        cell(b, number("%.4f", c->values[HELD][l]).text);
        zq_put(b, "<td>%s</td></tr>\n", json_is_true(json_object_get(json_array_get(blocks, l), "fell_back")) ? "kept as it began" : "");
    }
    zq_put(b, "</table></details>\n");
}

static zq_status put_blocks(struct zq_buffer *b, const struct curves *c, const struct zq_plan *plan, const struct zq_record *record, zq_error *err)
{
    if (!json_array_size(record->blocks)) return ZQ_OK;
    const struct zq_series losses[] = {{.kind = ZQ_PLOT_BARS, .name = "round to nearest", .values = c->values[BEFORE]},
                                       {.kind = ZQ_PLOT_BARS, .name = plan->lesson.method->name, .values = c->values[AFTER]}};
    const struct zq_series share = {.kind = ZQ_PLOT_BARS, .values = c->values[SHARE]};
    const struct zq_series drift[] = {{.kind = ZQ_PLOT_LINE, .name = "samples learned from", .values = c->values[LEARNED]},
                                      {.kind = ZQ_PLOT_LINE, .name = "held out", .values = c->values[HELD]}};
    const struct zq_panel panels[] = {
        {"Loss of each block", "block", "loss on held-out samples", NULL, 0, c->n, losses, ZQ_LEN(losses)},
        {"What is left of it", "block", "% of round to nearest", NULL, 0, c->n, &share, 1},
    };
    const struct zq_panel stream = {"How far the quantized stream is off", "after block", "|student - teacher| / |teacher|", NULL, 0, c->n, drift, 2};
    section(b, "Loss per block", "Between each block's output and that of its original, on samples that were not learned from.");
    zq_status st = picture(b, panels, ZQ_LEN(panels), err);
    if (!st) st = picture(b, &stream, 1, err);
    if (!st) put_block_table(b, c, record->blocks);
    return st;
}

static bool all_there(const struct zq_box *boxes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(boxes[i].min)) return false;
    return n != 0;
}

static zq_status put_ranges(struct zq_buffer *b, const struct curves *c, zq_error *err)
{
    const struct zq_series tokens = {.kind = ZQ_PLOT_BOXES, .boxes = c->tokens}, rows = {.kind = ZQ_PLOT_BOXES, .boxes = c->rows};
    const struct zq_panel of_tokens = {"Activation range of each token", "layer", "max - min of a token", NULL, 0, c->n, &tokens, 1};
    const struct zq_panel of_rows = {"Weight range of each row", "layer", "max - min of a row", NULL, 0, c->n, &rows, 1};
    const bool some_tokens = all_there(c->tokens, c->n), some_rows = all_there(c->rows, c->n);
    struct zq_panel panels[2];
    size_t n = 0;
    if (some_tokens) panels[n++] = of_tokens;
    if (some_rows) panels[n++] = of_rows;
    if (!n) return ZQ_OK;
    section(b, "Ranges", "Of the attention output projection, as in Figure 1 of the paper: least, quartiles and largest. Where they differ, "
                         "one scale for all tokens, or for all rows, leaves most of them few codes.");
    return picture(b, panels, n, err);
}

/* ---- tensors */

static const char *const role_names[ZQ_N_LINEARS] = {[ZQ_QKV] = "query, key, value", [ZQ_Q] = "query", [ZQ_K] = "key", [ZQ_V] = "value",
                                                     [ZQ_O] = "attention output", [ZQ_GATE] = "gate", [ZQ_UP] = "up", [ZQ_DOWN] = "down"};

/* A line for each kind of map over the layers. */
static zq_status put_error_picture(struct zq_buffer *b, const struct zq_plan *plan, const struct zq_record *record, zq_error *err)
{
    const size_t n = plan->config.n_layers;
    double *values = zq_alloc_array(n * ZQ_N_LINEARS, sizeof *values);
    if (!values) return zq_fail(err, ZQ_ENOMEM, "no memory for a picture");
    bool seen[ZQ_N_LINEARS] = {0};
    struct zq_series series[ZQ_N_LINEARS];
    size_t n_series = 0;
    for (size_t i = 0; i < n * ZQ_N_LINEARS; i++) values[i] = NAN;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_module *m = plan->items[i].module;
        if (!m || !m->in_block || isnan(record->items[i].relative_error)) continue;
        values[m->role * n + m->layer] = record->items[i].relative_error;
        seen[m->role] = true;
    }
    for (size_t r = 0; r < ZQ_N_LINEARS; r++)
        if (seen[r]) series[n_series++] = (struct zq_series){.kind = ZQ_PLOT_LINE, .name = role_names[r], .values = values + r * n};
    const struct zq_panel panel = {"Error of the weights", "layer", "|W - Wq| / |W|", NULL, 0, n, series, n_series};
    const zq_status st = n_series ? picture(b, &panel, 1, err) : ZQ_OK;
    zq_free(values);
    return st;
}

static zq_status put_tensors(struct zq_buffer *b, const zq_quantize_report *report, const struct zq_plan *plan, const struct zq_record *record,
                             zq_error *err)
{
    section(b, "Tensors", "What became of each, and the relative error of its weights. "
                          "Methods that learn take more of it where it matters less.");
    const zq_status st = put_error_picture(b, plan, record, err);
    if (st) return st;
    zq_put(b, "<details open><summary>all tensors</summary>\n<div class=\"wide\"><table><tr><th>tensor</th><th>from</th><th>to</th>"
              "<th class=\"n\">size in</th><th class=\"n\">size out</th>"
              "<th class=\"n\">error</th><th class=\"n\">rows: largest / least range</th></tr>\n");
    const zq_plan_entry *e;
    for (size_t i = 0; (e = zq_quantize_report_entry(report, i)) != NULL; i++) {
        const struct zq_measured *m = &record->items[i];
        zq_put(b, "<tr><td>");
        zq_put_escaped(b, e->name);
        zq_put(b, "</td><td>%s</td><td>%s</td>", e->from, e->to);
        cell(b, size(e->bytes_in).text);
        cell(b, size(e->bytes_out).text);
        cell(b, isnan(m->relative_error) ? "" : number("%.5f", m->relative_error).text);
        cell(b, m->rows.min > 0 ? number("%.1fx", m->rows.max / m->rows.min).text : "");
        zq_put(b, "</tr>\n");
    }
    zq_put(b, "</table></div></details>\n");
    return ZQ_OK;
}

static void put_remarks(struct zq_buffer *b, const zq_quantize_report *report)
{
    const char *remark;
    for (size_t i = 0; (remark = zq_quantize_report_remark(report, i)) != NULL; i++) {
        zq_put(b, "%s<li>", i ? "" : "<h2>Remarks</h2>\n<ul>\n");
        zq_put_escaped(b, remark);
        zq_put(b, "</li>\n%s", zq_quantize_report_remark(report, i + 1) ? "" : "</ul>\n");
    }
}

static zq_status put_page(struct zq_buffer *b, const zq_quantize_report *report, const struct zq_plan *plan, const struct zq_record *record,
                          zq_error *err)
{
    struct curves curves;
    zq_put(b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n"
              "<title>%s</title>\n<style>\n%s</style>\n</head>\n<body>\n", ZQ_PAGE_NAME, style);
    zq_status st = ZQ_OK;
    if (!take_curves(&curves, plan, record)) st = zq_fail(err, ZQ_ENOMEM, "no memory for the report of %zu blocks", plan->config.n_layers);
    if (!st) put_summary(b, zq_quantize_report_totals(report), plan, record);
    if (!st) put_method(b, plan, record);
    if (!st) st = put_blocks(b, &curves, plan, record, err);
    if (!st) st = put_ranges(b, &curves, err);
    if (!st) st = put_tensors(b, report, plan, record, err);
    put_remarks(b, report);
    zq_put(b, "<p>Time and memory differ from run to run; every other file of this directory, zq-report.json with the same numbers among them, "
              "does not.</p>\n</body>\n</html>\n");
    free_curves(&curves);
    return st;
}

zq_status zq_page_write(const char *dir, const zq_quantize_report *report, const struct zq_plan *plan, const struct zq_record *record, zq_error *err)
{
    struct zq_buffer b = {0};
    char *path = zq_path_join(dir, ZQ_PAGE_NAME);
    zq_status st = put_page(&b, report, plan, record, err);
    if (!st && (b.failed || !path)) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for " ZQ_PAGE_NAME, dir);
    if (!st) st = zq_file_write(path, b.text, b.n, err);
    zq_free(b.text);
    zq_free(path);
    return st;
}
