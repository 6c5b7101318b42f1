/* Products with float inputs on AVX2. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/chain.h"

#include "kernels/floatmul_slots.inc"
