/* What is done with ids: rows of embedding tables, rows that a head reads, and the choice of the next id.
 *
 * Choosing sorts nothing. The order of candidates is that of a 48-bit key: the logit's bits, turned so that larger logits come first,
 * then the id. The place where a running sum passes a bound is found digit by digit from the key's top: weights are summed by digit,
 * and the digit in which the bound falls is kept. Sums are added in one order, so that a seed means one text on a device. */
#ifndef ZQ_CUDA_TOKENS_CUH
#define ZQ_CUDA_TOKENS_CUH

#include "cuda/floatmul.cuh"

enum { TOKEN_THREADS = 256, SAMPLE_THREADS = 128, DIGIT_BITS = 4, DIGITS = 1 << DIGIT_BITS, KEY_BITS = 32 + 24 };

/* ---- embeddings ---- */

struct embed_args {
    struct zq_device_embed a;
    const uint8_t *table;
    const float *scale; /* [n_groups, n_rows], of codes */
    uint32_t width, n_rows, group;
};

template <int FORMAT> KERNEL(TOKEN_THREADS) embed_tokens(const embed_args args)
{
    const struct zq_device_embed *a = &args.a;
    const struct zq_device_token at = a->tokens[block_x()];
    float *out = a->out + (size_t)block_x() * a->ld_out;
    for (size_t i = thread_x(); i < a->n; i += TOKEN_THREADS) {
        float x;
        if (!args.table) x = out[i];
        else {
            x = side_value<FORMAT>(args.table, i * args.width + (size_t)at.id);
            if (FORMAT >= SIDE_I8) x = mul(x, args.scale[i / args.group * args.n_rows + (size_t)at.id]);
        }
        if (a->types) x = add(x, a->types[at.type * a->n + i]);
        if (a->positions) x = add(x, a->positions[(at.position + a->position_offset) * a->n + i]);
        out[i] = x;
    }
}

struct gather_args {
    float *to;
    const float *from;
    const int32_t *rows;
    size_t n;
};

KERNEL(TOKEN_THREADS) gather_rows(const gather_args a)
{
    const float *from = a.from + (size_t)a.rows[block_x()] * a.n;
    for (size_t i = thread_x(); i < a.n; i += TOKEN_THREADS) a.to[(size_t)block_x() * a.n + i] = from[i];
}

/* ---- the next id ---- */

/* Smaller keys come first. -0 counts as 0. */
DEVICE uint64_t key_of(float logit, uint32_t id)
{
    const uint32_t bits = float_bits(add(logit, 0.0f)), rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)~rising << 24 | id;
}

/* The block's digits, [DIGITS][SAMPLE_THREADS] sums of threads, and what is found. */
struct sampling {
    double *by_digit;
    double *sums;    /* [DIGITS] */
    uint64_t *found;
    double *before;  /* running sum before the found candidate */
    const float *logits;
    const double *weights;
    uint32_t n;
};

/* The first candidate of those up to `limit` whose running sum reaches `bound`, or, if strict, exceeds it: the last one if none does.
 * count: every weight is 1. All threads get the candidate's key; *until: the running sum with it. */
