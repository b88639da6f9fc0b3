// The three convolutions around the main loop: what each block is given, and what becomes of the
// sums.
#pragma once

#include <cutlass/functional.h>

#include "cuda/convolution/sm80/operands.cuh"
#include "cuda/convolution/sm80/results.cuh"
#include "cuda/convolution/shares.cuh"

namespace sspcab::cuda {

// The kernels' bounds name one block for each processor: left to itself, the compiler spills
// registers of small tiles for the sake of more blocks.

// (A) A block owns kM neighbouring pixels, through all samples, and kN output channels. The sums
// over taps and input channels begin with the bias; ReLU and the channels' sums follow in
// registers, from where results are rounded and written. NCHW takes a way through shared memory.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(Geometry g, const __grid_constant__ Filters filters, Image image,
                   Forward forward) {
  wait_for_earlier_launches();
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  const TileOrigin origin(g, blockIdx.x, Loop::kM, Loop::kN);
  __shared__ alignas(kVectorBytes) W bias[Loop::kN];  // of the tile's channels
  static_assert(Loop::kN <= kThreads);
  if (threadIdx.x < Loop::kN) {
    bias[threadIdx.x] = start_of<D>(forward, g, origin.channel + threadIdx.x);
  }
  __syncthreads();
  const auto biases = Loop::part_of(cute::make_tensor(
      cute::make_smem_ptr(bias), Layout<Shape<Int<Loop::kM>, Int<Loop::kN>>, Stride<_0, _1>>{}));
  auto start = cute::make_tensor<W>(cute::make_layout_like(biases.layout()));
  CUTE_UNROLL
  for (int i = 0; i < cute::size(start); ++i) start(i) = biases(i);

  MovedPixels<Loop> pixels(g, static_cast<const D*>(forward.x), origin.pixel, origin.within_sample,
                           origin.pixels, 1, Loop::shared_a(shared));
  FilterRows<Loop> rows(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop> operands(g, pixels, rows);
  auto sums = Loop::run(operands, g.steps(Loop::kDepth), shared, start);

  if (forward.relu) {
    const cutlass::maximum<W, true> keeps_nan;
    CUTE_UNROLL
    for (int i = 0; i < cute::size(sums); ++i) sums(i) = keeps_nan(sums(i), W(0));
  }
  if (forward.sums) {
    sum_channels<Loop>(sums, origin, g.channels, shared, static_cast<W*>(forward.sums));
  }
  D* y = static_cast<D*>(forward.y);
  for_each_piece<Loop, D>(sums, shared, image, origin, [&](const auto& at, const auto& piece) {
    store_global<at.kConstant>(y + at.offset, narrowed<D>(piece));
  });
#endif
}

// (backward 4) As (A), with grad_a for x, mirrored taps and transposed filters; the direct gradient
// of the loss is subtracted while the tile is written.
template <class Loop>
__device__ __forceinline__ void input_gradient(const Geometry& g, const Filters& filters,
                                               const Image& image, const InputGradient& gradient,
                                               unsigned block) {
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  const auto sums = [&] {
    const TileOrigin origin(g, block, Loop::kM, Loop::kN);
    MovedPixels<Loop> pixels(g, static_cast<const D*>(gradient.grad_a), origin.pixel,
                             origin.within_sample, origin.pixels, -1, Loop::shared_a(shared));
    FilterRows<Loop> rows(g, filters, origin.channel, Loop::shared_b(shared));
    TapsAndChannels<Loop> operands(g, pixels, rows);
    return Loop::run(operands, g.steps(Loop::kDepth), shared, Loop::zeros());
  }();
  const TileOrigin origin(g, kept(block), Loop::kM, Loop::kN);  // anew: it would take registers

  D* grad_x = static_cast<D*>(gradient.grad_x);
  if (!gradient.gradient.grad_loss) {
    return for_each_piece<Loop, D>(
        sums, shared, image, origin, [&](const auto& at, const auto& piece) {
          store_global<at.kConstant>(grad_x + at.offset, narrowed<D>(piece));
        });
  }
  DirectGradient<D, Loop::kTogether, Loop::kGroups> direct(gradient.gradient, image, origin);
  for_each_piece<Loop, D>(sums, shared, image, origin, [&](const auto& at, const auto& piece) {
    store_global<at.kConstant>(grad_x + at.offset, narrowed<D>(direct.subtracted_from(piece, at)));
  });
#endif
}

// (backward 5) A block owns kM output × kN input channels of one tap, and one split of the pixels;
// it sums over them and leaves the tile for parameter_gradients to add up.
template <class Loop>
__device__ __forceinline__ void weight_gradient(const Geometry& g, const WeightGradient& gradient,
                                                const WeightShares& shares, int block) {
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  const WeightShare share(g, shares, Loop::kTile, block);
  PixelsOfTap<Loop> operands(g, static_cast<const D*>(gradient.grad_a),
                             static_cast<const D*>(gradient.x), share.begin * Loop::kDepth,
                             share.end * Loop::kDepth, share.first_output, share.first_input,
                             share.tap, shared);
  const auto sums =
      Loop::run(operands, static_cast<int>(share.end - share.begin), shared, Loop::zeros());

  W* to = static_cast<W*>(gradient.sums) + share.filter_offset(g);
  const Image matrix{1, g.channels, g.channels, 1, true};
  const bool adds = share.split < gradient.earlier_splits;
  for_each_piece<Loop, W>(sums, shared, matrix,
                          TileOrigin(g.channels, share.first_output, share.first_input, Loop::kM),
                          [&](const auto& at, auto piece) {
                            if (adds) piece = added(piece, to + at.offset + at.kConstant);
                            store_global<at.kConstant>(to + at.offset, piece);
                          });
#endif
}

template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    input_gradient_kernel(Geometry g, const __grid_constant__ Filters filters, Image image,
                          InputGradient gradient) {
  wait_for_earlier_launches();
  input_gradient<Loop>(g, filters, image, gradient, blockIdx.x);
}

template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    weight_gradient_kernel(Geometry g, WeightGradient gradient,
                           const __grid_constant__ WeightShares shares) {
  wait_for_earlier_launches();
  weight_gradient<Loop>(g, gradient, shares, blockIdx.x);
}

// (backward 4 and 5) Blocks of both, so that the tensor cores work for the one while the other
// waits for memory. Those that take longer come first.
template <class OfInput, class OfWeights>
__global__ void __launch_bounds__(kThreads, 1)
    gradients_kernel(Geometry g, const __grid_constant__ Filters filters, Image image,
                     InputGradient input, WeightGradient weights,
                     const __grid_constant__ WeightShares shares, unsigned weight_blocks,
                     bool weights_first) {
  wait_for_earlier_launches();
  const unsigned first = weights_first ? weight_blocks : gridDim.x - weight_blocks;
  const bool is_first = blockIdx.x < first;
  const unsigned block = is_first ? blockIdx.x : blockIdx.x - first;
  if (is_first == weights_first) {
    weight_gradient<OfWeights>(g, weights, shares, block);
  } else {
    input_gradient<OfInput>(g, filters, image, input, block);
  }
}

}  // namespace sspcab::cuda
