/* NVIDIA's library of matrix products, cuBLASLt, opened with dlopen when the first product wants it: float products of 16 bits on tensor
 * cores (the honest baseline of everything INT8 here), those of training in F32, TF32 or BF16, and INT8 sums for checks of our own kernels.
 * Without the library, or without its header when this was built, or in the simulator, nothing is queued and the caller runs a kernel of our
 * own; training has none.
 *
 * What a newcomer would get wrong: cuBLASLt thinks in columns. Our out [tokens, rows] is its matrix of `rows` rows and `tokens` columns, hence
 * its first factor is the weights and its second the tokens. */
#include "cuda/queue.cuh"

#include "cuda/floatmul.cuh"
#if !defined(__CUDACC__)
#include "cuda/sim/product.h"
#endif

#if defined(__CUDACC__) && __has_include(<cublasLt.h>)

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>

#define NAME_OF(x) #x
#define LIBRARY(major) "libcublasLt.so." NAME_OF(major)

/* What one shape needs, asked of the library once. */
struct blas_plan {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algo;
    uint32_t n_rows, n_tokens, n_cols, ld_w;
    size_t ld_x, ld_out;
    int side;
    uint32_t align;      /* of all matrices, in bytes */
    uint32_t bias_align; /* 0: no bias */
    enum zq_factors factors; /* of training */
    bool turn_w, turn_x, usable;
};

enum { BLAS_PLANS = 128, BLAS_WORKSPACE = 32 << 20, SIDE_CODES = 100, SIDE_TRAINING };

struct zq_blas {
    void *library;
    bool complete, tried; /* all functions were found; handle and workspace were asked for */
    cublasLtHandle_t handle;
    void *workspace;
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescDestroy) desc_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    decltype(&cublasLtMatmul) matmul;
    struct blas_plan plans[BLAS_PLANS];
    unsigned n_plans;
};

static bool load_names(struct zq_blas *b)
{
    const struct {
        void **to;
        const char *name;
    } names[] = {
        {(void **)&b->create, "cublasLtCreate"},
        {(void **)&b->destroy, "cublasLtDestroy"},
        {(void **)&b->desc_create, "cublasLtMatmulDescCreate"},
        {(void **)&b->desc_destroy, "cublasLtMatmulDescDestroy"},
        {(void **)&b->desc_set, "cublasLtMatmulDescSetAttribute"},
        {(void **)&b->layout_create, "cublasLtMatrixLayoutCreate"},
        {(void **)&b->layout_destroy, "cublasLtMatrixLayoutDestroy"},
        {(void **)&b->preference_create, "cublasLtMatmulPreferenceCreate"},
        {(void **)&b->preference_destroy, "cublasLtMatmulPreferenceDestroy"},
        {(void **)&b->preference_set, "cublasLtMatmulPreferenceSetAttribute"},
        {(void **)&b->heuristic, "cublasLtMatmulAlgoGetHeuristic"},
        {(void **)&b->matmul, "cublasLtMatmul"},
    };
    for (const auto &n : names)
        if (!(*n.to = dlsym(b->library, n.name))) return false;
    return true;
}

static void forget_plan(struct zq_blas *b, struct blas_plan *p)
{
    if (p->op) b->desc_destroy(p->op);
    if (p->w) b->layout_destroy(p->w);
    if (p->x) b->layout_destroy(p->x);
    if (p->out) b->layout_destroy(p->out);
    memset(p, 0, sizeof *p);
}

/* The library of this queue, whose `complete` says whether it is there. Takes nothing of the device: whoever only asks pays for no product.
 * Never closed: the next session would map its hundreds of megabytes again. */
static struct zq_blas *loaded(struct zq_queue *queue)
{
    const int how = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    if (queue->blas) return queue->blas;
    struct zq_blas *b = queue->blas = (struct zq_blas *)calloc(1, sizeof *b);
    if (!b) return NULL;
    b->library = dlopen(LIBRARY(CUBLAS_VER_MAJOR), how);
    if (!b->library) b->library = dlopen("libcublasLt.so", how);
    b->complete = b->library && load_names(b);
    return b;
}

/* The library with its handle and workspace, which the first product takes; NULL: there is none, or it cannot be had. */
static struct zq_blas *opened(struct zq_queue *queue)
{
    struct zq_blas *b = loaded(queue);
    if (!b || !b->complete) return NULL;
    if (!b->tried) {
        b->tried = true;
        if (!(b->workspace = zq_queue_alloc(queue, BLAS_WORKSPACE)) || b->create(&b->handle)) b->handle = NULL;
    }
    return b->handle ? b : NULL;
}

void zq_blas_close(struct zq_queue *queue)
{
    struct zq_blas *b = queue->blas;
    if (!b) return;
    for (unsigned i = 0; i < b->n_plans; i++) forget_plan(b, &b->plans[i]);
    if (b->handle) b->destroy(b->handle);
    if (b->workspace) zq_queue_free(queue, b->workspace);
    free(b);
    queue->blas = NULL;
}

