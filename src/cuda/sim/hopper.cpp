/* Hopper's asynchronous units, as the PTX ISA documents them: transaction barriers, tiles copied by TMA, products of a warp group. What is in
 * flight lies in its block's lists, and the scheduler lets it happen at random times, but no sooner than a kernel may count on. */
#include "cuda/sim/inside.h"

#include <string.h>

namespace sim {

enum { SHARED_BASE = 1024, COLUMNS = 32, ROWS = 64 }; /* hardware keeps the first 1024 bytes of shared memory for itself */

/* What registers of products in flight hold. */
static const uint32_t sums_garbage = 0x5ad3c1b7u, left_garbage = 0x9b6f4d83u;

static uint64_t some_time(struct sim_device *d)
{
    const uint64_t r = next_random(d);
    return (uint64_t)1 << (r >> 32) % 11;
}

/* Bits 4.. of an address change places with bits 7.. : TMA writes so, and wgmma reads so. */
static uint32_t swizzled(uint32_t address, uint32_t span) { return address ^ ((address >> 7 & (span / 16 - 1)) << 4); }

/* 16 bytes of the block's shared memory, or NULL where it has none. */
static uint8_t *chunk_at(const struct block *b, uint32_t address)
{
    if (!b->dynamic || address < SHARED_BASE || address - SHARED_BASE + 16 > b->dynamic_bytes) return NULL;
    return b->dynamic + (address - SHARED_BASE);
}

void begin_flight(struct block *b)
{
    b->n_barriers = 0;
    for (unsigned i = 0; i < MAX_TILES; i++) b->tiles[i].busy = false;
    for (unsigned g = 0; g < GROUPS; g++) {
        b->groups[g].n_issued = b->groups[g].n_done = 0;
        for (unsigned i = 0; i < MAX_PRODUCTS; i++) b->groups[g].products[i].n_lanes = b->groups[g].products[i].n_retired = 0;
    }
}

bool ended_flight(const struct block *b)
{
    for (unsigned i = 0; i < MAX_TILES; i++)
        if (b->tiles[i].busy) return false;
    for (unsigned t = 0; t < b->n_threads; t++)
        if (b->fibers[t].products.issued != b->fibers[t].products.retired) return false;
    return true;
}

/* ---- transaction barriers ---- */

static struct transactions *find(const uint64_t *at)
{
    struct block *b = device->running->block;
    for (unsigned i = 0; i < b->n_barriers; i++)
        if (b->barriers[i].at == at) return &b->barriers[i];
    stop("a transaction barrier was not initialised");
}

static void end_phase_if_due(struct sim_device *d, struct block *b, struct transactions *t)
{
    if (t->pending || t->bytes) return;
    t->phase ^= 1;
    t->pending = t->n_arrivals;
    t->wanted = false;
    for (unsigned i = 0; i < b->n_threads; i++)
        if (b->fibers[i].state == AT_TRANSACTIONS && b->fibers[i].waits_for == t) make_ready(d, &b->fibers[i]);
}

static void tile_lands(struct sim_device *d, struct block *b, struct tile_copy *tile)
{
    const struct sim_tile_map *m = &tile->map;
    for (uint32_t r = 0; r < m->box_rows; r++) {
        for (uint32_t c = 0; c < m->box_columns; c += 16) {
            const uint64_t row = (uint64_t)tile->row + r, column = (uint64_t)tile->column + c;
            uint8_t *to = chunk_at(b, swizzled(tile->to + r * m->box_columns + c, m->swizzle ? m->swizzle : 16));
            memset(to, 0, 16);
            if (row >= m->n_rows || column >= m->n_columns) continue;
            memcpy(to, m->base + row * m->stride + column, m->n_columns - column < 16 ? (size_t)(m->n_columns - column) : 16);
        }
    }
    tile->busy = false;
    d->n_flying--;
    tile->barrier->bytes -= (int64_t)m->box_rows * m->box_columns;
    end_phase_if_due(d, b, tile->barrier);
}

/* ---- products ---- */

/* Rows of 32 columns, as a descriptor finds them; false: it leads out of shared memory. */
static bool read_operand(const struct block *b, uint64_t descriptor, int16_t *to, unsigned n_rows)
{
    static const uint32_t spans[] = {16, 128, 64, 32}; /* of bits 62, 63 */
    const uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4, leading = (uint32_t)(descriptor >> 16 & 0x3fff) << 4;
    const uint32_t stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4, span = spans[descriptor >> 62];
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < COLUMNS / 16; c++) { /* 8 rows by 16 bytes are one piece without swizzling, else 8 rows by a span */
            const uint32_t at = start + r / 8 * stride + r % 8 * span + c * (span == 16 ? leading : 16);
            const uint8_t *from = chunk_at(b, swizzled(at, span));
            if (!from) return false;
            for (uint32_t i = 0; i < 16; i++) to[r * COLUMNS + c * 16 + i] = (int8_t)from[i];
        }
    }
    return true;
}

