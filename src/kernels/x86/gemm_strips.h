/* INT4 codes on AVX2 for more tokens than memory can keep up with. Nibbles of a strip of columns are unpacked once into the first-level
 * cache and serve all tokens of a block. Products stay in 16 bits for 16 steps of 4 columns, which is what a group of 64 has:
 *   sum (w + 8) q - 8 sum q = sum w q, and of 2 columns a step |sum w q| <= 16 * 2 * 8 * 127 = 32,512
 * fits 16 bits, so that it is right there although sums on the way may wrap around; a pair by itself, at most 2 * 15 * 127 = 3,810, does
 * not saturate. Sums of a segment therefore start at -8 sum q of their two columns, a pair of 16-bit values for each token.
 *
 * Between segments a block's results wait in memory: int32 for one scale per row, floats in the order of kernels.h for K-groups. */
#ifndef ZQ_KERNELS_X86_GEMM_STRIPS_H
#define ZQ_KERNELS_X86_GEMM_STRIPS_H

enum {
    STRIP_COLS = 1024,  /* 16 KiB of unpacked codes: half of a first-level cache */
    SEGMENT_STEPS = 16,
    STRIP_TOKENS = 192, /* of a block: 12 KiB of results, and at 1024 columns 192 KiB of activations for the second-level cache */
    MAX_STARTS = 12288, /* of a block, 48 KiB of stack: all that 192 tokens of 4096 columns need */
    MIN_STRIP_GROUP = 32,
    STRIP_TILE_TOKENS = 4, /* of the widest register tile */
};

/* What a block of tokens and a tile of rows have in work. */
struct strips {
    const struct zq_product *p;
    size_t token, n_tokens;              /* of the block */
    size_t row;
    size_t n_segments;                   /* of a token */
    const int32_t *starts;               /* [n_tokens, n_segments]: two int16 each */
    _Alignas(32) uint8_t codes[STRIP_COLS / 4][64]; /* w + 8: [step][16 rows][4] */
    _Alignas(32) int32_t sums[STRIP_TOKENS][ROWS];  /* one scale per row */
    _Alignas(32) float f[STRIP_TOKENS][ROWS];       /* K-groups */
};

/* Groups of other sizes, which no common model has, are the business of gemm.inc. */
static bool has_strips(const struct zq_matrix *w)
{
    return w->k_group ? w->k_group % MIN_STRIP_GROUP == 0 && w->k_group <= STRIP_COLS : w->n_cols % 4 == 0;
}

ZQ_INLINE size_t segments_of(size_t n_cols) { return (n_cols / 4 + SEGMENT_STEPS - 1) / SEGMENT_STEPS; }

/* -8 times the sums of columns 0, 1 and of columns 2, 3 of all steps, as two int16. */
static int32_t segment_start(const int8_t *q, size_t n)
{
    const ints ones = _mm256_set1_epi8(1);
    ints sums = _mm256_setzero_si256();
    size_t k = 0;
    for (; k + 32 <= n; k += 32) sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(ones, _mm256_loadu_si256((const ints *)(const void *)(q + k))));
    __m128i s = _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    s = _mm_add_epi16(s, _mm_unpackhi_epi64(s, s));
    s = _mm_add_epi16(s, _mm_srli_epi64(s, 32));
    for (; k < n; k += 4) s = _mm_add_epi16(s, _mm_set_epi16(0, 0, 0, 0, 0, 0, (int16_t)(q[k + 2] + q[k + 3]), (int16_t)(q[k] + q[k + 1])));
    return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(s, 3)));
}

/* All segments of a token; a segment never reaches into the next group. */
static void token_starts(int32_t *starts, const struct zq_matrix *w, const int8_t *q)
{
    const size_t group = zq_group_cols(w);
    for (size_t g = 0; g < w->n_cols; g += group)
        for (size_t k = 0; k < group; k += 4 * SEGMENT_STEPS) *starts++ = segment_start(q + g + k, zq_smaller(group - k, 4 * SEGMENT_STEPS));
}

