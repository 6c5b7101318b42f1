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

#endif
