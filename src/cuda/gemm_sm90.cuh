/* INT8 products for many tokens on Hopper: wgmma fed by TMA. One warp loads tiles of weights and tokens, stage by stage; two warp groups multiply 64
 * rows of weights each with all tokens of the tile. Weights are the left side, so that 4-bit codes can be unpacked in registers (wgmma takes its
 * left side from there) and a lane needs the scales of two rows only.
 *
 * Tiles lie as TMA swizzles them: rows of 128 bytes for wgmma's descriptors, packed rows of 64 bytes as chunk64() of gemm.cuh has them. Sums, their
 * grouping and what follows them are those of gemm(), hence the bits, too. */
#ifndef ZQ_CUDA_GEMM_SM90_CUH
#define ZQ_CUDA_GEMM_SM90_CUH

#include "cuda/gemm.cuh"
#include "cuda/wgmma.cuh"

enum { HOPPER_ROWS = 128, HOPPER_TOKENS = PRODUCT_TOKENS, HOPPER_COLS = 128, HOPPER_GROUPS = HOPPER_ROWS / PRODUCT_ROWS };
enum { HOPPER_CONSUMERS = HOPPER_GROUPS * 128, HOPPER_THREADS = HOPPER_CONSUMERS + 32, HOPPER_RASTER = 16 };

struct hopper_args {
    product_args a;
    tile_map w, x; /* boxes of HOPPER_ROWS and HOPPER_TOKENS rows, HOPPER_COLS columns */
    uint32_t n_row_tiles, n_token_tiles;
};

/* Sums take 64 registers; with those of groups, or with unpacked codes, there is room for one block of a multiprocessor, else for two. */
template <int BITS, int GROUP> struct hopper_tile {
    static constexpr int BLOCKS = GROUP || BITS == 4 ? 1 : 2, W_BYTES = HOPPER_ROWS * HOPPER_COLS * BITS / 8, X_BYTES = HOPPER_TOKENS * HOPPER_COLS;
    static constexpr int STAGES = 192 / BLOCKS * 1024 / (W_BYTES + X_BYTES), SHARED_BYTES = STAGES * (W_BYTES + X_BYTES + 16);
};

/* A stage, and the parity of its phase. */
struct turn {
    uint32_t at, parity;
};
template <int STAGES> DEVICE void next_turn(turn *t)
{
    if (++t->at < STAGES) return;
    t->at = 0;
    t->parity ^= MUTANT(26) ? 0 : 1;
}

/* Rows in stripes of HOPPER_RASTER tiles: blocks that run at the same time share what they load. */
DEVICE void find_tile(const hopper_args &h, uint32_t *row, uint32_t *token)
{
    const uint32_t stripe = HOPPER_RASTER * h.n_token_tiles, first = block_x() / stripe * HOPPER_RASTER, within = block_x() % stripe;
    const uint32_t width = least(h.n_row_tiles - first, HOPPER_RASTER);
    *row = (first + within % width) * HOPPER_ROWS;
    *token = within / width * HOPPER_TOKENS;
}

/* One thread: fills stages as they become free. */
template <class TILE>
DEVICE void fill_stages(const hopper_args &h, uint8_t *w, uint8_t *x, uint64_t *full, uint64_t *empty, uint32_t row, uint32_t token, int bits)
{
    turn t = {0, 0};
    for (uint32_t column = 0; column < h.a.cols; column += HOPPER_COLS) {
        if (!MUTANT(23)) transactions_wait(&empty[t.at], t.parity ^ 1);
        transactions_expect(&full[t.at], TILE::W_BYTES + TILE::X_BYTES);
        copy_tile(w + t.at * TILE::W_BYTES, &h.w, column * (uint32_t)bits / 8, row, &full[t.at]);
        copy_tile(x + t.at * TILE::X_BYTES, &h.x, column, token, &full[t.at]);
        next_turn<TILE::STAGES>(&t);
    }
}

