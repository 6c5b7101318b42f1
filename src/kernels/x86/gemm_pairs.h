/* How vpmaddubsw multiplies 8-bit codes exactly. It adds two products of an unsigned and a signed byte in 16 bits; so that vpmaddwd, which
 * brings sums to 32 bits, is needed once for two steps of 4 columns, a step is paired with another of the same 8 rows for which 16 bits
 * are enough. Which fits which is found when weights are packed, since sums of integers may be taken in any order. With P and N
 * the sums of positive and negative codes of a pair of steps in one 16-bit lane (4 codes):
 *   plain    P <= 128 and N <= 128: (q + 128) * w lies within 255 * 128 = 32,640 of 0; -128 * sum w is known beforehand
 *   folded   P + N <= 254: |w| * (w < 0 ? ~q : q) lies within 128 * 254 = 32,512 of 0; as ~q = -q - 1, this is w q minus the
 *            |w| of negative codes, known beforehand
 *   single   a folded step by itself, which fits with any codes: 2 * 128 * 128 = 32,768 can only be reached below 0
 * What is known beforehand is what accumulators start at. Of trained and of random normal weights most pairs are plain.
 *
 * Behind the tiles of gemm.inc, which are left as they are, each tile has its orders: of each group in turn 16 starts, and for either
 * half of the rows, of every 256 steps, { pairs that are plain, pairs that are folded, numbers of the steps in this order }. */
#ifndef ZQ_KERNELS_X86_GEMM_PAIRS_H
#define ZQ_KERNELS_X86_GEMM_PAIRS_H

enum { HALF = 8, STEP_BYTES = 64, SEGMENT = 256, MOST_PLAIN = 128, MOST_FOLDED = 254 };

/* Steps looked at for a partner: in a window this large nearly all that have one find it, and packing stays quicker than reading. */
enum { MOST_TRIES = 24 };

ZQ_INLINE size_t group_steps(const struct zq_matrix *w) { return (zq_group_cols(w) + 3) / 4; }
ZQ_INLINE size_t half_order_bytes(size_t n_steps) { return n_steps + 2 * ((n_steps + SEGMENT - 1) / SEGMENT); }
ZQ_INLINE size_t group_order_bytes(const struct zq_matrix *w)
{
    return (ROWS * sizeof(int32_t) + 2 * half_order_bytes(group_steps(w)) + 3) / 4 * 4;
}
ZQ_INLINE size_t orders_bytes(const struct zq_matrix *w) { return (zq_n_groups(w) * group_order_bytes(w) + 63) / 64 * 64; }

/* Orders of the tile that begins with `row`. */
ZQ_INLINE uint8_t *orders_of(const struct zq_matrix *w, size_t row)
{
    const size_t n_tiles = w->n_rows / ROWS + (w->n_rows % ROWS != 0);
    return (uint8_t *)w->packed + n_tiles * tile_bytes(w, 8) + row / ROWS * orders_bytes(w);
}

/* ---- packing ---- */

/* Of the 16 lanes of a step, P and then N; or, in both halves, P + N, which saturates at 255. */
struct step_sums {
    uint8_t of[32];
};

static __m256i load_sums(const struct step_sums *s) { return _mm256_loadu_si256((const __m256i *)(const void *)s->of); }

static struct step_sums signed_sums(const int8_t *codes)
{
    struct step_sums s = {{0}};
    for (size_t i = 0; i < (size_t)HALF * 4; i++) {
        uint8_t *to = &s.of[i / 2 + (codes[i] < 0 ? 16 : 0)];
        const int sum = *to + (codes[i] < 0 ? -codes[i] : codes[i]);
        *to = (uint8_t)(sum > 255 ? 255 : sum);
    }
    return s;
}

static struct step_sums whole_sums(const struct step_sums *s)
{
    struct step_sums sums;
    const __m256i a = load_sums(s);
    _mm256_storeu_si256((__m256i *)(void *)sums.of, _mm256_adds_epu8(a, _mm256_permute2x128_si256(a, a, 1)));
    return sums;
}

