// NCHW to channels_last, and sub-kernels (o, c, tap) to (tap, o, c).
#pragma once

#include "cuda/transpose.cuh"
#include "cuda/weight_tile.cuh"

namespace sspcab::cuda {

constexpr int kPackThreads = kTransposeThreads;
static_assert(kPackThreads == kWeightThreads);

// Casts `count` weights: of a single tap, whose order stays.
template <int V, class D, class P>
__device__ void cast(const P* from, int count, D* to) {
#pragma unroll 2
  for (int i = threadIdx.x * V; i < count; i += kPackThreads * V) {
    const Vector<P, V> weights = load<V>(from + i);
    Vector<D, V> cast;
    for (int j = 0; j < V; ++j) cast[j] = narrow<D>(widen(weights[j]));
    store_global(to + i, cast);
  }
}

template <class D, class P>
__device__ void pack_weights(const Packing& packing, const WeightTiling& tiling, int64_t block,
                             Wide<D> (&shared)[WeightTile<Wide<D>>::kShared]) {
  using W = Wide<D>;
  const WeightTile<W> tile(tiling, block, shared);
  const P* from = static_cast<const P*>(packing.weights[tile.corner]) +
                  tile.first_pair * tiling.taps_per_corner + tile.first_tap;
  D* to = static_cast<D*>(packing.packed_weights) +
          (tile.corner * tiling.taps_per_corner + tile.first_tap) * tiling.matrix + tile.first_pair;
  if (tiling.taps_per_corner == 1) {
    constexpr int V = kVector<D> < kVector<P> ? kVector<D> : kVector<P>;
    return tiling.matrix % V == 0 ? cast<V>(from, tile.pairs, to) : cast<1>(from, tile.pairs, to);
  }
  P weights[kWeightItems];
  tile.for_each_by_tap([&](int item, int pair, int tap) {
    weights[item] = from[pair * tiling.taps_per_corner + tap];
  });
  tile.for_each_by_tap(
      [&](int item, int pair, int tap) { tile.at(pair, tap) = widen(weights[item]); });
  __syncthreads();
  tile.for_each_by_pair([&](int, int pair, int tap) {
    to[tap * tiling.matrix + pair] = narrow<D>(tile.at(pair, tap));
  });
}

// The first blocks have a part of the image each, the others a tile of the weights. A thread copies
// vectors of pixels into shared memory and vectors of channels out of it; see transpose and
// WeightTile.
template <class D, class P, int VP, int VC>
__global__ void __launch_bounds__(kPackThreads, 4)
    pack_kernel(const __grid_constant__ Packing packing, Transposition transposition,
                int64_t image_blocks, WeightTiling tiling) {
  __shared__ union {
    TransposedTile<D> tiles[2];
    Wide<D> weights[WeightTile<Wide<D>>::kShared];
  } shared;
  if (blockIdx.x >= image_blocks) {
    return pack_weights<D, P>(packing, tiling, blockIdx.x - image_blocks, shared.weights);
  }
  const TransposedPart part = transposition.part<D>(blockIdx.x);
  const D* x = static_cast<const D*>(packing.x) + part.n * packing.image.sample_numel();
  D* packed = static_cast<D*>(packing.packed_x) + part.n * packing.image.sample_numel();
  transpose<VP, VC>(
      shared.tiles, part,
      [&](int64_t pixel, int64_t channel) { return load<VP>(x + channel * part.pixels + pixel); },
      [&](int64_t pixel, int64_t channel, const Vector<D, VC>& value) {
        store_global(packed + pixel * part.channels + channel, value);
      });
}

}  // namespace sspcab::cuda
