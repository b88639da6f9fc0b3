// Sub-kernels (o, c, tap) to (tap, o, c) or (tap, c, o), in the type of images: blocks of pack, or
// of gate_gradient.
#pragma once

#include "cuda/passes/weight_tile.cuh"

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

// For (tap, c, o), a sub-kernel is a matrix of C rows, o, and C · k'² columns, (c, tap), of which a
// block transposes a tile.
struct WeightTransposition {
  static constexpr int kRows = 32, kColumns = kWeightTile / kRows;
  int64_t channels, taps_per_corner;

  SSPCAB_HOST_DEVICE int64_t row_tiles() const { return divide_up(channels, kRows); }
  SSPCAB_HOST_DEVICE int64_t tiles() const {
    return row_tiles() * divide_up(channels * taps_per_corner, kColumns);
  }
  int64_t blocks() const { return 4 * tiles(); }
};

template <class D, class P>
__device__ void transpose_weights(const Packing& packing, int64_t block,
                                  Wide<D> (&shared)[WeightTile<Wide<D>>::kShared]) {
  using Tiles = WeightTransposition;
  constexpr int pitch = Tiles::kRows + 1;  // odd: a column meets all banks
  static_assert(Tiles::kColumns * pitch <= WeightTile<Wide<D>>::kShared);
  const int64_t channels = packing.image.channels, taps = packing.taps_per_corner;
  const Tiles tiles{channels, taps};
  const int64_t corner = block / tiles.tiles(), tile = block - corner * tiles.tiles();
  const int64_t column_tile = tile / tiles.row_tiles();
  const int64_t first_row = (tile - column_tile * tiles.row_tiles()) * Tiles::kRows;
  const int64_t first_column = column_tile * Tiles::kColumns;
  const P* from = static_cast<const P*>(packing.weights[corner]);
  D* to = static_cast<D*>(packing.packed_weights) + corner * taps * channels * channels;
  {
    const int column = threadIdx.x % Tiles::kColumns;
#pragma unroll
    for (int item = 0; item < kWeightItems; ++item) {
      const int row = (threadIdx.x + item * kWeightThreads) / Tiles::kColumns;
      if (first_row + row < channels && first_column + column < channels * taps) {
        shared[column * pitch + row] =
            widen(from[(first_row + row) * channels * taps + first_column + column]);
      }
    }
  }
  __syncthreads();
  const int row = threadIdx.x % Tiles::kRows;
#pragma unroll
  for (int item = 0; item < kWeightItems; ++item) {
    const int column = (threadIdx.x + item * kWeightThreads) / Tiles::kRows;
    const int64_t channel = (first_column + column) / taps;
    const int64_t tap = first_column + column - channel * taps;
    if (first_row + row < channels && channel < channels) {
      Wide<D> weight = shared[column * pitch + row];
      if constexpr (std::is_same_v<D, float>) {
        if (packing.as_tf32) weight = nearest_tf32(weight);
      }
      to[(tap * channels + channel) * channels + first_row + row] = narrow<D>(weight);
    }
  }
}

// As many blocks as WeightTransposition says, each with a tile.
template <class D>
__device__ void transpose_weights(const Packing& packing, int64_t block) {
  __shared__ Wide<D> shared[WeightTile<Wide<D>>::kShared];
  if (packing.parameter_dtype == packing.dtype) {
    transpose_weights<D, D>(packing, block, shared);
  } else if constexpr (sizeof(D) == 2) {
    transpose_weights<D, float>(packing, block, shared);
  }
}

}  // namespace sspcab::cuda
