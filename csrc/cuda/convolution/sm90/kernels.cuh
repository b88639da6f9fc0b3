// The three convolutions around the main loop: what each block is given, and what becomes of the
// sums. A unit of work is a tile, or what one block of a cluster of two has of it: half of its taps
// before the sums are exchanged, half of its columns after it. Blocks take units in turn, those of
// a cluster neighbouring ones.
#pragma once

#include <cutlass/arch/reg_reconfig.h>
#include <cutlass/functional.h>

#include "cuda/convolution/sm90/operands.cuh"
#include "cuda/convolution/sm90/results.cuh"

namespace sspcab::cuda {

// Warpgroups share out what the launch has got, as many registers for each thread as its bound
// leaves of the processor's, in eights: one that asked for more would wait for ever.
constexpr int kProcessorRegisters = 64 << 10;
constexpr int kLaunchRegisters = kProcessorRegisters / kHopperThreads / 8 * 8;
constexpr int kRegistersOfLoads = 24, kRegistersOfProducts = 240;
static_assert(kRegistersOfLoads + kHopperConsumers * kRegistersOfProducts <=
              (1 + kHopperConsumers) * kLaunchRegisters);

// units.load(unit, ...) in the thread that loads, units.consume(unit, ...) in the warpgroups that
// multiply, for each unit of this block. They go round the ring alike.
template <class Loop, class Units>
__device__ void for_each_unit(int count, const Units& units) {
#if SSPCAB_HAS_WGMMA
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<typename Loop::Shared*>(memory);
  Loop::set_up(shared);
  RingPlace<Loop::kStages> place;
  const int step = gridDim.x;
  if (threadIdx.x < kWarpgroup) {
    cutlass::arch::warpgroup_reg_dealloc<kRegistersOfLoads>();
    if (threadIdx.x > 0) return;
    for (int unit = blockIdx.x; unit < count; unit += step) units.load(unit, shared, place);
  } else {
    cutlass::arch::warpgroup_reg_alloc<kRegistersOfProducts>();
    WarpgroupResults<Loop> results(shared);
    for (int unit = blockIdx.x; unit < count; unit += step) {
      units.consume(unit, shared, place, results);
    }
  }
#endif
}

// What a block has of a tile of the convolution of an image with filters.
template <class Loop>
struct TileUnit {
  const int split, splits;
  const TileOrigin tile;

  __device__ TileUnit(const Geometry& g, int unit, int splits)
      : split(unit % splits), splits(splits), tile(g, unit / splits, Loop::kM, Loop::kN) {}

  // The columns that it brings away.
  __device__ int columns() const { return Loop::kN / splits; }
  __device__ int first_channel() const { return tile.channel + split * columns(); }

  // Adds the products of all taps, and leaves those columns at the front.
  template <class Shared, class Place, class Sums>
  __device__ void add_products(const Geometry& g, Shared& shared, Place& place,
                               WarpgroupResults<Loop>& results, Sums& sums) const {
    Loop::multiply(shared, place, g.steps(Loop::kDepth) / splits, sums);
    if constexpr (Loop::kN > kHopperStripe) {
      if (splits == 2) results.exchange(sums, split);
    }
  }
};

// (A) The sums over taps and input channels begin with the bias; ReLU and the channels' sums
// follow.
template <class Loop>
struct ForwardUnits {
  using D = typename Loop::Element;
  const Geometry& g;
  const PixelsAndFilters& maps;
  const Image& image;
  const Forward& forward;
  int splits;