/* Lane l of warp w holds rows 16 w + l / 4 (registers 0, 2) and + 8 (1, 3), columns 4 (l % 4) .. (0, 1) and + 16 (2, 3). */
static void read_registers(const struct product *p, int16_t *to)
{
    for (unsigned lane = 0; lane < GROUP_LANES; lane++)
        for (unsigned i = 0; i < 16; i++) {
            const unsigned row = lane / 32 * 16 + lane % 32 / 4 + i / 4 % 2 * 8, column = lane % 4 * 4 + i / 8 * 16 + i % 4;
            to[row * COLUMNS + column] = (int8_t)(uint8_t)(p->a[lane][i / 4] >> i % 4 * 8);
        }
}

/* Lane l of warp w holds rows 16 w + l / 4 and + 8, of columns 8 j + 2 (l % 4) and the next: sums 4 j, 4 j + 1 and 4 j + 2, 4 j + 3. */
static bool multiply(const struct block *b, struct warp_group *g, const struct product *p)
{
    static int16_t left[ROWS * COLUMNS], right[MAX_SUMS * 2 * COLUMNS];
    if (p->from_registers) read_registers(p, left);
    else if (!read_operand(b, p->left, left, ROWS)) return false;
    if (!read_operand(b, p->right, right, p->n_columns)) return false;
    for (unsigned r = 0; r < ROWS; r++) {
        for (unsigned c = 0; c < p->n_columns; c++) {
            int32_t *sum = &g->sums[r / 16 * 32 + r % 8 * 4 + c % 8 / 2][c / 8 * 4 + r % 16 / 8 * 2 + c % 2];
            int32_t s = 0;
            for (unsigned k = 0; k < COLUMNS; k++) s += left[r * COLUMNS + k] * right[c * COLUMNS + k];
            *sum = (int32_t)((uint32_t)s + (p->keep ? (uint32_t)*sum : 0));
        }
    }
    return true;
}

static void product_happens(struct sim_device *d, struct block *b, struct warp_group *g)
{
    const unsigned first = (unsigned)(g - b->groups) * GROUP_LANES;
    if (!multiply(b, g, &g->products[g->n_done % MAX_PRODUCTS])) fail(d, "a descriptor of a product leads out of shared memory");
    g->n_done++;
    d->n_flying--;
    for (unsigned l = 0; l < GROUP_LANES; l++)
        if (b->fibers[first + l].state == AT_PRODUCTS) make_ready(d, &b->fibers[first + l]);
}

bool land(struct sim_device *d, bool now)
{
    struct block *of = NULL;
    struct tile_copy *tile = NULL;
    struct warp_group *group = NULL;
    uint64_t first = UINT64_MAX;
    if (d->tick < d->land_at && !now) return false;
    for (unsigned i = 0; i < RESIDENT; i++) {
        struct block *b = &d->blocks[i];
        if (!b->running) continue;
        for (unsigned t = 0; t < MAX_TILES; t++) {
            const struct tile_copy *x = &b->tiles[t];
            if (!x->busy || !x->barrier->wanted || x->barrier->wanted_at + x->delay >= first) continue;
            first = x->barrier->wanted_at + x->delay;
            of = b, tile = &b->tiles[t], group = NULL;
        }
        for (unsigned g = 0; g < GROUPS; g++) {
            struct warp_group *x = &b->groups[g];
            if (x->n_done == x->n_issued || x->products[x->n_done % MAX_PRODUCTS].due >= first) continue;
            first = x->products[x->n_done % MAX_PRODUCTS].due;
            of = b, tile = NULL, group = x;
        }
    }
    d->land_at = first;
    if (!of || (first > d->tick && !now)) return false;
    d->land_at = 0;
    if (tile) tile_lands(d, of, tile);
    if (group) product_happens(d, of, group);
    return true;
}

