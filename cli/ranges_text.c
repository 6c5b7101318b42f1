/* What the paper reads off its Figure 1, for any model and text. */
#include "ranges_text.h"

#include "input.h"
#include "json.h"
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool show_share(void *user, size_t done, size_t total)
{
    return progress_show(user, (double)done, (double)total, "");
}

static void row_extremes(const zq_module_ranges *m, float *least, float *largest, double *codes)
{
    size_t sum = 0;
    *least = *largest = m->rows[0];
    for (size_t r = 0; r < m->n_rows; r++) {
        if (m->rows[r] < *least) *least = m->rows[r];
        if (m->rows[r] > *largest) *largest = m->rows[r];
        sum += m->codes[r];
    }
    *codes = (double)sum / (double)m->n_rows;
}

static unsigned least_codes(const zq_module_ranges *m)
{
    unsigned least = m->codes[0];
    for (size_t r = 1; r < m->n_rows; r++) least = m->codes[r] < least ? m->codes[r] : least;
    return least;
}

static json_t *codes_json(const zq_module_ranges *m)
{
    json_t *array = json_array();
    for (size_t r = 0; array && r < m->n_rows; r++) json_array_append_new(array, json_integer(m->codes[r]));
    return array;
}

static zq_status print_as_json(const zq_ranges *r, zq_error *err)
{
    json_t *modules = json_array();
    for (size_t i = 0; modules && i < r->n_modules; i++) {
        const zq_module_ranges *m = &r->modules[i];
        json_t *o = json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:o}", "name", json_text(m->name, strlen(m->name)), "layer", (json_int_t)m->layer,
                              "token_ratio", json_number(m->token_ratio), "row_ratio", json_number(m->row_ratio), "token_ranges",
                              json_floats(m->tokens, r->n_tokens), "row_ranges", json_floats(m->rows, m->n_rows), "int4_codes", codes_json(m));
        if (!json_array_append_new(modules, o)) continue;
        json_decref(modules);
        modules = NULL;
    }
    return json_print(json_pack("{s:I, s:o}", "tokens", (json_int_t)r->n_tokens, "modules", modules), 0, err);
}

static zq_status print_table(const zq_ranges *r, zq_error *err)
{
    int width = 0;
    for (size_t i = 0; i < r->n_modules; i++) width = (int)strlen(r->modules[i].name) > width ? (int)strlen(r->modules[i].name) : width;
    printf("least and largest range (max - min) of %zu tokens and of the rows of weights; how many of the 16 INT4 codes a row uses\n"
           "when the whole matrix has one scale: mean over rows, and least\n\n", r->n_tokens);
    printf("%-*s  %8s %8s %7s   %8s %8s %7s   %5s %6s\n", width, "", "token", "", "ratio", "row", "", "ratio", "codes", "least");
    for (size_t i = 0; i < r->n_modules; i++) {
        const zq_module_ranges *m = &r->modules[i];
        float least, largest;
        double codes;
        row_extremes(m, &least, &largest, &codes);
        printf("%-*s  %8.3g %8.3g %6.1fx   %8.3g %8.3g %6.1fx   %5.1f %6u\n", width, m->name, (double)m->tokens[0],
               (double)m->tokens[r->n_tokens - 1], m->token_ratio, (double)least, (double)largest, m->row_ratio, codes, least_codes(m));
    }
    return flush_output(err);
}

zq_status ranges_show(const zq_model *model, const struct ranges_request *request, zq_error *err)
{
    char *text;
    size_t n_bytes;
    zq_status st = input_read(request->text, &text, &n_bytes, err);
    if (st) return st;
    struct progress progress;
    zq_ranges ranges = {0};
    const zq_ranges_options options = {.n_threads = settings.n_threads, .regex = request->regex, .window = request->window, .limit = request->limit,
                                       .progress = show_share, .user = &progress};
    progress_begin(&progress, "measuring");
    st = zq_measure_ranges(model, text, n_bytes, &options, &ranges, err);
    progress_end(&progress);
    if (!st && request->picture) st = zq_ranges_draw(&ranges, request->picture, err);
    if (!st) st = (request->json ? print_as_json : print_table)(&ranges, err);
    zq_ranges_free(&ranges);
    free(text);
    return st;
}
