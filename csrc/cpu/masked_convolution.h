// How the masked convolution and its gradients are divided among threads. Arithmetic is in
// isa/convolution.h and isa/weight_gradient.h.
#pragma once

#include <array>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/workers.h"

namespace sspcab::cpu {

// Samples are worked off in groups whose tensors stay in the last-level cache from one stage to
// the next.
constexpr int64_t kGroupOfSamplesBytes = 8 << 20;
// A band of a padded image should stay in the second-level cache, or nearly so.
constexpr int64_t kBandBytes = 1 << 20;
constexpr int64_t kPixelsPerBand = 64;

template <class D>
int64_t samples_per_group(const Sample& s, int64_t samples) {
  const int64_t bytes = s.numel() * sizeof(Compute<D>);
  return std::clamp<int64_t>(kGroupOfSamplesBytes / bytes, 1, samples);
}

// Rows of every sample in equal bands.
struct Bands {
  int64_t height, per_sample;

  Rows rows(int64_t band) const {
    return {height * band / per_sample, height * (band + 1) / per_sample};
  }
  int64_t longest() const { return divide_up(height, per_sample); }

  // As few bands as keep all workers busy, each at least kPixelsPerBand pixels and at most
  // `most_rows` rows.
  static Bands choose(const Sample& s, int64_t samples, int64_t workers, int64_t most_rows) {
    const int64_t least_rows = divide_up(kPixelsPerBand, s.width);
    const int64_t wanted = workers == 1 ? 1 : divide_up(2 * workers, samples);
    const int64_t at_most = std::max<int64_t>(1, s.height / least_rows);
    return {s.height, std::max(std::min(wanted, at_most), divide_up(s.height, most_rows))};
  }
};

template <class D>
class MaskedConvolution {
 public:
  using T = Compute<D>;

  MaskedConvolution(const Sample& sample, SubKernels sub_kernels, int64_t samples)
      : sample_(sample),
        sub_kernels_(sub_kernels),
        tiles_(divide_up(sample.channels, k_.tile)),
        workers_(static_cast<double>(samples) * sample.numel() * sample.channels *
                 sub_kernels.taps()) {}

  const Workers& workers() const { return workers_; }

  // Bands for `samples` samples, each a padded image small enough for the cache.
  Bands bands(int64_t samples) const {
    const int64_t row_bytes = columns() * sample_.blocks() * kBlock * sizeof(T);
    const int64_t reach = sub_kernels_.reach();
    return Bands::choose(sample_, samples, workers_.count(),
                         std::max(kBandBytes / row_bytes - 2 * reach, reach));
  }

  // An uninitialised padded image of one whole sample, at `memory`.
  Padded<T> whole(T* memory) const { return band(memory, {0, sample_.height}); }
  int64_t whole_size() const {
    return (sample_.height + 2 * sub_kernels_.reach()) * columns() * sample_.blocks() * kBlock;
  }

  Buffer<T> pack_panels(const std::array<const T*, 4>& weights, bool mirrored) const {
    const int64_t depth = sample_.channels * sub_kernels_.taps();
    Buffer<T> panels(tiles_ * k_.tile * depth);
    Workers(static_cast<double>(depth) * sample_.channels).run(tiles_, [&](int64_t tile, int64_t) {
      k_.pack_panel(weights.data(), sub_kernels_, sample_.channels, mirrored, tile,
                    panels.get() + tile * k_.tile * depth);
    });
    return panels;
  }

  // y of `samples` samples from x; sums[sample][band][c] += Σ y.
  void forward(const D* x, int64_t samples, const Bands& bands, const T* panels, const T* bias,
               bool relu, D* y, T* sums) const {
    const auto offsets = tap_offsets(+1);
    const int64_t reach = sub_kernels_.reach();
    const int64_t padded_size =
        (bands.longest() + 2 * reach) * columns() * sample_.blocks() * kBlock;
    const Buffer<T> memory(workers_.count() * padded_size);
    for_each_share(samples, bands, [&](int64_t n, int64_t b, Convolution<D>& conv, int64_t worker) {
      const Padded<T> padded = band(memory.get() + worker * padded_size, conv.rows);
      k_.pack(x + n * sample_.numel(), sample_, {conv.rows.first - reach, conv.rows.last + reach},
              padded);
      conv.input = constant(padded);
      conv.tap_offsets = offsets.data();
      conv.panels = panels;
      k_.convolve(conv, bias, relu, y + n * sample_.numel(),
                  sums ? sums + (n * bands.per_sample + b) * sample_.channels : nullptr);
    });
  }