static void unpack_steps(uint8_t (*codes)[64], const uint8_t *packed, size_t n_steps)
{
    const ints mask = _mm256_set1_epi8(15);
    for (size_t s = 0; s < n_steps; s++) {
        const ints both = _mm256_loadu_si256((const ints *)(const void *)(packed + s * 32));
        _mm256_store_si256((ints *)(void *)codes[s], _mm256_and_si256(both, mask));
        _mm256_store_si256((ints *)(void *)codes[s] + 1, _mm256_and_si256(_mm256_srli_epi16(both, 4), mask));
    }
}

/* One step of 4 columns. Registers: 4 tokens x 2 vectors of 8 rows, 2 of weights, 2 on the way; 6 tokens leave too few
 * for what happens between segments. */
ZQ_INLINE void sum_step(ints *sum, size_t n_tokens, const int8_t *const *q, size_t column, const uint8_t *w)
{
    const ints w0 = _mm256_load_si256((const ints *)(const void *)w), w1 = _mm256_load_si256((const ints *)(const void *)w + 1);
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) {
        const ints left = load_q(q[t] + column);
        sum[2 * t] = _mm256_add_epi16(sum[2 * t], _mm256_maddubs_epi16(w0, left));
        sum[2 * t + 1] = _mm256_add_epi16(sum[2 * t + 1], _mm256_maddubs_epi16(w1, left));
        __asm__ volatile("" : "+v"(sum[2 * t]), "+v"(sum[2 * t + 1])); /* token by token, or the registers do not suffice */
    }
}

/* 16-bit sums of up to SEGMENT_STEPS steps. */
ZQ_INLINE void sum_segment(ints *sum, size_t n_tokens, const int8_t *const *q, size_t column, const uint8_t *w, const int32_t *const *starts,
                           size_t segment, size_t n_steps)
{
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) sum[2 * t] = sum[2 * t + 1] = i_set(starts[t][segment]);
    settle(sum, n_tokens * VECS);
    size_t s = 0;
    for (; s + 4 <= n_steps; s += 4, column += 16, w += 256) {
        ZQ_UNROLL
        for (size_t i = 0; i < 4; i++) sum_step(sum, n_tokens, q, column + 4 * i, w + 64 * i);
    }
    for (; s < n_steps; s++, column += 4, w += 64) sum_step(sum, n_tokens, q, column, w);
}

ZQ_INLINE ints to_32(ints sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }

/* Where one token's part of a register tile lies. */
struct strip_tokens {
    const int8_t *q[STRIP_TILE_TOKENS];
    const int32_t *starts[STRIP_TILE_TOKENS];
};

ZQ_INLINE struct strip_tokens strip_tokens(const struct strips *b, size_t token, size_t n_tokens, size_t column, size_t segment)
{
    struct strip_tokens at;
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) {
        at.q[t] = b->p->q + (b->token + token + t) * b->p->ld_x + column;
        at.starts[t] = b->starts + (token + t) * b->n_segments + segment;
    }
    return at;
}

/* Adds columns [column, column + n) of rows with one scale. */
ZQ_INLINE void add_columns(struct strips *b, size_t token, size_t n_tokens, size_t column, size_t n)
{
    const struct strip_tokens at = strip_tokens(b, token, n_tokens, column, segments_of(column));
    for (size_t k = 0, segment = 0; k < n; k += 4 * SEGMENT_STEPS, segment++) {
        ints sum[STRIP_TILE_TOKENS * VECS];
        if (n - k >= 4 * SEGMENT_STEPS) sum_segment(sum, n_tokens, at.q, k, b->codes[k / 4], at.starts, segment, SEGMENT_STEPS);
        else sum_segment(sum, n_tokens, at.q, k, b->codes[k / 4], at.starts, segment, (n - k) / 4);
        ZQ_UNROLL
        for (size_t i = 0; i < n_tokens * VECS; i++) {
            ints *to = (ints *)(void *)(b->sums[token] + i * LANES);
            _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), to_32(sum[i])));
        }
    }
}

ZQ_INLINE void add_scaled(float *f, ints s, floats scale) { _mm256_store_ps(f, f_fma(i_to_float(s), scale, f_load(f))); }

