// The three convolutions around the main loop: how results are divided among blocks, and what
// becomes of the sums.
#pragma once

#include <cutlass/functional.h>

#include "cuda/convolution.h"
#include "cuda/operands.cuh"

namespace sspcab::cuda {

// A tile of results in shared memory, between the registers of the tensor cores and whole sectors
// of global memory, where they become T: rows of channels for channels_last, rows of pixels for
// NCHW. The paddings keep the scattered writes and the reads of 16 bytes free of bank conflicts,
// and so does the order of 16-bit T: those of a thread come from two places, 16 bytes of each, and
// neighbouring threads from neighbouring places.
template <class Loop, class T>
class ResultTile {
 public:
  using W = Wide<T>;
  static constexpr int kPiece = kVector<T>;

  __device__ ResultTile(void* shared, bool channels_last)
      : data_(static_cast<W*>(shared)), channels_last_(channels_last) {}

  template <class Results>
  __device__ void fill(const Results& results) const {
    const auto memory = cute::make_smem_ptr(data_);
    if (channels_last_) {  // two channels of a thread lie side by side
      const auto to = Loop::part_of(cute::make_tensor(
          memory, cute::make_layout(Layout<Int<Loop::kM>, Int<kByPixel>>{}, Row<Loop::kN>{})));
      cute::copy(cute::recast<typename Loop::Cores::Pair>(results),
                 cute::recast<typename Loop::Cores::Pair>(to));
    } else {
      cute::copy(results,
                 Loop::part_of(cute::make_tensor(
                     memory, cute::make_layout(Row<Loop::kM>{},
                                               Layout<Int<Loop::kN>, Int<kByChannel>>{}))));
    }
    __syncthreads();
  }

  // kPiece neighbours, of which `channel` or `pixel` is the first.
  __device__ Vector<W, kPiece> piece(int pixel, int channel) const {
    const W* from = data_ + (channels_last_ ? pixel * kByPixel + Row<Loop::kN>{}(channel)
                                            : channel * kByChannel + Row<Loop::kM>{}(pixel));
    if constexpr (!kSplit) return load_wide<kPiece>(from);
    constexpr int half = kPiece / 2;
    const int apart = Row<Loop::kN>{}(half);
    const auto first = load<half>(from);
    const auto second = load<half>(from + (channels_last_ ? apart : Row<Loop::kM>{}(half)));
    Vector<W, kPiece> all;
    for (int i = 0; i < half; ++i) all[i] = first[i], all[half + i] = second[i];
    return all;
  }

 private:
  static constexpr int kByPixel = padded_channels(Loop::kTile);
  static constexpr int kByChannel = padded_pixels(Loop::kTile, sizeof(W));
  static constexpr bool kSplit = kPiece * sizeof(W) > 16;
  template <int length>
  using Row = std::conditional_t<
      kSplit, Layout<Shape<_4, _2, Int<length / 8>>, Stride<_1, Int<length / 2 + 4>, _4>>,
      Layout<Int<length>, _1>>;

  W* data_;
  bool channels_last_;
};

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
  __device__ TileOrigin(const Image& image, int m, int n) {
    const int tiles_n = static_cast<int>(divide_up(image.channels, n));
    const int tile = blockIdx.x / tiles_n;
    pixel = static_cast<int64_t>(tile) * m;
    channel = static_cast<int>(blockIdx.x - tile * tiles_n) * n;
    pixels_of_sample = static_cast<unsigned>(image.pixels());
    sample = pixel / pixels_of_sample;
    within_sample = static_cast<unsigned>(pixel - sample * pixels_of_sample);
    const int64_t left = image.samples * image.pixels() - pixel;
    pixels = static_cast<int>(left < m ? left : m);
  }
  __device__ int64_t sample_of(int pixel_of_tile) const {
    return sample + (within_sample + pixel_of_tile) / pixels_of_sample;
  }
  // The pixel of the tile (or beyond it) with which a sample ends.
  __device__ int end_of(int64_t sample_of_tile) const {
    return static_cast<int>((sample_of_tile - sample + 1) * pixels_of_sample - within_sample);
  }
};

