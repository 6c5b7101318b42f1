/* What no luck of rounding can touch: every quantized linear map of every family, fed with golden inputs, gives exactly the
 * integers of a straightforward sum; and whole quantized models give the same bits for any number of threads, any split of a
 * batch or a text, and every ISA level of this machine. */
#include "quantized.h"

#include "model/session.h"

enum { N_TOKENS = 9 }; /* more than the drivers for few tokens take */

/* Codes [N_TOKENS, n] from golden hidden states, wrapped around if the map is wider than they are. */
static void golden_codes(const struct golden *g, int8_t *q, size_t n)
{
    const struct zq_tensor *hidden = golden_find(g, "a.hidden.1");
    const float *values = golden_floats(g, "a.hidden.1");
    for (size_t t = 0; t < N_TOKENS; t++) {
        float largest = 0;
        for (size_t k = 0; k < n; k++) largest = fmaxf(largest, fabsf(values[(t * n + k) % hidden->n_values]));
        for (size_t k = 0; k < n; k++) q[t * n + k] = (int8_t)lrintf(values[(t * n + k) % hidden->n_values] / (largest / 127));
    }
}

/* Packs the map's codes with all scales 1: the float results are then the integer sums themselves, exact below 2^24. */
static void check_map(const struct golden *g, const struct zq_stored *w, const struct zq_gemm *gemm)
{
    struct zq_matrix matrix = {.n_rows = w->n_rows, .n_cols = w->n_cols, .k_group = w->spec.k_group};
    const size_t n_groups = zq_spec_n_groups(w->spec, w->n_cols);
    int8_t *codes = malloc(w->n_rows * w->n_cols), *q = malloc(N_TOKENS * w->n_cols);
    float *ones = malloc(w->n_rows * n_groups * sizeof *ones), *out = malloc(N_TOKENS * w->n_rows * sizeof *out), scale[N_TOKENS];
    matrix.packed = zq_alloc(gemm->packed_bytes(&matrix));
    assert_true(codes && q && ones && out && matrix.packed);
    zq_stored_codes(w, 0, w->n_rows, codes);
    for (size_t i = 0; i < w->n_rows * n_groups; i++) ones[i] = 1;
    for (size_t i = 0; i < N_TOKENS; i++) scale[i] = 1;
    golden_codes(g, q, w->n_cols);
    gemm->pack(&matrix, 0, w->n_rows, codes, ones);
    const struct zq_product p = {.w = &matrix, .n_tokens = N_TOKENS, .q = q, .scale = scale, .ld_x = w->n_cols, .out = out, .ld_out = w->n_rows};
    gemm->run(&p, 0, w->n_rows);
    for (size_t t = 0; t < N_TOKENS; t++) {
        for (size_t r = 0; r < w->n_rows; r++) {
            int64_t sum = 0;
            for (size_t k = 0; k < w->n_cols; k++) sum += (int64_t)codes[r * w->n_cols + k] * q[t * w->n_cols + k];
            assert_true(sum > -(1 << 24) && sum < 1 << 24);
            if (out[t * w->n_rows + r] != (float)sum)
                fail_msg("%s %s: row %zu of token %zu is %.1f, expected %lld", gemm->name, w->name, r, t, (double)out[t * w->n_rows + r],
                         (long long)sum);
        }
    }
    free(codes), free(q), free(ones), free(out), zq_free(matrix.packed);
}

static void check_integers(void **state)
{
    struct golden g;
    golden_open(&g, *state);
    static const char *const schemes[] = {"w8a8", "w4a8"};
    for (size_t i = 0; i < ZQ_LEN(schemes); i++) {
        char out[256];
        const zq_quantize_options o = {.scheme = schemes[i]};
        make_quantized(g.dir, &o, out, sizeof out);
        zq_model *m = NULL;
        const zq_open_options header_only = {.header_only = true};
        OK(zq_model_open(&m, out, &header_only, err));
        unsigned levels;
        OK(zq_levels_detect(&levels, err));
        size_t checked = 0;
        for (unsigned mask = 0, last = ~0u; mask <= levels; mask = mask << 1 | 1) {
            struct zq_kernels k;
            if ((mask & levels) == last) continue;
            last = mask & levels;
            zq_kernels_init(&k, last);
            for (size_t j = 0; j < m->modules.n; j++) {
                if (m->stored[j].storage == ZQ_STORED_FLOAT) continue;
                check_map(&g, &m->stored[j], m->stored[j].spec.w_bits == 8 ? &k.w8_a8 : &k.w4_a8);
                checked++;
            }
        }
        assert_true(checked >= 4 * m->config.n_layers);
        zq_model_close(m);
        drop_quantized(out);
    }
    golden_close(&g);
}

