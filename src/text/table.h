/* Hashing for src/text: a hash of bytes, and an open-addressing table from 64-bit keys to 64-bit values that is filled once,
 * when a tokenizer is opened, and only read afterwards. */
#ifndef ZQ_TEXT_TABLE_H
#define ZQ_TEXT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ZQ_HASH_FACTOR 0x9e3779b97f4a7c15u /* 2^64 / golden ratio, odd */

static inline uint64_t zq_hash_word(uint64_t h)
{
    h ^= h >> 32;
    h *= ZQ_HASH_FACTOR;
    return h ^ h >> 29;
}

static inline uint64_t zq_hash_bytes(const char *s, size_t n)
{
    uint64_t h = n, w = 0;
    for (; n > 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = zq_hash_word((h ^ w) * ZQ_HASH_FACTOR);
    }
    w = 0;
    if (n >= 4) { /* the two reads overlap unless n == 8 */
        uint32_t head, tail;
        memcpy(&head, s, 4);
        memcpy(&tail, s + n - 4, 4);
        w = (uint64_t)head << 32 | tail;
    } else if (n) {
        w = (uint64_t)(uint8_t)s[0] << 16 | (uint64_t)(uint8_t)s[n / 2] << 8 | (uint8_t)s[n - 1];
    }
    return zq_hash_word((h ^ w) * ZQ_HASH_FACTOR);
}

#define ZQ_TABLE_EMPTY UINT64_MAX /* no key has this value: keys are made of ids, characters and nodes, all below 2^32 - 1 */

struct zq_table {
    struct zq_table_entry {
        uint64_t key, value;
    } *entries; /* [mask + 1]; NULL: nothing can be found */
    size_t mask, n;
};

/* Room for n_keys keys without further allocation. */
bool zq_table_init(struct zq_table *t, size_t n_keys);
/* Sets a key, which may be there already; grows as needed. */
bool zq_table_put(struct zq_table *t, uint64_t key, uint64_t value);
void zq_table_free(struct zq_table *t);

static inline bool zq_table_get(const struct zq_table *t, uint64_t key, uint64_t *value)
{
    if (!t->entries) return false;
    for (size_t i = zq_hash_word(key * ZQ_HASH_FACTOR) & t->mask;; i = (i + 1) & t->mask) {
        if (t->entries[i].key == key) {
            *value = t->entries[i].value;
            return true;
        }
        if (t->entries[i].key == ZQ_TABLE_EMPTY) return false;
    }
}

#endif
