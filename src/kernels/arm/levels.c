/* Which levels an AArch64 processor offers: Linux tells it in the auxiliary vector, and only what it lets programs use. Vectors of
 * floats are part of every AArch64; the level that brings them here also has sdot, as all cores since 2018 do. */
#include "kernels/level.h"

#include <asm/hwcap.h>
#include <sys/auxv.h>

unsigned zq_levels_arm(void)
{
    unsigned levels = ZQ_LEVEL_C;
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return levels;
    levels |= ZQ_LEVEL_DOTPROD;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) levels |= ZQ_LEVEL_I8MM;
    return levels;
}
