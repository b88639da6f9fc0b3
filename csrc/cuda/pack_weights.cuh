// Sub-kernels (o, c, tap) to (tap, o, c), in the type of images: blocks of pack, or of
// gate_gradient.
#pragma once

#include "cuda/weight_tile.cuh"

namespace sspcab::cuda {

// Casts `count` weights: of a single tap, whose order stays.
template <int V, class D, class P>
__device__ void cast(const P* from, int count, D* to) {
#pragma unroll 2
  for (int i = threadIdx.x * V; i < count; i += kWeightThreads * V) {
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

// As many blocks as tiling says, each with a tile.
template <class D>
__device__ void pack_weights(const Packing& packing, const WeightTiling& tiling, int64_t block) {
  __shared__ Wide<D> shared[WeightTile<Wide<D>>::kShared];
  if (packing.parameter_dtype == packing.dtype) {
    pack_weights<D, D>(packing, tiling, block, shared);
  } else if constexpr (sizeof(D) == 2) {
    pack_weights<D, float>(packing, tiling, block, shared);
  }
}

}  // namespace sspcab::cuda
