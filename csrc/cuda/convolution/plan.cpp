// Which tiles a convolution gets, and the way to the launchers of its arithmetic.
#include "cuda/convolution/convolution.h"

#include <algorithm>

#include "cuda/convolution/launch.h"

namespace sspcab::cuda {
namespace {

int element_bytes(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::Half:
    case Arithmetic::BFloat16: return 2;
    case Arithmetic::Double: return 8;
    default: return 4;
  }
}

// What a tile reads for each product falls with its size. The rates are relative to the large
// tile's: on an A100, shared memory takes 3/4 of the time of its products, but 9/8 of those of a
// medium tile and 3/2 of a small one's.
constexpr double kRate[kConfigs] = {1.0, 0.85, 0.65};
// What a block does before and after its sum, in steps of the pipeline.
constexpr int64_t kOverheadSteps = 4;
// Up to as many channels the gradient of the weights takes tiles that can share a launch.
constexpr int64_t kSharingChannels = 128;

// Takes the tiles and splits whose slowest processor is done first: as many blocks as it gets, one
// after another, times what a block takes. Depends on sizes alone, so that the order of summation,
// and every bit of the results, is the same in every run.
template <class Blocks, class Allowed>
LaunchPlan choose(const Convolution& convolution, const Device& device, int64_t steps,
                  int64_t most_splits, const Blocks& blocks_of, const Allowed& is_allowed) {
  const int wide_bytes = convolution.arithmetic == Arithmetic::Double ? 8 : 4;
  LaunchPlan best{};
  double least = 0;
  for (int config = 0; config < kConfigs; ++config) {
    if (convolution.config >= 0 && config != convolution.config) continue;
    const TileShape tile = tile_shape(convolution.arithmetic, config);
    const int64_t blocks = blocks_of(tile);
    for (int64_t splits = 1; splits <= most_splits; ++splits) {
      const double turns = static_cast<double>(divide_up(blocks * splits, device.processors));
      const double time =
          turns * (divide_up(steps, splits) + kOverheadSteps) * tile.m * tile.n / kRate[config];
      if (best.blocks > 0 && time >= least) continue;
      const LaunchPlan plan{config, tile, blocks * splits, kThreads, shared_bytes(tile, wide_bytes),
                            splits};
      if (!is_allowed(plan)) break;
      least = time;
      best = plan;
      if (blocks * splits >= 4 * device.processors) break;
    }
  }
  return best;
}

int64_t depth(const Convolution& convolution) {
  return kDepthBytes / element_bytes(convolution.arithmetic);
}

LaunchPlan plan_pixels(const Convolution& convolution, const Device& device) {
  const Image& image = convolution.image;
  const int64_t steps =
      convolution.sub_kernels.taps() * divide_up(image.channels, depth(convolution));
  return choose(
      convolution, device, steps, 1,
      [&](TileShape tile) {
        return divide_up(image.samples * image.pixels(), tile.m) *
               divide_up(image.channels, tile.n);
      },
      [](const LaunchPlan&) { return true; });
}

}  // namespace

bool is_tiled(const Convolution& convolution, const Device& device) {
  const Image& image = convolution.image;
  constexpr int64_t most = 1 << 30;  // coordinates are 32-bit in the kernels, offsets 64-bit
  return device.capability >= 80 &&
         image.channels % (16 / element_bytes(convolution.arithmetic)) == 0 &&
         image.pixels() < most && convolution.sub_kernels.dilation < most &&
         convolution.sub_kernels.reach() < most / std::max<int64_t>(1, image.width) &&
         image.channels * convolution.sub_kernels.taps() < most;
}

LaunchPlan plan_forward(const Convolution& convolution, const Device& device) {
  return plan_pixels(convolution, device);
}

LaunchPlan plan_input_gradient(const Convolution& convolution, const Device& device) {
  return plan_pixels(convolution, device);
}

LaunchPlan plan_weight_gradient(const Convolution& convolution, const Device& device, int corners) {
  const Image& image = convolution.image;
  const int64_t steps = divide_up(image.samples * image.pixels(), depth(convolution));
  // With few channels a launch costs more than a better tile gains.
  const bool shares = image.channels <= kSharingChannels;
  const LaunchPlan input = plan_input_gradient(convolution, device);
  return choose(
      convolution, device, steps, std::max<int64_t>(1, steps / 4),
      [&](TileShape tile) {
        return divide_up(image.channels, tile.m) * divide_up(image.channels, tile.n) * corners *
               convolution.sub_kernels.taps_per_corner();
      },
      [&](const LaunchPlan& plan) { return !shares || share_a_launch(input, plan); });
}

namespace {

// body(Launcher<arithmetic>{}).
template <class Body>
void with_launcher(Arithmetic arithmetic, const Body& body) {
  switch (arithmetic) {
    case Arithmetic::Half: return body(Launcher<Arithmetic::Half>{});
    case Arithmetic::BFloat16: return body(Launcher<Arithmetic::BFloat16>{});
    case Arithmetic::Tf32: return body(Launcher<Arithmetic::Tf32>{});
    case Arithmetic::Float: return body(Launcher<Arithmetic::Float>{});
    case Arithmetic::Double: return body(Launcher<Arithmetic::Double>{});
  }
}

}  // namespace

void convolve(const Convolution& convolution, const Forward& forward, const LaunchPlan& plan,
              cudaStream_t stream) {
  with_launcher(convolution.arithmetic,
                [&](auto launcher) { launcher.forward(convolution, forward, plan, stream); });
}
void convolve_input_gradient(const Convolution& convolution, const InputGradient& gradient,
                             const LaunchPlan& plan, cudaStream_t stream) {
  with_launcher(convolution.arithmetic, [&](auto launcher) {
    launcher.input_gradient(convolution, gradient, plan, stream);
  });
}
void convolve_weight_gradient(const Convolution& convolution, const WeightGradient& gradient,
                              const LaunchPlan& plan, cudaStream_t stream) {
  with_launcher(convolution.arithmetic, [&](auto launcher) {
    launcher.weight_gradient(convolution, gradient, plan, stream);
  });
}

void convolve_gradients(const Convolution& convolution, const InputGradient& input,
                        const LaunchPlan& input_plan, const WeightGradient& weights,
                        const LaunchPlan& weight_plan, cudaStream_t stream) {
  with_launcher(convolution.arithmetic, [&](auto launcher) {
    launcher.gradients(convolution, input, input_plan, weights, weight_plan, stream);
  });
}

}  // namespace sspcab::cuda
