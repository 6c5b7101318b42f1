/* Tiles of keys and values on tensor cores (F16 with FP32 sums): staged in shared memory with asynchronous copies, scored, weighed against a
 * running maximum and mixed. Prompts and decoding attend with these words; device.h writes the bound that both keep. */
#ifndef ZQ_CUDA_TILE_CUH
#define ZQ_CUDA_TILE_CUH

#include "cuda/device.h"
#include "cuda/math.cuh"

/* 2^x for x <= 0, relative error 2^-18; 1 for 0; below -120 (-inf, too) 2^-120, which F16 does not know.
 * 2^r = 1 + r P(r) for |r| <= 1/2, P by the Remez exchange of tools/make-polynomials.py. */
DEVICE float power_of_two(float x)
{
    x = larger(x, -120.0f);
    const float n = round_even(x), r = sub(x, n);
    float p = fma_rn(0x1.409102p-7f, r, 0x1.ca9008p-5f);
    p = fma_rn(p, r, 0x1.ebf1b4p-3f);
    p = fma_rn(p, r, 0x1.62dfcap-1f);
    return bits_float(float_bits(fma_rn(p, r, 1.0f)) + ((uint32_t)(int32_t)n << 23));
}

/* Starts or makes 8 F16 values at `to` of 8 kept ones; not real: zeros. scale: of codes, one for all or (each) one per value. */
DEVICE void stage_eight(uint8_t *to, const uint16_t *from, const float *scale, bool each, bool real)
{
    (void)scale, (void)each;
    copy_async(to, from, real ? 16 : 0);
}
DEVICE void stage_eight(uint8_t *to, const float *from, const float *scale, bool each, bool real)
{
    (void)scale, (void)each;
    uint32_t h[4] = {0, 0, 0, 0};
    UNROLL
    for (int i = 0; i < 2 && real; i++) {
        const chunk16 x = load16(from + 4 * i);
        UNROLL
        for (int j = 0; j < 2; j++) h[2 * i + j] = halves(within_half(bits_float(x.word[2 * j])), within_half(bits_float(x.word[2 * j + 1])));
    }
    store16(to, chunk16{{h[0], h[1], h[2], h[3]}});
}
DEVICE void stage_eight(uint8_t *to, const int8_t *from, const float *scale, bool each, bool real)
{
    uint32_t h[4] = {0, 0, 0, 0};
    if (real) {
        const chunk8 codes = load8(from);
        float x[8];
        UNROLL
        for (int i = 0; i < 8; i++) x[i] = within_half(mul(from_int((int8_t)(codes.word[i / 4] >> i % 4 * 8)), scale[each ? i : 0]));
        UNROLL
        for (int i = 0; i < 4; i++) h[i] = halves(x[2 * i], x[2 * i + 1]);
    }
    store16(to, chunk16{{h[0], h[1], h[2], h[3]}});
}

/* A tile of KEYS positions of one head in shared memory. Keys as the cache has them, 16 side by side: rows of 32 bytes, a row per dimension;
 * values: a row per position. 16-byte chunks are swizzled so that the 8 rows of a matrix load lie in different banks. */
template <int DIMS> DEVICE uint32_t key_chunk(uint32_t row, uint32_t c) { return row * 32 + (c ^ (row >> 2 & 1)) * 16; }
template <int DIMS> DEVICE uint32_t value_chunk(uint32_t row, uint32_t c)
{
    return row * DIMS * 2 + (c ^ (DIMS % 64 ? row >> 1 & 3 : row & 7)) * 16; /* 96 dimensions: odd and even rows differ by themselves */
}

/* One sequence's keys and values of one head. */
template <class T> struct kept_head {
    const T *keys, *values;
    const float *k_scale, *v_scale;
    uint32_t head_dim, end; /* positions that somebody sees are below */
};