/* A way of running the first n of the 200 ids of "b": those of a decoder in steps of `piece` (0: at once), beside `others` slots. */
struct way {
    size_t n;
    int threads;
    size_t piece, others;
    const char *isa;
};

/* Its logits; returns how many. */
static size_t run_b(const struct golden *g, const char *dir, zq_kv_format kv, const struct way *way, float *out, size_t n_values)
{
    const size_t others = way->others;
    size_t piece = way->piece;
    zq_model *m = NULL;
    zq_session *s = NULL;
    const zq_open_options oo = {.n_threads = way->threads, .kv = kv};
    OK(zq_model_open(&m, dir, &oo, err));
    zq_model_info info;
    zq_model_info_get(m, &info);
    size_t one, n, na;
    const int32_t *ids = golden_ids(g, "b.ids", &one, &n), *a = golden_ids(g, "a.ids", &one, &na);
    assert_true(way->n <= n);
    n = way->n;
    const size_t most = n + others * na;
    const zq_session_options so = {
        .n_threads = way->threads, .n_sequences = 1 + others, .max_length = n, .max_batch_tokens = most, .max_logit_rows = most};
    OK(zq_session_create(&s, m, &so, err));
    size_t filled = 0;
    if (!piece || info.kind != ZQ_DECODER) piece = n;
    for (size_t at = 0; at < n; at += piece) {
        zq_input inputs[3];
        for (size_t i = 0; i < others; i++) inputs[i] = (zq_input){.sequence = i, .ids = a + i * na, .n = at ? 1 : na}; /* a row of logits each */
        zq_input *own = &inputs[others];
        *own = (zq_input){.sequence = others, .ids = ids + at, .n = n - at < piece ? n - at : piece, .all_logits = true};
        for (size_t i = 0; i < others; i++) OK(zq_session_rewind(s, i, 0, err));
        OK(zq_session_step(s, inputs, 1 + others, err));
        const size_t rows = info.kind == ZQ_ENCODER_CLASSIFY ? 1 : own->n;
        assert_true(filled + rows * info.n_outputs <= n_values);
        memcpy(out + filled, zq_session_logits(s, NULL) + others * info.n_outputs, rows * info.n_outputs * sizeof *out);
        filled += rows * info.n_outputs;
    }
    zq_session_close(s);
    zq_model_close(m);
    return filled;
}

static void check_same_bits(void **state)
{
    struct golden g;
    golden_open(&g, *state);
    static const struct { const char *scheme; zq_kv_format kv; } schemes[] = {{"w8a8", ZQ_KV_F32}, {"w4/8a8", ZQ_KV_INT8}, {"w4a16", ZQ_KV_F16}};
    /* each against the first one of its length; plain C is slow, and gets a tile of keys and some more */
    static const struct way ways[] = {
        {200, 1, 0, 0, NULL}, {200, 2, 0, 0, NULL}, {200, 7, 0, 2, NULL}, {200, 1, 1, 0, NULL}, {200, 2, 17, 2, NULL}, {200, 1, 33, 1, "avx2"},
        {72, 1, 0, 0, NULL}, {72, 2, 0, 0, "c"},
    };
    const size_t n_values = 200 * 4096;
    float *first = calloc(n_values, sizeof *first), *again = calloc(n_values, sizeof *again);
    for (size_t i = 0; i < ZQ_LEN(schemes); i++) {
        char out[256];
        const zq_quantize_options o = {.scheme = schemes[i].scheme};
        make_quantized(g.dir, &o, out, sizeof out);
        for (size_t w = 0; w < ZQ_LEN(ways); w++) {
            const bool is_first = !w || ways[w].n != ways[w - 1].n;
            if (ways[w].isa) setenv("ZQ_ISA", ways[w].isa, 1);
            const size_t n = run_b(&g, out, schemes[i].kv, &ways[w], is_first ? first : again, n_values);
            unsetenv("ZQ_ISA");
            if (!is_first && memcmp(first, again, n * sizeof *first))
                fail_msg("%s %s: %d threads, pieces of %zu, %zu other sequences, level %s: other bits", g.dir, schemes[i].scheme, ways[w].threads,
                         ways[w].piece, ways[w].others, ways[w].isa ? ways[w].isa : "best");
        }
        drop_quantized(out);
    }
    free(first), free(again);
    golden_close(&g);
}

enum { N_TOGETHER = 9 };

/* Its last hidden states, of sequences that begin at i and have lengths[i] ids, i in [first, first + n). */
static const float *encode(zq_session *s, size_t n_layers, const int32_t *ids, const size_t *lengths, size_t first, size_t n)
{
    zq_input inputs[N_TOGETHER];
    for (size_t i = 0; i < n; i++) inputs[i] = (zq_input){.sequence = i, .ids = ids + first + i, .n = lengths[first + i]};
    OK(zq_session_step(s, inputs, n, err));
    return zq_session_hidden(s, n_layers, NULL);
}

