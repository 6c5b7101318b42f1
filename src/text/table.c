/* The fill side of the hash table: at most half of the slots are ever used, so that a miss ends quickly. */
#include "text/table.h"

#include "base/alloc.h"
#include "zeroquant.h"

bool zq_table_init(struct zq_table *t, size_t n_keys)
{
    size_t slots = 16;
    while (slots / 2 < n_keys)
        if (!zq_mul(slots, 2, &slots)) return false;
    t->entries = zq_alloc_array(slots, sizeof *t->entries);
    if (!t->entries) return false;
    t->mask = slots - 1;
    t->n = 0;
    for (size_t i = 0; i < slots; i++) t->entries[i].key = ZQ_TABLE_EMPTY;
    return true;
}

static void place(struct zq_table *t, uint64_t key, uint64_t value)
{
    size_t i = zq_hash_word(key * ZQ_HASH_FACTOR) & t->mask;
    while (t->entries[i].key != key && t->entries[i].key != ZQ_TABLE_EMPTY) i = (i + 1) & t->mask;
    if (t->entries[i].key == ZQ_TABLE_EMPTY) t->n++;
    t->entries[i] = (struct zq_table_entry){key, value};
}

bool zq_table_put(struct zq_table *t, uint64_t key, uint64_t value)
{
    if (!t->entries && !zq_table_init(t, 8)) return false;
    if (t->n >= (t->mask + 1) / 2) {
        struct zq_table more = {0};
        if (!zq_table_init(&more, t->n * 2)) return false;
        for (size_t i = 0; i <= t->mask; i++)
            if (t->entries[i].key != ZQ_TABLE_EMPTY) place(&more, t->entries[i].key, t->entries[i].value);
        zq_table_free(t);
        *t = more;
    }
    place(t, key, value);
    return true;
}

void zq_table_free(struct zq_table *t)
{
    zq_free(t->entries);
    *t = (struct zq_table){0};
}