/* bias: of the first product of this plan, whose alignment the library may look at; each product sets its own. */
static bool ask(struct zq_blas *b, struct blas_plan *p, const void *bias)
{
    const bool codes = p->side == SIDE_CODES;
    const bool wide = p->side == SIDE_TRAINING && p->factors != ZQ_FACTORS_BF16;
    const cudaDataType_t of_floats = wide ? CUDA_R_32F : p->side == SIDE_F16 ? CUDA_R_16F : CUDA_R_16BF;
    const cudaDataType_t in = codes ? CUDA_R_8I : of_floats, out = codes ? CUDA_R_32I : CUDA_R_32F;
    const cublasComputeType_t sums = p->factors == ZQ_FACTORS_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasComputeType_t compute = codes ? CUBLAS_COMPUTE_32I : sums;
    const cublasOperation_t turned = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const size_t workspace = BLAS_WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found = {};
    int n_found = 0;
    bool right = !b->desc_create(&p->op, compute, out) &&
                 !b->layout_create(&p->w, in, p->turn_w ? p->n_cols : p->n_rows, p->turn_w ? p->n_rows : p->n_cols, p->ld_w) &&
                 !b->layout_create(&p->x, in, p->turn_x ? p->n_tokens : p->n_cols, p->turn_x ? p->n_cols : p->n_tokens, (int64_t)p->ld_x) &&
                 !b->layout_create(&p->out, out, p->n_rows, p->n_tokens, (int64_t)p->ld_out) && !b->preference_create(&preference) &&
                 !b->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (size_t i = 0; i < sizeof aligned / sizeof *aligned && right; i++)
        right = !b->preference_set(preference, aligned[i], &p->align, sizeof p->align);
    if (right && p->turn_w) right = !b->desc_set(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned);
    if (right && p->turn_x) right = !b->desc_set(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &turned, sizeof turned);
    if (right && bias)
        right = !b->desc_set(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) &&
                !b->desc_set(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    right = right && !b->heuristic(b->handle, p->op, p->w, p->x, p->out, p->out, preference, 1, &found, &n_found) && n_found > 0 && !found.state;
    if (preference) b->preference_destroy(preference);
    p->algo = found.algo;
    return right;
}

/* The largest power of two, at most 256, that divides all of them; NULL leaves it as it is. */
static uint32_t alignment_of(const void *a, const void *b, const void *c, const void *d)
{
    const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d | 256;
    return (uint32_t)(all & (0 - all));
}

/* The plan of a shape, or NULL where the library refuses it. */
static struct blas_plan *plan_of(struct zq_blas *b, const struct blas_plan &want, const void *bias)
{
    for (unsigned i = 0; i < b->n_plans; i++) {
        struct blas_plan *p = &b->plans[i];
        if (p->n_rows == want.n_rows && p->n_tokens == want.n_tokens && p->n_cols == want.n_cols && p->ld_w == want.ld_w && p->ld_x == want.ld_x &&
            p->ld_out == want.ld_out && p->side == want.side && p->align == want.align && p->turn_w == want.turn_w && p->turn_x == want.turn_x &&
            p->factors == want.factors && p->bias_align == want.bias_align)
            return p->usable ? p : NULL;
    }
    if (b->n_plans == BLAS_PLANS)
        while (b->n_plans) forget_plan(b, &b->plans[--b->n_plans]);
    struct blas_plan *p = &b->plans[b->n_plans++];
    *p = want;
    p->usable = ask(b, p, bias);
    return p->usable ? p : NULL;
}

bool zq_blas_halves(struct zq_queue *queue, const product_args &a, int side)
{
    struct zq_blas *b = a.h && (side == SIDE_F16 || side == SIDE_BF16) && !queue->error ? opened(queue) : NULL;
    if (!b) return false;
    struct blas_plan want = {};
    want.n_rows = a.n_rows, want.n_tokens = a.n_tokens, want.n_cols = a.n_cols;
    want.ld_w = a.cols, want.ld_x = a.ld_x, want.ld_out = a.ld_out, want.side = side;
    want.align = alignment_of(a.w, a.h, a.out, a.residual);
    want.bias_align = a.bias ? alignment_of(a.bias, NULL, NULL, NULL) : 0;
    const struct blas_plan *p = plan_of(b, want, a.bias);
    if (!p || (a.bias && b->desc_set(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &a.bias, sizeof a.bias))) return false;
    const float one = 1, keep = a.residual ? 1 : 0;
    return !b->matmul(b->handle, p->op, &one, a.w, p->w, a.h, p->x, &keep, a.residual ? a.residual : a.out, p->out, a.out, p->out, &p->algo,
                      b->workspace, BLAS_WORKSPACE, queue->stream);
}

/* sums [n_tokens, ld] of a product in W8A8 without groups. */
static bool queue_sums(struct zq_queue *queue, const product_args &a, int32_t *sums, size_t ld)
{
    struct zq_blas *b = !queue->error ? opened(queue) : NULL;
    if (!b) return false;
    struct blas_plan want = {};
    want.n_rows = a.n_rows, want.n_tokens = a.n_tokens, want.n_cols = a.n_cols;
    want.ld_w = a.cols, want.ld_x = a.ld_x, want.ld_out = ld, want.side = SIDE_CODES;
    want.turn_w = true; /* codes lie row by row, values column by column */
    want.align = alignment_of(a.w, a.q, sums, NULL);
    const struct blas_plan *p = plan_of(b, want, NULL);
    const int32_t one = 1, zero = 0;
    return p && !b->matmul(b->handle, p->op, &one, a.w, p->w, a.q, p->x, &zero, sums, p->out, sums, p->out, &p->algo, b->workspace,
                           BLAS_WORKSPACE, queue->stream);
}

/* Row-major c = a b is column-major c^T = b^T a^T: b is the first factor, and what lies row by row is turned already. */
void zq_blas_floats(struct zq_queue *queue, const struct zq_training_product *product)
{
    if (queue->error) return;
    struct zq_blas *b = opened(queue);
    const struct zq_matmul *const a = &product->of;
    const void *const left = product->a ? (const void *)product->a : a->a, *const right = product->b ? (const void *)product->b : a->b;
    struct blas_plan want = {};
    want.n_rows = (uint32_t)a->n, want.n_tokens = (uint32_t)a->m, want.n_cols = (uint32_t)a->k;
    want.ld_w = (uint32_t)a->ldb, want.ld_x = a->lda, want.ld_out = a->ldc, want.side = SIDE_TRAINING;
    want.turn_w = a->turn_b, want.turn_x = a->turn_a, want.factors = a->factors, want.align = alignment_of(left, right, a->c, NULL);
    const struct blas_plan *p = b ? plan_of(b, want, NULL) : NULL;
    const float keep = a->add ? 1 : 0;
    if (!p || b->matmul(b->handle, p->op, &a->alpha, right, p->w, left, p->x, &keep, a->c, p->out, a->c, p->out, &p->algo, b->workspace,
                        BLAS_WORKSPACE, queue->stream))
        queue->error = cudaErrorNotSupported;
}

bool zq_blas_there(struct zq_queue *queue)
{
    const struct zq_blas *b = loaded(queue);
    return b && b->complete;
}

#else

bool zq_blas_there(struct zq_queue *queue) { return (void)queue, false; }
void zq_blas_close(struct zq_queue *queue) { (void)queue; }
bool zq_blas_halves(struct zq_queue *queue, const product_args &a, int side) { return (void)queue, (void)a, (void)side, false; }
void zq_blas_floats(struct zq_queue *queue, const struct zq_training_product *product)
{
    (void)product;
#if defined(__CUDACC__)
    queue->error = cudaErrorNotSupported;
#else
    (void)queue;
#endif
}

#if defined(__CUDACC__)
static bool queue_sums(struct zq_queue *queue, const product_args &a, int32_t *sums, size_t ld)
{
    return (void)queue, (void)a, (void)sums, (void)ld, false;
}
#else
struct simulated_sums {
    product_args a;
    int32_t *sums;
    size_t ld;
};
static void run_sums(const void *args)
{
    const struct simulated_sums *s = (const struct simulated_sums *)args;
    sim_sums((const int8_t *)s->a.w, s->a.cols, s->a.q, s->a.ld_x, s->a.n_rows, s->a.n_cols, s->a.n_tokens, s->sums, s->ld);
}
static bool queue_sums(struct zq_queue *queue, const product_args &a, int32_t *sums, size_t ld)
{
    const struct simulated_sums s = {a, sums, ld};
    zq_queue_launch(queue, 0, 0, 0, run_sums, &s, sizeof s);
    return true;
}
#endif

#endif

int zq_blas_sums(struct zq_queue *queue, const struct zq_product *p, int32_t *sums)
{
    product_args a = {};
    a.w = (const uint8_t *)p->w->packed, a.cols = (uint32_t)zq_layout_cols(p->w), a.q = p->q, a.ld_x = p->ld_x;
    a.n_rows = (uint32_t)p->w->n_rows, a.n_cols = (uint32_t)p->w->n_cols, a.n_tokens = (uint32_t)p->n_tokens;
    return !queue_sums(queue, a, sums, a.n_rows);
}

enum { SCALE_THREADS = 256 };

/* Sums in the place of the output become the output: y = fma((float)s, token_scale * w_scale, b), then the residual. */
KERNEL(SCALE_THREADS) scale_sums(const product_args a)
{
    const size_t token = block_x(), row = (size_t)block_y() * SCALE_THREADS + thread_x(), at = token * a.ld_out + row;
    if (row >= a.n_rows) return;
    const float y = fma_rn(from_int((int32_t)float_bits(a.out[at])), mul(a.scale[token], a.w_scale[row]), a.bias ? a.bias[row] : 0);
    a.out[at] = a.residual ? add(y, a.residual[at]) : y;
}

bool zq_blas_product(struct zq_queue *queue, const product_args &a)
{
    if (a.residual == a.out || !queue_sums(queue, a, (int32_t *)a.out, a.ld_out)) return false;
    launch(queue, scale_sums, a.n_tokens, parts(a.n_rows, SCALE_THREADS), SCALE_THREADS, a);
    return true;
}