/* A warp has read the stage. */
DEVICE void release(uint64_t *empty)
{
    if (thread_x() % 32 == 0) transactions_arrive(empty);
}

/* left [HOPPER_COLS / PRODUCT_COLS, 4]: those of all steps of a stage from 16 rows of packed codes, 16 times the codes. Products of the stage before
 * may be in flight while this reads and unpacks, and are over before it writes. */
DEVICE void unpack_rows(uint32_t *left, const uint8_t *w, uint32_t row, int32_t *d)
{
    constexpr int PAIRS = HOPPER_COLS / PRODUCT_COLS / 2;
    const uint32_t lane = thread_x() % 32;
    uint32_t r[PAIRS * 4];
    UNROLL
    for (int pair = 0; pair < PAIRS; pair++) load_matrices(r + pair * 4, w + chunk64(row + lane % 16, (uint32_t)pair * 2 + lane / 16));
    product_wait<0>(d);
    UNROLL
    for (int i = 0; i < PAIRS * 4; i++) {
        left[i / 2 * 4 + i % 2] = r[i] << 4 & 0xf0f0f0f0u;
        left[i / 2 * 4 + 2 + i % 2] = r[i] & 0xf0f0f0f0u;
    }
}

/* Group after group. */
struct group_turn {
    uint32_t group, end; /* padded column at which it ends */
    bool begins;
};

/* f += sums of a group times its scales, of the two rows that this lane has. */
DEVICE void add_group(const product_args &a, float *f, const int32_t *d, uint32_t group, uint32_t row)
{
    float scale[2];
    UNROLL
    for (uint32_t i = 0; i < 2; i++) scale[i] = row + i * 8 < a.n_rows ? a.w_scale[(size_t)group * a.n_rows + row + i * 8] : 0.0f;
    UNROLL
    for (int i = 0; i < PRODUCT_SUMS; i++) f[i] = fma_rn(from_int(d[i]), scale[i / 2 % 2], f[i]);
}

/* A warp group's products of one stage, left sides of 4 bits from registers. Without groups of columns they are in flight at the end. GROUP: groups
 * end at multiples of so many columns, 0: there are none. */
template <int BITS, int GROUP>
DEVICE void multiply_stage(const product_args &a, int32_t *d, uint32_t *left, float *f, group_turn *g, const uint8_t *w, const uint8_t *x,
                           uint32_t column, uint32_t row)
{
    constexpr int STEPS = HOPPER_COLS / PRODUCT_COLS, BATCH = GROUP ? GROUP / PRODUCT_COLS : STEPS;
    UNROLL
    for (int batch = 0; batch < STEPS / BATCH; batch++) {
        if (!MUTANT(28)) product_fence<BITS == 4 ? STEPS * 4 : 0>(d, left);
        UNROLL
        for (int i = 0; i < BATCH; i++) {
            const int step = batch * BATCH + i;
            const uint64_t right = rows128(shared_address(x)) + (uint64_t)(step * PRODUCT_COLS >> 4);
            const bool keep = !GROUP || i || !g->begins;
            if (BITS == 4) product_of_registers(d, left + step * 4, right, keep);
            else product(d, rows128(shared_address(w)) + (uint64_t)(step * PRODUCT_COLS >> 4), right, keep);
        }
        product_commit();
        if (!GROUP) return;
        product_wait<0>(d);
        g->begins = false;
        if (column + (uint32_t)((batch + 1) * GROUP) < g->end || g->group * a.step >= a.cols) continue;
        add_group(a, f, d, g->group++, row);
        g->end += a.step;
        g->begins = true;
    }
}

