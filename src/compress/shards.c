/* Cutting the output into shards: where a shard ends, a job can be resumed. */
#include "compress/plan.h"

#include "base/alloc.h"

/* A shard is what an interrupted job loses: an eighth of a small model, at most some seconds of work of a large one. Below 16 MiB
 * files would only become many. */
enum { MIN_SHARD = 16 << 20, MAX_SHARD = 512 << 20, SHARE = 8 };

static uint64_t target_bytes(const struct zq_plan *plan)
{
    uint64_t total = 0;
    for (size_t i = 0; i < plan->n_items; i++) total += plan->items[i].bytes_out;
    total /= SHARE;
    return total < MIN_SHARD ? MIN_SHARD : total > MAX_SHARD ? MAX_SHARD : total;
}

/* The end of what must stay together: a block, or one tensor outside the blocks. */
static size_t unit_end(const struct zq_plan *plan, size_t begin)
{
    size_t end = begin + 1;
    if (plan->items[begin].layer == SIZE_MAX) return end;
    while (end < plan->n_items && plan->items[end].layer == plan->items[begin].layer) end++;
    return end;
}

static zq_status name_shards(struct zq_plan *plan, zq_error *err)
{
    for (size_t s = 0; s < plan->n_shards; s++) {
        plan->shards[s].name = zq_format("model-%05zu-of-%05zu.safetensors", s + 1, plan->n_shards);
        if (!plan->shards[s].name) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the names of %zu shards", plan->ckpt->dir, plan->n_shards);
    }
    return ZQ_OK;
}

zq_status zq_plan_cut_shards(struct zq_plan *plan, zq_error *err)
{
    const uint64_t target = target_bytes(plan);
    plan->shards = zq_alloc_array(plan->n_items, sizeof *plan->shards);
    if (!plan->shards) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the list of shards", plan->ckpt->dir);
    for (size_t begin = 0, end; begin < plan->n_items; begin = end) {
        struct zq_shard unit = {.first = begin};
        end = unit_end(plan, begin);
        unit.n = end - begin;
        for (size_t i = begin; i < end; i++) {
            unit.bytes_in += plan->items[i].tensor->n_bytes;
            unit.bytes_out += plan->items[i].bytes_out;
        }
        struct zq_shard *last = plan->n_shards ? &plan->shards[plan->n_shards - 1] : NULL;
        /* with distillation a block is minutes of work: each has a shard of its own */
        const bool alone = plan->lesson.method && plan->items[begin].layer != SIZE_MAX;
        if (last && !alone && last->bytes_out + unit.bytes_out <= target) {
            last->n += unit.n;
            last->bytes_in += unit.bytes_in;
            last->bytes_out += unit.bytes_out;
        } else {
            plan->shards[plan->n_shards++] = unit;
        }
    }
    return name_shards(plan, err);
}