static bool fit(const struct step_sums *a, const struct step_sums *b, int most)
{
    const __m256i over = _mm256_subs_epu8(_mm256_adds_epu8(load_sums(a), load_sums(b)), _mm256_set1_epi8((char)most));
    return _mm256_testz_si256(over, over);
}

/* Pairs those of n steps that fit, into *order; the rest is left in steps. Returns the number of pairs. */
static size_t pair_steps(const struct step_sums *sums, uint8_t *steps, size_t *n, int most, uint8_t **order)
{
    size_t n_waiting = 0, n_pairs = 0;
    for (size_t i = 0; i < *n; i++) {
        const uint8_t step = steps[i];
        const size_t last = n_waiting - zq_smaller(n_waiting, MOST_TRIES);
        size_t j = n_waiting; /* past the candidate; those that wait longest fit least */
        while (j > last && !fit(&sums[steps[j - 1]], &sums[step], most)) j--;
        if (j == last) {
            steps[n_waiting++] = step;
            continue;
        }
        j--;
        *(*order)++ = steps[j];
        *(*order)++ = step;
        n_pairs++;
        memmove(steps + j, steps + j + 1, --n_waiting - j);
    }
    *n = n_waiting;
    return n_pairs;
}

/* What a step adds to the starts of its rows. */
static void add_starts(int32_t *starts, const int8_t *codes, bool plain)
{
    for (size_t i = 0; i < (size_t)HALF * 4; i++) starts[i / 4] += plain ? -128 * codes[i] : codes[i] < 0 ? -codes[i] : 0;
}

/* Orders up to 256 steps, whose codes for these 8 rows begin at codes. Returns the end of what it wrote. */
static uint8_t *order_segment(uint8_t *order, int32_t *starts, const int8_t *codes, size_t n_steps)
{
    struct step_sums sums[SEGMENT];
    uint8_t steps[SEGMENT], hard[SEGMENT], *counts = order, *at = order + 2;
    size_t n = 0, n_hard = 0;
    static const struct step_sums nothing;
    for (size_t s = 0; s < n_steps; s++) {
        sums[s] = signed_sums(codes + s * STEP_BYTES);
        if (fit(&sums[s], &nothing, MOST_PLAIN)) steps[n++] = (uint8_t)s;
        else hard[n_hard++] = (uint8_t)s;
    }
    counts[0] = (uint8_t)pair_steps(sums, steps, &n, MOST_PLAIN, &at);
    memcpy(hard + n_hard, steps, n);
    n_hard += n;
    for (size_t i = 0; i < n_hard; i++) sums[hard[i]] = whole_sums(&sums[hard[i]]);
    counts[1] = (uint8_t)pair_steps(sums, hard, &n_hard, MOST_FOLDED, &at);
    memcpy(at, hard, n_hard);
    for (size_t i = 0; i < n_steps; i++) add_starts(starts, codes + counts[2 + i] * STEP_BYTES, i < 2 * (size_t)counts[0]);
    return at + n_hard;
}

static void order_tile(const struct zq_matrix *w, size_t row)
{
    const uint8_t *tile = (const uint8_t *)w->packed + row / ROWS * tile_bytes(w, 8);
    uint8_t *orders = orders_of(w, row);
    const size_t n_steps = group_steps(w);
    memset(orders, 0, orders_bytes(w));
    for (size_t g = 0; g < zq_n_groups(w); g++, tile += group_bytes(w, 8), orders += group_order_bytes(w)) {
        uint8_t *order = orders + ROWS * sizeof(int32_t);
        for (size_t half = 0; half < 2; half++) {
            int32_t starts[HALF] = {0};
            for (size_t s = 0; s < n_steps; s += SEGMENT)
                order = order_segment(order, starts, (const int8_t *)tile + s * STEP_BYTES + half * 32, zq_smaller(n_steps - s, SEGMENT));
            memcpy(orders + half * sizeof starts, starts, sizeof starts);
        }
    }
}

/* ---- the product ---- */

