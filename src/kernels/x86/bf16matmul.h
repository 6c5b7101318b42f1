/* Products of two float matrices as BF16 products, for training with --math fast, over the words of bf16mul.h: rows of a are its tokens, columns
 * of b its rows of weights. A strip of M_COLS along k becomes pairs, of M_ROWS rows of a and of M_WIDE columns of b in tiles of ROWS; both and a
 * tile's sums lie in a second-level cache of 1 MiB (375, 289 and 60 KiB). The level's add_products() goes over them.
 *
 * An operand whose neighbours in memory are not neighbours along k is turned by registers of 16 x 16 pairs. */
#ifndef ZQ_KERNELS_X86_BF16MATMUL_H
#define ZQ_KERNELS_X86_BF16MATMUL_H

#include "kernels/training.h"
#include "kernels/x86/bf16mul.h"

/* The best of ten measured on Zen 4. */
enum {
    M_ROWS = 240,
    M_COLS = 768,
    M_PAIRS = M_COLS / 2,
    M_WIDE = 192,
    M_STEP = 128, /* pairs of a tile that all rows go over before the next */
};

struct matmul_block {
    const struct zq_matmul *p;
    size_t row, n_rows, k, n_k;
    size_t n_pairs; /* of n_k, a multiple of 16; the last ones are zeros */
    _Alignas(64) float sums[M_ROWS][ROWS];
    _Alignas(64) pair right[M_WIDE / ROWS][M_PAIRS + 1][ROWS]; /* 256 bytes between tiles: else all want the same lines of a cache */
    _Alignas(64) pair left[M_ROWS][M_PAIRS + LINE_PAIRS];
};

/* How many of 16 values from `at` on are among n. */
ZQ_INLINE size_t rest_of(size_t n, size_t at) { return at < n ? zq_smaller(16, n - at) : 0; }

