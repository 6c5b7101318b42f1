/* Plan and report of a quantization, from the library's own report. */
#include "quantize_text.h"

#include "size.h"
#include "table.h"

#include <math.h>
#include <string.h>

enum { N_WORST = 5 };

static void print_remarks(const zq_quantize_report *report, FILE *to)
{
    const char *remark;
    for (size_t i = 0; (remark = zq_quantize_report_remark(report, i)) != NULL; i++) fprintf(to, "%s  %s\n", i ? "" : "Remarks:\n", remark);
}

static void print_sizes(const zq_quantize_totals *t, FILE *to)
{
    char in[SIZE_TEXT], out[SIZE_TEXT], blocks[SIZE_TEXT];
    size_text(t->bytes_in, in);
    size_text(t->bytes_out, out);
    size_text(t->block_bytes, blocks);
    fprintf(to, "  all tensors      %s -> %s, %.2fx smaller than FP16\n", in, out, t->file_ratio);
    fprintf(to, "  inside blocks    %s, %.2fx smaller than FP16, %.3f bits per weight with scales\n", blocks, t->block_ratio, t->bits_per_weight);
}

zq_status print_plan(const zq_quantize_report *plan, bool distils, bool remarks, FILE *to, zq_error *err)
{
    struct table table = {.name_title = "tensor", .text_title = {"stored", "becomes"}, .bytes_title = {"size in", "size out"}};
    const zq_quantize_totals *t = zq_quantize_report_totals(plan);
    bool ok = true;
    for (size_t i = 0; ok && i < t->n_entries; i++) {
        const zq_plan_entry *e = zq_quantize_report_entry(plan, i);
        struct table_row *row = table_add(&table, e->name);
        if (!row) {
            ok = false;
            break;
        }
        snprintf(row->text[0], TABLE_CELL, "%s", e->from);
        snprintf(row->text[1], TABLE_CELL, "%s", e->to);
        row->bytes[0] = e->bytes_in;
        row->bytes[1] = e->bytes_out;
    }
    fprintf(to, "Plan:\n");
    ok = ok && table_print(&table, to);
    table_free(&table);
    if (!ok) return fail(err, ZQ_ENOMEM, "out of memory for a table of %zu tensors", t->n_entries);
    char memory[SIZE_TEXT];
    print_sizes(t, to);
    fprintf(to, "  estimates        %s of memory, %.3g s: coding as timed here, files read at 1 GB/s and written at 0.3 GB/s%s\n",
            size_text(t->memory_bytes, memory), t->seconds, distils ? "; distillation by its operations" : "");
    if (remarks) print_remarks(plan, to);
    return ZQ_OK;
}

/* Keeps worst[*n], falling by error, at most N_WORST of them. */
static void keep_worst(const zq_plan_entry **worst, size_t *n, const zq_plan_entry *e)
{
    if (isnan(e->relative_error)) return;
    size_t at = *n;
    while (at && worst[at - 1]->relative_error < e->relative_error) at--;
    if (at == N_WORST) return;
    if (*n < N_WORST) ++*n;
    memmove(worst + at + 1, worst + at, (*n - at - 1) * sizeof *worst);
    worst[at] = e;
}

static void print_worst(const zq_quantize_report *report, FILE *to)
{
    const zq_plan_entry *worst[N_WORST], *e;
    size_t n = 0;
    for (size_t i = 0; (e = zq_quantize_report_entry(report, i)) != NULL; i++) keep_worst(worst, &n, e);
    if (n) fprintf(to, "Largest relative errors |W - Wq| / |W|:\n");
    for (size_t i = 0; i < n; i++) fprintf(to, "  %.5f  %-15s  %s\n", worst[i]->relative_error, worst[i]->to, worst[i]->name);
}

void print_report(const zq_quantize_report *report, const char *out_dir, FILE *to)
{
    const zq_quantize_totals *t = zq_quantize_report_totals(report);
    if (t->nothing_to_do) {
        fprintf(to, "%s is finished already: nothing to do\n", out_dir);
        return;
    }
    char memory[SIZE_TEXT];
    fprintf(to, "Written: %s%s\n", out_dir, t->resumed ? " (parts of it by an earlier run)" : "");
    print_sizes(t, to);
    fprintf(to, "  this run         %.3g s, at most %s of memory\n", t->seconds, size_text(t->memory_bytes, memory));
    print_worst(report, to);
    print_remarks(report, to);
}