  // grad_x of `samples` samples from their padded grad_a.
  void input_gradient(const T* grad_a, int64_t samples, const T* mirrored_panels,
                      OutputGradient<D> gradient, D* grad_x) const {
    const auto offsets = tap_offsets(-1);
    for_each_share(samples, bands(samples), [&](int64_t n, int64_t, Convolution<D>& conv, int64_t) {
      conv.input = constant(whole(const_cast<T*>(grad_a) + n * whole_size()));
      conv.tap_offsets = offsets.data();
      conv.panels = mirrored_panels;
      k_.convolve_input_gradient(conv, of_sample(gradient, sample_, n),
                                 grad_x + n * sample_.numel());
    });
  }

  // Sums over samples and pixels wait here, split by rows where there are few tiles.
  class WeightGradient {
   public:
    WeightGradient(const MaskedConvolution& conv, const bool corners[4]) : conv_(conv) {
      std::copy(corners, corners + 4, corners_);
      const int64_t pairs = conv.tiles_ * conv.sample_.blocks();
      const int64_t workers = conv.workers_.count();
      splits_ = workers == 1 ? 1 : std::min(divide_up(2 * workers, pairs), conv.sample_.height);
      pair_size_ = conv.sub_kernels_.taps() * kBlock * conv.k_.tile;
      sums_ = zeros<T>(splits_ * pairs * pair_size_);
    }

    // Adds `samples` samples, given padded.
    void add(const T* x, const T* grad_a, int64_t samples) {
      const Sample& s = conv_.sample_;
      const int64_t pairs = conv_.tiles_ * s.blocks();
      conv_.workers_.run(splits_ * pairs, [&](int64_t item, int64_t) {
        const int64_t split = item / pairs, pair = item % pairs;
        const Rows rows = Bands{s.height, splits_}.rows(split);
        for (int64_t n = 0; n < samples; ++n) {
          conv_.k_.weight_gradient(
              s, rows, conv_.sub_kernels_,
              constant(conv_.whole(const_cast<T*>(x) + n * conv_.whole_size())),
              constant(conv_.whole(const_cast<T*>(grad_a) + n * conv_.whole_size())),
              pair % s.blocks(), pair / s.blocks(), corners_, sums_.get() + item * pair_size_);
        }
      });
    }

    void finish(T* const grad_weights[4]) {
      const Sample& s = conv_.sample_;
      const int64_t pairs = conv_.tiles_ * s.blocks();
      Workers(static_cast<double>(splits_) * pairs * pair_size_)
          .run(pairs, [&](int64_t pair, int64_t) {
            T* sum = sums_.get() + pair * pair_size_;
            for (int64_t split = 1; split < splits_; ++split) {
              conv_.k_.add_scaled(sum + split * pairs * pair_size_, 1, pair_size_, sum);
            }
            conv_.k_.unpack_weight_gradient(sum, conv_.sub_kernels_, s.channels, pair % s.blocks(),
                                            pair / s.blocks(), corners_, grad_weights);
          });
    }

   private:
    const MaskedConvolution& conv_;
    bool corners_[4];
    int64_t splits_, pair_size_;
    Buffer<T> sums_;
  };

 private:
  int64_t columns() const { return sample_.width + 2 * sub_kernels_.reach(); }

  Padded<T> band(T* memory, Rows rows) const {
    const int64_t reach = sub_kernels_.reach();
    return {memory, rows.count() + 2 * reach, columns(), rows.first - reach, reach};
  }
  static Padded<const T> constant(const Padded<T>& p) {
    return {p.data, p.rows, p.columns, p.first_row, p.reach};
  }

  std::vector<int64_t> tap_offsets(int64_t sign) const {
    std::vector<int64_t> offsets(sub_kernels_.taps());
    for (int64_t tap = 0; tap < sub_kernels_.taps(); ++tap) {
      offsets[tap] =
          sign * (sub_kernels_.row(tap) * columns() + sub_kernels_.column(tap)) * kBlock;
    }
    return offsets;
  }

  // body(sample, band, convolution of the band and some of the tiles, worker). Tiles are only
  // divided where there are fewer bands than workers.
  template <class Body>
  void for_each_share(int64_t samples, const Bands& bands, const Body& body) const {
    const int64_t all_bands = samples * bands.per_sample;
    const int64_t parts = std::min(tiles_, divide_up(workers_.count(), all_bands));
    const Buffer<T> scratch(workers_.count() * k_.scratch);
    workers_.run(all_bands * parts, [&](int64_t item, int64_t worker) {
      const int64_t part = item % parts, n = item / parts / bands.per_sample,
                    b = item / parts % bands.per_sample;
      Convolution<D> conv{};
      conv.sample = sample_;
      conv.rows = bands.rows(b);
      conv.taps = sub_kernels_.taps();
      conv.first_tile = tiles_ * part / parts;
      conv.last_tile = tiles_ * (part + 1) / parts;
      conv.scratch = scratch.get() + worker * k_.scratch;
      body(n, b, conv, worker);
    });
  }

  const Kernels<D>& k_ = kernels<D>();
  Sample sample_;
  SubKernels sub_kernels_;
  int64_t tiles_;
  Workers workers_;
};

}  // namespace sspcab::cpu
