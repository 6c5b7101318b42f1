/* How vpmaddubsw multiplies 8-bit codes exactly. It adds two products of an unsigned and a signed byte in 16 bits; so that vpmaddwd, which
 * brings sums to 32 bits, is needed once for two steps of 4 columns, a step is paired with another of the same 4 rows for which 16 bits
 * are enough. Which fits which is found when weights are packed, since sums of integers may be taken in any order. With P and N
 * the sums of positive and negative codes of a pair of steps in one 16-bit lane (4 codes):
 *   plain    P <= 128 and N <= 128: (q + 128) * w lies within 255 * 128 = 32,640 of 0; accumulators start at -128 * sum w
 *   folded   P + N <= 254: |w| * (w < 0 ? -q : q) lies within 127 * 254 = 32,258 of 0
 *   single   a folded step by itself, which fits with any codes: 2 * 128 * 127 = 32,512
 * Of trained and of random normal weights most pairs are plain.
 *
 * A register tile is 4 rows, whose codes are broadcast, times 8 or 16 tokens side by side: fewer rows that must agree on an order, and
 * fewer loads, than 8 rows side by side times broadcast tokens.
 *
 * Behind the tiles of gemm.inc, which are left as they are, each tile has its orders: of each group in turn 16 starts, and for each
 * quarter of the rows, of every 256 steps, { pairs that are plain, pairs that are folded, numbers of the steps in this order }. */
#ifndef ZQ_KERNELS_X86_GEMM_PAIRS_H
#define ZQ_KERNELS_X86_GEMM_PAIRS_H

enum { QUARTER = 4, STEP_BYTES = 64, SEGMENT = 256, MOST_PLAIN = 128, MOST_FOLDED = 254 };

/* Steps looked at for a partner: in a window this large nearly all that have one find it, and packing stays quicker than reading. */
enum { MOST_TRIES = 24 };

ZQ_INLINE size_t group_steps(const struct zq_matrix *w) { return (zq_group_cols(w) + 3) / 4; }
ZQ_INLINE size_t order_bytes(size_t n_steps) { return n_steps + 2 * ((n_steps + SEGMENT - 1) / SEGMENT); }
ZQ_INLINE size_t group_order_bytes(const struct zq_matrix *w)
{
    return ROWS * sizeof(int32_t) + ROWS / QUARTER * order_bytes(group_steps(w)); /* a multiple of 4 */
}
ZQ_INLINE size_t orders_bytes(const struct zq_matrix *w) { return (zq_n_groups(w) * group_order_bytes(w) + 63) / 64 * 64; }

/* Orders of the tile that begins with `row`. */
ZQ_INLINE uint8_t *orders_of(const struct zq_matrix *w, size_t row)
{
    const size_t n_tiles = w->n_rows / ROWS + (w->n_rows % ROWS != 0);
    return (uint8_t *)w->packed + n_tiles * tile_bytes(w, 8) + row / ROWS * orders_bytes(w);
}

/* ---- packing ---- */

/* Of the 8 lanes of a step, P and then N; or, in both halves, P + N, which saturates at 255. */
struct step_sums {
    uint8_t of[4 * QUARTER];
};

static __m128i load_sums(const struct step_sums *s) { return _mm_loadu_si128((const __m128i *)(const void *)s->of); }

static struct step_sums signed_sums(const int8_t *codes)
{
    struct step_sums s = {{0}};
    for (size_t i = 0; i < (size_t)QUARTER * 4; i++) {
        uint8_t *to = &s.of[i / 2 + (codes[i] < 0 ? 2 * QUARTER : 0)];
        const int sum = *to + (codes[i] < 0 ? -codes[i] : codes[i]);
        *to = (uint8_t)(sum > 255 ? 255 : sum);
    }
    return s;
}

static struct step_sums whole_sums(const struct step_sums *s)
{
    struct step_sums sums;
    const __m128i a = load_sums(s);
    _mm_storeu_si128((__m128i *)(void *)sums.of, _mm_adds_epu8(a, _mm_shuffle_epi32(a, 0x4e)));
    return sums;
}