  template <class Shared, class Place>
  __device__ void load(int unit, Shared& shared, Place& place) const {
    load_taps<Loop>(g, maps, TileUnit<Loop>(g, unit, splits), /*sign=*/1, shared, place);
  }
  template <class Shared, class Place>
  __device__ void consume(int unit, Shared& shared, Place& place,
                          WarpgroupResults<Loop>& results) const {
    const TileUnit<Loop> of(g, unit, splits);
    const TileOrigin origin(g, of.tile, results.first_row(), kRows);
    auto sums = Loop::sums();
    float* start = shared.start[results.number()];
    results.barrier();
    for (int i = threadIdx.x % kWarpgroup; i < Loop::kN; i += kWarpgroup) {
      start[i] = of.split == 0 ? start_of<D>(forward, g, of.tile.channel + i) : 0;
    }
    results.barrier();
    CUTE_UNROLL
    for (int i = 0; i < Loop::kN / 2; i += 4) {
      const auto pair = cuda::load<2>(start + 2 * i + threadIdx.x % 4 * 2);
      sums(i) = sums(i + 2) = pair[0];
      sums(i + 1) = sums(i + 3) = pair[1];
    }
    of.add_products(g, shared, place, results, sums);
    if (forward.relu) {
      const cutlass::maximum<float, true> keeps_nan;
      CUTE_UNROLL
      for (int i = 0; i < cute::size(sums); ++i) sums(i) = keeps_nan(sums(i), 0.f);
    }
    D* y = static_cast<D*>(forward.y);
    results.for_each_stripe(
        sums, of.columns(), of.first_channel(), g.channels, [&](const Stripe& stripe, int channel) {
          if (forward.sums) {
            sum_channels(stripe, origin, channel, g.channels, static_cast<float*>(forward.sums));
          }
          for_each_piece<D>(stripe, image, origin, channel, [&](const auto& at, const auto& piece) {
            store_global(y + at.offset, narrowed<D>(piece));
          });
        });
  }
};

// (backward 4) As (A), with grad_a for x, mirrored taps and transposed filters; the direct gradient
// of the loss is subtracted while the tile is written.
template <class Loop>
struct InputGradientUnits {
  using D = typename Loop::Element;
  const Geometry& g;
  const PixelsAndFilters& maps;
  const Image& image;
  const InputGradient& gradient;
  int splits;

  template <class Shared, class Place>
  __device__ void load(int unit, Shared& shared, Place& place) const {
    load_taps<Loop>(g, maps, TileUnit<Loop>(g, unit, splits), /*sign=*/-1, shared, place);
  }
  template <class Shared, class Place>
  __device__ void consume(int unit, Shared& shared, Place& place,
                          WarpgroupResults<Loop>& results) const {
    const TileUnit<Loop> of(g, unit, splits);
    const TileOrigin origin(g, of.tile, results.first_row(), kRows);
    auto sums = Loop::sums();
    cute::clear(sums);
    of.add_products(g, shared, place, results, sums);
    D* grad_x = static_cast<D*>(gradient.grad_x);
    results.for_each_stripe(
        sums, of.columns(), of.first_channel(), g.channels, [&](const Stripe& stripe, int channel) {
          if (!gradient.gradient.grad_loss) {
            return for_each_piece<D>(stripe, image, origin, channel,
                                     [&](const auto& at, const auto& piece) {
                                       store_global(grad_x + at.offset, narrowed<D>(piece));
                                     });
          }
          DirectGradient<D, kVector<D>, 1> direct(gradient.gradient, image, origin);
          for_each_piece<D>(stripe, image, origin, channel, [&](const auto& at, const auto& piece) {
            store_global(grad_x + at.offset, narrowed<D>(direct.subtracted_from(piece, at)));
          });
        });
  }
};

// (backward 5) A unit is kM output × kN input channels of one tap, and one split of the pixels; the
// tile is left for parameter_gradients to add up.
template <class Loop>
struct WeightGradientUnits {
  const Geometry& g;
  const PixelsOfBoth& maps;
  const WeightGradient& gradient;
  const WeightShares& shares;

