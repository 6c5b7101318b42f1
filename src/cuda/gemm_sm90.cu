/* Launches the products of Hopper. nvcc compiles this file for sm_90a only, so that no other architecture is asked for what it lacks; elsewhere the
 * products are not served. What a newcomer would get wrong: libcuda is not linked. The one function of the driver that is needed comes from the
 * runtime. */
#include "cuda/gemm_sm90.cuh"
#include "cuda/queue.cuh"

#if defined(__CUDACC__)

typedef CUresult encode_tiled(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                              const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* cuTensorMapEncodeTiled, or NULL: a driver before CUDA 12. */
static encode_tiled *driver_encoder(void)
{
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
#else
    const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found);
#endif
    if (error) cudaGetLastError();
    return error || found != cudaDriverEntryPointSuccess ? NULL : (encode_tiled *)entry;
}

bool zq_hopper_serves(struct zq_queue *queue)
{
    int major = 0, minor = 0;
    if (!queue->asked_tiles) {
        queue->asked_tiles = true;
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, queue->index);
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, queue->index);
        if (major == 9 && minor == 0) queue->encode_tiles = (void *)driver_encoder();
    }
    return queue->encode_tiles;
}

/* Of bytes [n_rows, stride], n_columns of which count; false: the driver refuses. */
static bool make_map(struct zq_queue *queue, tile_map *map, const void *base, uint64_t n_columns, uint64_t n_rows, uint64_t stride,
                     uint32_t box_columns, uint32_t box_rows)
{
    const cuuint64_t sizes[] = {n_columns, n_rows}, strides[] = {stride};
    const cuuint32_t box[] = {box_columns, box_rows}, steps[] = {1, 1};
    encode_tiled *const encode = (encode_tiled *)queue->encode_tiles;
    return !encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, (void *)(uintptr_t)base, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                   box_columns == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

/* More shared memory than every card has must be asked for. */
static bool allow_shared(const void *kernel, int n_bytes)
{
    if (!cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes)) return true;
    cudaGetLastError();
    return false;
}

#else

bool zq_hopper_serves(struct zq_queue *queue) { return (void)queue, true; }

static bool make_map(struct zq_queue *queue, tile_map *map, const void *base, uint64_t n_columns, uint64_t n_rows, uint64_t stride,
                     uint32_t box_columns, uint32_t box_rows)
{
    (void)queue;
    *map = tile_map{(const uint8_t *)base, n_columns, n_rows, stride, box_columns, box_rows, box_columns};
    return true;
}
static bool allow_shared(const void *kernel, int n_bytes) { return (void)kernel, (void)n_bytes, true; }

#endif

template <int BITS, int GROUP> static bool run(struct zq_queue *queue, const product_args &a)
{
    const int n_bytes = hopper_tile<BITS, GROUP>::SHARED_BYTES;
    hopper_args h = {};
    h.a = a;
    h.n_row_tiles = parts(a.n_rows, HOPPER_ROWS);
    h.n_token_tiles = parts(a.n_tokens, HOPPER_TOKENS);
    const uint64_t w_bytes = (uint64_t)a.cols * BITS / 8;
    if (!make_map(queue, &h.w, a.w, w_bytes, a.n_rows, w_bytes, HOPPER_COLS * BITS / 8, HOPPER_ROWS)) return false;
    if (!make_map(queue, &h.x, a.q, a.n_cols, a.n_tokens, a.ld_x, HOPPER_COLS, HOPPER_TOKENS)) return false;
    if (!allow_shared((const void *)gemm_sm90<BITS, GROUP>, n_bytes)) return false;
    launch(queue, gemm_sm90<BITS, GROUP>, h.n_row_tiles * h.n_token_tiles, 1, HOPPER_THREADS, h, (unsigned)n_bytes);
    return true;
}

template <int BITS> static bool run_groups(struct zq_queue *queue, const product_args &a, bool grouped)
{
    if (!grouped) return run<BITS, 0>(queue, a);
    return a.step % 128 == 0 || a.step == a.cols ? run<BITS, 128>(queue, a) : run<BITS, 64>(queue, a);
}

bool zq_hopper_groups(size_t step, size_t cols) { return step % 64 == 0 || step == cols; }

bool zq_hopper_product(struct zq_queue *queue, const product_args &a, int bits, bool grouped)
{
    if (!zq_hopper_groups(a.step, a.cols) && grouped) return false;
    if (!zq_hopper_serves(queue) || (uintptr_t)a.q % ZQ_DEVICE_ALIGN || (uintptr_t)a.w % ZQ_DEVICE_ALIGN) return false;
    return bits == 8 ? run_groups<8>(queue, a, grouped) : run_groups<4>(queue, a, grouped);
}
