/* What the user should know about other people's readers of the result: transformers 5.23 with compressed-tensors 0.20, as
 * tests/ecosystem.sh finds it, and vLLM as of autumn 2026, by its source. Only what deviates from "loads and computes as named" is said. */
#include "compress/plan.h"

#include "compress/choose.h"

#include <string.h>

/* What the quantized modules of a plan have in common. */
struct census {
    size_t n_w4a8, n_w8a8_groups, n_f32_scales_packed, n_odd_groups, n_study;
    size_t odd_group;       /* a K-group that vLLM's kernels do not have */
    bool w4a8_other_than_128;
    size_t n_embeddings, n_packed_embeddings, n_heads;
    const struct zq_module *outside; /* a linear map outside the blocks that is no head */
    bool mixed;                      /* not all blocks' maps have the same spec */
};

static struct census take_census(const struct zq_plan *plan)
{
    struct census c = {0};
    const struct zq_item *first = NULL;
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_item *item = &plan->items[i];
        const struct zq_spec s = item->layout.spec;
        if (!item->module) continue;
        if (item->module->in_block) {
            if (!first) first = item;
            c.mixed |= !zq_spec_equal(first->layout.spec, s);
        }
        if (s.w_bits == 16) continue;
        c.n_study += s.w_bits < 4;
        c.n_w4a8 += s.w_bits == 4 && s.a_bits == 8;
        c.w4a8_other_than_128 |= s.w_bits == 4 && s.a_bits == 8 && s.k_group != 128;
        c.n_w8a8_groups += s.w_bits == 8 && s.a_bits == 8 && s.k_group;
        c.n_f32_scales_packed += item->storage == ZQ_STORED_PACKED && item->layout.scale_dtype == ZQ_F32 && item->tensor->dtype != ZQ_F32;
        if (s.k_group && s.k_group != 32 && s.k_group != 64 && s.k_group != 128) {
            c.n_odd_groups++;
            c.odd_group = s.k_group;
        }
        c.n_embeddings += item->module->part == ZQ_PART_TOKENS;
        c.n_packed_embeddings += item->module->part == ZQ_PART_TOKENS && item->storage == ZQ_STORED_PACKED;
        c.n_heads += item->module->part == ZQ_PART_HEAD;
        if (item->module->part == ZQ_PART_OTHER) c.outside = item->module;
    }
    return c;
}

static const struct zq_item *linear_item(const struct zq_plan *plan, size_t layer, enum zq_linear_role role)
{
    for (size_t i = 0; i < plan->n_items; i++) {
        const struct zq_module *m = plan->items[i].module;
        if (m && m->in_block && m->layer == layer && m->role == role) return &plan->items[i];
    }
    return NULL;
}

/* The first layer in which maps that vLLM runs as one have different specs; false if there is none. */
static bool find_split_fusion(const struct zq_plan *plan, const enum zq_linear_role *roles, size_t n, size_t *layer)
{
    for (*layer = 0; *layer < plan->config.n_layers; ++*layer) {
        const struct zq_item *first = linear_item(plan, *layer, roles[0]);
        for (size_t r = 1; r < n && first; r++) {
            const struct zq_item *other = linear_item(plan, *layer, roles[r]);
            if (other && !zq_spec_equal(first->layout.spec, other->layout.spec)) return true;
        }
    }
    return false;
}

static zq_status remark_fusion(struct zq_plan *plan, zq_error *err)
{
    static const enum zq_linear_role qkv[] = {ZQ_Q, ZQ_K, ZQ_V}, gate_up[] = {ZQ_GATE, ZQ_UP};
    size_t layer;
    zq_status st = ZQ_OK;
    if (find_split_fusion(plan, qkv, ZQ_LEN(qkv), &layer))
        st = zq_remark(&plan->remarks, err, "vLLM runs Q, K and V as one map and refuses different schemes for them, as layer %zu has.", layer);
    if (!st && find_split_fusion(plan, gate_up, ZQ_LEN(gate_up), &layer))
        st = zq_remark(&plan->remarks, err, "vLLM runs gate and up as one map and refuses different schemes for them, as layer %zu has.", layer);
    return st;
}

static zq_status remark_conv1d(struct zq_plan *plan, const struct census *c, zq_error *err)
{
    const char *family = plan->config.arch->model_type;
    struct zq_remarks *r = &plan->remarks;
    zq_status st = zq_remark(r, err, "transformers must not load a compressed %s: its Conv1D maps are no nn.Linear, so that 8-bit ones fail and "
                             "4-bit ones silently get random weights.", family);
    if (st) return st;
    if (c->n_embeddings) return zq_remark(r, err, "Only this program reads a %s with a quantized embedding; vLLM expects it in float.", family);
    return zq_remark(r, err, "This program reads it, and by its source vLLM does.");
}

static zq_status remark_embeddings(struct zq_plan *plan, const struct census *c, zq_error *err)
{
    struct zq_remarks *r = &plan->remarks;
    if (c->n_packed_embeddings)
        return zq_remark(r, err, "Only this program reads a 4-bit embedding; transformers loads 8-bit ones (--embeddings int8).");
    return zq_remark(r, err, "transformers and this program read quantized embeddings and heads; vLLM does so for a few model families at most.");
}

static zq_status remark_family(struct zq_plan *plan, const struct census *c, zq_error *err)
{
    const struct zq_arch *arch = plan->config.arch;
    zq_status st = ZQ_OK;
    if (arch->conv1d) st = remark_conv1d(plan, c, err);
    else if (c->n_embeddings || c->n_heads) st = remark_embeddings(plan, c, err);
    if (!st && c->outside)
        st = zq_remark(&plan->remarks, err, "vLLM has no quantized form of %.200s, which lies outside the blocks.", c->outside->name);
    if (!st && c->mixed && !strcmp(arch->model_type, "bert"))
        st = zq_remark(&plan->remarks, err, "Some releases of vLLM do not find modules of BERT by name, which mixed schemes need.");
    return st;
}

static zq_status remark_formats(struct zq_plan *plan, const struct census *c, zq_error *err)
{
    struct zq_remarks *r = &plan->remarks;
    zq_status st = ZQ_OK;
    if (c->n_w4a8)
        st = zq_remark(r, err, "vLLM runs w4a8 with 16-bit activations on most GPUs, and on Hopper as 4-bit x FP8 with groups of 128 only%s.",
                       c->w4a8_other_than_128 ? " (--group k:128)" : "");
    if (!st && c->n_w8a8_groups)
        st = zq_remark(r, err, "8-bit weights with K-groups are written pack-quantized; vLLM runs them with 16-bit activations on most GPUs.");
    if (!st && c->n_odd_groups)
        st = zq_remark(r, err, "vLLM's GPU kernels know K-groups of 32, 64 and 128, not %zu.", c->odd_group);
    if (!st && c->n_f32_scales_packed)
        st = zq_remark(r, err, "Scales of 8-bit rows are stored as F32; with float activations vLLM rounds them to the model's 16-bit type.");
    return st;
}

zq_status zq_plan_remark_readers(struct zq_plan *plan, zq_error *err)
{
    const struct census c = take_census(plan);
    if (c.n_study)
        return zq_remark(&plan->remarks, err, "Weights of fewer than 4 bits are for studies: they have a format of their own (quant_method %s), "
                         "which only this program reads, and it runs them by its 4-bit kernels, so that they save bytes on disk alone.",
                         ZQ_STUDY_METHOD);
    zq_status st = remark_family(plan, &c, err);
    if (!st) st = remark_fusion(plan, err);
    if (!st) st = remark_formats(plan, &c, err);
    return st;
}