/* Adds the groups of columns [column, column + n). scales: of the first, those of the others follow group_bytes apart. */
ZQ_INLINE void add_groups(struct strips *b, size_t token, size_t n_tokens, size_t column, size_t n, const uint8_t *scales, size_t group, bool whole)
{
    const size_t bytes = group_bytes(b->p->w, 4), n_segments = segments_of(group);
    const struct strip_tokens at = strip_tokens(b, token, n_tokens, column, column / group * n_segments);
    size_t segment = 0;
    for (size_t g = 0; g < n; g += group, scales += bytes) {
        ints sum[STRIP_TILE_TOKENS * VECS], first[STRIP_TILE_TOKENS * VECS];
        sum_segment(sum, n_tokens, at.q, g, b->codes[g / 4], at.starts, segment++, whole ? SEGMENT_STEPS : zq_smaller(group / 4, SEGMENT_STEPS));
        ZQ_UNROLL
        for (size_t i = 0; i < n_tokens * VECS; i++) sum[i] = to_32(sum[i]);
        for (size_t k = 4 * SEGMENT_STEPS; k < group; k += 4 * SEGMENT_STEPS) {
            ZQ_UNROLL
            for (size_t i = 0; i < n_tokens * VECS; i++) first[i] = sum[i];
            sum_segment(sum, n_tokens, at.q, g + k, b->codes[(g + k) / 4], at.starts, segment++, zq_smaller((group - k) / 4, SEGMENT_STEPS));
            ZQ_UNROLL
            for (size_t i = 0; i < n_tokens * VECS; i++) sum[i] = i_add(first[i], to_32(sum[i]));
        }
        ZQ_UNROLL
        for (size_t i = 0; i < n_tokens * VECS; i++) add_scaled(b->f[token] + i * LANES, sum[i], load_scale(scales, i % VECS));
    }
}

typedef void strip_fn(struct strips *b, size_t token, size_t column, size_t n, const uint8_t *scales);
#define STRIP_TILE(name, n_tokens)                                                                                                            \
    static __attribute__((noinline)) void name##_channel(struct strips *b, size_t token, size_t column, size_t n, const uint8_t *scales)       \
    {                                                                                                                                        \
        (void)scales;                                                                                                                        \
        add_columns(b, token, n_tokens, column, n);                                                                                          \
    }                                                                                                                                        \
    static __attribute__((noinline)) void name##_64(struct strips *b, size_t token, size_t column, size_t n, const uint8_t *scales)            \
    {                                                                                                                                        \
        add_groups(b, token, n_tokens, column, n, scales, 4 * SEGMENT_STEPS, true);                                                          \
    }                                                                                                                                        \
    static __attribute__((noinline)) void name##_groups(struct strips *b, size_t token, size_t column, size_t n, const uint8_t *scales)        \
    {                                                                                                                                        \
        add_groups(b, token, n_tokens, column, n, scales, b->p->w->k_group, false);                                                          \
    }
STRIP_TILE(strip_4, 4)
STRIP_TILE(strip_2, 2)
STRIP_TILE(strip_1, 1)

enum strip_kind { STRIP_CHANNEL, STRIP_64, STRIP_GROUPS, N_STRIP_KINDS };
static const struct {
    size_t n_tokens;
    strip_fn *add[N_STRIP_KINDS];
} strip_tiles[] = {
    {4, {strip_4_channel, strip_4_64, strip_4_groups}},
    {2, {strip_2_channel, strip_2_64, strip_2_groups}},
    {1, {strip_1_channel, strip_1_64, strip_1_groups}},
};

static enum strip_kind kind_of(const struct zq_matrix *w)
{
    return !w->k_group ? STRIP_CHANNEL : w->k_group == 4 * SEGMENT_STEPS ? STRIP_64 : STRIP_GROUPS;
}

