/* splitmix64: a small generator whose whole state is one integer. For sampling and random weights, not for secrets. */
#ifndef ZQ_BASE_RNG_H
#define ZQ_BASE_RNG_H

#include <stdint.h>

static inline uint64_t zq_rng_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Uniform in [0, 1), 24 bits. */
static inline float zq_rng_float(uint64_t *state)
{
    return (float)(zq_rng_next(state) >> 40) * 0x1p-24f;
}

#endif