/* A block of tokens as q + 128, rows 64 bytes further apart than they are long: rows of 4096 would all want the same lines of a cache. */
enum { PAIRED_TOKENS = 8, LONGEST_ROW = 131072, PAIRED_PANEL = LONGEST_ROW + 64 };

ZQ_INLINE ints load_raised(const uint8_t *q, size_t step)
{
    int32_t four;
    memcpy(&four, q + 4 * step, sizeof four);
    return _mm256_set1_epi32(four);
}

/* A vector of codes, ready to meet raised activations: |w|, and what turns q + 128 into q, or ~q where w < 0. */
struct folded {
    ints size, flip;
};

ZQ_INLINE struct folded load_folded(const uint8_t *w)
{
    const ints codes = _mm256_loadu_si256((const ints *)(const void *)w);
    const ints flip = _mm256_xor_si256(_mm256_cmpgt_epi8(_mm256_setzero_si256(), codes), _mm256_set1_epi8(-128));
    return (struct folded){_mm256_abs_epi8(codes), flip};
}

ZQ_INLINE ints times_folded(ints raised, struct folded w) { return _mm256_maddubs_epi16(w.size, _mm256_xor_si256(raised, w.flip)); }

ZQ_INLINE void add_to_32(ints *acc, ints sums) { *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1))); }

/* n_steps of 8 rows, whose codes begin at w, in their order; acc: a vector of 8 rows for each token.
 * Registers: 8 accumulators, 2 vectors of weights (4 when folded), 1 of ones, 3 on the way. */
ZQ_INLINE void dot_segment(ints *acc, size_t n_tokens, const uint8_t *const *q, const uint8_t *w, const uint8_t *order, size_t n_steps)
{
    const uint8_t *at = order + 2, *plain_end = at + 2 * (size_t)order[0], *folded_end = plain_end + 2 * (size_t)order[1], *end = order + 2 + n_steps;
    for (; at < plain_end; at += 2) {
        const size_t a = at[0], b = at[1];
        const ints wa = _mm256_loadu_si256((const ints *)(const void *)(w + a * STEP_BYTES));
        const ints wb = _mm256_loadu_si256((const ints *)(const void *)(w + b * STEP_BYTES));
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++)
            add_to_32(&acc[t], _mm256_add_epi16(_mm256_maddubs_epi16(load_raised(q[t], a), wa), _mm256_maddubs_epi16(load_raised(q[t], b), wb)));
    }
    for (; at < folded_end; at += 2) {
        const size_t a = at[0], b = at[1];
        const struct folded wa = load_folded(w + a * STEP_BYTES), wb = load_folded(w + b * STEP_BYTES);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++)
            add_to_32(&acc[t], _mm256_add_epi16(times_folded(load_raised(q[t], a), wa), times_folded(load_raised(q[t], b), wb)));
    }
    for (; at < end; at++) {
        const struct folded wa = load_folded(w + *at * STEP_BYTES);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) add_to_32(&acc[t], times_folded(load_raised(q[t], *at), wa));
    }
    settle(acc, n_tokens);
}