template <int BITS, int GROUP>
DEVICE void consume_stages(const product_args &a, const uint8_t *w, const uint8_t *x, uint64_t *full, uint64_t *empty, uint32_t row, uint32_t token)
{
    using TILE = hopper_tile<BITS, GROUP>;
    const uint32_t lane = thread_x() % 32, warp = thread_x() / 32;
    int32_t d[PRODUCT_SUMS];
    uint32_t left[BITS == 4 ? HOPPER_COLS / PRODUCT_COLS * 4 : 1];
    float f[GROUP ? PRODUCT_SUMS : 1];
    UNROLL
    for (int i = 0; i < PRODUCT_SUMS; i++) d[i] = 0;
    UNROLL
    for (int i = 0; GROUP && i < PRODUCT_SUMS; i++) f[i] = 0;
    w += warp / 4 * (TILE::W_BYTES / HOPPER_GROUPS);
    row += warp * 16 + lane / 4; /* and 8 further */

    turn t = {0, 0};
    uint32_t before = 0;
    group_turn g = {0, a.step, true};
    for (uint32_t column = 0; column < a.cols; column += HOPPER_COLS) {
        const uint8_t *const stage = w + t.at * TILE::W_BYTES;
        transactions_wait(&full[t.at], t.parity);
        if (BITS == 4) unpack_rows(left, stage, warp % 4 * 16, d);
        if (BITS == 4 && !GROUP && column) release(&empty[before]);
        multiply_stage<BITS, GROUP>(a, d, left, f, &g, stage, x + t.at * TILE::X_BYTES, column, row);
        if (BITS == 8 && !GROUP && !MUTANT(24)) product_wait<1>(d);
        if (BITS == 8 && !GROUP && column) release(&empty[before]);
        if (GROUP) release(&empty[t.at]);
        before = t.at;
        next_turn<TILE::STAGES>(&t);
    }
    if (!GROUP && !MUTANT(25)) product_wait<0>(d);

    row_terms terms[2];
    UNROLL
    for (uint32_t i = 0; i < 2; i++) terms[i] = row + i * 8 < a.n_rows ? terms_of_row<GROUP != 0>(a, row + i * 8) : row_terms{0, 0};
    UNROLL
    for (int i = 0; i < PRODUCT_SUMS / 2; i++) {
        const uint32_t at = token + (uint32_t)(i / 2 * 8) + lane % 4 * 2 + (uint32_t)(i % 2);
        if (at >= a.n_tokens) continue;
        const float token_scale = a.scale[at];
        UNROLL
        for (int j = 0; j < 2; j++) {
            const int sum = i / 2 * 4 + j * 2 + i % 2;
            const uint32_t r = row + (uint32_t)(j * 8);
            if (r < a.n_rows) finish_sum<GROUP != 0>(a, at, r, GROUP ? f[sum] : from_int(d[sum]), token_scale, terms[j]);
        }
    }
}

template <int BITS, int GROUP> KERNEL_RESIDENT(HOPPER_THREADS, (hopper_tile<BITS, GROUP>::BLOCKS)) gemm_sm90(const GRID_CONSTANT hopper_args h)
{
    using TILE = hopper_tile<BITS, GROUP>;
    SHARED_DYNAMIC(shared, TILE::SHARED_BYTES);
    uint8_t *const w = shared, *const x = w + TILE::STAGES * TILE::W_BYTES;
    uint64_t *const full = (uint64_t *)(void *)(x + TILE::STAGES * TILE::X_BYTES), *const empty = full + TILE::STAGES;
    uint32_t row, token;
    find_tile(h, &row, &token);
    if (thread_x() == 0) {
        for (int i = 0; i < TILE::STAGES; i++) {
            transactions_init(&full[i], 1);
            transactions_init(&empty[i], HOPPER_CONSUMERS / 32);
        }
        transactions_fence();
    }
    sync_block();
    if (thread_x() < HOPPER_CONSUMERS) consume_stages<BITS, GROUP>(h.a, w, x, full, empty, row, token);
    else if (thread_x() == HOPPER_CONSUMERS) fill_stages<TILE>(h, w, x, full, empty, row, token, BITS);
}

#endif
