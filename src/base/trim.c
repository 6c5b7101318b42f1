/* What the C library keeps of freed memory for later use, where it can be asked to let go of it. */
#include "base/trim.h"

#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

void zq_trim(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
