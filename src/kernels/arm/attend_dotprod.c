/* Attention on AArch64. */
#include "kernels/arm/vec_neon.h"
#include "kernels/math.h"

#include "kernels/chain.h"

#include "kernels/attend.inc"
#include "kernels/attend_slots.inc"