/* 8 rows from `row` for tokens from `token`; panel: theirs, rows `ld` apart. */
ZQ_INLINE void multiply_paired(const struct zq_product *p, size_t row, size_t token, size_t n_tokens, const uint8_t *panel, size_t ld, bool grouped)
{
    const struct zq_matrix *w = p->w;
    const size_t n_groups = grouped ? zq_n_groups(w) : 1, n_steps = group_steps(w), half = row / HALF % 2, bytes = group_bytes(w, 8);
    const uint8_t *tile = (const uint8_t *)w->packed + row / ROWS * tile_bytes(w, 8), *orders = orders_of(w, row);
    const floats *scales = (const floats *)(const void *)(tile + n_steps * STEP_BYTES) + half;
    const uint8_t *q[PAIRED_TOKENS];
    ints acc[PAIRED_TOKENS];
    floats f[PAIRED_TOKENS];
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) {
        q[t] = panel + t * ld;
        f[t] = f_set(0);
    }
    for (size_t g = 0; g < n_groups; g++, tile += bytes, orders += group_order_bytes(w)) {
        const uint8_t *order = orders + ROWS * sizeof(int32_t) + half * half_order_bytes(n_steps);
        const ints start = i_load((const int32_t *)(const void *)orders + half * HALF);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) acc[t] = start;
        for (size_t s = 0; s < n_steps; s += SEGMENT) {
            const size_t n = zq_smaller(n_steps - s, SEGMENT);
            dot_segment(acc, n_tokens, q, tile + s * STEP_BYTES + half * 32, order, n);
            order += 2 + n;
            ZQ_UNROLL
            for (size_t t = 0; t < n_tokens; t++) q[t] += 4 * n;
        }
        if (!grouped) break;
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) f[t] = f_fma(i_to_float(acc[t]), f_load((const float *)(const void *)scales), f[t]);
        scales = (const floats *)(const void *)((const uint8_t *)scales + bytes);
    }

    const size_t m = zq_smaller(w->n_rows - row, HALF);
    const floats bias = p->bias ? f_load_n(p->bias + row, m) : f_set(0);
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) {
        const size_t to = (token + t) * p->ld_out + row;
        const floats token_scale = f_set(p->scale[token + t]);
        floats y;
        if (grouped) y = f_fma(f[t], token_scale, bias);
        else y = f_fma(i_to_float(acc[t]), f_mul(token_scale, f_load((const float *)(const void *)scales)), bias);
        if (p->residual) y = f_add(y, f_load_n(p->residual + to, m));
        f_store_n(p->out + to, y, m);
    }
}

typedef void paired_fn(const struct zq_product *p, size_t row, size_t token, const uint8_t *panel, size_t ld);
#define PAIRED_TILE(name, n_tokens, grouped)                                                                                                 \
    static __attribute__((noinline)) void name(const struct zq_product *p, size_t row, size_t token, const uint8_t *panel, size_t ld)         \
    {                                                                                                                                        \
        multiply_paired(p, row, token, n_tokens, panel, ld, grouped);                                                                        \
    }
PAIRED_TILE(paired_8, 8, false)
PAIRED_TILE(paired_4, 4, false)
PAIRED_TILE(paired_2, 2, false)
PAIRED_TILE(paired_1, 1, false)
PAIRED_TILE(paired_8_groups, 8, true)
PAIRED_TILE(paired_4_groups, 4, true)
PAIRED_TILE(paired_2_groups, 2, true)
PAIRED_TILE(paired_1_groups, 1, true)

static const struct {
    size_t n_tokens;
    paired_fn *multiply[2]; /* [grouped] */
} paired_tiles[] = {
    {8, {paired_8, paired_8_groups}},
    {4, {paired_4, paired_4_groups}},
    {2, {paired_2, paired_2_groups}},
    {1, {paired_1, paired_1_groups}},
};

static void run_paired(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    const size_t n_cols = p->w->n_cols, ld = (n_cols + 3) / 4 * 4 + 64;
    const bool grouped = p->w->k_group != 0;
    size_t block = PAIRED_PANEL / ld;
    if (block > PAIRED_TOKENS) block -= block % PAIRED_TOKENS;
    uint8_t panel[PAIRED_PANEL];
    for (size_t begin = 0; begin < p->n_tokens; begin += block) {
        const size_t n = zq_smaller(block, p->n_tokens - begin);
        for (size_t t = 0; t < n; t++) {
            for (size_t k = 0; k < n_cols; k++) panel[t * ld + k] = (uint8_t)p->q[(begin + t) * p->ld_x + k] ^ 0x80;
            memset(panel + t * ld + n_cols, 0, (n_cols + 3) / 4 * 4 - n_cols); /* meets codes that are 0 */
        }
        for (size_t row = row_begin; row < row_end; row += HALF) {
            size_t t = 0;
            for (size_t s = 0; t < n; s++)
                for (; n - t >= paired_tiles[s].n_tokens; t += paired_tiles[s].n_tokens)
                    paired_tiles[s].multiply[grouped](p, row, begin + t, panel + t * ld, ld);
        }
    }
}

#endif
