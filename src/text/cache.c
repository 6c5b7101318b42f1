/* Open addressing with a bounded probe, so that no choice of words makes a lookup slow. When the room for words is used up
 * everything is forgotten: natural text refills the cache with its frequent words within milliseconds. */
#include "text/cache.h"

#include "base/alloc.h"
#include "zeroquant.h"

enum {
    FIRST_SLOTS = 1 << 10,
    MAX_SLOTS = 1 << 17,        /* 1.5 MiB; English novels have about 50,000 words per 7 MB */
    FIRST_BYTES = 1 << 15,
    MAX_BYTES = 1 << 22,
    PROBES = 8,
};

const int32_t *zq_cache_find(const struct zq_cache *c, struct zq_span word, uint64_t hash, size_t *n_ids)
{
    if (!c->slots) return NULL;
    for (size_t i = 0; i < PROBES; i++) {
        const struct zq_cache_slot *s = &c->slots[(hash + i) & c->mask];
        if (!s->word_bytes) return NULL;
        if (s->hash != (uint32_t)(hash >> 32) || s->word_bytes != word.n) continue;
        const char *at = c->bytes + s->at;
        if (memcmp(at + s->n_ids * sizeof(int32_t), word.at, word.n)) continue;
        *n_ids = s->n_ids;
        return (const int32_t *)(const void *)at; /* aligned: see zq_cache_put */
    }
    return NULL;
}

static bool place(struct zq_cache *c, struct zq_cache_slot slot, uint64_t hash)
{
    for (size_t i = 0; i < PROBES; i++) {
        struct zq_cache_slot *s = &c->slots[(hash + i) & c->mask];
        if (s->word_bytes) continue;
        *s = slot;
        c->n++;
        return true;
    }
    return false;
}

/* Doubles the slots. Where a word belongs is computed anew, for a slot keeps only half of the hash. */
static bool grow_slots(struct zq_cache *c)
{
    const size_t n_slots = c->slots ? (c->mask + 1) * 2 : FIRST_SLOTS;
    struct zq_cache bigger = *c;
    bigger.slots = zq_alloc_array(n_slots, sizeof *bigger.slots);
    if (!bigger.slots) return false;
    bigger.mask = n_slots - 1;
    bigger.n = 0;
    for (size_t i = 0; c->slots && i <= c->mask; i++) {
        const struct zq_cache_slot *s = &c->slots[i];
        if (s->word_bytes) place(&bigger, *s, zq_hash_bytes(c->bytes + s->at + s->n_ids * sizeof(int32_t), s->word_bytes));
    }
    zq_free(c->slots);
    *c = bigger;
    return true;
}

static void forget(struct zq_cache *c)
{
    memset(c->slots, 0, (c->mask + 1) * sizeof *c->slots);
    c->n = c->n_bytes = 0;
}

static bool grow_bytes(struct zq_cache *c)
{
    const size_t capacity = c->capacity ? c->capacity * 2 : FIRST_BYTES;
    char *bytes = zq_realloc(c->bytes, c->n_bytes, capacity);
    if (!bytes) return false;
    c->bytes = bytes;
    c->capacity = capacity;
    return true;
}

bool zq_cache_put(struct zq_cache *c, struct zq_span word, uint64_t hash, const int32_t *ids, size_t n_ids)
{
    if (!word.n || word.n > ZQ_CACHE_MAX_WORD || n_ids > ZQ_CACHE_MAX_WORD) return true;
    const size_t id_bytes = n_ids * sizeof *ids, needed = (id_bytes + word.n + 3) / 4 * 4; /* the next ids are aligned again */
    if ((!c->slots || (c->n * 2 > c->mask && c->mask + 1 < MAX_SLOTS)) && !grow_slots(c)) return false;
    if (c->n_bytes + needed > c->capacity) {
        if (c->capacity >= MAX_BYTES)
            forget(c);
        else if (!grow_bytes(c))
            return false;
    }
    const struct zq_cache_slot slot = {(uint32_t)(hash >> 32), (uint32_t)c->n_bytes, (uint16_t)word.n, (uint16_t)n_ids};
    if (!place(c, slot, hash)) c->slots[hash & c->mask] = slot; /* in place of another word */
    if (n_ids) memcpy(c->bytes + c->n_bytes, ids, id_bytes);
    memcpy(c->bytes + c->n_bytes + id_bytes, word.at, word.n);
    c->n_bytes += needed;
    return true;
}

void zq_cache_free(struct zq_cache *c)
{
    zq_free(c->slots);
    zq_free(c->bytes);
    *c = (struct zq_cache){0};
}
