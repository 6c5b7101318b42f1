/* Which levels an x86-64 processor offers. An instruction set counts only if the operating system saves its registers when
 * it switches threads: CPUID alone says yes where a hypervisor or kernel has switched AVX-512 off. */
#include "kernels/level.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Intel SDM vol. 1, 13.3: state components of XCR0. */
enum { STATE_SSE = 1 << 1, STATE_AVX = 1 << 2, STATE_OPMASK = 1 << 5, STATE_ZMM_LOW = 1 << 6, STATE_ZMM_HIGH = 1 << 7, STATE_TILES = 3 << 17 };

static bool has(unsigned word, int bit) { return word >> bit & 1; }

static unsigned saved_state(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux gives tiles to a process that asks (arch_prctl(2), Documentation/arch/x86/xstate.rst); threads made later inherit it. */
static bool tiles_granted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

unsigned zq_levels_x86(void)
{
    unsigned a, b, c, d, features, unused, more;
    /* leaf 1 ECX: FMA 12, OSXSAVE 27, AVX 28, F16C 29 */
    if (!__get_cpuid(1, &a, &b, &features, &d) || !has(features, 27) || !has(features, 28)) return ZQ_LEVEL_C;
    const unsigned state = saved_state(), ymm = STATE_SSE | STATE_AVX, zmm = ymm | STATE_OPMASK | STATE_ZMM_LOW | STATE_ZMM_HIGH;
    if ((state & ymm) != ymm || !__get_cpuid_count(7, 0, &unused, &b, &c, &d)) return ZQ_LEVEL_C;

    unsigned levels = ZQ_LEVEL_C;
    /* leaf 7 EBX: AVX2 5, AVX512F 16, DQ 17, BW 30, VL 31; ECX: AVX512_VNNI 11 */
    if (!has(b, 5) || !has(features, 12) || !has(features, 29)) return levels;
    levels |= ZQ_LEVEL_AVX2;
    if ((state & zmm) == zmm && has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31) && has(c, 11)) levels |= ZQ_LEVEL_AVX512VNNI;
    /* leaf 7.1 EAX: AVX_VNNI 4, AVX512_BF16 5; leaf 7 EDX: AMX_BF16 22, AMX_TILE 24, AMX_INT8 25 */
    if (!__get_cpuid_count(7, 1, &more, &unused, &unused, &unused)) more = 0;
    if (has(more, 4)) levels |= ZQ_LEVEL_AVXVNNI;
    if (levels & ZQ_LEVEL_AVX512VNNI && has(more, 5)) levels |= ZQ_LEVEL_AVX512BF16;
    if (levels & ZQ_LEVEL_AVX512VNNI && (state & STATE_TILES) == STATE_TILES && has(d, 22) && has(d, 24) && has(d, 25) && tiles_granted())
        levels |= ZQ_LEVEL_AMX;
    return levels;
}