/* Runs all sequences in one step and each in a step of its own: hidden states have to be the same bits. */
static void check_batch(const zq_model *m, int n_threads, bool together, const int32_t *ids, const size_t *lengths, size_t n_apart)
{
    zq_model_info info;
    zq_session *s = NULL;
    size_t n_tokens = 0, longest = 0;
    zq_model_info_get(m, &info);
    for (size_t i = 0; i < N_TOGETHER; i++) n_tokens += lengths[i];
    for (size_t i = 0; i < N_TOGETHER; i++) longest = lengths[i] > longest ? lengths[i] : longest;
    const zq_session_options so = {.n_threads = n_threads, .n_sequences = N_TOGETHER, .max_length = longest, .max_batch_tokens = n_tokens};
    OK(zq_session_create(&s, m, &so, err));
    s->together = together;
    const size_t bytes = n_tokens * info.width * sizeof(float);
    float *batch = malloc(bytes), *at = batch;
    assert_non_null(batch);
    memcpy(batch, encode(s, info.n_layers, ids, lengths, 0, N_TOGETHER), bytes);
    assert_int_equal(s->n_apart, together ? 0 : n_apart);
    for (size_t i = 0; i < N_TOGETHER; at += lengths[i++] * info.width)
        if (memcmp(at, encode(s, info.n_layers, ids, lengths, i, 1), lengths[i] * info.width * sizeof(float)))
            fail_msg("%d threads, %s: sequence %zu of %zu tokens has other bits in a batch", n_threads, together ? "together" : "apart", i,
                     lengths[i]);
    free(batch);
    zq_session_close(s);
}

/* Sequences of an encoder go through its blocks in groups (encode.c): in a batch each has the hidden states that it has alone. */
static void check_batches(void **state)
{
    struct golden g;
    golden_open(&g, *state);
    char dir[256];
    make_quantized(g.dir, &(zq_quantize_options){.scheme = "w8a8"}, dir, sizeof dir);
    zq_model *m = NULL;
    OK(zq_model_open(&m, dir, &(zq_open_options){.n_threads = 2}, err));
    size_t one, n;
    const int32_t *ids = golden_ids(&g, "b.ids", &one, &n);
    assert_true(n > N_TOGETHER + 64);
    n -= N_TOGETHER;
    const size_t lengths[][N_TOGETHER] = {
        {n, n - 1, n, n, n / 2, 2, 1, n, n},        /* for three threads: some are left */
        {40, 41, 39, 40, 48, 33, 40, 40, 1},        /* several sequences in a group */
        {n, n, 1, 1, 1, 1, 1, 1, 1},                /* two long ones, which keep two threads busy, but not three */
        {3, 3, 3, 3, 3, 3, 3, 3, 3},                /* too few tokens to read weights for a thread */
    };
    static const size_t n_apart[][3] = {{0, 9, 3}, {0, 6, 6}, {0, 2, 0}, {0, 0, 0}}; /* by threads */
    for (size_t i = 0; i < ZQ_LEN(lengths); i++)
        for (int n_threads = 1; n_threads <= 3; n_threads++)
            for (int together = 0; together <= (n_threads > 1); together++)
                check_batch(m, n_threads, together, ids, lengths[i], n_apart[i][n_threads - 1]);
    zq_model_close(m);
    drop_quantized(dir);
    golden_close(&g);
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__) /* thirty times slower: the small models do */
    static char *const names[] = {"stories260k"};
#else
    static char *const names[] = {"novels", "stories260k", "gptj", "neox", "opt", "llama", "llama-rope3", "mistral", "qwen2", "bert", "minilm-sst2"};
#endif
    static char *const encoders[] = {"bert", "minilm-sst2"};
    struct CMUnitTest tests[2 * ZQ_LEN(names) + ZQ_LEN(encoders)];
    size_t n = 0;
    for (size_t i = 0; i < ZQ_LEN(names); i++) tests[n++] = (struct CMUnitTest){"integers", check_integers, NULL, NULL, names[i]};
    for (size_t i = 0; i < ZQ_LEN(names); i++) tests[n++] = (struct CMUnitTest){"same bits", check_same_bits, NULL, NULL, names[i]};
    for (size_t i = 0; i < ZQ_LEN(encoders); i++) tests[n++] = (struct CMUnitTest){"batches", check_batches, NULL, NULL, encoders[i]};
    return cmocka_run_group_tests_name("exact", tests, NULL, NULL);
}