static bool fit(const struct step_sums *a, const struct step_sums *b, int most)
{
    const __m128i over = _mm_subs_epu8(_mm_adds_epu8(load_sums(a), load_sums(b)), _mm_set1_epi8((char)most));
    return _mm_testz_si128(over, over);
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

/* Orders up to 256 steps, whose codes for these 4 rows begin at codes. Returns the end of what it wrote. */
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
    for (size_t i = 0; i < 2 * (size_t)counts[0]; i++)
        for (size_t j = 0; j < (size_t)QUARTER * 4; j++) starts[j / 4] -= 128 * codes[counts[2 + i] * STEP_BYTES + j];
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
        for (size_t quarter = 0; quarter < ROWS / QUARTER; quarter++) {
            int32_t starts[QUARTER] = {0};
            for (size_t s = 0; s < n_steps; s += SEGMENT)
                order = order_segment(order, starts, (const int8_t *)tile + s * STEP_BYTES + quarter * 4 * QUARTER, zq_smaller(n_steps - s, SEGMENT));
            memcpy(orders + quarter * sizeof starts, starts, sizeof starts);
        }
    }
}

/* ---- the product ---- */

/* Tokens of a block as q + 128, 8 side by side: [8 tokens at a time][n_steps][8][4]. Tokens that are missing are zeros. */
enum { SIDE_BY_SIDE = 8, PAIRED_TOKENS = 192, PAIRED_PANEL = 160 * 1024 };

/* Weights that all tokens of a panel meet before the next ones come: with the panel they fill a second-level cache. */
enum { SWEPT_BYTES = 256 * 1024 };

struct panel {
    const struct zq_product *p;
    size_t token, n_tokens, n_steps;
    _Alignas(32) uint8_t q[PAIRED_PANEL];
    _Alignas(32) float scale[PAIRED_TOKENS];
    _Alignas(32) uint8_t offset[32]; /* 128; in memory, because registers are few */
};

ZQ_INLINE size_t eight_bytes(size_t n_steps) { return n_steps * 4 * SIDE_BY_SIDE; }

/* Longer rows, which no common model has, go one token at a time. */
static bool has_panel(const struct zq_matrix *w) { return eight_bytes((w->n_cols + 3) / 4) <= PAIRED_PANEL; }

/* 8 x 8 values of 32 bits: to[i][j] = from[j][i]. */
ZQ_INLINE void transpose_8x8(ints *a)
{
    ints b[8];
    ZQ_UNROLL
    for (size_t i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
    }
    ints c[8];
    ZQ_UNROLL
    for (size_t i = 0; i < 8; i += 4) {
        c[i] = _mm256_unpacklo_epi64(b[i], b[i + 2]);
        c[i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 2]);
        c[i + 2] = _mm256_unpacklo_epi64(b[i + 1], b[i + 3]);
        c[i + 3] = _mm256_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    ZQ_UNROLL
    for (size_t i = 0; i < 4; i++) {
        a[i] = _mm256_permute2x128_si256(c[i], c[i + 4], 0x20);
        a[i + 4] = _mm256_permute2x128_si256(c[i], c[i + 4], 0x31);
    }
}

/* Up to 8 tokens from `token`. */
static void raise_tokens(uint8_t *to, const struct zq_product *p, size_t token, size_t n_tokens)
{
    const size_t n_cols = p->w->n_cols;
    const int8_t *q = p->q + token * p->ld_x;
    size_t k = 0;
    for (; k + 32 <= n_cols; k += 32) {
        ints a[8];
        ZQ_UNROLL
        for (size_t t = 0; t < 8; t++) a[t] = t < n_tokens ? _mm256_loadu_si256((const ints *)(const void *)(q + t * p->ld_x + k)) : i_set(0);
        transpose_8x8(a);
        ZQ_UNROLL
        for (size_t i = 0; i < 8; i++)
            _mm256_store_si256((ints *)(void *)(to + (k / 4 + i) * 32), _mm256_xor_si256(a[i], _mm256_set1_epi8(-128)));
    }
    memset(to + k * 8, 0, eight_bytes((n_cols + 3) / 4) - k * 8); /* columns that are missing meet codes that are 0 */
    for (; k < n_cols; k++)
        for (size_t t = 0; t < n_tokens; t++) to[k / 4 * 32 + t * 4 + k % 4] = (uint8_t)q[t * p->ld_x + k] ^ 0x80;
}

