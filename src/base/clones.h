/* ZQ_CLONES before a function compiles it for AVX2 too; the machine's level is found out once, when the program is loaded. It is for loops that
 * compilers turn into vectors and that no kernel stands for: those of training. Products and sums are fused nowhere
 * (-ffp-contract=off) and a sum's order is written out, so that the results are the same bits. */
#ifndef ZQ_BASE_CLONES_H
#define ZQ_BASE_CLONES_H

#include <stdint.h> /* defines __GLIBC__ */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ZQ_CLONES /* the choice is made before a sanitizer is ready */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define ZQ_CLONES
#endif
#endif
#if !defined(ZQ_CLONES) && defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define ZQ_CLONES __attribute__((target_clones("avx2", "default")))
#endif
#endif
#ifndef ZQ_CLONES
#define ZQ_CLONES
#endif

#endif
