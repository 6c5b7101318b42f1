/* Batches of an encoder. Sequences have nothing to do with one another, so they go through all blocks a few at a time, in groups: what
 * lies between two operators stays in the caches, and weights still serve enough tokens.
 *   Apart: a thread runs a group by itself; nothing that it has written is read by others, and nobody waits for anybody.
 *   Together: all threads share every operator. So go the groups that would leave threads idle.
 * The bits of quantized models are the same, as for any other split of a batch. */
#include "model/session.h"

enum {
    TOGETHER_TOKENS = 256, /* of a group */
    APART_TOKENS = 128,
    FEWEST_TOKENS = 32,    /* of a group that has all weights read for itself */
    MOST_THREADS = 256,    /* that run groups apart */
    BALANCE_PERCENT = 8,   /* that the busiest thread may have above its share */
};

struct apart_work {
    const struct zq_session *s;
    const zq_input *inputs;
    size_t n_groups;        /* group i is inputs [s->groups[i], s->groups[i + 1]) */
    size_t rows, positions; /* of the largest: activations, and keys and values */
};

/* The session as one thread sees it that runs the inputs from `first` on: the residual stream is everybody's, other rows are its own. */
static struct zq_session view(const struct apart_work *w, size_t first, int thread)
{
    struct zq_session s = *w->s;
    const size_t own = (size_t)thread * w->rows;
    s.ops.team = NULL;
    s.ops.scratch += (size_t)thread * s.ops.thread_floats;
    s.x = zq_rows_from(s.x, s.spans[first].row);
    s.h = zq_rows_from(s.h, own);
    s.h2 = zq_rows_from(s.h2, own);
    s.attended = zq_rows_from(s.attended, own);
    s.ffn = zq_rows_from(s.ffn, own);
    s.qkv += own * s.ld_qkv;
    if (s.gate) s.gate += own * s.ffn.ld;
    s.kv_first = (size_t)thread * w->positions;
    s.tiles += s.spans[first].first_tile;
    s.spans += first;
    s.slots += first;
    return s;
}

static void run_groups(void *work, size_t begin, size_t end, int thread)
{
    const struct apart_work *w = work;
    for (size_t i = begin; i < end; i++) {
        const size_t first = w->s->groups[i], n = w->s->groups[i + 1] - first;
        struct zq_session s = view(w, first, thread);
        zq_plan_step(&s, w->inputs + first, n);
        for (size_t layer = 0; layer < s.model->config.n_layers; layer++) zq_block_forward(&s, layer, n);
    }
}

/* The number of inputs from `first` on that make a group of at most n_tokens, or of one input; *n_tokens becomes what they have. */
static size_t group_inputs(const zq_input *inputs, size_t n_inputs, size_t first, size_t *n_tokens)
{
    size_t n = 1, sum = inputs[first].n;
    while (first + n < n_inputs && sum + inputs[first + n].n <= *n_tokens) sum += inputs[first + n++].n;
    *n_tokens = sum;
    return n;
}

static size_t positions_of(const zq_input *inputs, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += zq_encoder_positions(inputs[i].n);
    return sum;
}

/* The groups at the beginning that keep n_threads busy to the end, if each takes the next one when it has done its last. */
static void cut_groups(struct apart_work *w, size_t *groups, size_t n_inputs, size_t n_threads)
{
    size_t load[MOST_THREADS] = {0}, total = 0, most = 0, rows = 0, positions = 0;
    for (size_t i = 0; i < n_inputs; i++) total += w->inputs[i].n;
    const size_t share = (total + n_threads - 1) / n_threads, aim = share < APART_TOKENS ? share : APART_TOKENS;
    total = 0;
    for (size_t first = 0, n, i = 0; first < n_inputs; first += n, i++) {
        size_t n_tokens = aim, idlest = 0;
        n = group_inputs(w->inputs, n_inputs, first, &n_tokens);
        if (n_tokens < FEWEST_TOKENS) return;
        for (size_t t = 1; t < n_threads; t++)
            if (load[t] < load[idlest]) idlest = t;
        load[idlest] += n_tokens;
        total += n_tokens;
        if (load[idlest] > most) most = load[idlest];
        if (n_tokens > rows) rows = n_tokens;
        if (positions_of(w->inputs + first, n) > positions) positions = positions_of(w->inputs + first, n);
        groups[i] = first;
        groups[i + 1] = first + n;
        if (n_threads * rows > w->s->max_batch_tokens || n_threads * positions > w->s->kv_capacity) return;
        if (most * n_threads * 100 > total * (100 + BALANCE_PERCENT)) continue;
        w->n_groups = i + 1;
        w->rows = rows;
        w->positions = positions;
    }
}

/* Runs inputs from the first on as groups apart; returns how many. */
static size_t encode_apart(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    const size_t n_threads = (size_t)zq_team_size(s->ops.team);
    struct apart_work work = {.s = s, .inputs = inputs};
    if (n_threads < 2 || n_threads > MOST_THREADS || s->together || s->ops.plugin || s->ops.watch.see || s->tap.see || s->model->simulation) return 0;
    cut_groups(&work, s->groups, n_inputs, n_threads);
    if (!work.n_groups) return 0;
    const size_t n = s->groups[work.n_groups];
    zq_plan_step(s, inputs, n);
    zq_embed_inputs(s, inputs, n);
    zq_team_run_each(s->ops.team, work.n_groups, run_groups, &work);
    return n;
}

void zq_encode(struct zq_session *s, const zq_input *inputs, size_t n_inputs)
{
    float *all = s->x.f;
    size_t done = s->n_apart = encode_apart(s, inputs, n_inputs), row = 0;
    for (size_t i = 0; i < done; i++) row += inputs[i].n;
    while (done < n_inputs) {
        size_t n_tokens = TOGETHER_TOKENS;
        const size_t n = group_inputs(inputs, n_inputs, done, &n_tokens);
        s->x.f = all + row * s->x.ld;
        zq_plan_step(s, inputs + done, n);
        zq_blocks_forward(s, inputs + done, n);
        done += n;
        row += n_tokens;
    }
    s->x.f = all;
    zq_plan_step(s, inputs, n_inputs);
    zq_heads_forward(s, inputs, n_inputs);
}
