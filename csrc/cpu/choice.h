// Which way the convolution and its gradients are computed (Winograd's has none of its own for the
// sub-kernels): the cheapest one by a model of what each takes, in products of one input and one
// output channel for all samples.
#pragma once

#include "cpu/kernels.h"
#include "cpu/windows.h"
#include "cpu/winograd.h"

namespace sspcab::cpu {

// Measured, with AVX2 and AVX-512 alike. For each tap of a sub-kernel: packing and reading its
// panel, and five more of Winograd's. For each tap of a pixel and channel: transforming the image;
// and gathering the windows and scattering what comes of them.
constexpr double kPanelCost = 100, kFilterCost = 192;
constexpr double kImageCost = 9, kWindowCost = 100;
// What taps of pixels near the border take more, directly: few neighbours have the same ones.
constexpr double kBorderCost = 0.3;

// Taps of one axis that lie inside the image.
inline int64_t taps_inside(int64_t size, SubKernels sub_kernels) {
  int64_t count = 0;
  for (int64_t i = 0; i < sub_kernels.kernel_dim && sub_kernels.dilation + 1 + i < size; ++i) {
    count += 2 * (size - (sub_kernels.dilation + 1 + i));
  }
  return count;
}
// Of those pixels alone that have all of them.
inline int64_t taps_of_interior(int64_t size, SubKernels sub_kernels) {
  return 2 * sub_kernels.kernel_dim * std::max<int64_t>(0, size - 2 * sub_kernels.reach());
}

// `lanes`: of a vector.
inline Way choose_way(const Sample& s, SubKernels sub_kernels, int64_t samples, int64_t lanes) {
  if (sub_kernels.dilation >= std::min(s.height, s.width)) return Way::windows;  // empty ones
  const Winograd winograd(s, sub_kernels);
  const double n = static_cast<double>(samples);
  const double per_corner = sub_kernels.taps_per_corner();
  const double inside = n * taps_inside(s.height, sub_kernels) * taps_inside(s.width, sub_kernels);
  const double border =
      inside - n * taps_of_interior(s.height, sub_kernels) * taps_of_interior(s.width, sub_kernels);
  const double pixels = n * Windows(s, sub_kernels).pixels();

  // Channels apart, its results are transposed row by row, in squares.
  const double padding =
      s.channels_last ? 1 : static_cast<double>(divide_up(s.width, lanes) * lanes) / s.width;
  const double panels = kPanelCost * 4 * per_corner;
  const double direct = inside + kBorderCost * border + panels;
  const double filtered =
      n * kComponents * per_corner * winograd.rows().count() * winograd.columns().count() +
      kImageCost * padding * inside / s.channels + panels + kFilterCost * per_corner;
  const double windows = 4 * per_corner * (pixels + lanes / 2 + kWindowCost * pixels / s.channels);
  if (windows < std::min(direct, filtered)) return Way::windows;
  return filtered < direct ? Way::winograd : Way::direct;
}

}  // namespace sspcab::cpu