static void fill_panel(struct panel *b)
{
    for (size_t t = 0; t < b->n_tokens; t += SIDE_BY_SIDE)
        raise_tokens(b->q + t / SIDE_BY_SIDE * eight_bytes(b->n_steps), b->p, b->token + t, zq_smaller(b->n_tokens - t, SIDE_BY_SIDE));
    memset(b->scale, 0, sizeof b->scale);
    memcpy(b->scale, b->p->scale + b->token, b->n_tokens * sizeof(float));
    memset(b->offset, 128, sizeof b->offset);
}

ZQ_INLINE ints load_x(const uint8_t *x, size_t step) { return _mm256_load_si256((const ints *)(const void *)(x + 32 * step)); }
ZQ_INLINE ints load_row(const uint8_t *step, size_t row) { return load_q((const int8_t *)step + 4 * row); }

/* Vector by vector: gcc else loads rows ahead and runs out of registers. */
ZQ_INLINE void add_to_32(ints *acc, ints sums)
{
    *acc = i_add(*acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
    __asm__ volatile("" : "+v"(*acc));
}

ZQ_INLINE ints times_raised(ints raised, ints w) { return _mm256_maddubs_epi16(raised, w); }
ZQ_INLINE ints times_folded(ints q, ints w, ints size) { return _mm256_maddubs_epi16(size, _mm256_sign_epi8(q, w)); }
ZQ_INLINE ints lowered(ints raised, const uint8_t *offset) { return _mm256_xor_si256(raised, load_x(offset, 0)); }

/* n_steps of 4 rows, whose codes begin at w, in their order; acc: [row][n_vecs of 8 tokens], whose columns begin at x[v].
 * Registers: 8 accumulators, 4 of activations, 2 of weights, 2 on the way. */
ZQ_INLINE void dot_segment(ints *acc, size_t n_vecs, const uint8_t *const *x, const uint8_t *w, const uint8_t *order, size_t n_steps,
                           const uint8_t *offset)
{
    const uint8_t *at = order + 2, *plain_end = at + 2 * (size_t)order[0], *folded_end = plain_end + 2 * (size_t)order[1], *end = order + 2 + n_steps;
    ints xa[2], xb[2];
    for (; at < plain_end; at += 2) {
        const uint8_t *a = w + at[0] * (size_t)STEP_BYTES, *b = w + at[1] * (size_t)STEP_BYTES;
        ZQ_UNROLL
        for (size_t v = 0; v < n_vecs; v++) xa[v] = load_x(x[v], at[0]), xb[v] = load_x(x[v], at[1]);
        __asm__("" : "+r"(a), "+r"(b)); /* not computed anew for each row */
        ZQ_UNROLL
        for (size_t r = 0; r < QUARTER; r++) {
            const ints wa = load_row(a, r), wb = load_row(b, r);
            ZQ_UNROLL
            for (size_t v = 0; v < n_vecs; v++)
                add_to_32(&acc[r * n_vecs + v], _mm256_add_epi16(times_raised(xa[v], wa), times_raised(xb[v], wb)));
        }
    }
    for (; at < folded_end; at += 2) {
        const uint8_t *a = w + at[0] * (size_t)STEP_BYTES, *b = w + at[1] * (size_t)STEP_BYTES;
        ZQ_UNROLL
        for (size_t v = 0; v < n_vecs; v++) xa[v] = lowered(load_x(x[v], at[0]), offset), xb[v] = lowered(load_x(x[v], at[1]), offset);
        __asm__ volatile("" : "+r"(a), "+r"(b) : : "memory");
        ZQ_UNROLL
        for (size_t r = 0; r < QUARTER; r++) {
            const ints wa = load_row(a, r), wb = load_row(b, r), size_a = _mm256_abs_epi8(wa), size_b = _mm256_abs_epi8(wb);
            ZQ_UNROLL
            for (size_t v = 0; v < n_vecs; v++)
                add_to_32(&acc[r * n_vecs + v], _mm256_add_epi16(times_folded(xa[v], wa, size_a), times_folded(xb[v], wb, size_b)));
        }
    }
    for (; at < end; at++) {
        ZQ_UNROLL
        for (size_t r = 0; r < QUARTER; r++) {
            const ints wa = load_row(w + *at * (size_t)STEP_BYTES, r);
            ZQ_UNROLL
            for (size_t v = 0; v < n_vecs; v++)
                add_to_32(&acc[r * n_vecs + v], times_folded(lowered(load_x(x[v], *at), offset), wa, _mm256_abs_epi8(wa)));
        }
    }
}

/* y: [4 rows] of 8 tokens from `token`, of which m exist. */
ZQ_INLINE void store_eight(const struct zq_product *p, size_t row, size_t token, size_t m, const floats *y)
{
    const size_t n_rows = zq_smaller(p->w->n_rows - row, QUARTER);
    const floats a = _mm256_unpacklo_ps(y[0], y[1]), b = _mm256_unpackhi_ps(y[0], y[1]), c = _mm256_unpacklo_ps(y[2], y[3]),
                 d = _mm256_unpackhi_ps(y[2], y[3]);
    const floats four[4] = {_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xee), _mm256_shuffle_ps(b, d, 0x44),
                            _mm256_shuffle_ps(b, d, 0xee)}; /* rows of tokens i and i + 4 */
    ZQ_UNROLL
    for (size_t t = 0; t < SIDE_BY_SIDE; t++) {
        if (t >= m) break;
        const size_t to = (token + t) * p->ld_out + row;
        __m128 z = t < 4 ? _mm256_castps256_ps128(four[t % 4]) : _mm256_extractf128_ps(four[t % 4], 1);
        if (n_rows == QUARTER) {
            if (p->residual) z = _mm_add_ps(z, _mm_loadu_ps(p->residual + to));
            _mm_storeu_ps(p->out + to, z);
            continue;
        }
        float one_by_one[QUARTER];
        _mm_storeu_ps(one_by_one, z);
        for (size_t r = 0; r < n_rows; r++) p->out[to + r] = p->residual ? one_by_one[r] + p->residual[to + r] : one_by_one[r];
    }
}

