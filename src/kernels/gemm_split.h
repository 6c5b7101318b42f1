/* For levels that multiply with vpmaddubsw: the activations are the unsigned side (q + 128, at most 255), and a pair of neighbours
 * along K is added in 16 bits. 255 * (|w0| + |w1|) <= 32,767 holds as long as |w0| + |w1| <= 128, or if the signs differ. Few pairs
 * of real weights break it. What is too much in those is cut off at packing time and listed as a sparse remainder, so
 *     sum w q = sum dense (q + 128)  -  128 sum dense  +  sum remainder q,
 * exact for any input; the second term is known at packing time and is what accumulators start at. A tile with more such pairs than
 * its list has room for stays whole, and the micro-kernel multiplies it in the slower way that needs no room.
 *
 * The list stands behind the tile's groups: its length, or NOT_SPLIT, then entries (column << 12 | row << 8 | what was cut off). */
#ifndef ZQ_KERNELS_GEMM_SPLIT_H
#define ZQ_KERNELS_GEMM_SPLIT_H

enum { MOST_OF_PAIR = 128, CODES_PER_ENTRY = 128 };
#define NOT_SPLIT UINT32_MAX

ZQ_INLINE size_t list_room(const struct zq_matrix *w) { return w->n_cols * ROWS / CODES_PER_ENTRY; }
ZQ_INLINE size_t list_bytes(const struct zq_matrix *w) { return ((list_room(w) + 1) * sizeof(uint32_t) + 63) / 64 * 64; }

static int magnitude(int a) { return a < 0 ? -a : a; }

/* What the larger of two codes is to give up, with its sign. */
static int excess(int a, int b)
{
    const int over = magnitude(a) + magnitude(b) - MOST_OF_PAIR;
    if (over <= 0 || (a < 0) != (b < 0)) return 0;
    return a < 0 ? -over : over;
}

/* Splits the n_rows x 4 codes of a step, whose first column is `column`. Returns the new number of entries; those past the room are
 * counted only, and their codes stay. */
static size_t split_step(int8_t *step, size_t column, uint32_t *list, size_t n, size_t room)
{
    for (size_t i = 0; i < (size_t)ROWS * 4; i += 2) {
        const int cut = excess(step[i], step[i + 1]);
        if (!cut) continue;
        if (n < room) {
            const size_t at = magnitude(step[i]) >= magnitude(step[i + 1]) ? i : i + 1;
            step[at] = (int8_t)(step[at] - cut);
            list[1 + n] = (uint32_t)((column + at % 4) << 12 | at / 4 << 8 | (uint8_t)cut);
        }
        n++;
    }
    return n;
}

/* Puts back what n entries took. `group` and `bytes` are the columns and bytes of a group. */
static void join(uint8_t *tile, const uint32_t *list, size_t n, size_t group, size_t bytes)
{
    for (size_t i = 1; i <= n; i++) {
        const size_t column = list[i] >> 12, row = list[i] >> 8 & 15, k = column % group;
        int8_t *code = (int8_t *)tile + column / group * bytes + k / 4 * ROWS * 4 + row * 4 + k % 4;
        *code = (int8_t)(*code + (int8_t)(list[i] & 255));
    }
}

/* starts[row] = -128 * sum of the row's codes in one group. A pair holds at most 128, so |start| <= 128 * 128 * 65536 = 2^30; sums
 * of unsigned activations stay below 255 * 128 * 65536 < 2^31. */
static void start_sums(int32_t *starts, const int8_t *codes, size_t n_steps)
{
    memset(starts, 0, ROWS * sizeof *starts);
    for (size_t i = 0; i < n_steps * ROWS * 4; i++) starts[i / 4 % ROWS] -= 128 * codes[i];
}

/* Splits a packed tile of 8-bit codes; starts lie at the end of each group. */
static void split_tile(const struct zq_matrix *w, uint8_t *tile, size_t n_groups, size_t group, size_t bytes)
{
    const size_t n_steps = (group + 3) / 4, room = list_room(w);
    uint32_t *list = (uint32_t *)(void *)(tile + n_groups * bytes);
    size_t n = 0;
    for (size_t g = 0; g < n_groups; g++)
        for (size_t s = 0; s < n_steps; s++) n = split_step((int8_t *)tile + g * bytes + s * ROWS * 4, g * group + 4 * s, list, n, room);
    list[0] = n > room ? NOT_SPLIT : (uint32_t)n;
    if (n > room) {
        join(tile, list, room, group, bytes);
        return; /* its accumulators start at 0, as the tile was cleared */
    }
    for (size_t g = 0; g < n_groups; g++)
        start_sums((int32_t *)(void *)(tile + (g + 1) * bytes) - ROWS, (const int8_t *)tile + g * bytes, n_steps);
}

/* more [n_tokens][ROWS] += remainder * q for entries of columns below `end`. Returns the first entry not taken. */
static const uint32_t *add_remainder(int32_t *more, const struct zq_product *p, size_t token, size_t n_tokens, const uint32_t *entry,
                                     const uint32_t *stop, size_t end)
{
    for (; entry < stop && *entry >> 12 < end; entry++) {
        const int8_t *q = p->q + token * p->ld_x + (*entry >> 12);
        const int cut = (int8_t)(*entry & 255);
        int32_t *to = more + (*entry >> 8 & 15);
        for (size_t t = 0; t < n_tokens; t++) to[t * ROWS] += cut * q[t * p->ld_x];
    }
    return entry;
}

#endif
