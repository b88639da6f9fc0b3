#include "cpu/convolution/plan.h"

#include <limits>
#include <vector>

#include "cpu/geometry/windows.h"
#include "cpu/threads.h"

namespace sspcab::cpu {
namespace {

// The model of costs, measured with AVX2 and AVX-512 alike. For each tap of a sub-kernel: packing
// and reading its panel, and five more of Winograd's. For each tap of a pixel and channel:
// transforming the image; and gathering the windows and scattering what comes of them.
constexpr double kPanelCost = 100, kFilterCost = 192;
constexpr double kImageCost = 9, kWindowCost = 100;
// What taps of pixels near the border take more, directly: few neighbours have the same ones.
constexpr double kBorderCost = 0.3;

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

// Taps of one axis that lie inside the image.
int64_t taps_inside(int64_t size, SubKernels sub_kernels) {
  int64_t count = 0;
  for (int64_t i = 0; i < sub_kernels.kernel_dim && sub_kernels.dilation + 1 + i < size; ++i) {
    count += 2 * (size - (sub_kernels.dilation + 1 + i));
  }
  return count;
}
// Of those pixels alone that have all of them.
int64_t taps_of_interior(int64_t size, SubKernels sub_kernels) {
  return 2 * sub_kernels.kernel_dim * std::max<int64_t>(0, size - 2 * sub_kernels.reach());
}

Way choose_way(const Problem& p, const Costs& costs) {
  return p.config == kAutomatic ? costs.cheapest() : static_cast<Way>(p.config);
}

// Reading in place beats packing, unless the pixels' distance, a multiple of 4096 bytes, sends them
// all to the same few places of the first-level cache.
bool reads_in_place(const Problem& p, Way way) {
  return !p.converts && p.sample.channels_last &&
         (way == Way::windows || p.sample.channels * p.element_bytes % 4096 != 0);
}

}  // namespace

Costs costs_of(const Problem& p, const Processor& processor) {
  const Sample& s = p.sample;
  if (p.sub_kernels.dilation >= std::min(s.height, s.width)) {  // the windows are empty
    constexpr double never = std::numeric_limits<double>::infinity();
    return {never, never, 0};
  }
  const Winograd winograd(s, p.sub_kernels);
  const double n = static_cast<double>(p.samples);
  const double per_corner = p.sub_kernels.taps_per_corner();
  const double inside =
      n * taps_inside(s.height, p.sub_kernels) * taps_inside(s.width, p.sub_kernels);
  const double border = inside - n * taps_of_interior(s.height, p.sub_kernels) *
                                     taps_of_interior(s.width, p.sub_kernels);
  const double pixels = n * Windows(s, p.sub_kernels).pixels();
  const int64_t lanes = processor.lanes;

  // Channels apart, Winograd's results are transposed row by row, in squares.
  const double padding =
      s.channels_last ? 1 : static_cast<double>(divide_up(s.width, lanes) * lanes) / s.width;
  const double panels = kPanelCost * 4 * per_corner;
  return {inside + kBorderCost * border + panels,
          n * kComponents * per_corner * winograd.rows().count() * winograd.columns().count() +
              kImageCost * padding * inside / s.channels + panels + kFilterCost * per_corner,
          4 * per_corner * (pixels + lanes / 2 + kWindowCost * pixels / s.channels)};
}

Bands Bands::choose(const Sample& s, int64_t samples, int64_t threads, int64_t most_rows) {
  const int64_t least_rows = divide_up(kPixelsPerBand, s.width);
  const int64_t wanted = threads == 1 ? 1 : divide_up(kItemsPerWorker * threads, samples);
  const int64_t at_most = std::max<int64_t>(1, s.height / least_rows);
  return {s.height, std::max(std::min(wanted, at_most), divide_up(s.height, most_rows))};
}

Plan::Plan(const Problem& p, const Processor& processor)
    : problem(p),
      costs(costs_of(p, processor)),
      way(choose_way(p, costs)),
      threads(threads_for(static_cast<double>(p.samples) * p.sample.numel() * p.sample.channels *
                              p.sub_kernels.taps(),
                          processor.threads)),
      tiles(divide_up(p.sample.channels, 2 * processor.lanes)),
      reads_in_place(cpu::reads_in_place(p, way)),
      samples_of_group(std::max<int64_t>(
          1, kGroupOfSamplesBytes / std::max<int64_t>(1, p.sample.numel() * p.element_bytes))),
      winograd_(p.sample, p.sub_kernels) {}

Bands Plan::bands(int64_t samples) const {
  const int64_t row_bytes = sample().width * sample().blocks() * kBlock * problem.element_bytes;
  const int64_t reach = sub_kernels().reach();
  const int64_t enough = winograds() ? 2 * winograd_.rows_of_chunk() : reach;
  return Bands::choose(
      sample(), samples, threads,
      reads_in_place ? sample().height : std::max(kBandBytes / row_bytes - 2 * reach, enough));
}

int64_t Plan::parts(int64_t samples, const Bands& bands) const {
  const int64_t all_bands = samples * bands.per_sample;
  int64_t parts = std::min(tiles, divide_up(threads, all_bands));
  if (all_bands < kManyItems * threads) {
    while (parts < tiles && idle(samples, bands, parts) > kIdle) ++parts;
  }
  return parts;
}

// The share of time that threads spend waiting for the last one, if each band's tiles are divided.
double Plan::idle(int64_t samples, const Bands& bands, int64_t parts) const {
  std::vector<double> busy(threads);
  double work = 0;
  for (int64_t item = 0; item < samples * bands.per_sample * parts; ++item) {
    const double count = rows(bands, item / parts % bands.per_sample).count();
    *std::min_element(busy.begin(), busy.end()) += count;
    work += count;
  }
  return 1 - work / (busy.size() * *std::max_element(busy.begin(), busy.end()));
}

bool Plan::packs_all(const Bands& bands, int64_t parts) const {
  if (reads_in_place) return false;
  int64_t packed = 0;
  for (int64_t b = 0; b < bands.per_sample; ++b) {
    packed += rows_read(rows(bands, b)).count() * parts;
  }
  return packed > kOverlap * sample().height;
}

Rows Plan::rows(const Bands& bands, int64_t band) const {
  return winograds() ? Bands{winograd_.rows().count(), bands.per_sample}.rows(band)
                     : bands.rows(band);
}

Rows Plan::rows_read(Rows rows) const {
  if (winograds() && rows.count() > 0) {
    const Pairs& pairs = winograd_.rows();
    rows = {pairs.first(rows.first),
            std::min(pairs.first(rows.last - 1) + pairs.apart + 1, sample().height)};
  }
  return rows.widened(sample().height, sub_kernels().reach());
}

int64_t Plan::most_rows_read(const Bands& bands) const {
  int64_t most = 0;
  for (int64_t b = 0; b < bands.per_sample; ++b) {
    most = std::max(most, rows_read(rows(bands, b)).count());
  }
  return most;
}

int64_t Plan::panel_bytes() const {
  if (way == Way::windows) return 0;
  const int64_t filters = winograds() ? kComponents : 4;
  return filters * sample().channels * sample().channels * sub_kernels().taps_per_corner() *
         problem.element_bytes;
}

int64_t Plan::gathered_bytes(int64_t samples) const {
  if (way != Way::windows) return 0;
  const int64_t pixels = Windows(sample(), sub_kernels()).pixels();
  if (pixels == 0) return 0;
  return sub_kernels().taps() * sample().channels * Windows::stride(samples * pixels) *
         problem.element_bytes;
}

}  // namespace sspcab::cpu