template <class T, int DIMS, int KEYS, int THREADS> DEVICE void load_tile(const kept_head<T> &from, uint8_t *k, uint8_t *v, uint32_t tile)
{
    for (uint32_t i = thread_x(); i < KEYS / 16 * DIMS * 2; i += THREADS) {
        const uint32_t row = i / 2, c = i % 2, d = row % DIMS, first = tile + row / DIMS * 16;
        const bool real = d < from.head_dim && first < from.end;
        stage_eight(k + key_chunk<DIMS>(row, c), real ? from.keys + ((size_t)first * from.head_dim + d * 16) + c * 8 : from.keys,
                    from.k_scale + (real ? first + c * 8 : 0), true, real);
    }
    for (uint32_t i = thread_x(); i < KEYS * DIMS / 8; i += THREADS) {
        const uint32_t row = i / (DIMS / 8), c = i % (DIMS / 8), position = tile + row;
        const bool real = c * 8 < from.head_dim && position < from.end; /* beyond, memory holds anything, and 0 times NaN is not 0 */
        stage_eight(v + value_chunk<DIMS>(row, c), real ? from.values + (size_t)position * from.head_dim + c * 8 : from.values,
                    from.v_scale + (real ? position : 0), false, real);
    }
}

/* Of a lane's two rows, l / 4 and l / 4 + 8 of its warp's 16; a row is a token's query of one head. */
struct tile_rows {
    size_t out[2];              /* where the row's output begins */
    uint32_t token[2];          /* of the launch; ~0: there is none */
    uint32_t first[2], last[2]; /* visible positions of the sequence in work: first .. last - 1 */
};

/* Scores of 16 rows and KEYS keys, in the fragments of the product: s[n][i] is row l / 4 (+ 8 for i >= 2), key 8 n + l % 4 * 2 + i % 2. */
template <int DIMS, int KEYS> DEVICE void score_tile(float s[KEYS / 8][4], const uint32_t q[DIMS / 16][4], const uint8_t *k)
{
    const uint32_t lane = thread_x() % 32;
    UNROLL
    for (int i = 0; i < KEYS / 8 * 4; i++) s[i / 4][i % 4] = 0;
    UNROLL
    for (int step = 0; step < DIMS / 16; step++) {
        UNROLL
        for (int g = 0; g < KEYS / 16; g++) {
            uint32_t b[4];
            const uint32_t row = (uint32_t)(g * DIMS + step * 16) + lane % 16;
            load_matrices_turned(b, k + key_chunk<DIMS>(row, lane / 16));
            multiply_add_halves(s[2 * g], q[step], b);
            multiply_add_halves(s[2 * g + 1], q[step], b + 2);
        }
    }
}

/* Turns scores into weights, F16 in the fragments of the next product's left side, and rescales what was summed so far. */
template <int DIMS, int KEYS>
DEVICE void weigh_tile(uint32_t p[KEYS / 16][4], float s[KEYS / 8][4], float o[DIMS / 8][4], float m[2], float l[2], const tile_rows &rows,
                       uint32_t tile, float factor)
{
    UNROLL
    for (int r = 0; r < 2; r++) {
        float top = m[r];
        UNROLL
        for (int i = 0; i < KEYS / 8 * 2; i++) {
            const uint32_t key = tile + (uint32_t)(i / 2 * 8) + thread_x() % 4 * 2 + (uint32_t)(i % 2);
            float *const x = &s[i / 2][2 * r + i % 2];
            *x = key >= rows.first[r] && key < rows.last[r] ? mul(*x, factor) : -INFINITY;
            top = larger(top, *x);
        }
        top = larger(top, shuffle_xor(top, 1));
        top = larger(top, shuffle_xor(top, 2));
        const float base = top == -INFINITY ? 0.0f : top, rescale = power_of_two(sub(m[r], base));
        m[r] = top;
        l[r] = mul(l[r], rescale);
        UNROLL
        for (int n = 0; n < DIMS / 8 * 2; n++) o[n / 2][2 * r + n % 2] = mul(o[n / 2][2 * r + n % 2], rescale);
        UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            const uint32_t both = halves(power_of_two(sub(s[n][2 * r], base)), power_of_two(sub(s[n][2 * r + 1], base)));
            p[n / 2][n % 2 * 2 + r] = both;
            l[r] = add(l[r], add(half_value((uint16_t)both), half_value((uint16_t)(both >> 16)))); /* of what is multiplied: they sum to 1 */
        }
    }
}