/* Lane i of vector j and lane j of vector i change places. */
ZQ_INLINE void turn_pairs(__m512i r[16])
{
    __m512i t[16];
    ZQ_UNROLL
    for (size_t i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    ZQ_UNROLL
    for (size_t i = 0; i < 16; i += 4) { /* r[i + j] gets lanes j, j + 4, j + 8, j + 12 of vectors i .. i + 3 */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    ZQ_UNROLL
    for (size_t j = 0; j < 4; j++) {
        const __m512i a = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88), b = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd), d = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
        r[j] = _mm512_shuffle_i32x4(a, b, 0x88);
        r[j + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
        r[j + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

/* Rows k and k + 1 of x [n_k, ld] from a column on; those from n_k on are zeros. */
struct row_pair {
    const float *even, *odd;
    bool has_even, has_odd;
};

ZQ_INLINE struct row_pair rows_at(const float *x, size_t ld, size_t k, size_t n_k)
{
    return (struct row_pair){x + k * ld, x + (k + 1) * ld, k < n_k, k + 1 < n_k};
}

/* Pairs of n <= 16 columns from `at`, times alpha. */
ZQ_INLINE __m512i load_pairs(const struct row_pair *r, size_t at, size_t n, vec alpha)
{
    const vec even = r->has_even ? v_load_n(r->even + at, n) : v_set(0), odd = r->has_odd ? v_load_n(r->odd + at, n) : v_set(0);
    return make_pairs(v_mul(alpha, even), v_mul(alpha, odd));
}

/* Up to 32 floats, n of them there, times alpha, as 16 pairs. */
ZQ_INLINE __m512i load_line(const float *x, size_t n, vec alpha)
{
    const size_t low = zq_smaller(n, 16);
    const vec first = n >= 32 ? v_load(x) : v_load_n(x, low), second = n >= 32 ? v_load(x + 16) : v_load_n(x + low, n - low);
    return line_pairs(v_mul(alpha, first), v_mul(alpha, second));
}

/* 16 lines of 32 values, ld apart, of which n lines and n_k values are there, become 16 vectors of a pair of each line. */
ZQ_INLINE void turn_lines(__m512i r[16], const float *x, size_t ld, size_t n_k, size_t n)
{
    if (n_k >= 32 && n == 16) {
        ZQ_UNROLL
        for (size_t j = 0; j < 16; j++) r[j] = line_pairs(v_load(x + j * ld), v_load(x + j * ld + 16));
    } else {
        for (size_t j = 0; j < 16; j++) r[j] = load_line(j < n ? x + j * ld : x, j < n ? zq_smaller(n_k, 32) : 0, v_set(1));
    }
    turn_pairs(r);
}

/* 16 columns of 32 rows, ld apart, of which n columns and n_k rows are there, become 16 vectors of the pairs of a column, times alpha. */
ZQ_INLINE void turn_rows(__m512i r[16], const float *x, size_t ld, size_t n_k, size_t n, vec alpha)
{
    if (n_k >= 32 && n == 16) {
        ZQ_UNROLL
        for (size_t j = 0; j < 16; j++) r[j] = make_pairs(v_mul(alpha, v_load(x + 2 * j * ld)), v_mul(alpha, v_load(x + (2 * j + 1) * ld)));
        for (size_t j = 0; j < 32 && n_k >= 64; j++) _mm_prefetch((const char *)(x + (32 + j) * ld), _MM_HINT_T1); /* of the next 32 rows */
    } else {
        for (size_t j = 0; j < 16; j++) {
            const struct row_pair rows = rows_at(x, ld, 2 * j, n_k);
            r[j] = load_pairs(&rows, 0, n, alpha);
        }
    }
    turn_pairs(r);
}

static void fill_left(struct matmul_block *b)
{
    const struct zq_matmul *p = b->p;
    const vec alpha = v_set(p->alpha);
    for (size_t i = 0; i < b->n_rows && !p->turn_a; i++) {
        const float *from = p->a + (b->row + i) * p->lda + b->k;
        for (size_t k = 0; k < b->n_pairs; k += 16)
            _mm512_storeu_si512(b->left[i] + k, load_line(from + 2 * k, zq_smaller(b->n_k - 2 * k, 32), alpha));
    }
    for (size_t i = b->n_rows; i < up_to(b->n_rows, TOKENS_STEP) && !p->turn_a; i++) memset(b->left[i], 0, b->n_pairs * sizeof(pair));
    for (size_t k = 0; k < b->n_pairs && p->turn_a; k += 16)
        for (size_t i = 0; i < b->n_rows; i += 16) {
            __m512i r[16];
            turn_rows(r, p->a + (b->k + 2 * k) * p->lda + b->row + i, p->lda, b->n_k - 2 * k, rest_of(b->n_rows, i), alpha);
            for (size_t j = 0; j < 16; j++) _mm512_storeu_si512(b->left[i + j] + k, r[j]);
        }
}

/* Columns [column, column + n) of b, n <= M_WIDE; those that are missing in a tile are zeros. */
static void fill_right(struct matmul_block *b, size_t column, size_t n)
{
    const struct zq_matmul *p = b->p;
    const size_t n_all = up_to(n, ROWS);
    for (size_t k = 0; k < b->n_pairs && !p->turn_b; k++) {
        const struct row_pair rows = rows_at(p->b + b->k * p->ldb + column, p->ldb, 2 * k, b->n_k);
        size_t at = 0;
        for (; at + 16 <= n && rows.has_odd; at += 16)
            _mm512_storeu_si512(b->right[at / ROWS][k] + at % ROWS, make_pairs(v_load(rows.even + at), v_load(rows.odd + at)));
        for (; at < n_all; at += 16)
            _mm512_storeu_si512(b->right[at / ROWS][k] + at % ROWS, load_pairs(&rows, zq_smaller(at, n), rest_of(n, at), v_set(1)));
    }
    for (size_t at = 0; at < n_all && p->turn_b; at += 16)
        for (size_t k = 0; k < b->n_pairs; k += 16) {
            __m512i r[16];
            turn_lines(r, p->b + (column + zq_smaller(at, n - 1)) * p->ldb + b->k + 2 * k, p->ldb, b->n_k - 2 * k, rest_of(n, at));
            for (size_t j = 0; j < 16; j++) _mm512_storeu_si512(b->right[at / ROWS][k + j] + at % ROWS, r[j]);
        }
}

/* n <= ROWS values; whole: the rest of a tile becomes zeros. */
ZQ_INLINE void move_row(float *to, const float *from, size_t n, bool whole)
{
    if (n == ROWS) {
        ZQ_UNROLL
        for (size_t v = 0; v < ROWS; v += 16) v_store(to + v, v_load(from + v));
        return;
    }
    for (size_t v = 0; v < (whole ? ROWS : n); v += 16) {
        if (whole) v_store(to + v, v_load_n(from + zq_smaller(v, n), rest_of(n, v)));
        else v_store_n(to + v, v_load(from + v), rest_of(n, v));
    }
}

/* Adds what the strip gives to columns [column, column + n) of c, n <= ROWS. */
static void add_tile(struct matmul_block *b, pair (*right)[ROWS], size_t column, size_t n)
{
    const struct zq_matmul *p = b->p;
    const bool begins = !b->k && !p->add;
    const size_t n_rows = up_to(b->n_rows, TOKENS_STEP);
    float *c = p->c + b->row * p->ldc + column;
    if (begins || b->n_rows < n_rows) memset(b->sums, 0, n_rows * sizeof *b->sums);
    for (size_t i = 0; i < b->n_rows && !begins; i++) move_row(b->sums[i], c + i * p->ldc, n, true);
    for (size_t k = 0; k < b->n_pairs; k += M_STEP)
        add_products(b->sums, b->left[0] + k, M_PAIRS + LINE_PAIRS, n_rows, right[k], zq_smaller(M_STEP, b->n_pairs - k));
    for (size_t i = 0; i < b->n_rows; i++) move_row(c + i * p->ldc, b->sums[i], n, false);
}

static void clear_product(const struct zq_matmul *p)
{
    for (size_t i = 0; i < p->m; i++) memset(p->c + i * p->ldc, 0, p->n * sizeof *p->c);
}

static void matmul_bf16(const struct zq_matmul *p)
{
    struct matmul_block b;
    b.p = p;
    if (!p->k && !p->add) clear_product(p);
    begin_products();
    for (b.row = 0; b.row < p->m; b.row += M_ROWS) {
        b.n_rows = zq_smaller(M_ROWS, p->m - b.row);
        for (b.k = 0; b.k < p->k; b.k += M_COLS) {
            b.n_k = zq_smaller(M_COLS, p->k - b.k);
            b.n_pairs = up_to(b.n_k, STEP_COLS) / 2;
            fill_left(&b);
            for (size_t column = 0; column < p->n; column += ROWS) {
                const size_t tile = column % M_WIDE / ROWS;
                if (!tile) fill_right(&b, column, zq_smaller(M_WIDE, p->n - column));
                add_tile(&b, b.right[tile], column, zq_smaller(ROWS, p->n - column));
            }
        }
    }
    end_products();
}

#endif