template <bool COUNT> DEVICE uint64_t find_candidate(const sampling &s, uint64_t limit, double bound, bool strict, double *until)
{
    uint64_t prefix = 0;
    double before = 0;
    for (int shift = KEY_BITS - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        double mine[DIGITS];
        UNROLL
        for (int d = 0; d < DIGITS; d++) mine[d] = 0;
        for (uint32_t i = thread_x(); i < s.n; i += SAMPLE_THREADS) {
            const uint64_t key = key_of(s.logits[i], i);
            if (key > limit || key >> shift >> DIGIT_BITS != prefix) continue;
            const double weight = COUNT ? 1 : s.weights[i];
            const int digit = (int)(key >> shift) & (DIGITS - 1);
            UNROLL
            for (int d = 0; d < DIGITS; d++) mine[d] += d == digit ? weight : 0;
        }
        UNROLL
        for (int d = 0; d < DIGITS; d++) s.by_digit[d * SAMPLE_THREADS + thread_x()] = mine[d];
        sync_block();
        if (thread_x() < DIGITS) {
            double sum = 0;
            for (unsigned t = 0; t < SAMPLE_THREADS; t++) sum += s.by_digit[thread_x() * SAMPLE_THREADS + t];
            s.sums[thread_x()] = sum;
        }
        if (!MUTANT(12)) sync_block();
        if (thread_x() == 0) {
            int digit = 0, last = 0;
            double sum = before;
            for (; digit < DIGITS; digit++) {
                if (!(s.sums[digit] > 0)) continue;
                last = digit;
                if (strict ? sum + s.sums[digit] > bound : sum + s.sums[digit] >= bound) break;
                sum += s.sums[digit];
            }
            if (digit == DIGITS) { /* none: the last that there is */
                digit = last;
                sum -= s.sums[last];
            }
            *s.found = prefix << DIGIT_BITS | (unsigned)digit;
            *s.before = sum;
            s.sums[DIGITS] = sum + s.sums[digit];
        }
        sync_block();
        prefix = *s.found;
        before = *s.before;
        *until = s.sums[DIGITS];
        sync_block();
    }
    return prefix;
}

/* The sum of all weights up to a candidate. */
DEVICE double sum_weights(const sampling &s, uint64_t limit)
{
    double sum = 0;
    for (uint32_t i = thread_x(); i < s.n; i += SAMPLE_THREADS) sum += key_of(s.logits[i], i) <= limit ? s.weights[i] : 0;
    s.by_digit[thread_x()] = sum;
    sync_block();
    sum = 0;
    for (unsigned t = 0; t < SAMPLE_THREADS; t++) sum += s.by_digit[t];
    sync_block();
    return sum;
}

KERNEL(SAMPLE_THREADS) sample_row(const struct zq_device_sample a)
{
    SHARED(double, by_digit, DIGITS *SAMPLE_THREADS);
    SHARED(double, sums, DIGITS + 1);
    SHARED(uint64_t, found, 1);
    SHARED(double, before, 1);
    SHARED(uint64_t, keys, SAMPLE_THREADS);
    const size_t row = block_x();
    const struct zq_device_choice choice = a.choices[row];
    double *weights = a.weights + row * a.n;
    const sampling s = {by_digit, sums, found, before, a.logits + row * a.ld, weights, (uint32_t)a.n};

    uint64_t key = ~(uint64_t)0;
    for (uint32_t i = thread_x(); i < s.n; i += SAMPLE_THREADS) {
        const uint64_t other = key_of(s.logits[i], i);
        key = other < key ? other : key;
    }
    keys[thread_x()] = key;
    if (!MUTANT(13)) sync_block();
    for (unsigned t = 0; t < SAMPLE_THREADS; t++) key = keys[t] < key ? keys[t] : key;
    uint64_t id = key & 0xffffff;

    if (choice.temperature > 0) {
        const double top = (double)s.logits[id];
        for (uint32_t i = thread_x(); i < s.n; i += SAMPLE_THREADS) weights[i] = exp_double(((double)s.logits[i] - top) / (double)choice.temperature);
        uint64_t limit = ~(uint64_t)0;
        double until;
        if (choice.top_k > 0 && (size_t)choice.top_k < a.n) limit = find_candidate<true>(s, limit, (double)choice.top_k, false, &until);
        double total = sum_weights(s, limit);
        if (choice.top_p > 0 && choice.top_p < 1) limit = find_candidate<false>(s, limit, (double)choice.top_p * total, false, &total);
        id = find_candidate<false>(s, limit, (double)choice.u * total, true, &until) & 0xffffff;
    }
    if (thread_x() == 0) a.ids[row] = (int32_t)id;
}

#endif
