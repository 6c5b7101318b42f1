/* Integer products with tdpbsud: tiles of 16 tokens x 64 columns (signed) times 64 columns x 16 rows (unsigned) into 16 x 16 sums.
 * Packed weights are those of gemm_avx512vnni.c, whose steps of 4 columns are the rows of a right-hand tile as they lie; that
 * kernel also takes what tiles are too coarse for: few tokens, what is left of 16, and groups of less than 64 columns.
 *
 * tiles.h has the plan of tiles; its 32 rows are half of a packed tile of rows. Sums of a block of tokens wait in a buffer, because 4-bit
 * codes are unpacked strip by strip of columns, and each strip serves all tokens of the block. */
#include "kernels/crossovers.h"
#include "kernels/x86/gemm_vnni512.h"
#include "kernels/x86/tiles.h"

#include "kernels/gemm.inc"

enum {
    TILE_TOKENS = 16,
    TILE_COLS = 64,
    HALF = ROWS / 2,    /* rows of a 2 x 2 plan */
    BLOCK = 128,        /* tokens whose sums are kept: 16 KiB of them, and as much of floats */
    STRIP_COLS = 512,   /* of unpacked codes: 16 KiB, half of the first-level cache with the sums */
};

/* What one call works on: rows [row, row + HALF), tokens [token, token + n_tokens). */
struct block {
    const struct zq_product *p;
    size_t row, token, n_tokens; /* n_tokens: a multiple of TILE_TOKENS */
    int bits;
    _Alignas(64) int32_t sums[BLOCK][HALF];
    _Alignas(64) float f[BLOCK][HALF];
    _Alignas(64) uint8_t strip[STRIP_COLS / 4][HALF][4];
};

/* Codes of a strip, a step a row: n_steps of 4 columns from `packed`, the first step of the strip. A strip that ends within a tile is padded
 * with zero steps. */
static struct tile_rows strip_codes(struct block *b, const uint8_t *packed, size_t n_steps)
{
    const size_t high = b->row % ROWS / HALF, padding = (TILE_COLS / 4 - n_steps % (TILE_COLS / 4)) % (TILE_COLS / 4);
    if (b->bits == 8 && !padding) return (struct tile_rows){packed + high * HALF * 4, step_bytes(8)};
    for (size_t s = 0; s < n_steps; s++) {
        for (size_t v = 0; v < 2; v++) {
            __m512i w = _mm512_loadu_si512(packed + s * step_bytes(b->bits) + 64 * v + (b->bits == 8 ? high * HALF * 4 : 0));
            if (b->bits == 4) w = _mm512_and_si512(high ? _mm512_srli_epi16(w, 4) : w, _mm512_set1_epi8(15));
            _mm512_storeu_si512(b->strip[s][v * 16], w);
        }
    }
    memset(b->strip[n_steps], 0, padding * sizeof b->strip[0]);
    return (struct tile_rows){b->strip[0][0], sizeof b->strip[0]};
}

/* Adds the products of columns [column, column + n_cols), n_cols <= STRIP_COLS, to the block's sums. */
static void add_strip(struct block *b, const uint8_t *packed, size_t column, size_t n_cols)
{
    const struct tile_rows w = strip_codes(b, packed, (n_cols + 3) / 4);
    const size_t whole = n_cols / TILE_COLS * TILE_COLS, rest = n_cols - whole, ld = b->p->ld_x;
    for (size_t t = 0; t < b->n_tokens; t += 2 * TILE_TOKENS) {
        const bool both = b->n_tokens - t >= 2 * TILE_TOKENS;
        const int8_t *q = b->p->q + (b->token + t) * ld + column;
        if (whole) multiply_tiles(TILES_I8, b->sums + t, sizeof *b->sums, (struct tile_rows){q, ld}, w, whole / TILE_COLS, both);
        if (!rest) continue;
        int8_t last[2 * TILE_TOKENS][TILE_COLS] = {{0}}; /* a row may end where memory ends, and zeros add nothing */
        for (size_t i = 0; i < (both ? 2 * TILE_TOKENS : TILE_TOKENS); i++) memcpy(last[i], q + i * ld + whole, rest);
        const struct tile_rows tail = {(const uint8_t *)w.at + whole / 4 * w.step, w.step};
        multiply_tiles(TILES_I8, b->sums + t, sizeof *b->sums, (struct tile_rows){last[0], TILE_COLS}, tail, 1, both);
    }
}

static void start_sums_of_group(struct block *b, const int32_t *sums, size_t n_groups)
{
    const int offset = b->bits == 8 ? OFFSET_W8 : 8;
    for (size_t t = 0; t < b->n_tokens; t++)
        for (size_t v = 0; v < 2; v++) _mm512_store_si512(b->sums[t] + v * LANES, i_set(-offset * sums[t * n_groups]));
}

/* f = fma(sum, scale of the group, f) */
static void scale_group(struct block *b, const float *scales)
{
    for (size_t t = 0; t < b->n_tokens; t++) {
        for (size_t v = 0; v < 2; v++) {
            float *f = b->f[t] + v * LANES;
            _mm512_store_ps(f, f_fma(i_to_float(i_load(b->sums[t] + v * LANES)), f_load(scales + v * LANES), f_load(f)));
        }
    }
}

