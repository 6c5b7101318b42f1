/* Row operators in plain C. */
#include "kernels/c/vec_c.h"
#include "kernels/math.h"

#include "kernels/rows.inc"
