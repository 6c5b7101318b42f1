/* Products with float inputs on AVX-512. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/chain.h"

#include "kernels/floatmul_slots.inc"
