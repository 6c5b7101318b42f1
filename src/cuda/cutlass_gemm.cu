/* INT8 products by CUTLASS, as the paper had them, for comparison with our own: sm_80's mma.sync and sm_90a's wgmma with TMA. Built where
 * CUTLASS's headers are found; nothing of C++ leaves this file. The epilogue is an expression over the sums, y = fma(sum, token scale * weight
 * scale, bias), in the order of finish_product(): the same bits if the compiler contracts it.
 * A residual goes through our own kernels. */
#if defined(__CUDACC__) && defined(ZQ_WITH_CUTLASS)

#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/default_gemm_universal_with_visitor.h>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/threadblock/fusion/visitors.hpp>

/* after theirs, which are not at ease with a template of ours */
#include "cuda/gemv.cuh"
#include "cuda/queue.cuh"

namespace {

using cute::Int;
using cute::Shape;
using cute::Stride;
using PerToken = Stride<Int<1>, Int<0>, Int<0>>;
using PerRow = Stride<Int<0>, Int<1>, Int<0>>;
constexpr auto nearest = cutlass::FloatRoundStyle::round_to_nearest;

/* ---- sm_80: tiles of 128 tokens and 256 rows, 64 columns a stage ---- */

namespace ampere {
using Tile = cutlass::gemm::GemmShape<128, 256, 64>;
using Warp = cutlass::gemm::GemmShape<64, 64, 64>;
using Step = cutlass::gemm::GemmShape<16, 8, 32>;
using Threads = cutlass::epilogue::threadblock::OutputTileThreadLayout<Tile, Warp, float, 4, 1>;
namespace visit = cutlass::epilogue::threadblock;
using Sums = visit::VisitorAccFetch;
using TokenScale = visit::VisitorColBroadcast<Threads, float, PerToken>;
using RowScale = visit::VisitorRowBroadcast<Threads, float, PerRow>;
using Bias = visit::VisitorRowBroadcast<Threads, float, PerRow>;
using Scale = visit::Sm80EVT<visit::VisitorCompute<cutlass::multiplies, float, float, nearest>, TokenScale, RowScale>;
using Y = visit::Sm80EVT<visit::VisitorCompute<cutlass::homogeneous_multiply_add, float, float, nearest>, Sums, Scale, Bias>;
using Store = visit::Sm80EVT<visit::VisitorAuxStore<Threads, float, nearest, Stride<int64_t, Int<1>, Int<0>>>, Y>;
using Kernel = typename cutlass::gemm::kernel::DefaultGemmWithVisitor<
    int8_t, cutlass::layout::RowMajor, cutlass::ComplexTransform::kNone, 16, int8_t, cutlass::layout::ColumnMajor,
    cutlass::ComplexTransform::kNone, 16, float, cutlass::layout::RowMajor, 4, int32_t, float, cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80,
    Tile, Warp, Step, Store, cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>, 3, cutlass::arch::OpMultiplyAddSaturate, 1>::GemmKernel;
using Product = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

cutlass::Status run(const product_args &a, cudaStream_t stream)
{
    typename Store::Arguments epilogue{{{}, {{a.scale, 0.0f, {}}, {a.w_scale, 0.0f, {}}, {}}, {a.bias, 0.0f, {}}, {}},
                                       {a.out, {int64_t(a.ld_out), Int<1>{}, Int<0>{}}}};
    typename Product::Arguments args(cutlass::gemm::GemmUniversalMode::kGemm, {int(a.n_tokens), int(a.n_rows), int(a.n_cols)}, 1, epilogue, a.q, a.w,
                                     nullptr, nullptr, 0, 0, 0, 0, int64_t(a.ld_x), int64_t(a.cols), int64_t(a.ld_out), int64_t(a.ld_out));
    Product product;
    const cutlass::Status status = product.initialize(args, nullptr, stream);
    return status == cutlass::Status::kSuccess ? product.run(stream) : status;
}
} // namespace ampere

/* ---- sm_90a: wgmma fed by TMA, 128 x 128 x 128, two blocks share what they load ---- */

namespace hopper {
namespace visit = cutlass::epilogue::fusion;
using Tile = Shape<Int<128>, Int<128>, Int<128>>;
using Cluster = Shape<Int<2>, Int<1>, Int<1>>;
using Sums = visit::Sm90AccFetch;
using TokenScale = visit::Sm90ColBroadcast<0, Tile, float, float, PerToken>;
using RowScale = visit::Sm90RowBroadcast<0, Tile, float, float, PerRow>;
using Bias = visit::Sm90RowBroadcast<0, Tile, float, float, PerRow>;
using Scale = visit::Sm90EVT<visit::Sm90Compute<cutlass::multiplies, float, float, nearest>, TokenScale, RowScale>;
using Y = visit::Sm90EVT<visit::Sm90Compute<cutlass::homogeneous_multiply_add, float, float, nearest>, Sums, Scale, Bias>;
using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster, cutlass::epilogue::collective::EpilogueTileAuto, int32_t, float, void,
    cutlass::layout::RowMajor, 4, float, cutlass::layout::RowMajor, 4, cutlass::epilogue::TmaWarpSpecialized, Y>::CollectiveOp;
using Main = typename cutlass::gemm::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, int8_t, cutlass::layout::RowMajor, 16, int8_t, cutlass::layout::ColumnMajor, 16, int32_t,
    Tile, Cluster, cutlass::gemm::collective::StageCountAutoCarveout<int(sizeof(typename Epilogue::SharedStorage))>,
    cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;
using Kernel = cutlass::gemm::kernel::GemmUniversal<Shape<int, int, int, int>, Main, Epilogue>;
using Product = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

cutlass::Status run(const product_args &a, cudaStream_t stream)
{
    const int m = int(a.n_tokens), n = int(a.n_rows), k = int(a.n_cols);
    typename Product::Arguments args{
        cutlass::gemm::GemmUniversalMode::kGemm,
        {m, n, k, 1},
        {a.q, {int64_t(a.ld_x), Int<1>{}, int64_t(0)}, reinterpret_cast<const int8_t *>(a.w), {int64_t(a.cols), Int<1>{}, int64_t(0)}},
        {{{}, {{a.scale}, {a.w_scale}, {}}, {a.bias}, {}},
         nullptr,
         {int64_t(a.ld_out), Int<1>{}, int64_t(0)},
         a.out,
         {int64_t(a.ld_out), Int<1>{}, int64_t(0)}}};
    Product product;
    if (Product::get_workspace_size(args)) return cutlass::Status::kErrorWorkspaceNull; /* none is needed for one product at a time */
    const cutlass::Status status = product.initialize(args, nullptr, stream);
    return status == cutlass::Status::kSuccess ? product.run(stream) : status;
}
} // namespace hopper

bool aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

} // namespace

bool zq_cutlass_built(void) { return true; }

bool zq_cutlass_product(struct zq_queue *queue, const struct product_args &a)
{
    static int major[64]; /* of each device; 0: not asked yet */
    int *const capability = &major[queue->index % 64];
    if (!*capability && cudaDeviceGetAttribute(capability, cudaDevAttrComputeCapabilityMajor, queue->index)) return false;
    if (queue->error || a.residual || a.n_cols % 16 || a.n_rows % 4 || a.ld_out % 4) return false;
    if (!aligned(a.q) || !aligned(a.out) || !aligned(a.w) || !aligned(a.bias)) return false;
    return (*capability == 9 ? hopper::run(a, queue->stream) : ampere::run(a, queue->stream)) == cutlass::Status::kSuccess;
}

#else

#include "cuda/queue.cuh"

bool zq_cutlass_built(void) { return false; }
bool zq_cutlass_product(struct zq_queue *queue, const struct product_args &a) { return (void)queue, (void)a, false; }

#endif
