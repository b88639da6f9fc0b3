// The geometry of a convolution, in the 32-bit coordinates of the kernels: taps, how far they are
// from a pixel, and whether a pixel has a neighbour so far.
#pragma once

#include "cuda/convolution/convolution.h"
#include "geometry.h"

namespace sspcab::cuda {

// What is multiplied. Operands of a gradient of filters are wide, all others deep.
enum class Product { Forward, InputGradient, WeightGradient };

// Images of a convolution are channels_last, (N, H, W, C).
struct Geometry {
  int64_t pixels;  // N · H · W
  int height, width, channels;
  SubKernels sub_kernels;

  // Of the main loop, for the convolution of an image with filters.
  __host__ __device__ int steps(unsigned depth) const {
    return static_cast<int>(sub_kernels.taps()) * ((channels + depth - 1) / depth);
  }
  __device__ unsigned sample_pixels() const { return static_cast<unsigned>(height) * width; }
  template <class D>
  __device__ int pixel_bytes() const {
    return channels * static_cast<int>(sizeof(D));
  }
};

inline Geometry geometry_of(const Convolution& convolution) {
  const Image& image = convolution.image;
  return {image.samples * image.pixels(), static_cast<int>(image.height),
          static_cast<int>(image.width), static_cast<int>(image.channels), convolution.sub_kernels};
}

// A position in the corners, in the order of SubKernels.
struct Tap {
  int corner = 0, i = 0, j = 0;

  __device__ void move_on(const SubKernels& sub_kernels) {
    const int kernel_dim = static_cast<int>(sub_kernels.kernel_dim);
    const bool is_last = ++j == kernel_dim;  // without branches, which would move every register
    i += is_last;
    j = is_last ? 0 : j;
    corner += i == kernel_dim;
    i = i == kernel_dim ? 0 : i;
  }
};

// How far a tap (times `sign`) is from a pixel: whole rows, in pixels, and columns.
struct Shift {
  int pixels, columns;

  __device__ Shift(const Geometry& g, const Tap& tap, int sign)
      : pixels(sign * static_cast<int>(g.sub_kernels.row(tap.corner, tap.i)) * g.width),
        columns(sign * static_cast<int>(g.sub_kernels.column(tap.corner, tap.j))) {}
  template <class D>
  __device__ int64_t bytes(const Geometry& g) const {
    return static_cast<int64_t>(pixels + columns) * g.pixel_bytes<D>();
  }
};

// A pixel's number in its sample and its column, and those of the pixels after it, without
// divisions.
struct Place {
  unsigned pixel, column;

  Place() = default;
  __device__ Place(const Geometry& g, unsigned pixels)
      : pixel(pixels % g.sample_pixels()), column(pixels % g.width) {}
  // by = Place(g, how many pixels to move on).
  __device__ void move(const Geometry& g, const Place& by) {
    pixel = around(pixel + by.pixel, g.sample_pixels());
    column = around(column + by.column, g.width);
  }
  __device__ bool has(const Geometry& g, const Shift& shift) const {
    return (pixel + shift.pixels < g.sample_pixels()) & (column + shift.columns < g.width);
  }

 private:
  // n % period, for n < 2 · period ≤ 2³¹: n - period, but where that wraps and is huge.
  static __device__ unsigned around(unsigned n, unsigned period) { return min(n, n - period); }
};

}  // namespace sspcab::cuda
