// Where the four sub-kernels lie in the receptive field. Plain data for host and device; the only
// file that knows it.
#pragma once

#include <cstdint>

namespace sspcab {

// A tap is one weight position (corner, i, j), numbered corner-major. Corners are numbered as in
// the authors' code: 0 top-left, 1 bottom-left, 2 top-right, 3 bottom-right.
struct SubKernels {
  int64_t kernel_dim;  // k'
  int64_t dilation;    // d

  constexpr int64_t taps_per_corner() const { return kernel_dim * kernel_dim; }
  constexpr int64_t taps() const { return 4 * taps_per_corner(); }
  // The farthest row or column that an output reads, which is also the zero padding.
  constexpr int64_t reach() const { return kernel_dim + dilation; }

  // Offset of a tap from the masked centre; gradients of the input read the mirrored offset.
  constexpr int64_t row(int64_t tap) const {
    return along(corner(tap) & 1, tap % taps_per_corner() / kernel_dim);
  }
  constexpr int64_t column(int64_t tap) const {
    return along(corner(tap) >> 1, tap % kernel_dim);
  }
  constexpr int64_t corner(int64_t tap) const { return tap / taps_per_corner(); }

 private:
  constexpr int64_t along(int64_t far_side, int64_t step) const {
    return (far_side ? dilation + 1 : -reach()) + step;
  }
};

}  // namespace sspcab
