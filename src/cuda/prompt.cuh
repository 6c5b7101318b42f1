/* Attention of prompts on tensor cores (F16 with FP32 sums), without a score matrix: a block takes 64 rows, each a token's query of one head,
 * all of one key head, and passes over tiles of keys and values with a running maximum. Heads that share keys are rows of one block, so keys
 * are read once for them. device.h writes the bound that this keeps.
 *
 * What a newcomer would get wrong: a block's tokens may be of several sequences. It passes over each one's keys in turn, while the rows of
 * the others see nothing, which leaves them as they are to the bit; so a token's result does not depend on its neighbours. */
#ifndef ZQ_CUDA_PROMPT_CUH
#define ZQ_CUDA_PROMPT_CUH

#include "cuda/tile.cuh"
#include "cuda/tokenize.cuh"

enum { PROMPT_THREADS = 128, PROMPT_ROWS = 64 };

DEVICE bool same_sequence(const struct zq_device_token &a, const struct zq_device_token &b)
{
    return a.cache == b.cache && (a.n_keys != 0) == (b.n_keys != 0);
}

template <int DIMS> DEVICE void store_rows(const struct zq_device_attention &a, const tile_rows &rows, const float o[DIMS / 8][4], const float l[2])
{
    UNROLL
    for (int r = 0; r < 2; r++) {
        float sum = add(l[r], shuffle_xor(l[r], 1));
        sum = add(sum, shuffle_xor(sum, 2));
        if (rows.token[r] == ~0u) continue;
        UNROLL
        for (int i = 0; i < DIMS / 8 * 2; i++) {
            const uint32_t d = (uint32_t)(i / 2 * 8) + thread_x() % 4 * 2 + (uint32_t)(i % 2);
            if (d < a.heads.head_dim) a.out.f[rows.out[r] + d] = sum == 0 ? 0.0f : divide(o[i / 2][2 * r + i % 2], sum);
        }
    }
}

/* DIMS: head_dim or more. */
template <class T, int DIMS> KERNEL(PROMPT_THREADS) attend_prompt(const struct zq_device_attention a)
{
    constexpr int KEYS = DIMS <= 64 ? 64 : DIMS <= 128 ? 32 : 16, BYTES = KEYS * DIMS * 2; /* two stages of both: 32 KiB or less */
    SHARED(uint8_t, k, 2 * BYTES);
    SHARED(uint8_t, v, 2 * BYTES);
    SHARED(uint32_t, done, PROMPT_ROWS);
    const uint32_t group = (uint32_t)(a.heads.n_heads / a.heads.n_kv_heads), row_begin = block_x() * PROMPT_ROWS;
    const uint32_t row_end = least(row_begin + PROMPT_ROWS, (uint32_t)a.n_tokens * group), token_end = (row_end - 1) / group + 1;
    const float factor = mul(a.scale, exp_log2e);
    uint32_t q[DIMS / 16][4];
    float o[DIMS / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    tile_rows rows;
    load_queries<DIMS>(q, &rows, a, block_y(), row_begin + thread_x() / 32 * 16, row_end);
    UNROLL
    for (int i = 0; i < DIMS / 8 * 4; i++) o[i / 4][i % 4] = 0;

    for (uint32_t begin = row_begin / group, end; begin < token_end; begin = end) {
        for (end = begin + 1; end < token_end && same_sequence(a.tokens[begin], a.tokens[end]);) end++;
        uint32_t tile, stage = 0;
        const kept_head<T> from = visible_keys<T, KEYS>(a, &rows, block_y(), begin, end, &tile);
        if (tile < from.end) load_tile<T, DIMS, KEYS, PROMPT_THREADS>(from, k, v, tile);
        copy_commit();
        for (; tile < from.end; tile += KEYS, stage ^= 1) {
            float s[KEYS / 8][4];
            uint32_t p[KEYS / 16][4];
            /* behind the barrier everybody's copies of this tile have landed, and nobody reads the other stage any more */
            if (!MUTANT(15)) copy_wait<0>();
            if (!MUTANT(16)) sync_block();
            if (tile + KEYS < from.end) load_tile<T, DIMS, KEYS, PROMPT_THREADS>(from, k + (stage ^ 1) * BYTES, v + (stage ^ 1) * BYTES, tile + KEYS);
            copy_commit();
            score_tile<DIMS, KEYS>(s, q, k + stage * BYTES);
            weigh_tile<DIMS, KEYS>(p, s, o, m, l, rows, tile, factor);
            mix_tile<DIMS, KEYS>(o, p, v + stage * BYTES);
        }
        if (end < token_end) sync_block(); /* the next sequence begins with the first stage, too */
    }
    copy_wait<0>();
    store_rows<DIMS>(a, rows, o, l);
    finish_tokens<PROMPT_THREADS>(a, row_begin, row_end, group, done);
}

#endif
