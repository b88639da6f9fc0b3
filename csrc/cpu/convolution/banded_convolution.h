// What the direct way and Winograd's share: sub-kernels in panels, and work divided into bands of
// rows and tiles of output channels.
#pragma once

#include <set>
#include <vector>

#include "cpu/convolution/convolution.h"

namespace sspcab::cpu {

template <class D>
class BandedConvolution : public Convolution<D> {
 public:
  using typename Convolution<D>::T;

  explicit BandedConvolution(const Plan& plan) : Convolution<D>(plan) {
    const Sample& s = plan_.sample();
    const SubKernels& sub_kernels = plan_.sub_kernels();
    std::set<int64_t> rows{s.height}, columns{s.width};
    for (int64_t corner : SubKernels::kDiagonal) {
      for (int64_t i = 0; i < sub_kernels.kernel_dim; ++i) {
        add_borders(sub_kernels.row(corner, i), s.height, rows);
        add_borders(sub_kernels.column(corner, i), s.width, columns);
      }
    }
    row_borders_.assign(rows.begin(), rows.end());
    column_borders_.assign(columns.begin(), columns.end());
  }

  Filters<T> prepare(const Weights<T>& weights, bool mirrored) const override {
    const int64_t depth = channels() * plan_.sub_kernels().taps_per_corner();
    const int64_t packed_size = k_.tile * depth * 4, size = k_.tile * depth * filters();
    const Workers workers(static_cast<double>(depth) * 4 * channels());
    const Buffer<T> packed(filters() == 4 ? 0 : workers.count() * packed_size);
    Filters<T> result{weights, Buffer<T>(plan_.tiles * size)};
    workers.run(plan_.tiles, [&](int64_t tile, int64_t worker) {
      prepare_panel(weights, mirrored, tile, packed.get() + worker * packed_size,
                    result.panels.get() + tile * size);
    });
    return result;
  }

  void forward(const D* x, int64_t samples, const Bands& bands, const Filters<T>& filters,
               const T* bias, bool relu, D* y, double* sums) const override {
    const Sample& s = plan_.sample();
    const int64_t parts = plan_.parts(samples, bands);
    const bool packs_all = plan_.packs_all(bands, parts);
    const Buffer<T> all(packs_all ? samples * Images<D>::blocked_size(s) : 0);
    if (packs_all) this->pack(x, samples, all.get());
    const bool packs_bands = !packs_all && !plan_.reads_in_place;
    const int64_t band_size =
        packs_bands ? plan_.most_rows_read(bands) * s.width * s.blocks() * kBlock : 0;
    const Buffer<T> memory(workers_.count() * band_size);
    const Images<D> images(plan_, x, packs_all ? all.get() : nullptr);
    for_each_share(samples, bands, parts,
                   [&](int64_t n, int64_t b, Share<D>& share, int64_t worker) {
                     if (packs_bands) {
                       const Blocked<T> band{memory.get() + worker * band_size,
                                             plan_.rows_read(share.rows), s.width};
                       k_.pack(x + n * s.numel(), s, band.rows, band);
                       share.input = View<T>::of(band);
                     } else {
                       share.input = images[n];
                     }
                     share.sign = 1;
                     share.panels = filters.panels.get();
                     k_.convolve(share, bias, relu, y + n * s.numel(),
                                 sums ? sums + (n * bands.per_sample + b) * s.channels : nullptr);
                   });
  }

  std::unique_ptr<Gradients<D>> gradients(const WantedGradients<T>& wanted) const override {
    return std::make_unique<Sums>(*this, wanted);
  }

 protected:
  using Convolution<D>::k_, Convolution<D>::plan_, Convolution<D>::workers_;

  int64_t channels() const { return plan_.sample().channels; }

 private:
  // Of a panel.
  virtual int64_t filters() const = 0;
  // `packed` has room for the panel of the four corners.
  virtual void prepare_panel(const Weights<T>&, bool mirrored, int64_t tile, T* packed,
                             T* panel) const = 0;
  // Elements that a share needs.
  virtual int64_t scratch() const = 0;

