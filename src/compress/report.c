/* Two texts of one report: the file in the output holds only what follows from model and options, because an interrupted and
 * resumed run must leave the same bytes; time and memory are added to what the caller gets. */
#include "compress/report.h"

#include "base/alloc.h"
#include "compress/journal.h"
#include "compress/metadata.h"

#include <stdio.h>
#include <string.h>

struct zq_quantize_report {
    zq_quantize_totals totals;
    zq_plan_entry *entries; /* [totals.n_entries] names owned */
    char **remarks;         /* [n_remarks] */
    size_t n_remarks;
    char *json;
};

static bool make_entry(zq_plan_entry *e, const struct zq_item *item, double relative_error)
{
    *e = (zq_plan_entry){.name = zq_strdup(item->tensor->name), .from = zq_dtype_name(item->tensor->dtype), .bytes_in = item->tensor->n_bytes,
                         .bytes_out = item->bytes_out, .relative_error = relative_error};
    if (item->storage != ZQ_STORED_FLOAT) {
        char scheme[16], group[32];
        zq_spec_scheme_text(item->layout.spec, scheme);
        zq_layout_group_text(&item->layout, group);
        snprintf(e->to, sizeof e->to, "%s %s", scheme, group);
    } else {
        snprintf(e->to, sizeof e->to, "%s", item->n_parts ? e->from : "left out (tied)");
    }
    return e->name != NULL;
}

zq_quantize_report *zq_report_make(const struct zq_plan *plan, const struct zq_record *record)
{
    zq_quantize_report *r = zq_alloc_zero(sizeof *r);
    if (!r) return NULL;
    r->entries = zq_alloc_array(plan->n_items, sizeof *r->entries);
    r->remarks = zq_alloc_array(plan->remarks.n, sizeof *r->remarks);
    bool ok = r->entries && r->remarks;
    for (size_t i = 0; i < plan->n_items && ok; i++) {
        ok = make_entry(&r->entries[i], &plan->items[i], record->items[i].relative_error);
        r->totals.n_entries = i + 1;
    }
    for (; r->n_remarks < plan->remarks.n && ok; r->n_remarks++) {
        r->remarks[r->n_remarks] = zq_strdup(plan->remarks.sentences[r->n_remarks]);
        ok = r->remarks[r->n_remarks] != NULL;
    }
    if (ok) {
        zq_plan_totals(plan, &r->totals);
        return r;
    }
    zq_quantize_report_free(r);
    return NULL;
}

zq_quantize_totals *zq_report_totals(zq_quantize_report *report)
{
    return &report->totals;
}

/* The setters of jansson take a NULL value as a failure. */
static bool set(json_t *object, const char *key, json_t *value)
{
    return !json_object_set_new(object, key, value);
}

static json_t *totals_json(const zq_quantize_totals *t)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "bytes_in", (json_int_t)t->bytes_in, "bytes_out", (json_int_t)t->bytes_out,
                     "block_values", (json_int_t)t->block_values, "block_bytes", (json_int_t)t->block_bytes, "block_ratio", t->block_ratio,
                     "file_ratio", t->file_ratio, "bits_per_weight", t->bits_per_weight);
}

static json_t *entry_json(const zq_plan_entry *e, const struct zq_measured *m)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:o, s:o}", "name", e->name, "from", e->from, "to", e->to, "bytes_in", (json_int_t)e->bytes_in,
                     "bytes_out", (json_int_t)e->bytes_out, "relative_error", zq_number_json(m->relative_error), "row_ranges", zq_box_json(&m->rows));
}

json_t *zq_report_json(const zq_quantize_report *r, const struct zq_plan *plan, const json_t *identity, const struct zq_record *record)
{
    json_t *json = zq_json_copy(identity), *tensors = json_array(), *remarks = json_array();
    bool ok = json && tensors && remarks;
    for (size_t i = 0; i < r->n_remarks && ok; i++) ok = !json_array_append_new(remarks, json_string(r->remarks[i]));
    for (size_t i = 0; i < r->totals.n_entries && ok; i++) ok = !json_array_append_new(tensors, entry_json(&r->entries[i], &record->items[i]));
    ok = ok && set(json, "totals", totals_json(&r->totals)) && set(json, "shards", json_integer((json_int_t)plan->n_shards));
    ok = ok && !json_object_set(json, "remarks", remarks) && !json_object_set(json, "tensors", tensors);
    if (ok && record->n_iterations) ok = set(json, "fitted_iterations", json_integer((json_int_t)record->n_iterations));
    if (ok && json_array_size(record->blocks)) ok = !json_object_set(json, "blocks", record->blocks);
    json_decref(tensors);
    json_decref(remarks);
    if (ok) return json;
    json_decref(json);
    return NULL;
}

bool zq_report_keep_json(zq_quantize_report *r, json_t *json)
{
    const zq_quantize_totals *t = &r->totals;
    if (!set(json, "run", json_pack("{s:f, s:I, s:b, s:b}", "seconds", t->seconds, "memory_bytes", (json_int_t)t->memory_bytes, "resumed", t->resumed,
                                    "nothing_to_do", t->nothing_to_do)))
        return false;
    char *text;
    zq_json_print(&text, NULL, json, JSON_INDENT(2), NULL);
    r->json = text ? zq_format("%s\n", text) : NULL;
    zq_free(text);
    return r->json != NULL;
}

void zq_quantize_report_free(zq_quantize_report *r)
{
    if (!r) return;
    for (size_t i = 0; r->entries && i < r->totals.n_entries; i++) zq_free((char *)(uintptr_t)r->entries[i].name);
    for (size_t i = 0; i < r->n_remarks; i++) zq_free(r->remarks[i]);
    zq_free(r->entries);
    zq_free(r->remarks);
    zq_free(r->json);
    zq_free(r);
}

const zq_quantize_totals *zq_quantize_report_totals(const zq_quantize_report *r)
{
    return &r->totals;
}

const zq_plan_entry *zq_quantize_report_entry(const zq_quantize_report *r, size_t index)
{
    return index < r->totals.n_entries ? &r->entries[index] : NULL;
}

const char *zq_quantize_report_remark(const zq_quantize_report *r, size_t index)
{
    return index < r->n_remarks ? r->remarks[index] : NULL;
}

const char *zq_quantize_report_json(const zq_quantize_report *r)
{
    return r->json;
}