/* Columns [column, column + n), whose nibbles begin at `packed`, for all tokens of the block. */
static void add_strip(struct strips *b, const uint8_t *packed, size_t column, size_t n)
{
    const struct zq_matrix *w = b->p->w;
    const size_t group = zq_smaller(zq_group_cols(w), n), codes_bytes = group / 4 * 32, bytes = w->k_group ? group_bytes(w, 4) : codes_bytes;
    for (size_t k = 0; k < n; k += group) unpack_steps(b->codes + k / 4, packed + k / group * bytes, group / 4);
    const enum strip_kind kind = kind_of(w);
    size_t t = 0;
    for (size_t s = 0; t < b->n_tokens; s++)
        for (; b->n_tokens - t >= strip_tiles[s].n_tokens; t += strip_tiles[s].n_tokens)
            strip_tiles[s].add[kind](b, t, column, n, packed + codes_bytes);
}

/* Rows of outputs often lie a multiple of 4096 bytes apart, and then share 8 places of the first-level cache: what is fetched ahead must
 * be written soon, and a row's 64 bytes together. */
enum { OUTPUTS_AHEAD = 4 };

/* Scales, bias and residual of the tile's results. scales: of rows that have one. */
static void finish_tile(const struct strips *b, const uint8_t *scales)
{
    const struct zq_product *p = b->p;
    const size_t n_rows = zq_smaller(p->w->n_rows - b->row, ROWS), m[VECS] = {zq_smaller(n_rows, LANES), n_rows - zq_smaller(n_rows, LANES)};
    floats bias[VECS];
    for (size_t v = 0; v < VECS; v++) bias[v] = p->bias && m[v] ? f_load_n(p->bias + b->row + v * LANES, m[v]) : f_set(0);
    for (size_t t = 0; t < b->n_tokens; t++) {
        const floats token_scale = f_set(p->scale[b->token + t]);
        const size_t to = (b->token + t) * p->ld_out + b->row;
        if (t + OUTPUTS_AHEAD < b->n_tokens) _mm_prefetch((const char *)(p->out + to + OUTPUTS_AHEAD * p->ld_out), _MM_HINT_T0);
        for (size_t v = 0; v < VECS && m[v]; v++) {
            floats y;
            if (p->w->k_group) y = f_fma(f_load(b->f[t] + v * LANES), token_scale, bias[v]);
            else y = f_fma(i_to_float(i_load(b->sums[t] + v * LANES)), f_mul(token_scale, load_scale(scales, v)), bias[v]);
            if (p->residual) y = f_add(y, f_load_n(p->residual + to + v * LANES, m[v]));
            f_store_n(p->out + to + v * LANES, y, m[v]);
        }
    }
}

static void multiply_strips(struct strips *b)
{
    const struct zq_matrix *w = b->p->w;
    const size_t group = zq_group_cols(w), strip = w->k_group ? STRIP_COLS / group * group : STRIP_COLS;
    const uint8_t *tile = (const uint8_t *)w->packed + b->row / ROWS * tile_bytes(w, 4);
    if (w->k_group) memset(b->f, 0, b->n_tokens * sizeof *b->f);
    else memset(b->sums, 0, b->n_tokens * sizeof *b->sums);
    for (size_t k = 0; k < w->n_cols; k += strip) {
        const uint8_t *packed = tile + (w->k_group ? k / group * group_bytes(w, 4) : k / 4 * 32);
        add_strip(b, packed, k, zq_smaller(strip, w->n_cols - k));
    }
    finish_tile(b, tile + group / 4 * 32);
}

static void run_strips(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    int32_t starts[MAX_STARTS];
    struct strips b = {.p = p, .starts = starts};
    b.n_segments = zq_n_groups(p->w) * segments_of(zq_group_cols(p->w));
    const size_t block = zq_smaller(STRIP_TOKENS, MAX_STARTS / b.n_segments);
    for (b.token = 0; b.token < p->n_tokens; b.token += block) {
        b.n_tokens = zq_smaller(block, p->n_tokens - b.token);
        for (size_t t = 0; t < b.n_tokens; t++) token_starts(starts + t * b.n_segments, p->w, p->q + (b.token + t) * p->ld_x);
        for (b.row = row_begin; b.row < row_end; b.row += ROWS) multiply_strips(&b);
    }
}

#endif
