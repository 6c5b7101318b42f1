/* Attention of decoding on tensor cores: few queries against many keys, so that reading the cache is all that counts. The keys of a token are
 * cut into parts, a block each, as many as fill the device; a block's warps take 16 keys of every tile. What a part leaves is relative to a
 * maximum of its own: first the warps of a block, then the parts of a token are joined, in rising order of their keys, the latter by whichever
 * block arrives last. Heads that share keys are the 16 rows of the product, so keys are read once for them.
 *
 * What a newcomer would get wrong: the number of parts is the launch's, but a recorded launch is replayed while the context grows. So a block
 * learns from the token how many parts have keys at all; the others leave at once, and nobody waits for them. */
#ifndef ZQ_CUDA_DECODE_CUH
#define ZQ_CUDA_DECODE_CUH

#include "cuda/tile.cuh"
#include "cuda/tokenize.cuh"

struct decode_args {
    struct zq_device_attention a;
    uint32_t n_splits, row_blocks; /* row_blocks: blocks of 16 heads that share one key head */
};

/* Rows that n parts have summed: o [n][rows][..], m and l [n][rows], the sums of values and of weights relative to 2^m. */
struct partial_rows {
    const float *o, *m, *l;
    uint32_t n, rows, width; /* values from one row of o to the next */
};

template <bool FRESH> DEVICE float partial_value(const float *p) { return FRESH ? load_fresh(p) : *p; }

/* Joins n_rows rows into o (row stride ld), m and l; with m NULL o is finished by dividing. weights: [n + 1][ZQ_DEVICE_SPLIT_ROWS]. */
template <bool FRESH, int THREADS>
DEVICE void join_rows(const partial_rows &from, uint32_t n_rows, uint32_t head_dim, float *weights, float *o, size_t ld, float *m, float *l)
{
    float *const totals = weights + from.n * ZQ_DEVICE_SPLIT_ROWS;
    for (uint32_t row = thread_x(); row < n_rows; row += THREADS) {
        float top = -INFINITY, sum = 0;
        for (uint32_t i = 0; i < from.n; i++) top = larger(top, partial_value<FRESH>(&from.m[i * from.rows + row]));
        const float base = top == -INFINITY ? 0.0f : top;
        for (uint32_t i = 0; i < from.n; i++) {
            const float w = power_of_two(sub(partial_value<FRESH>(&from.m[i * from.rows + row]), base));
            weights[i * ZQ_DEVICE_SPLIT_ROWS + row] = w;
            sum = fma_rn(partial_value<FRESH>(&from.l[i * from.rows + row]), w, sum);
        }
        totals[row] = sum;
        if (m) m[row] = top, l[row] = sum;
    }
    if (!MUTANT(22)) sync_block();
    for (uint32_t i = thread_x(); i < n_rows * head_dim; i += THREADS) {
        const uint32_t row = i / head_dim, d = i % head_dim;
        float sum = 0;
        for (uint32_t j = 0; j < from.n; j++)
            sum = fma_rn(partial_value<FRESH>(&from.o[(j * from.rows + row) * from.width + d]), weights[j * ZQ_DEVICE_SPLIT_ROWS + row], sum);
        o[row * ld + d] = m ? sum : totals[row] == 0 ? 0.0f : divide(sum, totals[row]);
    }
}

/* The sums of this warp's fragments into shared memory: o [16][DIMS], m and l [16]. */
template <int DIMS>
DEVICE void leave_warp(float *o, float *m, float *l, const float sums[DIMS / 8][4], const float top[2], const float weights[2])
{
    const uint32_t lane = thread_x() % 32;
    UNROLL
    for (int r = 0; r < 2; r++) {
        const uint32_t row = lane / 4 + (uint32_t)(8 * r);
        float sum = add(weights[r], shuffle_xor(weights[r], 1));
        sum = add(sum, shuffle_xor(sum, 2));
        if (lane % 4 == 0) m[row] = top[r], l[row] = sum;
        UNROLL
        for (int i = 0; i < DIMS / 8 * 2; i++)
            o[row * DIMS + (uint32_t)(i / 2 * 8) + lane % 4 * 2 + (uint32_t)(i % 2)] = sums[i / 2][2 * r + i % 2];
    }
}

/* Warps of a block: two stages of 16 keys and values for each fit into 32 KiB. */
template <int DIMS> struct decode_block {
    enum { WARPS = DIMS <= 64 ? 4 : DIMS <= 128 ? 2 : 1, THREADS = 32 * WARPS };
};

