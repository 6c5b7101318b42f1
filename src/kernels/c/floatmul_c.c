/* Products with float inputs in plain C. */
#include "kernels/c/vec_c.h"

#include "kernels/chain.h"

#include "kernels/floatmul_slots.inc"