// body(offset, pixel of the tile, channel, piece) for every piece of the tile inside the image, in
// the image's layout: 16 bytes where they lie together in memory, otherwise single elements.
template <class Loop, class T, class Body>
__device__ void for_each_piece(const ResultTile<Loop, T>& results, const Image& image,
                               const TileOrigin& origin, const Body& body) {
  constexpr int count = kVector<T>;
  const int channels = static_cast<int>(image.channels);
  if (image.channels_last) {  // a thread has the same channels of every few pixels
    constexpr int rows = kThreads * count / Loop::kN;
    const int column = threadIdx.x % (Loop::kN / count) * count;
    const int first = threadIdx.x / (Loop::kN / count), channel = origin.channel + column;
    if (channel >= channels) return;
    const int left = origin.pixels - first;
    int64_t offset = (origin.pixel + first) * channels + channel;
    CUTE_UNROLL
    for (int i = 0; i < Loop::kM / rows; ++i) {
      if (i * rows >= left) return;
      body(offset, first + i * rows, channel, results.piece(first + i * rows, column));
      offset += rows * channels;
    }
    return;
  }
  const bool together = image.pixels() % count == 0;
  for (int i = threadIdx.x; i < Loop::kM * Loop::kN / count; i += kThreads) {
    const int row = i / (Loop::kM / count), column = i % (Loop::kM / count) * count;
    const int channel = origin.channel + row;
    if (channel >= channels) return;
    const auto offset = [&](int pixel) {
      return (origin.sample_of(pixel) * (channels - 1) + channel) * image.pixels() + origin.pixel +
             pixel;
    };
    const auto piece = results.piece(column, row);
    if (together && column < origin.pixels) {
      body(offset(column), column, channel, piece);
    } else {
      for (int j = 0; j < count && column + j < origin.pixels; ++j) {
        body(offset(column + j), column + j, channel, Vector<Wide<T>, 1>{{piece[j]}});
      }
    }
  }
}

// Leaves the sums over the pixels of each sample in its slots: a thread adds up its own pixels,
// then one thread for each channel what they have, in order.
template <class Loop, class Results, class W>
__device__ void sum_channels(const Results& results, const TileOrigin& origin, int channels,
                             void* shared, W* sums) {
  using Cores = typename Loop::Cores;
  constexpr int pitch = padded_channels(Loop::kTile);
  W* partial = static_cast<W*>(shared);
  using ByChannel = Layout<Shape<Int<Loop::kM>, Int<Loop::kN>>, Stride<_0, _1>>;
  auto to = Loop::part_of(cute::make_tensor(
      cute::make_smem_ptr(partial + Cores::row_of(threadIdx.x) * pitch), ByChannel{}));
  const auto places =
      Loop::part_of(cute::make_identity_tensor(Shape<Int<Loop::kM>, Int<Loop::kN>>{}));
  int64_t slot = SumSlots{Loop::kM, origin.pixels_of_sample}.slot(origin.pixel);
  for (int first = 0; first < origin.pixels; ++slot) {
    const int last = min(origin.end_of(origin.sample_of(first)), origin.pixels);
    auto totals = cute::make_tensor<W>(cute::make_layout_like(to.layout()));
    cute::clear(totals);
    const bool whole = first == 0 && last == Loop::kM;
    CUTE_UNROLL
    for (int i = 0; i < cute::size(results); ++i) {
      const int pixel = cute::get<0>(places(i));
      if (whole || (pixel >= first && pixel < last)) totals(i) += results(i);
    }
    cute::copy(cute::filter(totals), cute::filter(to));
    __syncthreads();
    const int channel = origin.channel + threadIdx.x;
    if (threadIdx.x < Loop::kN && channel < channels) {
      W sum = 0;
      for (int row = 0; row < Cores::kRows; ++row) sum += partial[row * pitch + threadIdx.x];
      sums[slot * channels + channel] = sum;
    }
    __syncthreads();
    first = last;
  }
}

