/* Products with float tokens as BF16 products, for --math fast, over vec_avx512.h and floatmul.inc. The level's file, which includes this, brings
 *   TOKENS_STEP        tokens of a call of add_products() are a multiple of it
 *   add_products()     the micro-kernel
 *   begin_products(), end_products()   around all of one call
 *   fill_slots()       is called with the names of its kernels
 *
 * Float weights are packed as pairs (pairs.h): tiles of ROWS rows, [n_cols / 2][ROWS] pairs, columns padded with zeros to a multiple of STEP_COLS.
 * Codes are packed as floatmul.inc packs them, which keeps them small in memory and serves few tokens, and become pairs strip by strip of
 * columns, in the first-level cache, for all tokens of a block. Tokens become pairs once for all rows of a call. */
#ifndef ZQ_KERNELS_X86_BF16MUL_H
#define ZQ_KERNELS_X86_BF16MUL_H

#include "base/half.h"
#include "kernels/chain.h"
#include "kernels/crossovers.h"
#include "kernels/x86/pairs.h"

#include "kernels/floatmul.inc"

enum {
    STRIP_COLS = 256, /* 32 KiB of pairs */
    BLOCK = 128,      /* tokens whose sums are kept: 32 KiB, and as much of scaled ones */
    LINE_PAIRS = 16,  /* rows of tokens lie 64 bytes further apart than they are long: else 16 of them may want the same lines of a cache */
    PANEL_PAIRS = BLOCK * (4096 / 2 + LINE_PAIRS), /* 1 MiB, of a second-level cache: a block of 4096 columns */
};

/* sums[t][r] += x[t] . w[][r] over n_pairs of columns, a multiple of 16; x: [n_tokens, ld], w: [n_pairs][ROWS]. */
static void add_products(float (*sums)[ROWS], const pair *x, size_t ld, size_t n_tokens, const pair *w, size_t n_pairs);
static void begin_products(void);
static void end_products(void);

/* ---- packing of float weights ---- */

ZQ_INLINE size_t pairs_tile_bytes(const struct zq_matrix *w) { return up_to(w->n_cols, STEP_COLS) * ROWS * sizeof(uint16_t); }

static size_t bytes_pairs(const struct zq_matrix *w)
{
    size_t bound;
    if (!zq_add(w->n_cols, STEP_COLS, &bound) || !zq_mul(bound, ROWS * sizeof(uint16_t), &bound)) return 0;
    return zq_tiles_bytes(w->n_rows, ROWS, pairs_tile_bytes(w));
}

static uint16_t bf16_of(const void *values, size_t i, enum zq_dtype dtype)
{
    uint16_t half;
    float f;
    if (dtype == ZQ_F32) {
        memcpy(&f, (const uint8_t *)values + 4 * i, sizeof f);
        return zq_float_to_bf16(f);
    }
    memcpy(&half, (const uint8_t *)values + 2 * i, sizeof half);
    return dtype == ZQ_BF16 ? half : zq_float_to_bf16(zq_f16_to_float(half));
}

static void pack_pairs(const struct zq_matrix *w, size_t row, size_t n, const void *values, const float *scales)
{
    (void)scales;
    for (size_t r0 = 0; r0 < n; r0 += ROWS) {
        uint16_t *tile = (uint16_t *)(void *)((uint8_t *)w->packed + (row + r0) / ROWS * pairs_tile_bytes(w));
        memset(tile, 0, pairs_tile_bytes(w));
        for (size_t r = 0; r < zq_smaller(n - r0, ROWS); r++)
            for (size_t k = 0; k < w->n_cols; k++) tile[(k / 2 * ROWS + r) * 2 + k % 2] = bf16_of(values, (r0 + r) * w->n_cols + k, w->dtype);
    }
}

/* ---- the product ---- */

