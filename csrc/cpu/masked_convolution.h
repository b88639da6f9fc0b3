// The masked convolution and its gradients on a CPU: which of the three ways (choice.h), what is
// packed or read in place, and how the work of the direct way and of Winograd's is divided into
// bands of rows and tiles of output channels; window_convolution.h divides that of the windows.
// Arithmetic is in isa/.
#pragma once

#include <set>
#include <type_traits>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/choice.h"
#include "cpu/kernels.h"
#include "cpu/window_convolution.h"
#include "cpu/winograd.h"
#include "cpu/workers.h"

namespace sspcab::cpu {

// Samples are worked off in groups whose tensors stay in the last-level cache from one stage to
// the next.
constexpr int64_t kGroupOfSamplesBytes = 8 << 20;
// A blocked band of an image should stay in the second-level cache, or nearly so.
constexpr int64_t kBandBytes = 1 << 20;
constexpr int64_t kPixelsPerBand = 64;
constexpr int64_t kItemsPerWorker = 2;
// How much waiting is worth a second look at the input, where items are few.
constexpr double kIdle = 0.08;
constexpr int64_t kManyItems = 8;
// How many times a band's rows are packed before packing the whole image once is better.
constexpr double kOverlap = 1.5;

// body(first sample, count) for every group of a batch that is not empty.
template <class D, class Body>
void for_each_group(const Sample& s, int64_t samples, const Body& body) {
  if (s.numel() == 0) return;
  const int64_t bytes = s.numel() * sizeof(Compute<D>);
  const int64_t group = std::max<int64_t>(1, kGroupOfSamplesBytes / bytes);
  for (int64_t first = 0; first < samples; first += group) {
    body(first, std::min(group, samples - first));
  }
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
    const int64_t wanted = workers == 1 ? 1 : divide_up(kItemsPerWorker * workers, samples);
    const int64_t at_most = std::max<int64_t>(1, s.height / least_rows);
    return {s.height, std::max(std::min(wanted, at_most), divide_up(s.height, most_rows))};
  }
};

// Sub-kernels as a convolution wants them.
template <class T>
struct Filters {
  Weights<T> weights;
  Buffer<T> panels;  // none for products of windows
};

template <class D>
class MaskedConvolution {
 public:
  using T = Compute<D>;

  MaskedConvolution(const Sample& sample, SubKernels sub_kernels, int64_t samples, int64_t config)
      : sample_(sample),
        sub_kernels_(sub_kernels),
        tiles_(divide_up(sample.channels, k_.tile)),
        winograd_(sample, sub_kernels),
        way_(config == kAutomatic ? choose_way(sample, sub_kernels, samples, k_.tile / 2)
                                  : static_cast<Way>(config)),
        workers_(static_cast<double>(samples) * sample.numel() * sample.channels *
                 sub_kernels.taps()),
        windows_(sample, sub_kernels, workers_) {
    // Reading channels_last memory where it lies beats packing, unless the pixels' distance, a
    // multiple of 4096 bytes, sends them all to the same few places of the first-level cache.
    reads_in_place_ = std::is_same_v<D, T> && sample.channels_last &&
                      (way_ == Way::windows || sample.channels * sizeof(T) % 4096 != 0);
    std::set<int64_t> rows{sample.height}, columns{sample.width};
    for (int64_t corner : SubKernels::kDiagonal) {
      for (int64_t i = 0; i < sub_kernels.kernel_dim; ++i) {
        add_borders(sub_kernels.row(corner, i), sample.height, rows);
        add_borders(sub_kernels.column(corner, i), sample.width, columns);
      }
    }
    row_borders_.assign(rows.begin(), rows.end());
    column_borders_.assign(columns.begin(), columns.end());
  }

  const Workers& workers() const { return workers_; }
  bool reads_in_place() const { return reads_in_place_; }
  // If this is how the convolution is computed.
  const WindowConvolution<D>* windows() const { return way_ == Way::windows ? &windows_ : nullptr; }

  // Bands for `samples` samples.
  Bands bands(int64_t samples) const {
    const int64_t row_bytes = sample_.width * sample_.blocks() * kBlock * sizeof(T);
    const int64_t reach = sub_kernels_.reach();
    const int64_t enough = winograds() ? 2 * winograd_.rows_of_chunk() : reach;
    return Bands::choose(
        sample_, samples, workers_.count(),
        reads_in_place_ ? sample_.height : std::max(kBandBytes / row_bytes - 2 * reach, enough));
  }

  // A blocked image of one whole sample, at `memory`.
  Blocked<T> whole(T* memory) const { return {memory, {0, sample_.height}, sample_.width}; }
  int64_t whole_size() const { return sample_.pixels() * sample_.blocks() * kBlock; }