/* `scales`: of the rows, where there are no groups. */
static void store_block(const struct block *b, const float *scales)
{
    const struct zq_product *p = b->p;
    for (size_t v = 0; v < 2 && b->row + v * LANES < p->w->n_rows; v++) {
        const size_t r = b->row + v * LANES, m = zq_smaller(p->w->n_rows - r, LANES);
        const floats bias = p->bias ? f_load_n(p->bias + r, m) : f_set(0);
        for (size_t t = 0; t < b->n_tokens; t++) {
            const size_t to = (b->token + t) * p->ld_out + r;
            const floats token_scale = f_set(p->scale[b->token + t]);
            floats y;
            if (p->w->k_group) y = f_fma(f_load(b->f[t] + v * LANES), token_scale, bias);
            else y = f_fma(i_to_float(i_load(b->sums[t] + v * LANES)), f_mul(token_scale, f_load(scales + v * LANES)), bias);
            if (p->residual) y = f_add(y, f_load_n(p->residual + to, m));
            f_store_n(p->out + to, y, m);
        }
    }
}

/* sums: [tokens of the block][n_groups], of activations. */
static void run_block(struct block *b, const int32_t *sums)
{
    const struct zq_matrix *w = b->p->w;
    const size_t n_groups = zq_n_groups(w), group = zq_group_cols(w);
    const uint8_t *at = (const uint8_t *)w->packed + b->row / ROWS * tile_bytes(w, b->bits);
    const float *scales = NULL;
    if (w->k_group) memset(b->f, 0, b->n_tokens * sizeof b->f[0]);
    for (size_t g = 0; g < n_groups; g++, at += group_bytes(w, b->bits)) {
        start_sums_of_group(b, sums + g, n_groups);
        for (size_t k = 0; k < group; k += STRIP_COLS)
            add_strip(b, at + k / 4 * step_bytes(b->bits), g * group + k, zq_smaller(STRIP_COLS, group - k));
        scales = (const float *)(const void *)(at + (group + 3) / 4 * step_bytes(b->bits)) + b->row % ROWS;
        if (w->k_group) scale_group(b, scales);
    }
    store_block(b, scales);
}

/* Tokens [0, end), a multiple of TILE_TOKENS. */
static void run_tiles(const struct zq_product *p, size_t row_begin, size_t row_end, size_t end, int bits)
{
    const size_t n_groups = zq_n_groups(p->w), group = zq_group_cols(p->w);
    const size_t most = zq_smaller(BLOCK, MAX_SUMS / n_groups / TILE_TOKENS * TILE_TOKENS);
    int32_t sums[MAX_SUMS];
    struct block b = {.p = p, .bits = bits};
    configure();
    for (b.token = 0; b.token < end; b.token += b.n_tokens) {
        b.n_tokens = zq_smaller(most, end - b.token);
        for (size_t i = 0; i < b.n_tokens * n_groups; i++)
            sums[i] = code_sum(p->q + (b.token + i / n_groups) * p->ld_x + i % n_groups * group, group);
        for (size_t row = row_begin; row < row_end; row += ROWS) {
            for (b.row = row; b.row < row + ROWS && b.row < p->w->n_rows; b.row += HALF) run_block(&b, sums);
        }
    }
    _tile_release();
}

static void run_amx(const struct zq_product *p, size_t row_begin, size_t row_end, int bits)
{
    const size_t n_groups = zq_n_groups(p->w);
    const bool fits = zq_group_cols(p->w) >= TILE_COLS && n_groups && n_groups <= MAX_SUMS / TILE_TOKENS;
    const size_t tiled = fits && p->n_tokens >= MIN_TILE_TOKENS ? p->n_tokens / TILE_TOKENS * TILE_TOKENS : 0;
    if (tiled) run_tiles(p, row_begin, row_end, tiled, bits);
    if (tiled == p->n_tokens) return;

    struct zq_product rest = *p;
    rest.n_tokens -= tiled;
    rest.q += tiled * p->ld_x;
    rest.scale += tiled;
    rest.out += tiled * p->ld_out;
    if (p->residual) rest.residual += tiled * p->ld_out;
    run(&rest, row_begin, row_end, bits);
}

static void gemm_w8_a8_amx(const struct zq_product *p, size_t row_begin, size_t row_end) { run_amx(p, row_begin, row_end, 8); }
static void gemm_w4_a8_amx(const struct zq_product *p, size_t row_begin, size_t row_end) { run_amx(p, row_begin, row_end, 4); }

void zq_gemm_amx(struct zq_kernels *k)
{
    k->w8_a8 = (struct zq_gemm){"gemm_w8_a8_amx", ROWS, bytes_w8, pack_w8, gemm_w8_a8_amx};
    k->w4_a8 = (struct zq_gemm){"gemm_w4_a8_amx", ROWS, bytes_w4, pack_w4, gemm_w4_a8_amx};
}
