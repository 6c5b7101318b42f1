/* Products with float inputs on AArch64. */
#include "kernels/arm/vec_neon.h"

#include "kernels/chain.h"

#include "kernels/floatmul_slots.inc"