  template <class Shared, class Place>
  __device__ void load(int unit, Shared& shared, Place& place) const {
    load_share<Loop>(g, maps, WeightShare(g, shares, Loop::kTile, unit), shared, place);
  }
  template <class Shared, class Place, class Results>
  __device__ void consume(int unit, Shared& shared, Place& place, Results& results) const {
    const WeightShare share(g, shares, Loop::kTile, unit);
    auto sums = Loop::sums();
    cute::clear(sums);
    Loop::multiply(shared, place, share.end - share.begin, sums);
    float* to = static_cast<float*>(gradient.sums) + share.filter_offset(g);
    const TileOrigin origin(g.channels, share.first_output + results.first_row(), share.first_input,
                            kRows);
    const Image matrix{1, g.channels, g.channels, 1, true};
    const bool adds = share.split < gradient.earlier_splits;
    results.for_each_stripe(
        sums, Loop::kN, origin.channel, g.channels, [&](const Stripe& stripe, int channel) {
          for_each_piece<float>(stripe, matrix, origin, channel, [&](const auto& at, auto piece) {
            if (adds) piece = added(piece, to + at.offset);
            store_global(to + at.offset, piece);
          });
        });
  }
};

// (backward 4 and 5) Units of the weights, then, from a whole number of clusters on, those of the
// input. Their tiles have one size, and so one ring serves both.
template <class OfWeights, class OfInput>
struct UnitsOfBoth {
  OfWeights weights;
  OfInput input;
  int weight_units;

  __device__ int first_of_input() const {
    return (weight_units + input.splits - 1) / input.splits * input.splits;
  }
  template <class... Rest>
  __device__ void load(int unit, Rest&... rest) const {
    if (unit < weight_units) {
      weights.load(unit, rest...);
    } else if (unit >= first_of_input()) {
      input.load(unit - first_of_input(), rest...);
    }
  }
  template <class... Rest>
  __device__ void consume(int unit, Rest&... rest) const {
    if (unit < weight_units) {
      weights.consume(unit, rest...);
    } else if (unit >= first_of_input()) {
      input.consume(unit - first_of_input(), rest...);
    }
  }
};

// Code without Hopper's instructions takes no launch, which sm90_is_loaded goes by.
constexpr int kHopperLaunchBound = SSPCAB_HAS_WGMMA ? kHopperThreads : 32;

// `units`: of all blocks; `splits`: units of a tile, 2 in clusters of two blocks and 1 in others.
template <class Loop>
__global__ void __launch_bounds__(kHopperLaunchBound, 1)
    hopper_forward_kernel(Geometry g, const __grid_constant__ PixelsAndFilters maps, Image image,
                          Forward forward, int units, int splits) {
  wait_for_earlier_launches();
  for_each_unit<Loop>(units, ForwardUnits<Loop>{g, maps, image, forward, splits});
}

template <class Loop>
__global__ void __launch_bounds__(kHopperLaunchBound, 1)
    hopper_input_gradient_kernel(Geometry g, const __grid_constant__ PixelsAndFilters maps,
                                 Image image, InputGradient gradient, int units, int splits) {
  wait_for_earlier_launches();
  for_each_unit<Loop>(units, InputGradientUnits<Loop>{g, maps, image, gradient, splits});
}

template <class Loop>
__global__ void __launch_bounds__(kHopperLaunchBound, 1)
    hopper_weight_gradient_kernel(Geometry g, const __grid_constant__ PixelsOfBoth maps,
                                  WeightGradient gradient,
                                  const __grid_constant__ WeightShares shares, int units) {
  wait_for_earlier_launches();
  for_each_unit<Loop>(units, WeightGradientUnits<Loop>{g, maps, gradient, shares});
}

template <class OfInput, class OfWeights>
__global__ void __launch_bounds__(kHopperLaunchBound, 1)
    hopper_gradients_kernel(Geometry g, const __grid_constant__ PixelsAndFilters input_maps,
                            Image image, InputGradient input, int input_units, int splits,
                            const __grid_constant__ PixelsOfBoth weight_maps,
                            WeightGradient weights, const __grid_constant__ WeightShares shares,
                            int weight_units) {
  wait_for_earlier_launches();
  const UnitsOfBoth<WeightGradientUnits<OfWeights>, InputGradientUnits<OfInput>> both{
      {g, weight_maps, weights, shares}, {g, input_maps, image, input, splits}, weight_units};
  for_each_unit<OfInput>(both.first_of_input() + input_units, both);
}

}  // namespace sspcab::cuda