/* 4 rows from `row` for 8 * n_vecs tokens from number `token` of the panel. */
ZQ_INLINE void multiply_paired(const struct panel *b, size_t row, size_t token, size_t n_vecs, bool grouped)
{
    const struct zq_product *p = b->p;
    const struct zq_matrix *w = p->w;
    const size_t n_groups = grouped ? zq_n_groups(w) : 1, n_steps = group_steps(w), bytes = group_bytes(w, 8);
    const size_t quarter = row / QUARTER % (ROWS / QUARTER);
    const uint8_t *tile = (const uint8_t *)w->packed + row / ROWS * tile_bytes(w, 8), *orders = orders_of(w, row), *x[2] = {0};
    const float *scales = (const float *)(const void *)(tile + n_steps * STEP_BYTES) + quarter * QUARTER;
    ints acc[2 * QUARTER];
    floats y[2 * QUARTER];
    ZQ_UNROLL
    for (size_t v = 0; v < n_vecs; v++) x[v] = b->q + (token / SIDE_BY_SIDE + v) * eight_bytes(b->n_steps);
    ZQ_UNROLL
    for (size_t i = 0; i < QUARTER * n_vecs; i++) y[i] = f_set(0);

    for (size_t g = 0; g < n_groups; g++, tile += bytes, orders += group_order_bytes(w)) {
        const uint8_t *order = orders + ROWS * sizeof(int32_t) + quarter * order_bytes(n_steps);
        const int32_t *starts = (const int32_t *)(const void *)orders + quarter * QUARTER;
        ZQ_UNROLL
        for (size_t i = 0; i < QUARTER * n_vecs; i++) acc[i] = i_set(starts[i / n_vecs]);
        for (size_t s = 0; s < n_steps; s += SEGMENT) {
            const size_t n = zq_smaller(n_steps - s, SEGMENT);
            dot_segment(acc, n_vecs, x, tile + s * STEP_BYTES + quarter * 4 * QUARTER, order, n, b->offset);
            order += 2 + n;
            ZQ_UNROLL
            for (size_t v = 0; v < n_vecs; v++) x[v] += 32 * n;
        }
        if (!grouped) break;
        ZQ_UNROLL
        for (size_t i = 0; i < QUARTER * n_vecs; i++) y[i] = f_fma(i_to_float(acc[i]), f_set(scales[i / n_vecs]), y[i]);
        scales = (const float *)(const void *)((const uint8_t *)scales + bytes);
    }

    ZQ_UNROLL
    for (size_t v = 0; v < n_vecs; v++) {
        const floats token_scale = f_load(b->scale + token + v * SIDE_BY_SIDE);
        floats eight[QUARTER];
        ZQ_UNROLL
        for (size_t r = 0; r < QUARTER; r++) {
            const size_t i = r * n_vecs + v;
            const floats bias = f_set(p->bias && row + r < w->n_rows ? p->bias[row + r] : 0);
            if (grouped) eight[r] = f_fma(y[i], token_scale, bias);
            else eight[r] = f_fma(i_to_float(acc[i]), f_mul(token_scale, f_set(scales[r])), bias);
        }
        const size_t first = token + v * SIDE_BY_SIDE;
        store_eight(p, row, b->token + first, zq_smaller(b->n_tokens - first, SIDE_BY_SIDE), eight);
    }
}

