// Which tiles a convolution gets, and the way to the launchers of its arithmetic.
#include "cuda/convolution/convolution.h"

#include <algorithm>

#include "cuda/convolution/launch.h"
#include "cuda/convolution/obstacles.h"

namespace sspcab::cuda {
namespace {

// What a path has of each configuration.
struct PathTraits {
  // What a tile reads for each product falls with its size. The rates are relative to the large
  // tile's.
  double rate[kConfigs];
  // What a block does before and after its sum, in steps of the pipeline.
  int64_t overhead_steps;
  int depth_bytes;  // of a step
};
// On an A100, shared memory takes 3/4 of the time of its products, but 9/8 of those of a medium
// tile and 3/2 of a small one's; on an H100 as long as they, 5/4 and 7/4.
constexpr PathTraits kPaths[] = {{{1.0, 0.85, 0.65}, 4, kDepthBytes},
                                 {{1.0, 0.8, 0.57}, 3, kHopperDepthBytes}};
const PathTraits& traits_of(Path path) { return kPaths[static_cast<int>(path)]; }

// With fewer channels most of Hopper's boxes and tiles would be zeros.
constexpr int64_t kHopperLeastChannels = 64;

Path path_of(const Convolution& convolution, const Device& device, bool deep) {
  return obstacle_to_sm90(convolution, device, deep) ? Path::Sm80 : Path::Sm90;
}

LaunchPlan plan_of(const Convolution& convolution, const Device& device, Path path, int config,
                   int64_t units, int64_t splits, bool clusters) {
  if (path == Path::Sm90) {
    return {path,
            config,
            kHopperTiles[config],
            units,
            persistent_blocks(units, device.processors, clusters ? splits : 1),
            kHopperThreads,
            kHopperSharedBytes,
            splits,
            device.processors};
  }
  const TileShape tile = tile_shape(convolution.arithmetic, config);
  const int wide_bytes = convolution.arithmetic == Arithmetic::Double ? 8 : 4;
  return {path,   config,           tile, units, units, kThreads, shared_bytes(tile, wide_bytes),
          splits, device.processors};
}

// Up to as many channels the gradient of the weights takes tiles that can share a launch.
constexpr int64_t kSharingChannels = 128;

// Of a processor, for the sake of more splits: more would even the turns out by little, and leave
// more sums to be added up.
constexpr int64_t kMostTurns = 8;

// Takes the tiles and splits whose slowest processor is done first: as many blocks as it gets, one
// after another, times what a block takes. Depends on sizes alone, so that the order of summation,
// and every bit of the results, is the same in every run.
template <class Blocks, class MostSplits, class Allowed>
LaunchPlan choose(const Convolution& convolution, const Device& device, Path path, int64_t steps,
                  bool clusters, const MostSplits& most_splits_of, const Blocks& blocks_of,
                  const Allowed& is_allowed) {
  const PathTraits& traits = traits_of(path);
  steps = std::max<int64_t>(1, steps);  // of nothing there are none, nor blocks
  LaunchPlan best{};
  double least = 0;
  for (int config = 0; config < kConfigs; ++config) {
    if (convolution.config >= 0 && config != convolution.config) continue;
    const TileShape tile =
        path == Path::Sm90 ? kHopperTiles[config] : tile_shape(convolution.arithmetic, config);
    const int64_t blocks = blocks_of(tile), most_splits = most_splits_of(tile);
    for (int64_t turns = divide_up(blocks, device.processors);; ++turns) {
      // As many splits as these turns have room for, or fewer that leave a block as few steps.
      const int64_t room = std::clamp<int64_t>(
          turns * device.processors / std::max<int64_t>(1, blocks), 1, most_splits);
      const int64_t splits = divide_up(steps, divide_up(steps, room));
      const LaunchPlan plan =
          plan_of(convolution, device, path, config, blocks * splits, splits, clusters);
      if (!is_allowed(plan)) break;
      const double time = static_cast<double>(divide_up(plan.units, device.processors)) *
                          (divide_up(steps, splits) + traits.overhead_steps) * tile.m * tile.n /
                          traits.rate[config];
      if (best.blocks == 0 || time < least) {
        least = time;
        best = plan;
      }
      if (room == most_splits || turns >= kMostTurns) break;
    }
  }
  return best;
}

LaunchPlan plan_pixels(const Convolution& convolution, const Device& device) {
  const Image& image = convolution.image;
  const Path path = path_of(convolution, device, /*deep=*/true);
  const int depth = traits_of(path).depth_bytes / element_bytes(convolution.arithmetic);
  const int64_t steps = convolution.sub_kernels.taps() * divide_up(image.channels, depth);
  return choose(
      convolution, device, path, steps, /*clusters=*/true,
      // The blocks of a cluster bring whole stripes away.
      [&](TileShape tile) { return path == Path::Sm90 && tile.n > kHopperStripe ? 2 : 1; },
      [&](TileShape tile) {
        return divide_up(image.samples * image.pixels(), tile.m) *
               divide_up(image.channels, tile.n);
      },
      [](const LaunchPlan&) { return true; });
}

}  // namespace

const char* obstacle_to_tiles(const Convolution& convolution, const Device& device) {
  const Image& image = convolution.image;
  const SubKernels& sub_kernels = convolution.sub_kernels;
  if (device.capability < 80) {
    return "the code that is loaded is for compute capability 7.5; the others need 8.0's "
           "asynchronous copies";
  }
  if (image.channels % (16 / element_bytes(convolution.arithmetic)) != 0) {
    return "its channels don't fill pieces of 16 bytes";
  }
  constexpr int64_t most = 1 << 30;  // coordinates are 32-bit in the kernels, offsets 64-bit
  if (image.pixels() >= most || sub_kernels.dilation >= most ||
      sub_kernels.reach() >= most / std::max<int64_t>(1, image.width) ||
      image.channels * sub_kernels.taps() >= most) {
    return "the image or the distances are too large for 32-bit coordinates";
  }
  return nullptr;
}

bool is_tiled(const Convolution& convolution, const Device& device) {
  return !obstacle_to_tiles(convolution, device);
}

const char* obstacle_to_sm90([[maybe_unused]] const Convolution& convolution,
                             [[maybe_unused]] const Device& device, [[maybe_unused]] bool deep) {
#ifdef SSPCAB_WITH_SM90A
  const Image& image = convolution.image;
  if (!device.runs_sm90) return "no code with Hopper's own instructions is loaded";
  switch (convolution.arithmetic) {
    case Arithmetic::Half:
    case Arithmetic::BFloat16: break;
    case Arithmetic::Tf32:
      if (!deep) return "wgmma takes deep operands alone in TF32";
      break;
    default: return "wgmma multiplies half precision and TF32 alone";
  }
  if (image.channels < kHopperLeastChannels) {
    return "fewer than 64 channels would leave most of its tiles empty";
  }
  if (convolution.sub_kernels.reach() > kMostReach) {
    return "its tensor copies reach no farther than 127 pixels";
  }
  if (image.samples * image.pixels() > INT32_MAX) return "there are more than 2^31 pixels";
  return nullptr;
#else
  return "this build has no kernels for 9.0a";
#endif
}

// Of 9.0's code, 9.0a's alone has the instructions; but a device may be made to compile PTX, of
// which there may be 9.0's alone.
bool runs_sm90([[maybe_unused]] int capability) {
#ifdef SSPCAB_WITH_SM90A
  return capability == 90 && sm90_is_loaded<Arithmetic::Half>();
#else
  return false;
#endif
}

LaunchPlan plan_forward(const Convolution& convolution, const Device& device) {
  return plan_pixels(convolution, device);
}

LaunchPlan plan_input_gradient(const Convolution& convolution, const Device& device) {
  return plan_pixels(convolution, device);
}

LaunchPlan plan_weight_gradient(const Convolution& convolution, const Device& device, int corners) {
  const Image& image = convolution.image;
  const Path path = path_of(convolution, device, /*deep=*/false);
  const int depth = traits_of(path).depth_bytes / element_bytes(convolution.arithmetic);
  const int64_t steps = divide_up(image.samples * image.pixels(), depth);
  // With few channels a launch costs more than a better tile gains.
  const LaunchPlan input = plan_input_gradient(convolution, device);
  const bool shares = image.channels <= kSharingChannels && input.path == path;
  return choose(
      convolution, device, path, steps, /*clusters=*/false,
      [&](TileShape) { return std::max<int64_t>(1, steps / 4); },
      [&](TileShape tile) {
        return divide_up(image.channels, tile.m) * divide_up(image.channels, tile.n) * corners *
               convolution.sub_kernels.taps_per_corner();
      },
      [&](const LaunchPlan& plan) { return !shares || share_a_launch(input, plan); });
}

namespace {

Launchers launchers_of(Path path, Arithmetic arithmetic) {
#ifdef SSPCAB_WITH_SM90A
  if (path == Path::Sm90) {
    switch (arithmetic) {
      case Arithmetic::Half: return sm90_launchers<Arithmetic::Half>();
      case Arithmetic::BFloat16: return sm90_launchers<Arithmetic::BFloat16>();
      default: return sm90_launchers<Arithmetic::Tf32>();
    }
  }
#endif
  switch (arithmetic) {
    case Arithmetic::Half: return sm80_launchers<Arithmetic::Half>();
    case Arithmetic::BFloat16: return sm80_launchers<Arithmetic::BFloat16>();
    case Arithmetic::Tf32: return sm80_launchers<Arithmetic::Tf32>();
    case Arithmetic::Float: return sm80_launchers<Arithmetic::Float>();
    default: return sm80_launchers<Arithmetic::Double>();
  }
}

}  // namespace

void convolve(const Convolution& convolution, const Forward& forward, const LaunchPlan& plan,
              cudaStream_t stream) {
  launchers_of(plan.path, convolution.arithmetic).forward(convolution, forward, plan, stream);
}
void convolve_input_gradient(const Convolution& convolution, const InputGradient& gradient,
                             const LaunchPlan& plan, cudaStream_t stream) {
  launchers_of(plan.path, convolution.arithmetic)
      .input_gradient(convolution, gradient, plan, stream);
}
void convolve_weight_gradient(const Convolution& convolution, const WeightGradient& gradient,
                              const LaunchPlan& plan, cudaStream_t stream) {
  launchers_of(plan.path, convolution.arithmetic)
      .weight_gradient(convolution, gradient, plan, stream);
}
void convolve_gradients(const Convolution& convolution, const InputGradient& input,
                        const LaunchPlan& input_plan, const WeightGradient& weights,
                        const LaunchPlan& weight_plan, cudaStream_t stream) {
  launchers_of(input_plan.path, convolution.arithmetic)
      .gradients(convolution, input, input_plan, weights, weight_plan, stream);
}

}  // namespace sspcab::cuda