/* What one call works on. Tokens that are missing in a TOKENS_STEP are zeros. */
struct bf16_block {
    const struct zq_product *p;
    enum format format;          /* FORMAT_BF16: packed as pairs */
    size_t token, n_tokens;
    size_t column, n_cols, ld;   /* what the panel holds; from token to token */
    size_t row;
    _Alignas(64) float sums[BLOCK][ROWS];
    _Alignas(64) float f[BLOCK][ROWS]; /* K-groups */
    _Alignas(64) pair strip[STRIP_COLS / 2][ROWS];
    _Alignas(64) pair panel[PANEL_PAIRS];
};

/* Columns from `column`, as many as the panel holds. */
static void fill_panel(struct bf16_block *b, size_t column)
{
    const struct zq_product *p = b->p;
    const size_t n_rows = up_to(b->n_tokens, TOKENS_STEP), most = (PANEL_PAIRS / n_rows - LINE_PAIRS) * 2 / STRIP_COLS * STRIP_COLS;
    const size_t n = zq_smaller(p->w->n_cols - column, most);
    b->column = column;
    b->n_cols = up_to(n, STEP_COLS);
    b->ld = b->n_cols / 2 + LINE_PAIRS;
    for (size_t t = 0; t < b->n_tokens; t++) token_pairs(b->panel + t * b->ld, p->x + (b->token + t) * p->ld_x + column, n, b->n_cols);
    for (size_t t = b->n_tokens; t < n_rows; t++) memset(b->panel + t * b->ld, 0, b->n_cols / 2 * sizeof(pair));
}

/* Columns [column, column + n) of a packed tile. */
ZQ_INLINE void unpack(pair (*to)[ROWS], const uint8_t *tile, size_t column, size_t n, enum format format, load_fn *load)
{
    const size_t one = vec_bytes(format), bytes = V_TILE * one;
    const uint8_t *at = tile + column * bytes;
    for (size_t k = 0; k < n; k += 2, at += 2 * bytes)
        for (size_t v = 0; v < V_TILE; v++)
            _mm512_storeu_si512(to[k / 2] + v * 16, make_pairs(load(at + v * one, 16), k + 1 < n ? load(at + bytes + v * one, 16) : v_set(0)));
    const size_t n_pairs = (n + 1) / 2;
    memset(to[n_pairs], 0, (up_to(n, STEP_COLS) / 2 - n_pairs) * sizeof *to);
}

/* Adds the products of columns [column, column + n), n <= STRIP_COLS, to the sums. */
static void add_strip(struct bf16_block *b, size_t column, size_t n)
{
    const struct zq_matrix *w = b->p->w;
    const size_t bytes = b->format == FORMAT_BF16 ? pairs_tile_bytes(w) : tile_bytes(w, b->format), n_pairs = up_to(n, STEP_COLS) / 2;
    const uint8_t *tile = (const uint8_t *)w->packed + b->row / ROWS * bytes;
    const pair *right = b->strip[0];
    if (b->format == FORMAT_BF16) right = (const pair *)(const void *)tile + column / 2 * ROWS;
    else if (b->format == FORMAT_I8) unpack(b->strip, tile, column, n, FORMAT_I8, load_i8);
    else unpack(b->strip, tile, column, n, FORMAT_I4, load_i4);
    if (column < b->column || column + n > b->column + b->n_cols) fill_panel(b, column);
    add_products(b->sums, b->panel + (column - b->column) / 2, b->ld, up_to(b->n_tokens, TOKENS_STEP), right, n_pairs);
}

/* f = fma(sum, scale of the group, f) */
static void scale_group(struct bf16_block *b, const float *scales)
{
    for (size_t t = 0; t < b->n_tokens; t++)
        for (size_t r = 0; r < ROWS; r += 16) v_store(b->f[t] + r, v_fma(v_load(b->sums[t] + r), v_load(scales + r), v_load(b->f[t] + r)));
}

/* Where the tile's scales begin, [n_groups][ROWS]; NULL: float weights. */
static const float *scales_of(const struct bf16_block *b)
{
    const struct zq_matrix *w = b->p->w;
    if (b->format == FORMAT_BF16) return NULL;
    const uint8_t *tile = (const uint8_t *)w->packed + b->row / ROWS * tile_bytes(w, b->format);
    return (const float *)(const void *)(tile + w->n_cols * V_TILE * vec_bytes(b->format));
}

