// The masked convolution and its gradients as products of the windows (windows.h), divided among
// threads by rows of the results. Arithmetic is in isa/windows.h and isa/matrix_product.h.
#pragma once

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/windows.h"
#include "cpu/workers.h"

namespace sspcab::cpu {

template <class D>
class WindowConvolution {
 public:
  using T = Compute<D>;

  WindowConvolution(const Sample& sample, SubKernels sub_kernels, const Workers& workers)
      : sample_(sample),
        sub_kernels_(sub_kernels),
        windows_(sample, sub_kernels),
        workers_(workers),
        taps_(sub_kernels.taps_per_corner()),
        depth_(sample.channels * taps_) {}

  bool empty() const { return windows_.pixels() == 0; }

  // y of the samples whose images image(n) gives; sums[sample · sums_stride + c] += Σ y.
  template <class Image>
  void forward(const Image& image, int64_t samples, const Weights<T>& weights, const T* bias,
               bool relu, D* y, double* sums, int64_t sums_stride) const {
    const int64_t stride = Windows::stride(samples * windows_.pixels());
    const Buffer<T> inputs(4 * depth_ * stride);
    for_each_window([&](int64_t corner, int64_t block) {
      for (int64_t n = 0; n < samples; ++n) {
        for (int64_t tap = 0; tap < taps_; ++tap) {
          k_.gather_rows(image(n), sample_, windows_, row_of(corner, tap), column_of(corner, tap),
                         block,
                         inputs.get() + n * windows_.pixels() +
                             (corner * depth_ + block * kBlock * weights.channel_stride +
                              tap * weights.tap_stride) *
                                 stride,
                         weights.channel_stride * stride);
        }
      }
    });
    Product<T> product{};
    product.a_row = depth_;
    product.a_step = 1;
    product.b_step = product.c_row = stride;
    product.columns = samples * windows_.pixels();
    product.length = depth_;
    for_each_part(kRows, 1, stride,
                  [&](Convolution<D>& conv, int64_t first, int64_t channels, T* products) {
                    conv.sign = 1;
                    conv.products.channel_stride = stride;
                    for (int64_t corner = 0; corner < 4; ++corner) {
                      Product<T> p = product;
                      p.rows = channels;
                      p.a = weights.corner[corner] + first * depth_;
                      p.b = inputs.get() + corner * depth_ * stride;
                      p.c = products + corner * conv.products.corner_stride;
                      k_.multiply(p);
                    }
                    for (int64_t n = 0; n < samples; ++n) {
                      conv.products.data = products + n * windows_.pixels();
                      k_.convolve(conv, bias, relu, y + n * sample_.numel(),
                                  sums ? sums + n * sums_stride : nullptr);
                    }
                  });
  }

  // The gradient of the convolution, as matrices (C, pixels) of the four windows.
  template <class Image>
  Buffer<T> gather_gradient(const Image& grad_a, int64_t samples) const {
    const int64_t stride = Windows::stride(samples * windows_.pixels());
    Buffer<T> gradients(4 * sample_.channels * stride);
    for_each_window([&](int64_t corner, int64_t block) {
      for (int64_t n = 0; n < samples; ++n) {
        k_.gather_rows(grad_a(n), sample_, windows_, windows_.first_row(corner),
                       windows_.first_column(corner), block,
                       gradients.get() + (corner * sample_.channels + block * kBlock) * stride +
                           n * windows_.pixels(),
                       stride);
      }
    });
    return gradients;
  }

  void input_gradient(const T* gradients, int64_t samples, const Weights<T>& weights,
                      const OutputGradient<D>& gradient, D* grad_x) const {
    const int64_t stride = Windows::stride(samples * windows_.pixels());
    Product<T> product{};
    product.a_row = 1;
    product.a_step = depth_;
    product.b_step = product.c_row = stride;
    product.columns = samples * windows_.pixels();
    product.length = sample_.channels;
    // Weights that lie side by side are rows of one product: all taps of a channel, or one.
    const int64_t together = weights.channel_stride;
    for_each_part(kRowsTransposed, taps_, stride,
                  [&](Convolution<D>& conv, int64_t first, int64_t channels, T* products) {
                    conv.sign = -1;
                    conv.products.channel_stride = together * stride;
                    conv.products.tap_stride = together == 1 ? channels * stride : stride;
                    for (int64_t corner = 0; corner < 4; ++corner) {
                      for (int64_t tap = 0; tap < taps_; tap += together) {
                        Product<T> p = product;
                        p.rows = channels * together;
                        p.a = weights.corner[corner] + first * together + tap * weights.tap_stride;
                        p.b = gradients + corner * sample_.channels * stride;
                        p.c = products + corner * conv.products.corner_stride +
                              tap * conv.products.tap_stride;
                        k_.multiply(p);
                      }
                    }
                    for (int64_t n = 0; n < samples; ++n) {
                      conv.products.data = products + n * windows_.pixels();
                      k_.convolve_input_gradient(conv, of_sample(gradient, sample_, n),
                                                 grad_x + n * sample_.numel());
                    }
                  });
  }