  // The gradients of the sub-kernels are summed for pairs of a block of inputs and a tile of
  // outputs, split by rows where there are few pairs.
  class Sums : public Gradients<D> {
   public:
    Sums(const BandedConvolution& convolution, const WantedGradients<T>& wanted)
        : c_(convolution), wanted_(wanted) {
      if (!wanted.any_weight()) return;
      const Sample& s = c_.plan_.sample();
      const int64_t workers = c_.workers_.count();
      splits_ = workers == 1 ? 1 : std::min(divide_up(2 * workers, pairs()), s.height);
      pair_size_ = c_.plan_.sub_kernels().taps() * kBlock * c_.k_.tile;
      sums_ = zeros<T>(splits_ * pairs() * pair_size_);
    }

    void add(const BackwardGroup<D>& group) override {
      if (wanted_.x) c_.input_gradient(group, *wanted_.mirrored);
      if (!wanted_.any_weight()) return;
      const Sample& s = c_.plan_.sample();
      c_.workers_.run(splits_ * pairs(), [&](int64_t item, int64_t) {
        const int64_t split = item / pairs(), pair = item % pairs();
        const Rows rows = Bands{s.height, splits_}.rows(split);
        for (int64_t n = 0; n < group.samples; ++n) {
          c_.k_.weight_gradient(s, rows, c_.plan_.sub_kernels(), group.x[n], group.grad_a[n],
                                pair % s.blocks(), pair / s.blocks(), wanted_.corners,
                                sums_.get() + item * pair_size_);
        }
      });
    }

    void finish() override {
      if (!wanted_.any_weight()) return;
      const Sample& s = c_.plan_.sample();
      Workers(static_cast<double>(splits_) * pairs() * pair_size_)
          .run(pairs(), [&](int64_t pair, int64_t) {
            T* sum = sums_.get() + pair * pair_size_;
            for (int64_t split = 1; split < splits_; ++split) {
              c_.k_.add_scaled(sum + split * pairs() * pair_size_, 1, pair_size_, sum);
            }
            c_.k_.unpack_weight_gradient(sum, c_.plan_.sub_kernels(), s.channels, pair % s.blocks(),
                                         pair / s.blocks(), wanted_.corners, wanted_.weights);
          });
    }

   private:
    int64_t pairs() const { return c_.plan_.tiles * c_.plan_.sample().blocks(); }

    const BandedConvolution& c_;
    WantedGradients<T> wanted_;
    int64_t splits_ = 0, pair_size_ = 0;
    Buffer<T> sums_;
  };

  void input_gradient(const BackwardGroup<D>& group, const Filters<T>& mirrored) const {
    const Sample& s = plan_.sample();
    const Bands bands = plan_.bands(group.samples);
    for_each_share(group.samples, bands, plan_.parts(group.samples, bands),
                   [&](int64_t n, int64_t, Share<D>& share, int64_t) {
                     share.input = group.grad_a[n];
                     share.sign = -1;
                     share.panels = mirrored.panels.get();
                     k_.convolve_input_gradient(share, of_sample(group.gradient, s, n),
                                                group.grad_x + n * s.numel());
                   });
  }

  // body(sample, band, share, worker)
  template <class Body>
  void for_each_share(int64_t samples, const Bands& bands, int64_t parts, const Body& body) const {
    const int64_t taps = plan_.sub_kernels().taps();
    const Buffer<T> scratch(workers_.count() * this->scratch());
    const Buffer<Tap> tap_memory(workers_.count() * taps);
    workers_.run(samples * bands.per_sample * parts, [&](int64_t item, int64_t worker) {
      const int64_t part = item % parts, n = item / parts / bands.per_sample,
                    b = item / parts % bands.per_sample;
      Share<D> share{};
      share.sample = plan_.sample();
      share.rows = plan_.rows(bands, b);
      share.sub_kernels = plan_.sub_kernels();
      share.way = plan_.way;
      share.row_borders = row_borders_.data();
      share.column_borders = column_borders_.data();
      share.first_tile = plan_.tiles * part / parts;
      share.last_tile = plan_.tiles * (part + 1) / parts;
      share.scratch = scratch.get() + worker * this->scratch();
      share.taps = tap_memory.get() + worker * taps;
      body(n, b, share, worker);
    });
  }

  // Where a tap, or its mirror image, comes into or leaves an image of the given size.
  static void add_borders(int64_t offset, int64_t size, std::set<int64_t>& borders) {
    for (int64_t border : {-offset, offset, size - offset, size + offset}) {
      if (border > 0 && border < size) borders.insert(border);
    }
  }

  std::vector<int64_t> row_borders_, column_borders_;
};

}  // namespace sspcab::cpu