static struct warp_group *group_of(const struct fiber *f)
{
    if (f->thread / GROUP_LANES >= f->block->n_threads / GROUP_LANES) stop("a product is issued outside of a whole warp group");
    return &f->block->groups[f->thread / GROUP_LANES];
}

/* The lane has waited for the products before `end`: what it lent them comes back. */
static void retire(struct fiber *f, struct warp_group *g, unsigned end)
{
    struct lane_products *mine = &f->products;
    const unsigned lane = f->thread % GROUP_LANES;
    for (; mine->retired != end; mine->retired++) {
        struct product *p = &g->products[mine->retired % MAX_PRODUCTS];
        for (unsigned i = 0; p->from_registers && i < 4; i++) {
            uint32_t *a = mine->a[mine->retired % MAX_PRODUCTS] + i;
            if (*a != left_garbage) stop("a register of a product in flight was written");
            *a = p->a[lane][i];
        }
        if (++p->n_retired == GROUP_LANES) p->n_lanes = p->n_retired = 0;
    }
    if (mine->retired != mine->issued) return; /* a later product holds the sums */
    for (unsigned i = 0; i < mine->n_d; i++) {
        if ((uint32_t)mine->d[i] != sums_garbage) stop("a sum of a product in flight was written");
        mine->d[i] = g->sums[lane][i];
    }
}

/* The registers must be what they were at the fence. */
static void need_fenced(const struct lane_products *mine, const int32_t *d, unsigned n_d, const uint32_t *a)
{
    if (!mine->fenced) stop("a product is not behind a fence");
    if (mine->issued == mine->retired && (d != mine->fenced_d || n_d != mine->n_fenced_d || memcmp(d, mine->d_then, n_d * sizeof *d)))
        stop("a sum was written after the fence of its product");
    if (!a) return;
    if (a < mine->fenced_a || a + 4 > mine->fenced_a + mine->n_fenced_a || memcmp(a, mine->a_then + (a - mine->fenced_a), 4 * sizeof *a))
        stop("a register was written after the fence of its product");
}

} // namespace sim

using namespace sim;

uint32_t sim_shared_address(const void *p)
{
    const struct block *b = device->running->block;
    const uint8_t *at = (const uint8_t *)p;
    if (!b->dynamic || at < b->dynamic || at >= b->dynamic + b->dynamic_bytes) stop("an address is not in dynamic shared memory");
    return (uint32_t)(at - b->dynamic) + SHARED_BASE;
}

void sim_transactions_init(uint64_t *barrier, unsigned n_arrivals)
{
    struct block *b = device->running->block;
    if (b->n_barriers == MAX_BARRIERS) stop("too many transaction barriers");
    sim_need_aligned(barrier, 8);
    sim_shared_address(barrier);
    struct transactions t = {};
    t.at = barrier;
    t.n_arrivals = t.pending = n_arrivals;
    b->barriers[b->n_barriers++] = t;
}

void sim_transactions_fence(void)
{
    struct block *b = device->running->block;
    for (unsigned i = 0; i < b->n_barriers; i++) b->barriers[i].fenced = true;
}

void sim_transactions_arrive(uint64_t *barrier, unsigned bytes)
{
    struct transactions *t = find(barrier);
    if (!t->fenced) stop("a transaction barrier is used before the fence that makes it visible");
    if (!t->pending) stop("more arrive at a transaction barrier than it counts");
    t->bytes += bytes;
    t->pending--;
    end_phase_if_due(device, device->running->block, t);
}

void sim_transactions_wait(const uint64_t *barrier, unsigned parity)
{
    struct fiber *f = device->running;
    struct transactions *t = find(barrier);
    while (t->phase == (parity & 1)) {
        if (!t->wanted) {
            t->wanted = true;
            t->wanted_at = device->tick;
            device->land_at = 0;
        }
        f->waits_for = t;
        f->state = AT_TRANSACTIONS;
        yield_to_scheduler(f);
    }
}

