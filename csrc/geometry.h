// Where the four sub-kernels lie in the receptive field. Plain data for host and device; the only
// file that knows it.
#pragma once

#include <cstdint>

namespace sspcab {

// A tap is one weight position (corner, i, j); taps are numbered in that order. Corners are
// numbered as in the authors' code: 0 top-left, 1 bottom-left, 2 top-right, 3 bottom-right.
struct SubKernels {
  int64_t kernel_dim;  // k'
  int64_t dilation;    // d

  constexpr int64_t taps_per_corner() const { return kernel_dim * kernel_dim; }
  constexpr int64_t taps() const { return 4 * taps_per_corner(); }
  // The farthest row or column that an output reads, which is also the zero padding.
  constexpr int64_t reach() const { return kernel_dim + dilation; }
  // From a tap of one corner to the same of the next, in rows or columns.
  constexpr int64_t apart() const { return along(1, 0) - along(0, 0); }

  // Offsets of row i and column j of a sub-kernel from the masked centre; gradients of the input
  // read the mirrored offsets.
  constexpr int64_t row(int64_t corner, int64_t i) const { return along(is_below(corner), i); }
  constexpr int64_t column(int64_t corner, int64_t j) const { return along(is_right(corner), j); }

  static constexpr bool is_below(int64_t corner) { return corner & 1; }
  static constexpr bool is_right(int64_t corner) { return corner >> 1; }
  // Where the mirrored offsets lead.
  static constexpr int64_t opposite(int64_t corner) { return corner ^ 3; }
  // Two corners that have every row and every column between them.
  static constexpr int64_t kDiagonal[] = {0, 3};

 private:
  constexpr int64_t along(bool far_side, int64_t step) const {
    return (far_side ? dilation + 1 : -reach()) + step;
  }
};

}  // namespace sspcab
