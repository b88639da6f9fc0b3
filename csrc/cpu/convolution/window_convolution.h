// The masked convolution and its gradients as products of the windows (windows.h), divided among
// threads by rows of the results.
#pragma once

#include "cpu/convolution/convolution.h"
#include "cpu/geometry/windows.h"

namespace sspcab::cpu {

template <class D>
class WindowConvolution final : public Convolution<D> {
 public:
  using typename Convolution<D>::T;

  explicit WindowConvolution(const Plan& plan)
      : Convolution<D>(plan),
        windows_(plan.sample(), plan.sub_kernels()),
        taps_(plan.sub_kernels().taps_per_corner()),
        depth_(sample_.channels * taps_) {}

  Filters<T> prepare(const Weights<T>& weights, bool) const override { return {weights, {}}; }

  void forward(const D* x, int64_t samples, const Bands& bands, const Filters<T>& filters,
               const T* bias, bool relu, D* y, double* sums) const override {
    const bool packs = !plan_.reads_in_place;
    const Buffer<T> blocked(packs ? samples * Images<D>::blocked_size(sample_) : 0);
    if (packs) this->pack(x, samples, blocked.get());
    const Images<D> images(plan_, x, packs ? blocked.get() : nullptr);
    const Weights<T>& weights = filters.weights;
    const int64_t stride = Windows::stride(samples * windows_.pixels());
    const Buffer<T> inputs = gather_inputs(images, samples, weights, stride);
    Product<T> product{};
    product.a_row = depth_;
    product.a_step = 1;
    product.b_step = product.c_row = stride;
    product.columns = samples * windows_.pixels();
    product.length = depth_;
    for_each_part(kRows, 1, stride,
                  [&](Share<D>& share, int64_t first, int64_t channels, T* products) {
                    share.sign = 1;
                    share.products.channel_stride = stride;
                    for (int64_t corner = 0; corner < 4; ++corner) {
                      Product<T> p = product;
                      p.rows = channels;
                      p.a = weights.corner[corner] + first * depth_;
                      p.b = inputs.get() + corner * depth_ * stride;
                      p.c = products + corner * share.products.corner_stride;
                      k_.multiply(p);
                    }
                    for (int64_t n = 0; n < samples; ++n) {
                      share.products.data = products + n * windows_.pixels();
                      k_.convolve(share, bias, relu, y + n * sample_.numel(),
                                  sums ? sums + n * bands.per_sample * sample_.channels : nullptr);
                    }
                  });
  }

  std::unique_ptr<Gradients<D>> gradients(const WantedGradients<T>& wanted) const override {
    return std::make_unique<Sums>(*this, wanted);
  }

 private:
  using Convolution<D>::k_, Convolution<D>::plan_, Convolution<D>::workers_;

  class Sums : public Gradients<D> {
   public:
    Sums(const WindowConvolution& convolution, const WantedGradients<T>& wanted)
        : c_(convolution), wanted_(wanted) {}

    void add(const BackwardGroup<D>& group) override {
      const int64_t stride = Windows::stride(group.samples * c_.windows_.pixels());
      const Buffer<T> gradients = c_.gather_gradients(group.grad_a, group.samples, stride);
      if (wanted_.x) c_.input_gradient(gradients.get(), stride, wanted_.mirrored->weights, group);
      if (!wanted_.any_weight() || c_.windows_.pixels() == 0) return;
      c_.weight_gradient(gradients.get(), stride, group, wanted_, starts_);
      starts_ = false;
    }

    void finish() override {
      if (!starts_) return;
      for (int64_t corner = 0; corner < 4; ++corner) {
        if (wanted_.corners[corner]) {
          std::fill_n(wanted_.weights[corner], c_.sample_.channels * c_.depth_, T(0));
        }
      }
    }

   private:
    const WindowConvolution& c_;
    WantedGradients<T> wanted_;
    bool starts_ = true;
  };

  // The inputs of all taps, as matrices (C·k'², pixels) of the four windows.
  Buffer<T> gather_inputs(const Images<D>& images, int64_t samples, const Weights<T>& weights,
                          int64_t stride) const {
    Buffer<T> inputs(4 * depth_ * stride);
    for_each_window([&](int64_t corner, int64_t block) {
      for (int64_t n = 0; n < samples; ++n) {
        for (int64_t tap = 0; tap < taps_; ++tap) {
          k_.gather_rows(images[n], sample_, windows_, row_of(corner, tap), column_of(corner, tap),
                         block,
                         inputs.get() + n * windows_.pixels() +
                             (corner * depth_ + block * kBlock * weights.channel_stride +
                              tap * weights.tap_stride) *
                                 stride,
                         weights.channel_stride * stride);
        }
      }
    });
    return inputs;
  }

  // The gradient of the convolution, as matrices (C, pixels).
  Buffer<T> gather_gradients(const Images<D>& grad_a, int64_t samples, int64_t stride) const {
    Buffer<T> gradients(4 * sample_.channels * stride);
    for_each_window([&](int64_t corner, int64_t block) {
      for (int64_t n = 0; n < samples; ++n) {
        k_.gather_rows(grad_a[n], sample_, windows_, windows_.first_row(corner),
                       windows_.first_column(corner), block,
                       gradients.get() + (corner * sample_.channels + block * kBlock) * stride +
                           n * windows_.pixels(),
                       stride);
      }
    });
    return gradients;
  }

