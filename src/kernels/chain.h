/* The one inner loop of all float products, over the vocabulary of a level's vec_*.h (included before): n_tokens x n_vecs
 * accumulators, each a chain of fma over rising k. Projections, scores (q . k) and mixed values (p . v) differ only in
 * where the vectors of the right side come from. */
#ifndef ZQ_KERNELS_CHAIN_H
#define ZQ_KERNELS_CHAIN_H

/* Accumulators of one register tile; every level's tiles fit. */
#define CHAIN_MAX 32
#define CHAIN_TOKENS 8

/* Reads the first `lanes` of 16 stored values. */
typedef vec load_fn(const void *p, size_t lanes);

ZQ_INLINE vec load_f32(const void *p, size_t lanes) { return lanes == 16 ? v_load(p) : v_load_n(p, lanes); }
ZQ_INLINE vec load_f16(const void *p, size_t lanes) { return (void)lanes, v_load_f16(p); }
ZQ_INLINE vec load_bf16(const void *p, size_t lanes) { return (void)lanes, v_load_bf16(p); }
ZQ_INLINE vec load_i8(const void *p, size_t lanes) { return (void)lanes, v_load_i8(p); }
ZQ_INLINE vec load_i4(const void *p, size_t lanes) { return (void)lanes, v_load_i4(p); }

/* acc[t][v] = fma(x[t][k], w(k, v), acc[t][v]) for k = 0 .. n - 1; w(k, v) lies at w + k * k_bytes + v * v_bytes.
 * Meanwhile memory that is wanted afterwards is fetched from `next` on, next_bytes with each k, wherever it lies.
 * n_tokens, n_vecs, load, next_bytes and mostly lanes are constants where this is used. */
ZQ_INLINE void chain(vec *acc, size_t n_tokens, size_t n_vecs, const float *const *x, size_t n, const void *w, size_t k_bytes,
                     size_t v_bytes, load_fn *load, size_t lanes, const uint8_t *next, size_t next_bytes)
{
    const uint8_t *at = w;
    const float *row[CHAIN_TOKENS];
    vec right[4];
    ZQ_UNROLL
    for (size_t t = 0; t < n_tokens; t++) row[t] = x[t];
    for (size_t k = 0; k < n; k++, at += k_bytes, next += next_bytes) {
        ZQ_UNROLL
        for (size_t i = 0; i < next_bytes; i += 64) __builtin_prefetch(next + i);
        ZQ_UNROLL
        for (size_t v = 0; v < n_vecs; v++) right[v] = load(at + v * v_bytes, lanes);
        ZQ_UNROLL
        for (size_t t = 0; t < n_tokens; t++) {
            const vec left = v_set(row[t][k]);
            ZQ_UNROLL
            for (size_t v = 0; v < n_vecs; v++) acc[t * n_vecs + v] = v_fma(left, right[v], acc[t * n_vecs + v]);
        }
    }
    ZQ_UNROLL
    for (size_t i = 0; i < n_tokens * n_vecs; i++) v_settle(&acc[i]);
}

#endif
