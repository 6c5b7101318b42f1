/* Attention on AVX2. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/math.h"

#include "kernels/chain.h"

#include "kernels/attend.inc"
#include "kernels/attend_slots.inc"
