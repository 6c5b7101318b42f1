/* Open addressing with at most half of the slots used. Each slot holds its own offset into the text, because two contents may
 * share an id (files with such duplicates exist), so the way back through by_id would lose one of them. */
#include "text/vocab.h"

#include "base/alloc.h"
#include "text/table.h"

static bool same(const struct zq_vocab *v, const struct zq_vocab_slot *s, uint32_t hash, const char *content, size_t n)
{
    return s->hash == hash && s->length == n && !memcmp(v->text.data + s->offset, content, n);
}

/* The slot of a content, or the free one where it belongs. */
static size_t find_slot(const struct zq_vocab *v, uint32_t hash, const char *content, size_t n)
{
    size_t i = hash & v->mask;
    while (v->slots[i].id >= 0 && !same(v, &v->slots[i], hash, content, n)) i = (i + 1) & v->mask;
    return i;
}

static bool grow_slots(struct zq_vocab *v)
{
    const size_t n_slots = v->slots ? (v->mask + 1) * 2 : 1024;
    struct zq_vocab_slot *slots = zq_alloc_array(n_slots, sizeof *slots);
    if (!slots) return false;
    for (size_t i = 0; i < n_slots; i++) slots[i].id = -1;
    for (size_t i = 0; v->slots && i <= v->mask; i++) {
        if (v->slots[i].id < 0) continue;
        size_t k = v->slots[i].hash & (n_slots - 1);
        while (slots[k].id >= 0) k = (k + 1) & (n_slots - 1);
        slots[k] = v->slots[i];
    }
    zq_free(v->slots);
    v->slots = slots;
    v->mask = n_slots - 1;
    return true;
}

static bool grow_ids(struct zq_vocab *v, size_t n_ids)
{
    if (n_ids <= v->n_ids) return true;
    if (n_ids > v->by_id_capacity) {
        const size_t capacity = n_ids * 2;
        void *by_id = zq_realloc(v->by_id, v->n_ids * sizeof *v->by_id, capacity * sizeof *v->by_id);
        if (!by_id) return false;
        v->by_id = by_id;
        v->by_id_capacity = capacity;
    }
    memset(v->by_id + v->n_ids, 0xff, (n_ids - v->n_ids) * sizeof *v->by_id);
    v->n_ids = n_ids;
    return true;
}

zq_status zq_vocab_add(struct zq_vocab *v, const char *content, size_t n, int64_t id, const char *name, zq_error *err)
{
    if (id < 0 || id >= ZQ_VOCAB_MAX_IDS)
        return zq_fail(err, ZQ_EFORMAT, "%s: token \"%.*s\" has id %lld, outside 0 .. %d", name, (int)(n < 60 ? n : 60), content, (long long)id,
                       ZQ_VOCAB_MAX_IDS - 1);
    if (v->text.n + n >= UINT32_MAX) return zq_fail(err, ZQ_ELIMIT, "%s: the tokens have more than 4 GiB", name);
    if ((!v->slots || v->n_tokens >= (v->mask + 1) / 2) && !grow_slots(v)) goto no_memory;
    if (!grow_ids(v, (size_t)id + 1)) goto no_memory;

    const uint32_t hash = (uint32_t)zq_hash_bytes(content, n);
    struct zq_vocab_slot *s = &v->slots[find_slot(v, hash, content, n)];
    if (s->id < 0) {
        const size_t offset = v->text.n;
        if (!zq_bytes_put(&v->text, content, n)) goto no_memory;
        *s = (struct zq_vocab_slot){.hash = hash, .offset = (uint32_t)offset, .length = (uint32_t)n};
        v->n_tokens++;
        if (n > v->longest) v->longest = n;
    }
    s->id = (int32_t)id;
    v->shared_ids |= v->by_id[id].length != UINT32_MAX;
    v->by_id[id] = (struct zq_vocab_entry){s->offset, s->length};
    return ZQ_OK;
no_memory:
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for its vocabulary", name);
}

void zq_vocab_free(struct zq_vocab *v)
{
    zq_bytes_free(&v->text);
    zq_free(v->slots);
    zq_free(v->by_id);
    *v = (struct zq_vocab){0};
}

int32_t zq_vocab_find(const struct zq_vocab *v, const char *content, size_t n)
{
    if (!v->slots || n > v->longest) return -1;
    return v->slots[find_slot(v, (uint32_t)zq_hash_bytes(content, n), content, n)].id;
}

bool zq_vocab_content(const struct zq_vocab *v, int32_t id, struct zq_span *content)
{
    if (id < 0 || (size_t)id >= v->n_ids || v->by_id[id].length == UINT32_MAX) return false;
    *content = (struct zq_span){v->text.data + v->by_id[id].offset, v->by_id[id].length};
    return true;
}