void sim_copy_tile(void *to, const struct sim_tile_map *map, uint32_t column, uint32_t row, uint64_t *barrier)
{
    struct block *b = device->running->block;
    struct transactions *t = find(barrier);
    const uint32_t bytes = map->box_columns * map->box_rows, at = sim_shared_address(to);
    if (!t->fenced) stop("a transaction barrier is used before the fence that makes it visible");
    if (at % 128 || !chunk_at(b, at + bytes - 16)) stop("a tile is not aligned to 128 bytes, or leads out of shared memory");
    if (map->swizzle && at % (map->swizzle * 8)) stop("a tile does not begin where its swizzle does");
    unsigned i = 0;
    while (i < MAX_TILES && b->tiles[i].busy) i++;
    if (i == MAX_TILES) stop("too many tiles are in flight");
    garbage(device, to, bytes);
    b->tiles[i] = tile_copy{true, at, column, row, some_time(device), t, *map};
    device->n_flying++;
    device->land_at = 0;
}

void sim_product_fence(const int32_t *d, unsigned n_d, const uint32_t *a, unsigned n_a)
{
    struct lane_products *mine = &device->running->products;
    if (n_d > MAX_SUMS || n_a > MAX_LEFT) stop("too many registers of a product");
    mine->fenced = true;
    mine->fenced_d = d, mine->n_fenced_d = n_d;
    mine->fenced_a = a, mine->n_fenced_a = n_a;
    memcpy(mine->d_then, d, n_d * sizeof *d);
    if (n_a) memcpy(mine->a_then, a, n_a * sizeof *a);
}

void sim_product(int32_t *d, unsigned n_columns, uint32_t *a, uint64_t left, uint64_t right, bool keep)
{
    struct fiber *f = device->running;
    struct warp_group *g = group_of(f);
    struct lane_products *mine = &f->products;
    struct product *p = &g->products[mine->issued % MAX_PRODUCTS];
    const unsigned lane = f->thread % GROUP_LANES, n_d = n_columns / 2;
    if (p->n_lanes && p->index != mine->issued) stop("too many products are in flight");
    need_fenced(mine, d, n_d, a);
    if (mine->issued == mine->retired) {
        memcpy(g->sums[lane], d, n_d * sizeof *d);
        for (unsigned i = 0; i < n_d; i++) d[i] = (int32_t)sums_garbage;
        mine->d = d, mine->n_d = n_d;
    } else if (mine->d != d || mine->n_d != n_d) stop("products in flight have different sums");
    if (!p->n_lanes) {
        p->index = mine->issued;
        p->left = left, p->right = right;
        p->n_columns = n_columns, p->from_registers = a, p->keep = keep;
    }
    if (p->right != right || p->n_columns != n_columns || p->from_registers != (a != NULL) || (!a && p->left != left) || p->keep != keep)
        stop("lanes of a warp group differ in a product");
    mine->a[mine->issued % MAX_PRODUCTS] = a;
    for (unsigned i = 0; a && i < 4; i++) p->a[lane][i] = a[i], a[i] = left_garbage;
    mine->issued++;
    if (++p->n_lanes < GROUP_LANES) return;
    p->due = device->tick + some_time(device);
    g->n_issued++;
    device->n_flying++;
    device->land_at = 0;
}

void sim_product_commit(void)
{
    struct lane_products *mine = &device->running->products;
    mine->ends[mine->n_batches++ % 8] = mine->issued;
}

void sim_product_wait(unsigned n_left)
{
    struct fiber *f = device->running;
    struct warp_group *g = group_of(f);
    struct lane_products *mine = &f->products;
    if (n_left > 6) stop("too many batches of products are in flight");
    mine->fenced = false;
    if (mine->n_batches <= n_left) return;
    const unsigned end = mine->ends[(mine->n_batches - 1 - n_left) % 8];
    while ((int)(g->n_done - end) < 0) {
        f->state = AT_PRODUCTS;
        yield_to_scheduler(f);
    }
    if ((int)(end - mine->retired) > 0) retire(f, g, end);
}