  void input_gradient(const T* gradients, int64_t stride, const Weights<T>& weights,
                      const BackwardGroup<D>& group) const {
    Product<T> product{};
    product.a_row = 1;
    product.a_step = depth_;
    product.b_step = product.c_row = stride;
    product.columns = group.samples * windows_.pixels();
    product.length = sample_.channels;
    // Weights that lie side by side are rows of one product: all taps of a channel, or one.
    const int64_t together = weights.channel_stride;
    for_each_part(kRowsTransposed, taps_, stride,
                  [&](Share<D>& share, int64_t first, int64_t channels, T* products) {
                    share.sign = -1;
                    share.products.channel_stride = together * stride;
                    share.products.tap_stride = together == 1 ? channels * stride : stride;
                    for (int64_t corner = 0; corner < 4; ++corner) {
                      for (int64_t tap = 0; tap < taps_; tap += together) {
                        Product<T> p = product;
                        p.rows = channels * together;
                        p.a = weights.corner[corner] + first * together + tap * weights.tap_stride;
                        p.b = gradients + corner * sample_.channels * stride;
                        p.c = products + corner * share.products.corner_stride +
                              tap * share.products.tap_stride;
                        k_.multiply(p);
                      }
                    }
                    for (int64_t n = 0; n < group.samples; ++n) {
                      share.products.data = products + n * windows_.pixels();
                      k_.convolve_input_gradient(share, of_sample(group.gradient, sample_, n),
                                                 group.grad_x + n * sample_.numel());
                    }
                  });
  }

  // Of the corners wanted: replaces their gradients, or adds to them.
  void weight_gradient(const T* gradients, int64_t stride, const BackwardGroup<D>& group,
                       const WantedGradients<T>& wanted, bool starts) const {
    const int64_t pixels = group.samples * windows_.pixels(), row = Windows::stride(depth_);
    const Buffer<T> inputs(4 * pixels * row);
    for_each_window([&](int64_t corner, int64_t block) {
      for (int64_t n = 0; wanted.corners[corner] && n < group.samples; ++n) {
        for (int64_t tap = 0; tap < taps_; ++tap) {
          k_.gather_columns(group.x[n], sample_, windows_, row_of(corner, tap),
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
      if (!wanted.corners[corner]) return;
      const int64_t first = first_channel(part, parts);
      Product<T> p = product;
      p.rows = first_channel(part + 1, parts) - first;
      p.a = gradients + (corner * sample_.channels + first) * stride;
      p.b = inputs.get() + corner * pixels * row;
      p.c = wanted.weights[corner] + first * depth_;
      k_.multiply_dense(p);
    });
  }

  // Rows of a product that are worked off together: they stay in the second-level cache.
  static constexpr int64_t kRows = 128, kRowsTransposed = 512;

  int64_t row_of(int64_t corner, int64_t tap) const {
    const SubKernels& sub_kernels = plan_.sub_kernels();
    return windows_.first_row(corner) + sub_kernels.row(corner, tap / sub_kernels.kernel_dim);
  }
  int64_t column_of(int64_t corner, int64_t tap) const {
    const SubKernels& sub_kernels = plan_.sub_kernels();
    return windows_.first_column(corner) + sub_kernels.column(corner, tap % sub_kernels.kernel_dim);
  }

  template <class Body>
  void for_each_window(const Body& body) const {
    if (windows_.pixels() == 0) return;
    workers_.run(4 * sample_.blocks(), [&](int64_t item, int64_t) { body(item % 4, item / 4); });
  }

  // In how many parts the channels are divided, each of whole tiles.
  int64_t parts_of(int64_t most_rows) const {
    const int64_t most = std::max<int64_t>(1, most_rows / k_.tile);
    const int64_t least = workers_.count() == 1 ? 1 : 2 * workers_.count();
    return std::max(divide_up(plan_.tiles, most), std::min(plan_.tiles, least));
  }
  int64_t first_channel(int64_t part, int64_t parts) const {
    return std::min(plan_.tiles * part / parts * k_.tile, sample_.channels);
  }

  // body(share of some of the tiles, their first channel, how many, room for their products).
  template <class Body>
  void for_each_part(int64_t most_rows, int64_t rows_of_channel, int64_t stride,
                     const Body& body) const {
    const int64_t parts = parts_of(most_rows / rows_of_channel);
    const int64_t rows = divide_up(plan_.tiles, parts) * k_.tile * rows_of_channel;
    const int64_t scratch_size = (sample_.pixels() + k_.tile) * k_.tile;
    const Buffer<T> products(workers_.count() * 4 * rows * stride);
    const Buffer<T> scratch(workers_.count() * scratch_size);
    workers_.run(parts, [&](int64_t part, int64_t worker) {
      Share<D> share{};
      share.sample = sample_;
      share.sub_kernels = plan_.sub_kernels();
      share.way = Way::windows;
      share.first_tile = plan_.tiles * part / parts;
      share.last_tile = plan_.tiles * (part + 1) / parts;
      share.products.corner_stride = rows * stride;
      share.scratch = scratch.get() + worker * scratch_size;
      const int64_t first = first_channel(part, parts);
      body(share, first, first_channel(part + 1, parts) - first,
           products.get() + worker * 4 * rows * stride);
    });
  }

  const Sample sample_ = plan_.sample();
  const Windows windows_;
  const int64_t taps_, depth_;
};

}  // namespace sspcab::cpu
