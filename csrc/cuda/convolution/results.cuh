// What the kernels of all architectures do with sums: where a tile of them lies, what they begin
// with, and the gradient of the loss that is subtracted from them.
#pragma once

#include "cuda/convolution/convolution.h"
#include "cuda/convolution/taps.cuh"
#include "cuda/element.cuh"

namespace sspcab::cuda {

// Where a tile lies: its first pixel and channel, its pixels inside the image, and the sample of
// each of them.
struct TileOrigin {
  int64_t pixel, sample = 0;
  int channel, pixels;
  unsigned within_sample = 0, pixels_of_sample;

  // In a matrix, whose rows count as pixels of one sample.
  __device__ TileOrigin(int rows, int row, int column, int m)
      : pixel(row), channel(column), pixels(min(rows - row, m)), pixels_of_sample(rows) {}
  // Blocks that share pixels are neighbours.
  __device__ TileOrigin(const Geometry& g, unsigned block, int m, unsigned n) {
    const int tiles_n = (g.channels + n - 1) / n;
    const int tile = block / tiles_n;
    pixel = static_cast<int64_t>(tile) * m;
    channel = static_cast<int>(block - tile * tiles_n) * n;
    place(g, m);
  }
  // The m pixels that begin `by` pixels on.
  __device__ TileOrigin(const Geometry& g, const TileOrigin& of, int by, int m) : TileOrigin(of) {
    pixel += by;
    place(g, m);
  }
  __device__ int64_t sample_of(int pixel_of_tile) const {
    return sample + (within_sample + pixel_of_tile) / pixels_of_sample;
  }
  __device__ bool is_in_one_sample(int m) const {
    return pixels == m && within_sample + m <= pixels_of_sample;
  }
  // The pixel of the tile (or beyond it) with which a sample ends.
  __device__ int end_of(int64_t sample_of_tile) const {
    return static_cast<int>((sample_of_tile - sample + 1) * pixels_of_sample - within_sample);
  }

 private:
  __device__ void place(const Geometry& g, int m) {
    pixels_of_sample = g.sample_pixels();
    sample = pixel / pixels_of_sample;
    within_sample = static_cast<unsigned>(pixel - sample * pixels_of_sample);
    const int64_t left = g.pixels - pixel;
    pixels = static_cast<int>(left < m ? left : m);
  }
};

// Of some neighbours in a tile. The constant part of their offset is a part of the type.
template <int constant>
struct PiecePlace {
  static constexpr int kConstant = constant;
  int64_t offset;      // in the image, + kConstant
  int pixel, channel;  // of the tile; of the image
  int group;           // of a thread's channels
  bool same_sample;    // as the last piece of this group
};

template <class P>
__device__ Wide<P> sum_biases(const void* const (&bias)[4], int channel) {
  Wide<P> sum = widen(static_cast<const P*>(bias[0])[channel]);
  for (int i = 1; i < 4; ++i) sum += widen(static_cast<const P*>(bias[i])[channel]);
  return sum;
}
// The start of a channel's sums, for images of D.
template <class D>
__device__ Wide<D> start_of(const Forward& forward, const Geometry& g, int channel) {
  if (channel >= g.channels) return 0;
  return forward.parameter_dtype == Dtype::Float ? sum_biases<float>(forward.bias, channel)
                                                 : sum_biases<D>(forward.bias, channel);
}

// A piece of sums plus what earlier groups of samples have left of them.
template <class W, int count>
__device__ Vector<W, count> added(Vector<W, count> piece, const W* left) {
  const auto earlier = load_wide<count>(left);
  for (int i = 0; i < count; ++i) piece[i] += earlier[i];
  return piece;
}

// The direct gradient of the loss, grad_loss · 2 / loss_numel · (y · gate - x), for a thread that
// has the same `groups` of neighbouring channels in ascending pixels.
template <class D, int neighbours, int groups>
class DirectGradient {
 public:
  using W = Wide<D>;

  __device__ DirectGradient(const OutputGradient& gradient, const Image& image,
                            const TileOrigin& origin)
      : image_(image),
        origin_(origin),
        y_(static_cast<const D*>(gradient.y)),
        x_(static_cast<const D*>(gradient.x)),
        gate_(static_cast<const W*>(gradient.gate)),
        factor_(*static_cast<const W*>(gradient.grad_loss) * 2 /
                static_cast<W>(gradient.loss_numel)) {}

  template <class Place, int count>
  __device__ Vector<W, count> subtracted_from(const Vector<W, count>& piece, const Place& at) {
    const auto y_piece = widened(load<count>(y_ + at.offset + at.kConstant));
    const auto x_piece = widened(load<count>(x_ + at.offset + at.kConstant));
    auto& of_group = gates_[at.group];
    if (!at.same_sample && at.pixel >= known_[at.group]) {
      const int64_t sample = origin_.sample_of(at.pixel);
      const W* of_sample = gate_ + sample * image_.channels + at.channel;
      if (image_.channels_last) {
        known_[at.group] = origin_.end_of(sample);
        of_group = load_wide<neighbours>(of_sample);
      } else {
        of_group = repeated<neighbours>(*of_sample);
      }
      for (int i = 0; i < neighbours; ++i) of_group[i] *= -factor_;
    }
    Vector<W, count> sum;
    for (int i = 0; i < count; ++i) {
      const W direct = fma(x_piece[i], factor_, piece[i]);
      sum[i] = fma(y_piece[i], of_group[i % neighbours], direct);
    }
    return sum;
  }

 private:
  const Image& image_;
  const TileOrigin& origin_;
  const D *y_, *x_;
  const W* gate_;
  const W factor_;
  int known_[groups] = {};  // pixels up to here have these:
  Vector<W, neighbours> gates_[groups];
};

}  // namespace sspcab::cuda
