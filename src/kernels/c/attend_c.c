/* Attention in plain C. */
#include "kernels/c/vec_c.h"
#include "kernels/math.h"

#include "kernels/chain.h"

#include "kernels/attend.inc"
#include "kernels/attend_slots.inc"
