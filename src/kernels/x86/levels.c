/* Which levels an x86-64 processor offers. An instruction set counts only if the operating system saves its registers when
 * it switches threads: CPUID alone says yes where a hypervisor or kernel has switched AVX-512 off. */
#include "kernels/level.h"

#include <cpuid.h>

/* Intel SDM vol. 1, 13.3: state components of XCR0. */
enum { STATE_SSE = 1 << 1, STATE_AVX = 1 << 2, STATE_OPMASK = 1 << 5, STATE_ZMM_LOW = 1 << 6, STATE_ZMM_HIGH = 1 << 7 };

static bool has(unsigned word, int bit) { return word >> bit & 1; }

static unsigned saved_state(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

unsigned zq_levels_x86(void)
{
    unsigned a, b, c, d, features, unused;
    /* leaf 1 ECX: FMA 12, OSXSAVE 27, AVX 28, F16C 29 */
    if (!__get_cpuid(1, &a, &b, &features, &d) || !has(features, 27) || !has(features, 28)) return ZQ_LEVEL_C;
    const unsigned state = saved_state(), ymm = STATE_SSE | STATE_AVX, zmm = ymm | STATE_OPMASK | STATE_ZMM_LOW | STATE_ZMM_HIGH;
    if ((state & ymm) != ymm || !__get_cpuid_count(7, 0, &unused, &b, &c, &d)) return ZQ_LEVEL_C;

    unsigned levels = ZQ_LEVEL_C;
    /* leaf 7 EBX: AVX2 5, AVX512F 16, DQ 17, BW 30, VL 31; ECX: AVX512_VNNI 11 */
    if (!has(b, 5) || !has(features, 12) || !has(features, 29)) return levels;
    levels |= ZQ_LEVEL_AVX2;
    if ((state & zmm) == zmm && has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31) && has(c, 11)) levels |= ZQ_LEVEL_AVX512VNNI;
    return levels;
}
