/* AMX tiles as our kernels use them: eight of 16 rows of 64 bytes; what is smaller is padded with zeros.
 *
 * A newcomer would miss that gcc's tile loads and stores do not say that they touch memory: hence settle_memory(). */
#ifndef ZQ_KERNELS_X86_TILES_H
#define ZQ_KERNELS_X86_TILES_H

#include "kernels/level.h"

#include <immintrin.h>

struct tile_configuration { /* Intel SDM vol. 1, 18.2 */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
};

ZQ_INLINE void settle_memory(void) { __asm__ volatile("" ::: "memory"); }

static void configure(void)
{
    struct tile_configuration c = {.palette = 1};
    for (size_t i = 0; i < 8; i++) {
        c.row_bytes[i] = 64;
        c.n_rows[i] = 16;
    }
    settle_memory();
    _tile_loadconfig(&c);
}

/* What tiles are multiplied as: signed bytes times unsigned ones into INT32, or pairs of BF16 values into F32. */
enum tile_kind { TILES_I8, TILES_BF16 };

/* Rows of 64 bytes, `step` bytes apart. */
struct tile_rows {
    const void *at;
    size_t step;
};

/* Adds n_tiles products of 32 or 16 (not `both`) tokens and 32 output rows to sums, whose tokens are sum_step bytes apart. left: tokens, which are
 * read 64 bytes a tile; right: 16 rows a tile, of two tiles side by side.
 *
 * Tile plan, 2 x 2: sums 0 1 / 2 3 (32 tokens x 32 rows), left 4 5, right 6 7: four loads for four products. */
ZQ_INLINE void multiply_tiles(enum tile_kind kind, void *sums, size_t sum_step, struct tile_rows left, struct tile_rows right, size_t n_tiles,
                              bool both)
{
    uint8_t *const top = sums, *const below = top + 16 * sum_step;
    const uint8_t *l = left.at, *r = right.at;
    settle_memory();
    _tile_loadd(0, top, sum_step);
    _tile_loadd(1, top + 64, sum_step);
    if (both) {
        _tile_loadd(2, below, sum_step);
        _tile_loadd(3, below + 64, sum_step);
    }
    for (size_t i = 0; i < n_tiles; i++, l += 64, r += 16 * right.step) {
        _tile_loadd(4, l, left.step);
        _tile_loadd(6, r, right.step);
        _tile_loadd(7, r + 64, right.step);
        if (kind == TILES_I8) {
            _tile_dpbsud(0, 4, 6);
            _tile_dpbsud(1, 4, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (!both) continue;
        _tile_loadd(5, l + 16 * left.step, left.step);
        if (kind == TILES_I8) {
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        } else {
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, top, sum_step);
    _tile_stored(1, top + 64, sum_step);
    if (both) {
        _tile_stored(2, below, sum_step);
        _tile_stored(3, below + 64, sum_step);
    }
    settle_memory();
}

#endif
