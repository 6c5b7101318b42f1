/* A round is steps of a stride that has no factor in common with the number of samples. */
#include "distill/order.h"

#include "base/rng.h"

size_t zq_order_at(size_t n, uint64_t seed, uint64_t position)
{
    uint64_t state = seed ^ position / n * 0x9e3779b97f4a7c15u, stride, a, b;
    const uint64_t offset = zq_rng_next(&state) % n;
    do {
        stride = zq_rng_next(&state) % n;
        for (a = stride, b = n; a;) {
            const uint64_t rest = b % a;
            b = a;
            a = rest;
        }
    } while (b != 1);
    return (size_t)((position % n * stride + offset) % n);
}
