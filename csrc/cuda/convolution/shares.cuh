// How the blocks of a gradient of filters share it: by tiles of channels, taps, and splits of the
// pixels.
#pragma once

#include "cuda/convolution/convolution.h"
#include "cuda/convolution/taps.cuh"

namespace sspcab::cuda {

// The steps of each split, of which the first `left` have one more; and the corners that are
// needed.
struct WeightShares {
  int64_t of_each, left;
  int corners, corner[4];
};

inline WeightShares shares_of(const Convolution& convolution, const WeightGradient& gradient,
                              const LaunchPlan& plan, int depth) {
  const Image& image = convolution.image;
  const int64_t steps = divide_up(image.samples * image.pixels(), depth);
  WeightShares shares{steps / plan.splits, steps % plan.splits, 0, {}};
  for (int i = 0; i < 4; ++i) {
    if (gradient.needs[i]) shares.corner[shares.corners++] = i;
  }
  return shares;
}

// What one block sums up, and where the sums go.
struct WeightShare {
  int first_output, first_input, split;
  Tap tap;
  int64_t begin, end;  // steps

  // Blocks: input channels fastest, then output channels, taps of the needed corners, splits.
  __device__ WeightShare(const Geometry& g, const WeightShares& shares, TileShape tile, int block) {
    const int tiles_n = static_cast<int>(divide_up(g.channels, tile.n));
    const int tiles_m = static_cast<int>(divide_up(g.channels, tile.m));
    int rest = block;
    first_input = rest % tiles_n * tile.n;
    rest /= tiles_n;
    first_output = rest % tiles_m * tile.m;
    rest /= tiles_m;
    const int per_corner = static_cast<int>(g.sub_kernels.taps_per_corner());
    const int of_corner = rest % per_corner, k = static_cast<int>(g.sub_kernels.kernel_dim);
    rest /= per_corner;
    split = rest / shares.corners;
    const int corner = shares.corner[rest - split * shares.corners];
    tap = {corner, of_corner / k, of_corner % k};
    begin = split * shares.of_each + min(static_cast<int64_t>(split), shares.left);
    end = begin + shares.of_each + (split < shares.left);
  }
  // Of its filter in the sums, W (splits, 4 k'², C, C).
  __device__ int64_t filter_offset(const Geometry& g) const {
    const int64_t per_corner = g.sub_kernels.taps_per_corner();
    const int64_t of_corner = tap.i * g.sub_kernels.kernel_dim + tap.j;
    return ((static_cast<int64_t>(split) * 4 + tap.corner) * per_corner + of_corner) * g.channels *
           g.channels;
  }
};

}  // namespace sspcab::cuda
