/* Everything here is kept with all digits, so that a resumed run ends in the same report. */
#include "compress/record.h"

#include "base/alloc.h"

#include <math.h>

zq_status zq_record_create(struct zq_record *out, const struct zq_plan *plan, zq_error *err)
{
    *out = (struct zq_record){.n_items = plan->n_items, .items = zq_alloc_array(plan->n_items, sizeof *out->items), .blocks = json_array()};
    if (!out->items || !out->blocks) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a plan of %zu tensors", plan->ckpt->dir, plan->n_items);
    for (size_t i = 0; i < plan->n_items; i++) out->items[i] = (struct zq_measured){NAN, {NAN, NAN, NAN, NAN, NAN}};
    return ZQ_OK;
}

void zq_record_free(struct zq_record *record)
{
    zq_free(record->items);
    json_decref(record->blocks);
    *record = (struct zq_record){0};
}

json_t *zq_number_json(double x) { return isnan(x) ? json_null() : json_real(x); }

double zq_number_of(const json_t *value) { return json_is_number(value) ? json_number_value(value) : (double)NAN; }

json_t *zq_box_json(const struct zq_box *b)
{
    return isnan(b->min) ? json_null() : json_pack("[f, f, f, f, f]", b->min, b->low, b->middle, b->high, b->max);
}

struct zq_box zq_box_of_json(const json_t *value)
{
    return (struct zq_box){zq_number_of(json_array_get(value, 0)), zq_number_of(json_array_get(value, 1)), zq_number_of(json_array_get(value, 2)),
                           zq_number_of(json_array_get(value, 3)), zq_number_of(json_array_get(value, 4))};
}