  // The weights must outlive the result.
  Filters<T> prepare(const Weights<T>& weights, bool mirrored) const {
    return {weights, way_ == Way::windows ? Buffer<T>() : pack_panels(weights, mirrored)};
  }

  // y of `samples` samples from x; sums[sample][band][c] += Σ y.
  void forward(const D* x, int64_t samples, const Bands& bands, const Filters<T>& filters,
               const T* bias, bool relu, D* y, double* sums) const {
    const int64_t parts = parts_of(samples, bands);
    int64_t most_rows = 0, all_rows = 0;
    for (int64_t b = 0; b < bands.per_sample && !reads_in_place_; ++b) {
      const int64_t count = rows_read(rows_of(bands, b)).count();
      most_rows = std::max(most_rows, count);
      all_rows += count * parts;
    }
    const bool packs_all =
        !reads_in_place_ && (way_ == Way::windows || all_rows > kOverlap * sample_.height);
    const Buffer<T> all(packs_all ? samples * whole_size() : 0);
    if (packs_all) pack(x, samples, all.get());
    if (way_ == Way::windows) {
      windows_.forward([&](int64_t n) { return view(x, all.get(), n); }, samples, filters.weights,
                       bias, relu, y, sums, bands.per_sample * sample_.channels);
      return;
    }
    const int64_t band_size = packs_all ? 0 : most_rows * sample_.width * sample_.blocks() * kBlock;
    const Buffer<T> memory(workers_.count() * band_size);
    for_each_share(
        samples, bands, parts, [&](int64_t n, int64_t b, Convolution<D>& conv, int64_t worker) {
          if (reads_in_place_ || packs_all) {
            conv.input = view(x, all.get(), n);
          } else {
            const Blocked<T> blocked{memory.get() + worker * band_size, rows_read(conv.rows),
                                     sample_.width};
            k_.pack(x + n * sample_.numel(), sample_, blocked.rows, blocked);
            conv.input = View<T>::of(blocked);
          }
          conv.sign = 1;
          conv.panels = filters.panels.get();
          k_.convolve(conv, bias, relu, y + n * sample_.numel(),
                      sums ? sums + (n * bands.per_sample + b) * sample_.channels : nullptr);
        });
  }

  // Sample n of x in place or, where that can't be read, of the blocked images.
  View<T> view(const D* x, T* blocked_x, int64_t n) const {
    return reads_in_place_ ? in_place(x + n * sample_.numel())
                           : View<T>::of(whole(blocked_x + n * whole_size()));
  }