  // Of the corners wanted: replaces grad_weights, or adds to them.
  template <class Image>
  void weight_gradient(const Image& image, const T* gradients, int64_t samples,
                       const bool corners[4], bool starts, T* const grad_weights[4]) const {
    const int64_t pixels = samples * windows_.pixels();
    const int64_t stride = Windows::stride(pixels), row = Windows::stride(depth_);
    const Buffer<T> inputs(4 * pixels * row);
    for_each_window([&](int64_t corner, int64_t block) {
      for (int64_t n = 0; corners[corner] && n < samples; ++n) {
        for (int64_t tap = 0; tap < taps_; ++tap) {
          k_.gather_columns(image(n), sample_, windows_, row_of(corner, tap),
                            column_of(corner, tap), block,
                            inputs.get() + (corner * pixels + n * windows_.pixels()) * row +
                                block * kBlock * taps_ + tap,
                            row, taps_);
        }
      }
    });
    Product<T> product{};
    product.a_row = stride;
    product.a_step = 1;
    product.b_step = row;
    product.c_row = depth_;
    product.columns = depth_;
    product.length = pixels;
    product.starts = starts;
    const int64_t parts = parts_of(kRows);
    workers_.run(4 * parts, [&](int64_t item, int64_t) {
      const int64_t corner = item / parts, part = item % parts;
      if (!corners[corner]) return;
      const int64_t first = first_channel(part, parts);
      Product<T> p = product;
      p.rows = first_channel(part + 1, parts) - first;
      p.a = gradients + (corner * sample_.channels + first) * stride;
      p.b = inputs.get() + corner * pixels * row;
      p.c = grad_weights[corner] + first * depth_;
      k_.multiply_dense(p);
    });
  }

 private:
  // Rows of a product that are worked off together: they stay in the second-level cache.
  static constexpr int64_t kRows = 128, kRowsTransposed = 512;

  int64_t row_of(int64_t corner, int64_t tap) const {
    return windows_.first_row(corner) + sub_kernels_.row(corner, tap / sub_kernels_.kernel_dim);
  }
  int64_t column_of(int64_t corner, int64_t tap) const {
    return windows_.first_column(corner) +
           sub_kernels_.column(corner, tap % sub_kernels_.kernel_dim);
  }

  template <class Body>
  void for_each_window(const Body& body) const {
    if (windows_.pixels() == 0) return;
    workers_.run(4 * sample_.blocks(), [&](int64_t item, int64_t) { body(item % 4, item / 4); });
  }

  // In how many parts the channels are divided, each of whole tiles.
  int64_t tiles() const { return divide_up(sample_.channels, k_.tile); }
  int64_t parts_of(int64_t most_rows) const {
    const int64_t most = std::max<int64_t>(1, most_rows / k_.tile);
    const int64_t least = workers_.count() == 1 ? 1 : 2 * workers_.count();
    return std::max(divide_up(tiles(), most), std::min(tiles(), least));
  }
  int64_t first_channel(int64_t part, int64_t parts) const {
    return std::min(tiles() * part / parts * k_.tile, sample_.channels);
  }

  // body(convolution of some of the tiles, their first channel, how many, room for their products).
  template <class Body>
  void for_each_part(int64_t most_rows, int64_t rows_of_channel, int64_t stride,
                     const Body& body) const {
    const int64_t parts = parts_of(most_rows / rows_of_channel);
    const int64_t rows = divide_up(tiles(), parts) * k_.tile * rows_of_channel;
    const int64_t scratch_size = (sample_.pixels() + k_.tile) * k_.tile;
    const Buffer<T> products(workers_.count() * 4 * rows * stride);
    const Buffer<T> scratch(workers_.count() * scratch_size);
    workers_.run(parts, [&](int64_t part, int64_t worker) {
      Convolution<D> conv{};
      conv.sample = sample_;
      conv.sub_kernels = sub_kernels_;
      conv.way = Way::windows;
      conv.first_tile = tiles() * part / parts;
      conv.last_tile = tiles() * (part + 1) / parts;
      conv.products.corner_stride = rows * stride;
      conv.scratch = scratch.get() + worker * scratch_size;
      const int64_t first = first_channel(part, parts);
      body(conv, first, first_channel(part + 1, parts) - first,
           products.get() + worker * 4 * rows * stride);
    });
  }

  const Kernels<D>& k_ = kernels<D>();
  Sample sample_;
  SubKernels sub_kernels_;
  Windows windows_;
  Workers workers_;
  int64_t taps_, depth_;
};

}  // namespace sspcab::cpu