template <class T, int DIMS> KERNEL(decode_block<DIMS>::THREADS) attend_parts(const decode_args args)
{
    constexpr int WARPS = decode_block<DIMS>::WARPS, THREADS = decode_block<DIMS>::THREADS, KEYS = 16 * WARPS, BYTES = KEYS * DIMS * 2;
    constexpr int ROWS = ZQ_DEVICE_SPLIT_ROWS;
    SHARED(uint8_t, k, 2 * BYTES);
    SHARED(uint8_t, v, 2 * BYTES);
    SHARED(float, tops, WARPS *ROWS);
    SHARED(float, sums, WARPS *ROWS);
    SHARED(float, weights, (ZQ_DEVICE_SPLITS + 1) * ROWS);
    SHARED(uint32_t, last, 1);
    const struct zq_device_attention &a = args.a;
    const uint32_t group = (uint32_t)(a.heads.n_heads / a.heads.n_kv_heads), head_dim = (uint32_t)a.heads.head_dim;
    const uint32_t token = block_x() / args.n_splits, part = block_x() % args.n_splits, warp = thread_x() / 32;
    const uint32_t kv_head = block_y() / args.row_blocks, row = token * group + block_y() % args.row_blocks * ROWS;
    const uint32_t row_end = least(row + ROWS, (token + 1) * group), n_rows = row_end - row;
    const float factor = mul(a.scale, exp_log2e);
    uint32_t q[DIMS / 16][4], tile, stage = 0;
    float o[DIMS / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    tile_rows rows;
    load_queries<DIMS>(q, &rows, a, kv_head, row, row_end);
    kept_head<T> from = visible_keys<T, KEYS>(a, &rows, kv_head, token, token + 1, &tile);
    UNROLL
    for (int i = 0; i < DIMS / 8 * 4; i++) o[i / 4][i % 4] = 0;

    const uint32_t n_tiles = from.end > tile ? (from.end - tile + KEYS - 1) / KEYS : 0, each = (n_tiles + args.n_splits - 1) / args.n_splits;
    const uint32_t n_parts = n_tiles ? (n_tiles + each - 1) / each : 1;
    if (part >= n_parts) return;
    tile += part * each * KEYS;
    const uint32_t end = least(from.end, tile + each * KEYS);

    if (tile < end) load_tile<T, DIMS, KEYS, THREADS>(from, k, v, tile);
    copy_commit();
    for (; tile < end; tile += KEYS, stage ^= 1) {
        const uint32_t at = stage * BYTES + warp * DIMS * 32; /* of this warp's 16 keys, and of their values */
        float s[2][4];
        uint32_t p[1][4];
        /* behind the barrier everybody's copies of this tile have landed, and nobody reads the other stage any more */
        copy_wait<0>();
        sync_block();
        if (tile + KEYS < end) load_tile<T, DIMS, KEYS, THREADS>(from, k + (stage ^ 1) * BYTES, v + (stage ^ 1) * BYTES, tile + KEYS);
        copy_commit();
        score_tile<DIMS, 16>(s, q, k + at);
        weigh_tile<DIMS, 16>(p, s, o, m, l, rows, tile + warp * 16, factor);
        mix_tile<DIMS, 16>(o, p, v + at);
    }

    sync_block(); /* nobody reads k any more: it takes sums, [WARPS][16][DIMS] */
    float *const mixed = (float *)(void *)k;
    leave_warp<DIMS>(mixed + warp * ROWS * DIMS, tops + warp * ROWS, sums + warp * ROWS, o, m, l);
    if (!MUTANT(21)) sync_block();
    const partial_rows of_warps = {mixed, tops, sums, WARPS, ROWS, DIMS};
    float *const out = a.out.f + token * a.out.ld_f + (kv_head * group + row % group) * head_dim;
    if (n_parts == 1) join_rows<false, THREADS>(of_warps, n_rows, head_dim, weights, out, head_dim, NULL, NULL);
    else {
        const uint32_t joint = token * a.heads.n_kv_heads * args.row_blocks + block_y(), most = least(group, ROWS);
        const size_t first = (size_t)joint * args.n_splits * most, n_all = (size_t)ZQ_DEVICE_SPLIT_BLOCKS * most; /* rows before these; of all */
        float *const to_o = a.parts + first * head_dim, *const to_m = a.parts + n_all * head_dim + first, *const to_l = to_m + n_all;
        const size_t mine = (size_t)part * most;
        join_rows<false, THREADS>(of_warps, n_rows, head_dim, weights, to_o + mine * head_dim, head_dim, to_m + mine, to_l + mine);
        publish();
        if (!MUTANT(20)) sync_block();
        if (thread_x() == 0) {
            *last = arrive(&a.joined[joint], 1) + 1 == n_parts;
            if (*last) a.joined[joint] = 0; /* nobody else comes in this launch */
        }
        sync_block();
        if (!*last) return;
        publish();
        const partial_rows of_parts = {to_o, to_m, to_l, n_parts, most, head_dim};
        join_rows<true, THREADS>(of_parts, n_rows, head_dim, weights, out, head_dim, NULL, NULL);
    }
    finish_tokens<THREADS>(a, row, row_end, group, last);
}

#endif