  // grad_x of `samples` samples from their blocked grad_a.
  void input_gradient(T* grad_a, int64_t samples, const Filters<T>& mirrored,
                      OutputGradient<D> gradient, D* grad_x) const {
    const Bands bands = this->bands(samples);
    for_each_share(samples, bands, parts_of(samples, bands),
                   [&](int64_t n, int64_t, Convolution<D>& conv, int64_t) {
                     conv.input = View<T>::of(whole(grad_a + n * whole_size()));
                     conv.sign = -1;
                     conv.panels = mirrored.panels.get();
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

    // Adds `samples` samples: x in place or, where that can't be read, blocked; grad_a blocked.
    void add(const D* x, T* blocked_x, T* grad_a, int64_t samples) {
      const Sample& s = conv_.sample_;
      const int64_t pairs = conv_.tiles_ * s.blocks();
      conv_.workers_.run(splits_ * pairs, [&](int64_t item, int64_t) {
        const int64_t split = item / pairs, pair = item % pairs;
        const Rows rows = Bands{s.height, splits_}.rows(split);
        for (int64_t n = 0; n < samples; ++n) {
          conv_.k_.weight_gradient(s, rows, conv_.sub_kernels_, conv_.view(x, blocked_x, n),
                                   View<T>::of(conv_.whole(grad_a + n * conv_.whole_size())),
                                   pair % s.blocks(), pair / s.blocks(), corners_,
                                   sums_.get() + item * pair_size_);
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
  bool winograds() const { return way_ == Way::winograd; }

  // Of one tile.
  int64_t panel_size() const {
    return k_.tile * sample_.channels * sub_kernels_.taps_per_corner() *
           (winograds() ? kComponents : 4);
  }

  Buffer<T> pack_panels(const Weights<T>& weights, bool mirrored) const {
    const int64_t depth = sample_.channels * sub_kernels_.taps_per_corner();
    const int64_t direct_size = k_.tile * depth * 4, size = panel_size();
    const Workers workers(static_cast<double>(depth) * 4 * sample_.channels);
    const Buffer<T> direct(winograds() ? workers.count() * direct_size : 0);
    Buffer<T> panels(tiles_ * size);
    workers.run(tiles_, [&](int64_t tile, int64_t worker) {
      T* const panel = panels.get() + tile * size;
      T* const packed = winograds() ? direct.get() + worker * direct_size : panel;
      k_.pack_panel(weights, sub_kernels_, sample_.channels, mirrored, tile, packed);
      if (winograds()) {
        k_.transform_panel(packed, sub_kernels_, sample_.channels, mirrored, tile, panel);
      }
    });
    return panels;
  }

  // Where a tap, or its mirror image, comes into or leaves an image of the given size.
  static void add_borders(int64_t offset, int64_t size, std::set<int64_t>& borders) {
    for (int64_t border : {-offset, offset, size - offset, size + offset}) {
      if (border > 0 && border < size) borders.insert(border);
    }
  }

  void pack(const D* x, int64_t samples, T* blocked) const {
    const Bands split = Bands::choose(sample_, samples, workers_.count(), sample_.height);
    workers_.run(samples * split.per_sample, [&](int64_t item, int64_t) {
      const int64_t n = item / split.per_sample;
      k_.pack(x + n * sample_.numel(), sample_, split.rows(item % split.per_sample),
              whole(blocked + n * whole_size()));
    });
  }

  View<T> in_place(const D* image) const {
    if constexpr (std::is_same_v<D, T>) {
      return View<T>::of(image, sample_);
    } else {
      return {};
    }
  }

  // With Winograd a band has pairs of rows.
  Rows rows_of(const Bands& bands, int64_t band) const {
    return winograds() ? Bands{winograd_.rows().count(), bands.per_sample}.rows(band)
                       : bands.rows(band);
  }
  Rows rows_read(Rows rows) const {
    if (winograds() && rows.count() > 0) {
      rows = {
          winograd_.rows().first(rows.first),
          std::min(winograd_.rows().first(rows.last - 1) + winograd_.apart() + 1, sample_.height)};
    }
    return rows.widened(sample_.height, sub_kernels_.reach());
  }

  // The share of time that workers spend waiting for the last one, if each band's tiles are
  // divided.
  double idle(int64_t samples, const Bands& bands, int64_t parts) const {
    std::vector<double> busy(workers_.count());
    double work = 0;
    for (int64_t item = 0; item < samples * bands.per_sample * parts; ++item) {
      const double rows = rows_of(bands, item / parts % bands.per_sample).count();
      *std::min_element(busy.begin(), busy.end()) += rows;
      work += rows;
    }
    return 1 - work / (busy.size() * *std::max_element(busy.begin(), busy.end()));
  }

  // In how many parts the tiles of a band are divided: only where workers would wait otherwise, as
  // all parts need the whole input.
  int64_t parts_of(int64_t samples, const Bands& bands) const {
    const int64_t all_bands = samples * bands.per_sample;
    int64_t parts = std::min(tiles_, divide_up(workers_.count(), all_bands));
    if (all_bands < kManyItems * workers_.count()) {
      while (parts < tiles_ && idle(samples, bands, parts) > kIdle) ++parts;
    }
    return parts;
  }

  // body(sample, band, convolution of the band and some of the tiles, worker)
  template <class Body>
  void for_each_share(int64_t samples, const Bands& bands, int64_t parts, const Body& body) const {
    const int64_t all_bands = samples * bands.per_sample;
    const int64_t scratch_size = winograds() ? winograd_.scratch(k_.tile, sizeof(T)) : k_.scratch;
    const Buffer<T> scratch(workers_.count() * scratch_size);
    const Buffer<Tap> taps(workers_.count() * sub_kernels_.taps());
    workers_.run(all_bands * parts, [&](int64_t item, int64_t worker) {
      const int64_t part = item % parts, n = item / parts / bands.per_sample,
                    b = item / parts % bands.per_sample;
      Convolution<D> conv{};
      conv.sample = sample_;
      conv.rows = rows_of(bands, b);
      conv.sub_kernels = sub_kernels_;
      conv.way = way_;
      conv.row_borders = row_borders_.data();
      conv.column_borders = column_borders_.data();
      conv.first_tile = tiles_ * part / parts;
      conv.last_tile = tiles_ * (part + 1) / parts;
      conv.scratch = scratch.get() + worker * scratch_size;
      conv.taps = taps.get() + worker * sub_kernels_.taps();
      body(n, b, conv, worker);
    });
  }

  const Kernels<D>& k_ = kernels<D>();
  Sample sample_;
  SubKernels sub_kernels_;
  int64_t tiles_;
  Winograd winograd_;
  Way way_;
  Workers workers_;
  WindowConvolution<D> windows_;
  bool reads_in_place_;
  std::vector<int64_t> row_borders_, column_borders_;
};

}  // namespace sspcab::cpu