typedef void paired_fn(const struct panel *b, size_t row, size_t token);
#define PAIRED_TILE(name, n_vecs, grouped)                                                                                                    \
    static __attribute__((noinline)) void name(const struct panel *b, size_t row, size_t token)                                              \
    {                                                                                                                                        \
        multiply_paired(b, row, token, n_vecs, grouped);                                                                                     \
    }
PAIRED_TILE(paired_16, 2, false)
PAIRED_TILE(paired_8, 1, false)
PAIRED_TILE(paired_16_groups, 2, true)
PAIRED_TILE(paired_8_groups, 1, true)
static paired_fn *const paired_tiles[2][2] = {{paired_8, paired_16}, {paired_8_groups, paired_16_groups}}; /* [grouped][more than 8 tokens] */

/* The tokens of a panel that would leave most of a register tile empty, row range by row range while its weights are in the cache. */
static struct zq_product rest_of(const struct panel *b, size_t n)
{
    struct zq_product rest = *b->p;
    const size_t first = b->token + b->n_tokens;
    rest.n_tokens = n;
    rest.q += first * rest.ld_x;
    rest.scale += first;
    rest.out += first * rest.ld_out;
    if (rest.residual) rest.residual += first * rest.ld_out;
    return rest;
}

/* Rows [begin, end) with 16 tokens at a time, which stay in the first-level cache. */
static void sweep_panel(const struct panel *b, size_t begin, size_t end)
{
    const bool grouped = b->p->w->k_group != 0;
    for (size_t t = 0; t < b->n_tokens; t += 2 * SIDE_BY_SIDE)
        for (size_t row = begin; row < end; row += QUARTER) paired_tiles[grouped][b->n_tokens - t > SIDE_BY_SIDE](b, row, t);
}

/* A rest of up to few_tokens is left to run(). */
static void run_paired(const struct zq_product *p, size_t row_begin, size_t row_end, size_t few_tokens)
{
    struct panel b;
    b.p = p;
    b.n_steps = (p->w->n_cols + 3) / 4;
    const size_t block = zq_smaller(PAIRED_PANEL / eight_bytes(b.n_steps) * SIDE_BY_SIDE, PAIRED_TOKENS);
    const size_t n_rows = (SWEPT_BYTES / (b.n_steps * STEP_BYTES) + 1) * ROWS;
    for (b.token = 0; b.token < p->n_tokens; b.token += block) {
        const size_t n = zq_smaller(block, p->n_tokens - b.token), n_rest = n % SIDE_BY_SIDE <= few_tokens ? n % SIDE_BY_SIDE : 0;
        b.n_tokens = n - n_rest;
        fill_panel(&b);
        const struct zq_product rest = rest_of(&b, n_rest);
        for (size_t row = row_begin; row < row_end; row += n_rows) {
            const size_t end = zq_smaller(row + n_rows, row_end);
            sweep_panel(&b, row, end);
            run(&rest, row, end, 8);
        }
    }
}

#endif
