/* Attention on AVX-512. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/math.h"

#include "kernels/chain.h"

#include "kernels/attend.inc"
#include "kernels/attend_slots.inc"