template <int DIMS, int KEYS> DEVICE void mix_tile(float o[DIMS / 8][4], const uint32_t p[KEYS / 16][4], const uint8_t *v)
{
    const uint32_t lane = thread_x() % 32;
    UNROLL
    for (int g = 0; g < KEYS / 16; g++) {
        UNROLL
        for (int n = 0; n < DIMS / 16; n++) {
            uint32_t b[4];
            const uint32_t row = (uint32_t)(g * 16) + lane % 16, c = (uint32_t)(n * 2) + lane / 16;
            load_matrices_turned(b, v + (MUTANT(17) ? row * DIMS * 2 + (c ^ (row & 3)) * 16 : value_chunk<DIMS>(row, c)));
            multiply_add_halves(o[2 * n], p[g], b);
            multiply_add_halves(o[2 * n + 1], p[g], b + 2);
        }
    }
}

/* Which rows a lane has, and their queries in the fragments of the product's left side. Row r is head r % group, of those that share a key
 * head, of token r / group; a warp has 16 from `first` on, as far as they are below `end`. */
template <int DIMS>
DEVICE void load_queries(uint32_t q[DIMS / 16][4], tile_rows *rows, const struct zq_device_attention &a, uint32_t kv_head, uint32_t first,
                         uint32_t end)
{
    const uint32_t lane = thread_x() % 32, head_dim = (uint32_t)a.heads.head_dim, group = (uint32_t)(a.heads.n_heads / a.heads.n_kv_heads);
    UNROLL
    for (int r = 0; r < 2; r++) {
        const uint32_t row = first + lane / 4 + (uint32_t)(8 * r), token = row / group;
        const size_t head = kv_head * group + row % group;
        const bool real = row < end;
        const float *from = a.qkv + token * a.ld + a.heads.q_offset + head * a.heads.q_stride;
        rows->token[r] = real ? token : ~0u;
        rows->out[r] = token * a.out.ld_f + head * head_dim;
        UNROLL
        for (int i = 0; i < DIMS / 16 * 2; i++) {
            const uint32_t d = (uint32_t)(i * 8) + lane % 4 * 2;
            q[i / 2][i % 2 * 2 + r] = real && d < head_dim ? halves(within_half(from[d]), within_half(from[d + 1])) : 0;
        }
    }
}

/* The keys of the sequence that tokens [begin, end) are of, as far as these see them; the first tile begins at *from. */
template <class T, int KEYS>
DEVICE kept_head<T> visible_keys(const struct zq_device_attention &a, tile_rows *rows, uint32_t kv_head, uint32_t begin, uint32_t end,
                                 uint32_t *from)
{
    const struct zq_device_token at = a.tokens[begin];
    const size_t row = (at.cache + a.layer_first) * a.heads.n_kv_heads + (size_t)kv_head * at.capacity;
    const uint32_t seen = a.causal ? least(a.tokens[end - 1].position + 1, at.n_keys) : at.n_keys, window = (uint32_t)a.window;
    UNROLL
    for (int r = 0; r < 2; r++) {
        const bool mine = rows->token[r] >= begin && rows->token[r] < end;
        const uint32_t position = mine ? a.tokens[rows->token[r]].position : 0;
        rows->first[r] = window && position >= window ? position - window + 1 : 0;
        rows->last[r] = !mine ? 0 : a.causal ? least(position + 1 + MUTANT(18), at.n_keys) : at.n_keys;
    }
    *from = (window && at.position >= window ? at.position - window + 1 : 0) / KEYS * KEYS;
    return kept_head<T>{(const T *)a.cache.k + row * a.heads.head_dim, (const T *)a.cache.v + row * a.heads.head_dim,
                        a.cache.k_scale + (sizeof(T) == 1 ? row : 0), a.cache.v_scale + (sizeof(T) == 1 ? row : 0), (uint32_t)a.heads.head_dim, seen};
}

#endif
