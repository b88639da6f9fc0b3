// Weights change places between (o, c, tap), as parameters have them, and (tap, o, c), as the
// convolutions do: (C², k'²) matrices and their transposes, through shared memory.
#pragma once

#include "cuda/element.cuh"

namespace sspcab::cuda {

constexpr int kWeightThreads = 256;
constexpr int kWeightItems = 8;  // of a thread
constexpr int kWeightTile = kWeightThreads * kWeightItems;
constexpr int kMostTaps = 32;

// A tile has `pairs` rows, pairs (o, c), of `taps` taps of one corner. A single tap needs no
// change of places: its tiles are mere lists.
struct WeightTiling {
  int64_t matrix, taps_per_corner;  // C²; k'²
  int taps, pairs;
  int64_t tap_tiles, pair_tiles;

  static WeightTiling of(int64_t channels, int64_t taps_per_corner) {
    WeightTiling t{};
    t.matrix = channels * channels;
    t.taps_per_corner = taps_per_corner;
    t.taps = static_cast<int>(taps_per_corner < kMostTaps ? taps_per_corner : kMostTaps);
    t.pairs = kWeightTile / t.taps / 32 * 32;
    t.tap_tiles = divide_up(taps_per_corner, t.taps);
    t.pair_tiles = divide_up(t.matrix, t.pairs);
    return t;
  }
  int64_t blocks() const { return 4 * tap_tiles * pair_tiles; }
};

// The tile of one block. Rows in shared memory have an odd length, so that a column meets all
// banks.
template <class W>
class WeightTile {
 public:
  // At most: rows of one more than the taps, 32 or a few of them.
  static constexpr int kShared = kWeightTile + kWeightTile / 4;

  __device__ WeightTile(const WeightTiling& tiling, int64_t block, W (&shared)[kShared])
      : shared_(shared), stride_(tiling.taps | 1) {
    const int64_t corner_tap_tile = block / tiling.pair_tiles;
    corner = static_cast<int>(corner_tap_tile / tiling.tap_tiles);
    first_tap = (corner_tap_tile - corner * tiling.tap_tiles) * tiling.taps;
    first_pair = (block - corner_tap_tile * tiling.pair_tiles) * tiling.pairs;
    taps = static_cast<int>(smaller(tiling.taps, tiling.taps_per_corner - first_tap));
    pairs = static_cast<int>(smaller(tiling.pairs, tiling.matrix - first_pair));
  }

  __device__ W& at(int pair, int tap) const { return shared_[pair * stride_ + tap]; }

  // body(item, pair, tap) for a thread's items: neighbouring threads have neighbouring taps,
  template <class Body>
  __device__ void for_each_by_tap(Body&& body) const {
    for_each(pairs, taps, body);
  }
  // or neighbouring pairs.
  template <class Body>
  __device__ void for_each_by_pair(Body&& body) const {
    for_each(taps, pairs, [&](int item, int tap, int pair) { body(item, pair, tap); });
  }

  int corner, taps, pairs;
  int64_t first_tap, first_pair;

 private:
  __device__ static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

  template <class Body>
  __device__ static void for_each(int rows, int columns, Body&& body) {
    const int row_step = kWeightThreads / columns, column_step = kWeightThreads % columns;
    int row = threadIdx.x / columns, column = threadIdx.x % columns;
#pragma unroll
    for (int item = 0; item < kWeightItems; ++item) {
      if (row < rows) body(item, row, column);
      row += row_step, column += column_step;
      if (column >= columns) column -= columns, ++row;
    }
  }

  W* shared_;
  int stride_;
};

}  // namespace sspcab::cuda
