// The formulas of the masked convolution, one thread a result. Neighbouring threads have
// neighbouring results in memory; nothing is shared between them.
#pragma once

#include "cuda/convolution/plain/plain.h"
#include "cuda/element.cuh"

namespace sspcab::cuda {

// A sum in chains of 64 products and a sum of the chains: one long chain would have several times
// the error of PyTorch's convolution.
template <class W>
class ChainedSum {
 public:
  __device__ void add(W product) {
    chain_ += product;
    if (++count_ % 64 == 0) flush();
  }
  __device__ W get() {
    flush();
    return sum_;
  }

 private:
  __device__ void flush() {
    sum_ += chain_;
    chain_ = 0;
  }
  W sum_ = 0, chain_ = 0;
  int count_ = 0;
};

struct Position {
  int64_t n, c, h, w;
};
// Of the i-th element in memory.
__device__ inline Position position_of(const Image& image, int64_t i) {
  if (image.channels_last) {
    const int64_t pixel = i / image.channels, line = pixel / image.width;
    return {line / image.height, i % image.channels, line % image.height, pixel % image.width};
  }
  const int64_t line = i / image.width, plane = line / image.height;
  return {plane / image.channels, plane % image.channels, line % image.height, i % image.width};
}

__device__ inline bool contains(const Image& image, int64_t row, int64_t column) {
  return row >= 0 && row < image.height && column >= 0 && column < image.width;
}

// body(corner, i, j, row offset, column offset) for every tap, in order.
template <class Body>
__device__ void for_each_tap(const SubKernels& sub_kernels, const Body& body) {
  const int64_t k = sub_kernels.kernel_dim;
  for (int corner = 0; corner < 4; ++corner) {
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        body(corner, i, j, sub_kernels.row(corner, i), sub_kernels.column(corner, j));
      }
    }
  }
}

template <class D, class P>
__device__ Wide<D> weight_at(const PlainConvolution& convolution, int corner, int64_t o, int64_t c,
                             int64_t i, int64_t j) {
  const int64_t k = convolution.sub_kernels.kernel_dim;
  const P* weight = static_cast<const P*>(convolution.weights[corner]);
  return widen(weight[((o * convolution.image.channels + c) * k + i) * k + j]);
}

__device__ inline int64_t global_thread() {
  return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
}

// Outside the image, x is 0 and takes part all the same: 0 · infinity is NaN, as in the reference.
template <class D, class P>
__global__ void plain_forward_kernel(PlainConvolution convolution, Forward forward) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const Image& image = convolution.image;
  const int64_t index = global_thread();
  if (index >= image.numel()) return;
  const Position at = position_of(image, index);
  const D* x = static_cast<const D*>(forward.x);
  ChainedSum<W> sum;
  for_each_tap(
      convolution.sub_kernels, [&](int corner, int64_t i, int64_t j, int64_t row, int64_t column) {
        const bool inside = contains(image, at.h + row, at.w + column);
        const int64_t pixel = (at.n * image.height + at.h + row) * image.width + at.w + column;
        for (int64_t c = 0; c < image.channels; ++c) {
          const W value = inside ? widen(x[image.offset(pixel, c)]) : W(0);
          sum.add(value * weight_at<D, P>(convolution, corner, at.c, c, i, j));
        }
      });
  W a = sum.get();
  for (int corner = 0; corner < 4; ++corner) {
    a += widen(static_cast<const P*>(forward.bias[corner])[at.c]);
  }
  static_cast<D*>(forward.y)[index] = narrow<D>(forward.relu ? relu(a) : a);
}

template <class D, class P>
__global__ void plain_input_gradient_kernel(PlainConvolution convolution, InputGradient gradient) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const Image& image = convolution.image;
  const int64_t index = global_thread();
  if (index >= image.numel()) return;
  const Position at = position_of(image, index);
  const D* grad_a = static_cast<const D*>(gradient.grad_a);
  ChainedSum<W> sum;
  for_each_tap(
      convolution.sub_kernels, [&](int corner, int64_t i, int64_t j, int64_t row, int64_t column) {
        if (!contains(image, at.h - row, at.w - column)) return;
        const int64_t pixel = (at.n * image.height + at.h - row) * image.width + at.w - column;
        for (int64_t o = 0; o < image.channels; ++o) {
          sum.add(widen(grad_a[pixel * image.channels + o]) *
                  weight_at<D, P>(convolution, corner, o, at.c, i, j));
        }
      });
  W grad_x = sum.get();
  const OutputGradient& output = gradient.gradient;
  if (output.grad_loss) {
    const W factor =
        *static_cast<const W*>(output.grad_loss) * 2 / static_cast<W>(output.loss_numel);
    const W gate = static_cast<const W*>(output.gate)[at.n * image.channels + at.c];
    grad_x -= factor * (widen(static_cast<const D*>(output.y)[index]) * gate -
                        widen(static_cast<const D*>(output.x)[index]));
  }
  static_cast<D*>(gradient.grad_x)[index] = narrow<D>(grad_x);
}

// A thread has one weight (tap, o, c) and walks over all pixels.
template <class D>
__global__ void plain_weight_gradient_kernel(PlainConvolution convolution,
                                             WeightGradient gradient) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const Image& image = convolution.image;
  const SubKernels& sub_kernels = convolution.sub_kernels;
  const int64_t index = global_thread(), channels = image.channels;
  if (index >= sub_kernels.taps() * channels * channels) return;
  const int64_t c = index % channels, o = index / channels % channels;
  const int64_t tap = index / channels / channels, k = sub_kernels.kernel_dim;
  const int corner = static_cast<int>(tap / (k * k));
  if (!gradient.needs[corner]) return;
  const int64_t row = sub_kernels.row(corner, tap % (k * k) / k);
  const int64_t column = sub_kernels.column(corner, tap % k);
  const D* grad_a = static_cast<const D*>(gradient.grad_a);
  const D* x = static_cast<const D*>(gradient.x);
  ChainedSum<W> sum;
  for (int64_t n = 0; n < image.samples; ++n) {
    for (int64_t h = 0; h < image.height; ++h) {
      for (int64_t w = 0; w < image.width; ++w) {
        const int64_t pixel = (n * image.height + h) * image.width + w;
        const bool inside = contains(image, h + row, w + column);
        const W value =
            inside ? widen(x[image.offset(pixel + row * image.width + column, c)]) : W(0);
        sum.add(widen(grad_a[pixel * channels + o]) * value);
      }
    }
  }
  W& result = static_cast<W*>(gradient.sums)[index];
  result = gradient.earlier_splits > 0 ? result + sum.get() : sum.get();
}

}  // namespace sspcab::cuda