/* scales: of rows of codes that have one. */
static void finish_rows(const struct bf16_block *b, const float *scales)
{
    const struct zq_product *p = b->p;
    for (size_t v = 0; v < V_TILE && b->row + v * 16 < p->w->n_rows; v++) {
        const size_t r = b->row + v * 16, m = zq_smaller(p->w->n_rows - r, 16);
        const vec bias = p->bias ? v_load_n(p->bias + r, m) : v_set(0);
        for (size_t t = 0; t < b->n_tokens; t++) {
            const size_t to = (b->token + t) * p->ld_out + r;
            vec y = v_load(b->sums[t] + v * 16);
            if (b->format == FORMAT_BF16) y = v_add(y, bias);
            else if (!p->w->k_group) y = v_fma(y, v_load(scales + v * 16), bias);
            else y = v_add(v_load(b->f[t] + v * 16), bias);
            if (p->residual) y = v_add(y, v_load_n(p->residual + to, m));
            v_store_n(p->out + to, y, m);
        }
    }
}

static void run_rows(struct bf16_block *b)
{
    const struct zq_matrix *w = b->p->w;
    const float *scales = scales_of(b);
    const bool grouped = scales && w->k_group;
    const size_t n_groups = grouped ? zq_n_groups(w) : 1, group = grouped ? w->k_group : w->n_cols;
    if (grouped) memset(b->f, 0, b->n_tokens * sizeof *b->f);
    for (size_t g = 0; g < n_groups; g++) {
        memset(b->sums, 0, up_to(b->n_tokens, TOKENS_STEP) * sizeof *b->sums);
        for (size_t k = 0; k < group; k += STRIP_COLS) add_strip(b, g * group + k, zq_smaller(STRIP_COLS, group - k));
        if (grouped) scale_group(b, scales + g * ROWS);
    }
    finish_rows(b, scales);
}

/* Blocks of equal size, but for the last: one of a few tokens costs as much unpacking as a full one. */
static void run_bf16(const struct zq_product *p, size_t row_begin, size_t row_end, enum format format)
{
    struct bf16_block b;
    const size_t n_blocks = (p->n_tokens + BLOCK - 1) / BLOCK, block = n_blocks ? up_to((p->n_tokens + n_blocks - 1) / n_blocks, TOKENS_STEP) : 0;
    b.p = p;
    b.format = format;
    begin_products();
    for (b.token = 0; b.token < p->n_tokens; b.token += block) {
        b.n_tokens = zq_smaller(block, p->n_tokens - b.token);
        b.column = b.n_cols = 0;
        for (b.row = row_begin; b.row < row_end; b.row += ROWS) run_rows(&b);
    }
    end_products();
}

/* kernels.h: which codes keep the products of exact. */
static bool stays_exact(const struct zq_product *p) { return p->n_tokens <= FEW_TOKENS_BF16 || p->w->k_group % STEP_COLS; }

static void gemm_f32_bf16(const struct zq_product *p, size_t row_begin, size_t row_end) { run_bf16(p, row_begin, row_end, FORMAT_BF16); }

static void gemm_w8_bf16(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    if (stays_exact(p)) run(p, row_begin, row_end, FORMAT_I8, load_i8);
    else run_bf16(p, row_begin, row_end, FORMAT_I8);
}

static void gemm_w4_bf16(const struct zq_product *p, size_t row_begin, size_t row_end)
{
    if (stays_exact(p)) run(p, row_begin, row_end, FORMAT_I4, load_i4);
    else run_bf16(p, row_begin, row_end, FORMAT_I4);
}

static void fill_slots(struct zq_kernels *k, const char *f32, const char *w8, const char *w4)
{
    k->f32_a16 = (struct zq_gemm){f32, ROWS, bytes_pairs, pack_pairs, gemm_f32_bf16};
    k->w8_a16 = (struct zq_gemm){w8, ROWS, bytes_w8, pack_w8, gemm_w8_bf16};
    k->w4_a16 = (struct zq_gemm){w4, ROWS, bytes_w4, pack_w4, gemm_w4_bf16};
}

#endif