template <class P>
__device__ Wide<P> sum_biases(const void* const (&bias)[4], int channel) {
  Wide<P> sum = widen(static_cast<const P*>(bias[0])[channel]);
  for (int i = 1; i < 4; ++i) sum += widen(static_cast<const P*>(bias[i])[channel]);
  return sum;
}

// The kernels' bounds name one block for each processor: left to itself, the compiler spills
// registers of small tiles for the sake of more blocks.

// (A) A block owns kM neighbouring pixels, through all samples, and kN output channels. The sums
// over taps and input channels begin with the bias; ReLU and the channels' sums follow in
// registers. The tile goes through shared memory, from where it is rounded and written in 16-byte
// pieces.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(Geometry g, Filters<typename Loop::Element> filters, Image image,
                   Forward forward) {
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  const TileOrigin origin(image, Loop::kM, Loop::kN);
  __shared__ W bias[Loop::kN];  // of the tile's channels
  static_assert(Loop::kN <= kThreads);
  if (threadIdx.x < Loop::kN) {
    const int c = origin.channel + threadIdx.x;
    W sum = 0;
    if (c < g.channels) {
      sum = forward.parameter_dtype == Dtype::Float ? sum_biases<float>(forward.bias, c)
                                                    : sum_biases<D>(forward.bias, c);
    }
    bias[threadIdx.x] = sum;
  }
  __syncthreads();
  auto sums = Loop::zeros();
  const auto biases = Loop::part_of(cute::make_tensor(
      cute::make_smem_ptr(bias), Layout<Shape<Int<Loop::kM>, Int<Loop::kN>>, Stride<_0, _1>>{}));
  CUTE_UNROLL
  for (int i = 0; i < cute::size(sums); ++i) sums(i) = biases(i);

  MovedPixels<Loop> pixels(g, static_cast<const D*>(forward.x), origin.pixel, origin.within_sample,
                           origin.pixels, 1, Loop::shared_a(shared));
  FilterRows<Loop> rows(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop, FilterRows<Loop>> operands(g, pixels, rows);
  const int steps = static_cast<int>(g.sub_kernels.taps() * divide_up(g.channels, Loop::kDepth));
  Loop::run(operands, steps, shared, sums);

  if (forward.relu) {
    const cutlass::maximum<W, true> keeps_nan;
    CUTE_UNROLL
    for (int i = 0; i < cute::size(sums); ++i) sums(i) = keeps_nan(sums(i), W(0));
  }
  if (forward.sums) {
    sum_channels<Loop>(sums, origin, g.channels, shared, static_cast<W*>(forward.sums));
  }
  const ResultTile<Loop, D> results(shared, image.channels_last);
  results.fill(sums);
  D* y = static_cast<D*>(forward.y);
  for_each_piece(results, image, origin, [&](int64_t offset, int, int, const auto& piece) {
    store_global(y + offset, narrowed<D>(piece));
  });
#endif
}

// (backward 4) As (A), with grad_a for x, mirrored taps and transposed filters; the direct gradient
// of the loss is subtracted while the tile is written.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    input_gradient_kernel(Geometry g, Filters<typename Loop::Element> filters, Image image,
                          InputGradient gradient) {
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  const TileOrigin origin(image, Loop::kM, Loop::kN);
  MovedPixels<Loop> pixels(g, static_cast<const D*>(gradient.grad_a), origin.pixel,
                           origin.within_sample, origin.pixels, -1, Loop::shared_a(shared));
  FilterColumns<Loop> columns(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop, FilterColumns<Loop>> operands(g, pixels, columns);
  const int steps = static_cast<int>(g.sub_kernels.taps() * divide_up(g.channels, Loop::kDepth));
  auto sums = Loop::zeros();
  Loop::run(operands, steps, shared, sums);
  const ResultTile<Loop, D> results(shared, image.channels_last);
  results.fill(sums);

  const D* y = static_cast<const D*>(gradient.gradient.y);
  const D* x = static_cast<const D*>(gradient.gradient.x);
  const W* gate = static_cast<const W*>(gradient.gradient.gate);
  const W* grad_loss = static_cast<const W*>(gradient.gradient.grad_loss);
  D* grad_x = static_cast<D*>(gradient.grad_x);
  if (!grad_loss) {
    return for_each_piece(results, image, origin, [&](int64_t offset, int, int, const auto& piece) {
      store_global(grad_x + offset, narrowed<D>(piece));
    });
  }
  const W factor = *grad_loss * 2 / static_cast<W>(image.numel());
  int known = 0;  // pixels up to here have these:
  Vector<W, kVector<D>> gates;
  for_each_piece(results, image, origin,
                 [&](int64_t offset, int pixel, int channel, const auto& piece) {
                   constexpr int count = sizeof(piece) / sizeof(W);
                   const auto y_piece = load<count>(y + offset), x_piece = load<count>(x + offset);
                   if (pixel >= known) {
                     const int64_t sample = origin.sample_of(pixel);
                     const W* of_sample = gate + sample * image.channels + channel;
                     if (image.channels_last) {
                       known = origin.end_of(sample);
                       gates = load_wide<kVector<D>>(of_sample);
                     } else {
                       gates = repeated<kVector<D>>(*of_sample);
                     }
                     for (int i = 0; i < kVector<D>; ++i) gates[i] *= -factor;
                   }
                   Vector<W, count> sum;
                   for (int i = 0; i < count; ++i) {
                     const W direct = widen(x_piece[i]) * factor + piece[i];
                     sum[i] = widen(y_piece[i]) * gates[i] + direct;
                   }
                   store_global(grad_x + offset, narrowed<D>(sum));
                 });
#endif
}

// The steps of each split; the first `left` of them have one more.
struct SplitSteps {
  int64_t of_each, left;
};

// (backward 5) A block owns kM output × kN input channels of one tap, and one split of the pixels;
// it sums over them and leaves the tile for parameter_gradients to add up.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    weight_gradient_kernel(Geometry g, WeightGradient gradient, SplitSteps steps) {
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  // Blocks: input channels fastest, then output channels, taps of the needed corners, splits.
  const int tiles_n = static_cast<int>(divide_up(g.channels, Loop::kN));
  const int tiles_m = static_cast<int>(divide_up(g.channels, Loop::kM));
  int rest = blockIdx.x;
  const int first_n = rest % tiles_n * Loop::kN;
  rest /= tiles_n;
  const int first_m = rest % tiles_m * Loop::kM;
  rest /= tiles_m;
  const int per_corner = static_cast<int>(g.sub_kernels.taps_per_corner());
  const int of_corner = rest % per_corner, k = static_cast<int>(g.sub_kernels.kernel_dim);
  rest /= per_corner;
  int corners = 0, corner = 0;
  for (int i = 0; i < 4; ++i) corners += gradient.needs[i];
  const int split = rest / corners;
  for (int i = 0, wanted = rest - split * corners; i < 4; ++i) {
    if (gradient.needs[i] && wanted-- == 0) corner = i;
  }
  const Tap tap{corner, of_corner / k, of_corner % k};

  const int64_t begin = split * steps.of_each + min(static_cast<int64_t>(split), steps.left);
  const int64_t end = begin + steps.of_each + (split < steps.left);
  PixelsOfTap<Loop> operands(g, static_cast<const D*>(gradient.grad_a),
                             static_cast<const D*>(gradient.x), begin * Loop::kDepth,
                             end * Loop::kDepth, first_m, first_n, tap, shared);
  auto sums = Loop::zeros();
  Loop::run(operands, static_cast<int>(end - begin), shared, sums);
  const ResultTile<Loop, W> results(shared, true);
  results.fill(sums);

  W* to = static_cast<W*>(gradient.sums) +
          ((static_cast<int64_t>(split) * 4 + corner) * per_corner + of_corner) * g.channels *
              g.channels;
  const Image matrix{1, g.channels, g.channels, 1, true};
  for_each_piece(
      results, matrix, TileOrigin(g.channels, first_m, first_n, Loop::kM),
      [&](int64_t offset, int, int, const auto& piece) { store_global(to + offset, piece); });
#endif
}

}  // namespace sspcab::cuda
