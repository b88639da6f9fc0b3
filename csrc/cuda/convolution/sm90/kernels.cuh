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

constexpr int kRegistersOfLoads = 32, kRegistersOfProducts = 240;

struct Units {
  int count;   // of all blocks
  int splits;  // units of a tile: 2 in clusters of two blocks, 1 in others
};

// load(unit, shared, place) in the thread that loads, consume(unit, shared, place, results,
// exchanges) in the warpgroups that multiply, for each unit of this block. They go round the ring
// alike; `exchanges` counts those with the other block of a cluster.
template <class Loop, class Load, class Consume>
__device__ void for_each_unit(int units, const Load& load, const Consume& consume) {
#if SSPCAB_HAS_WGMMA
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<typename Loop::Shared*>(memory);
  Loop::set_up(shared);
  RingPlace<Loop::kStages> place;
  if (threadIdx.x < kWarpgroup) {
    cutlass::arch::warpgroup_reg_dealloc<kRegistersOfLoads>();
    if (threadIdx.x > 0) return;
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) load(unit, shared, place);
  } else {
    cutlass::arch::warpgroup_reg_alloc<kRegistersOfProducts>();
    unsigned exchanges = 0;
    const WarpgroupResults<Loop> results(shared);
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
      consume(unit, shared, place, results, exchanges);
    }
  }
#else
  __trap();
#endif
}

// The columns of a tile that a block brings away.
template <class Loop>
struct Columns {
  int count, channel;
  __device__ Columns(const TileOrigin& origin, int split, int splits)
      : count(Loop::kN / splits), channel(origin.channel + split * count) {}
};

// (A) The sums over taps and input channels begin with the bias; ReLU and the channels' sums
// follow.
template <class Loop>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_forward_kernel(Geometry g, const __grid_constant__ PixelsAndFilters maps, Image image,
                          Forward forward, Units units) {
  wait_for_earlier_launches();
#if SSPCAB_HAS_WGMMA
  using D = typename Loop::Element;
  const auto load = [&](int unit, auto& shared, auto& place) {
    const TileOrigin origin(g, unit / units.splits, Loop::kM, Loop::kN);
    load_taps<Loop>(g, maps, origin, 1, unit % units.splits, units.splits, shared, place);
  };
  const auto consume = [&](int unit, auto& shared, auto& place, const auto& results,
                           unsigned& exchanges) {
    const int split = unit % units.splits;
    const TileOrigin tile(g, unit / units.splits, Loop::kM, Loop::kN);
    const TileOrigin origin(g, tile, results.number() * kRows, kRows);
    auto sums = Loop::sums();
    float* start = shared.start[results.number()];
    results.barrier();
    for (int i = threadIdx.x % kWarpgroup; i < Loop::kN; i += kWarpgroup) {
      start[i] = split == 0 ? start_of<D>(forward, g, tile.channel + i) : 0;
    }
    results.barrier();
    CUTE_UNROLL
    for (int i = 0; i < Loop::kN / 2; i += 4) {
      const auto pair = cuda::load<2>(start + 2 * i + threadIdx.x % 4 * 2);
      sums(i) = sums(i + 2) = pair[0];
      sums(i + 1) = sums(i + 3) = pair[1];
    }
    Loop::multiply(shared, place, g.steps(Loop::kDepth) / units.splits, sums);
    if constexpr (Loop::kN > kHopperStripe) {
      if (units.splits == 2) results.exchange(sums, split, exchanges);
    }
    if (forward.relu) {
      const cutlass::maximum<float, true> keeps_nan;
      CUTE_UNROLL
      for (int i = 0; i < cute::size(sums); ++i) sums(i) = keeps_nan(sums(i), 0.f);
    }
    const Columns<Loop> columns(tile, split, units.splits);
    results.for_each_stripe(
        sums, columns.count, columns.channel, g.channels, [&](const Stripe& stripe, int channel) {
          if (forward.sums) {
            sum_channels(stripe, origin, channel, g.channels, static_cast<float*>(forward.sums));
          }
          D* y = static_cast<D*>(forward.y);
          for_each_piece<D>(stripe, image, origin, channel, [&](const auto& at, const auto& piece) {
            store_global(y + at.offset, narrowed<D>(piece));
          });
        });
  };
  for_each_unit<Loop>(units.count, load, consume);
#endif
}

