/* Row operators on AVX2. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/math.h"

#include "kernels/rows.inc"
