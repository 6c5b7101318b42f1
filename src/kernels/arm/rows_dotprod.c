/* Row operators on AArch64. */
#include "kernels/arm/vec_neon.h"
#include "kernels/math.h"

#include "kernels/rows.inc"