// (backward 4) As (A), with grad_a for x, mirrored taps and transposed filters; the direct gradient
// of the loss is subtracted while the tile is written.
template <class Loop>
struct InputGradientUnits {
  const Geometry& g;
  const PixelsAndFilters& maps;
  const Image& image;
  const InputGradient& gradient;
  int splits;

  template <class Shared, class Place>
  __device__ void load(int unit, Shared& shared, Place& place) const {
    const TileOrigin origin(g, unit / splits, Loop::kM, Loop::kN);
    load_taps<Loop>(g, maps, origin, -1, unit % splits, splits, shared, place);
  }
  template <class Shared, class Place, class Results>
  __device__ void consume(int unit, Shared& shared, Place& place, const Results& results,
                          unsigned& exchanges) const {
    using D = typename Loop::Element;
    const int split = unit % splits;
    const TileOrigin tile(g, unit / splits, Loop::kM, Loop::kN);
    const TileOrigin origin(g, tile, results.number() * kRows, kRows);
    auto sums = Loop::sums();
    cute::clear(sums);
    Loop::multiply(shared, place, g.steps(Loop::kDepth) / splits, sums);
    if constexpr (Loop::kN > kHopperStripe) {
      if (splits == 2) results.exchange(sums, split, exchanges);
    }
    D* grad_x = static_cast<D*>(gradient.grad_x);
    const Columns<Loop> columns(tile, split, splits);
    results.for_each_stripe(
        sums, columns.count, columns.channel, g.channels, [&](const Stripe& stripe, int channel) {
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
  __device__ void consume(int unit, Shared& shared, Place& place, const Results& results,
                          unsigned&) const {
    const WeightShare share(g, shares, Loop::kTile, unit);
    auto sums = Loop::sums();
    cute::clear(sums);
    Loop::multiply(shared, place, share.end - share.begin, sums);
    float* to = static_cast<float*>(gradient.sums) + share.filter_offset(g);
    const TileOrigin origin(g.channels, share.first_output + results.number() * kRows,
                            share.first_input, kRows);
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

template <class Loop>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_input_gradient_kernel(Geometry g, const __grid_constant__ PixelsAndFilters maps,
                                 Image image, InputGradient gradient, Units units) {
  wait_for_earlier_launches();
  const InputGradientUnits<Loop> input{g, maps, image, gradient, units.splits};
  for_each_unit<Loop>(
      units.count, [&](int unit, auto&... rest) { input.load(unit, rest...); },
      [&](int unit, auto&... rest) { input.consume(unit, rest...); });
}

template <class Loop>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_weight_gradient_kernel(Geometry g, const __grid_constant__ PixelsOfBoth maps,
                                  WeightGradient gradient,
                                  const __grid_constant__ WeightShares shares, Units units) {
  wait_for_earlier_launches();
  const WeightGradientUnits<Loop> weights{g, maps, gradient, shares};
  for_each_unit<Loop>(
      units.count, [&](int unit, auto&... rest) { weights.load(unit, rest...); },
      [&](int unit, auto&... rest) { weights.consume(unit, rest...); });
}

// (backward 4 and 5) Units of both: those of the weights, up to a whole number of clusters, then
// those of the input. Their tiles have one size, and so one ring serves both.
template <class OfInput, class OfWeights>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_gradients_kernel(Geometry g, const __grid_constant__ PixelsAndFilters input_maps,
                            Image image, InputGradient input_gradient, Units input_units,
                            const __grid_constant__ PixelsOfBoth weight_maps,
                            WeightGradient weight_gradient,
                            const __grid_constant__ WeightShares shares, Units weight_units) {
  wait_for_earlier_launches();
  const InputGradientUnits<OfInput> input{g, input_maps, image, input_gradient, input_units.splits};
  const WeightGradientUnits<OfWeights> weights{g, weight_maps, weight_gradient, shares};
  const int splits = input_units.splits;
  const int first = (weight_units.count + splits - 1) / splits * splits;
  for_each_unit<OfInput>(
      first + input_units.count,
      [&](int unit, auto&... rest) {
        if (unit < weight_units.count) {
          weights.load(unit, rest...);
        } else if (unit >= first) {
          input.load(unit - first, rest...);
        }
      },
      [&](int unit, auto&... rest) {
        if (unit < weight_units.count) {
          weights.consume(unit, rest...);
        } else if (unit >= first) {
          input.consume(unit - first, rest...);
        }
      });
}

}  // namespace sspcab::cuda
