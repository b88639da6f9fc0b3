// Winograd's minimal filtering F(2 × 2, 2 × 2) for the four corners, with fewer products than taps.
//
// Tap (i, j) of the four corners, taken together, is a 2 × 2 filter whose rows and columns lie
// `apart` from each other. Two outputs of a column, as far apart, read three inputs d of it, the
// middle one twice, and need three products instead of four:
//
//   y0 = d0 g0 + d1 g1 = (d0 - d1) g0 + d1 (g0 + g1)
//   y1 = d1 g0 + d2 g1 =                d1 (g0 + g1) - (d1 - d2) g1
//
// With columns and rows alike, a tile of 2 × 2 outputs takes 9 products for each channel and tap
// where the formula has 16. An output still depends on nothing but its own inputs.
#pragma once

#include <algorithm>

#include "cpu/geometry/image.h"
#include "geometry.h"

namespace sspcab::cpu {

// The components are numbered 3 · row + column; rows and columns 0 and 2 have
// the filters of the corners themselves.
constexpr int64_t kComponents = 9;
constexpr int64_t component_of(int64_t corner, bool mirrored) {
  const int64_t place = mirrored ? SubKernels::opposite(corner) : corner;
  return SubKernels::is_below(place) * 6 + SubKernels::is_right(place) * 2;
}

// The outputs of one axis in pairs; what would lie beyond the image is computed for nothing.
struct Pairs {
  int64_t size, apart;

  int64_t count() const { return size / (2 * apart) * apart + std::min(size % (2 * apart), apart); }
  // The first output of a pair; the second lies `apart` further.
  int64_t first(int64_t pair) const { return pair / apart * 2 * apart + pair % apart; }
};

// Tiles that are worked off together: pairs of rows × pairs of columns, which begin at a multiple
// of `apart`.
struct Tiles {
  Rows rows, columns;

  int64_t count() const { return rows.count() * columns.count(); }
};

class Winograd {
 public:
  Winograd(const Sample& s, SubKernels sub_kernels)
      : sub_kernels_(sub_kernels),
        rows_{s.height, sub_kernels.apart()},
        columns_{s.width, sub_kernels.apart()},
        blocks_of_part_(
            std::max<int64_t>(1, kProductsOfPart / (kBlock * sub_kernels.taps_per_corner()))),
        parts_(divide_up(s.blocks(), blocks_of_part_)) {}

  const Pairs& rows() const { return rows_; }
  const Pairs& columns() const { return columns_; }
  int64_t apart() const { return rows_.apart; }

  int64_t rows_of_chunk() const { return largest_chunk().rows.count(); }
  // body(tiles) for chunks of the pairs of rows given.
  template <class Body>
  void for_each_chunk(Rows rows, const Body& body) const {
    const Tiles all = largest_chunk();
    for (int64_t row = rows.first; row < rows.last; row += all.rows.last) {
      for (int64_t column = 0; column < columns_.count(); column += all.columns.last) {
        body(Tiles{{row, std::min(row + all.rows.last, rows.last)},
                   {column, std::min(column + all.columns.last, columns_.count())}});
      }
    }
  }

  int64_t taps_per_corner() const { return sub_kernels_.taps_per_corner(); }
  // Transformed inputs lie in parts of a few blocks of channels, [component][part][tile][block][tap
  // of a corner][16 channels]: what products are added up from in one go stays together, in the
  // order of the panels.
  int64_t blocks_of_part() const { return blocks_of_part_; }
  int64_t parts() const { return parts_; }
  // Padded, like what is from a component to the next: else tiles and components meet in the same
  // places of the cache.
  int64_t tile_stride() const { return (blocks_of_part() * taps_per_corner() + 1) * kBlock; }
  int64_t input_stride(int64_t tiles) const { return parts() * tiles * tile_stride() + kBlock; }
  int64_t product_stride(int64_t tiles, int64_t width) const { return tiles * width + kBlock; }
  // Outputs of a chunk's row of pairs.
  int64_t row_outputs(const Tiles& tiles) const {
    return divide_up(tiles.columns.count(), apart()) * 2 * apart();
  }

  // What a convolution keeps of a chunk, in elements: outputs of a pair of rows, inputs, and
  // products, of tiles of `tile` output channels.
  int64_t outputs(int64_t tile) const { return (2 * row_outputs(largest_chunk()) + tile) * tile; }
  int64_t inputs() const { return kComponents * input_stride(largest_chunk().count()); }
  int64_t products(int64_t tile) const {
    return kComponents * product_stride(largest_chunk().count(), tile);
  }
  // How many tiles of output channels are multiplied with a part before the next part.
  int64_t tiles_at_once(int64_t element_bytes) const {
    return inputs() * element_bytes > kCachedBytes ? kTilesAtOnce : 1;
  }
  int64_t scratch(int64_t tile, int64_t element_bytes) const {
    return outputs(tile) + inputs() + tiles_at_once(element_bytes) * products(tile);
  }

 private:
  static constexpr int64_t kTilesOfChunk = 64;
  static constexpr int64_t kProductsOfPart = 64;
  static constexpr int64_t kCachedBytes = 384 << 10;
  static constexpr int64_t kTilesAtOnce = 8;

  Tiles largest_chunk() const {
    const int64_t columns = columns_.count();
    if (columns <= kTilesOfChunk) return {{0, kTilesOfChunk / columns}, {0, columns}};
    const int64_t parts = divide_up(columns, kTilesOfChunk);
    return {{0, 1}, {0, divide_up(divide_up(columns, apart()), parts) * apart()}};
  }

  SubKernels sub_kernels_;
  Pairs rows_, columns_;
  int64_t blocks_of_part_, parts_;
};

}  // namespace sspcab::cpu
