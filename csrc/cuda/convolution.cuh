// The three convolutions around the main loop: how results are divided among blocks, and what
// becomes of the sums.
#pragma once

#include <cutlass/functional.h>

#include "cuda/convolution.h"
#include "cuda/operands.cuh"

namespace sspcab::cuda {

// A tile of results in shared memory, between the registers of the tensor cores and rows of pixels
// in global memory, NCHW, where they become T. The padding keeps the scattered writes and the reads
// of 16 bytes free of bank conflicts, and so do the orders of channels (as instructions have them)
// and of pixels of 16-bit T: those of a thread come from two places, 16 bytes of each, and
// neighbouring threads from neighbouring places.
template <class Loop, class T>
class ResultTile {
 public:
  using W = Wide<T>;
  static constexpr int kPiece = kVector<T>;

  __device__ explicit ResultTile(void* shared) : data_(static_cast<W*>(shared)) {}

  template <class Results>
  __device__ void fill(const Results& results) const {
    cute::copy(results, Loop::part_of(cute::make_tensor(cute::make_smem_ptr(data_),
                                                        cute::make_layout(Pixels{}, Channels{}))));
    __syncthreads();
  }

  // kPiece neighbours, of which `pixel` is the first.
  __device__ Vector<W, kPiece> piece(int pixel, int channel) const {
    const W* from = data_ + Channels{}(channel) + Pixels{}(pixel);
    if constexpr (!kSplit) return load_wide<kPiece>(from);
    constexpr int half = kPiece / 2;
    const auto first = load<half>(from);
    const auto second = load<half>(from + Pixels{}(half));
    Vector<W, kPiece> all;
    for (int i = 0; i < half; ++i) all[i] = first[i], all[half + i] = second[i];
    return all;
  }

 private:
  static constexpr int kPitch = padded_pixels(Loop::kTile, sizeof(W));
  static constexpr bool kSplit = kPiece * sizeof(W) > 16;
  using Pixels = std::conditional_t<
      kSplit, Layout<Shape<_4, _2, Int<Loop::kM / 8>>, Stride<_1, Int<Loop::kM / 2 + 4>, _4>>,
      Layout<Int<Loop::kM>, _1>>;
  static constexpr int kTogether = Loop::kTogether;
  using Channels =
      Layout<Shape<_2, Int<kTogether / 2>, _4, Int<Loop::kN / 4 / kTogether>>,
             Stride<Int<kPitch>, Int<8 * kPitch>, Int<2 * kPitch>, Int<4 * kTogether * kPitch>>>;

  W* data_;
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

// Of some neighbours in a tile.
struct PiecePlace {
  int64_t offset;      // in the image
  int pixel, channel;  // of the tile; of the image
  int group;           // of a thread's channels
  bool same_sample;    // as the last piece of this group
};

// body(place, piece) for the neighbouring channels that the thread has, of an image in
// channels_last. A thread's pixels ascend where operands are deep; each has the same groups of
// channels. `whole`: all of the tile lies inside one sample.
template <class Loop, bool whole, class Results, class Body>
__device__ void for_each_in_registers(const Results& results, int channels,
                                      const TileOrigin& origin, const Body& body) {
  constexpr int pair = Loop::Cores::kPair, together = Loop::kTogether;
  constexpr int halves = cute::size<0>(Results{}) / pair;
  const auto places =
      Loop::part_of(cute::make_identity_tensor(Shape<Int<Loop::kM>, Int<Loop::kN>>{}));
  const int column = cute::get<1>(places(0));
  int last = 0;
  int64_t offset = origin.pixel * channels + origin.channel + column;
  CUTE_UNROLL
  for (int m = 0; m < cute::size<1>(results) * halves; ++m) {
    const int value = m % halves * pair;
    const int pixel = cute::get<0>(places(value, m / halves, 0));
    offset += static_cast<int64_t>(pixel - last) * channels;
    last = pixel;
    if (!whole && pixel >= origin.pixels) continue;
    CUTE_UNROLL
    for (int group = 0; group < Loop::kGroups; ++group) {
      const int n = group * together / pair, added = cute::get<1>(places(0, 0, n)) - column;
      const int channel = origin.channel + column + added;
      if (!whole && channel >= channels) break;
      Vector<typename Results::value_type, together> piece;
      for (int i = 0; i < together; ++i) {
        const int of_group = typename Loop::Neighbours{}(i);
        piece[i] = results(value + of_group % pair, m / halves, n + of_group / pair);
      }
      body({offset + added, pixel, channel, group, whole && m > 0}, piece);
    }
  }
}

// body(place, piece) for every piece of the tile inside the image, in the image's layout:
// neighbours in memory where they lie together, otherwise single elements.
template <class Loop, class T, class Results, class Body>
__device__ void for_each_piece(const Results& results, void* shared, const Image& image,
                               const TileOrigin& origin, const Body& body) {
  const int channels = static_cast<int>(image.channels);
  if (image.channels_last) {
    if (origin.pixels == Loop::kM && origin.end_of(origin.sample) >= Loop::kM &&
        origin.channel + Loop::kN <= channels) {
      for_each_in_registers<Loop, true>(results, channels, origin, body);
    } else {
      for_each_in_registers<Loop, false>(results, channels, origin, body);
    }
    return;
  }
  const ResultTile<Loop, T> tile(shared);
  tile.fill(results);
  constexpr int count = kVector<T>;
  const bool together = image.pixels() % count == 0;
  for (int i = threadIdx.x; i < Loop::kM * Loop::kN / count; i += kThreads) {
    const int row = i / (Loop::kM / count), column = i % (Loop::kM / count) * count;
    const int channel = origin.channel + row;
    if (channel >= channels) return;
    const auto place = [&](int pixel) {
      const int64_t offset = (origin.sample_of(pixel) * (channels - 1) + channel) * image.pixels() +
                             origin.pixel + pixel;
      return PiecePlace{offset, pixel, channel, 0, false};
    };
    const auto piece = tile.piece(column, row);
    if (together && column < origin.pixels) {
      body(place(column), piece);
    } else {
      for (int j = 0; j < count && column + j < origin.pixels; ++j) {
        body(place(column + j), Vector<Wide<T>, 1>{{piece[j]}});
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
  constexpr int pitch = Loop::kN + 4;  // rows of a warp begin in other banks
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
    cute::fill(totals, -W(0));  // to which adding is nothing to do
    const bool whole = first == 0 && last == Loop::kM;
    CUTE_UNROLL
    for (int i = 0; i < cute::size(results); ++i) {
      const int pixel = cute::get<0>(places(i));
      if (whole || (pixel >= first && pixel < last)) totals(i) += results(i);
    }
    CUTE_UNROLL
    for (int i = 0; i < cute::size(cute::filter(to)); ++i) {
      cute::filter(to)(i) = cute::filter(totals)(i);
    }
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
// registers, from where results are rounded and written. NCHW takes a way through shared memory.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(Geometry g, Filters<typename Loop::Element> filters, Image image,
                   Forward forward) {
#if SSPCAB_HAS_PIPELINE
  using D = typename Loop::Element;
  using W = Wide<D>;
  extern __shared__ __align__(128) unsigned char shared[];
  const TileOrigin origin(image, Loop::kM, Loop::kN);
  __shared__ alignas(kVectorBytes) W bias[Loop::kN];  // of the tile's channels
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
  const auto biases = Loop::part_of(cute::make_tensor(
      cute::make_smem_ptr(bias), Layout<Shape<Int<Loop::kM>, Int<Loop::kN>>, Stride<_0, _1>>{}));
  auto start = cute::make_tensor<W>(cute::make_layout_like(biases.layout()));
  CUTE_UNROLL
  for (int i = 0; i < cute::size(start); ++i) start(i) = biases(i);

  MovedPixels<Loop> pixels(g, static_cast<const D*>(forward.x), origin.pixel, origin.within_sample,
                           origin.pixels, 1, Loop::shared_a(shared));
  FilterRows<Loop> rows(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop> operands(g, pixels, rows);
  const int steps = static_cast<int>(g.sub_kernels.taps() * divide_up(g.channels, Loop::kDepth));
  auto sums = Loop::run(operands, steps, shared, start);

  if (forward.relu) {
    const cutlass::maximum<W, true> keeps_nan;
    CUTE_UNROLL
    for (int i = 0; i < cute::size(sums); ++i) sums(i) = keeps_nan(sums(i), W(0));
  }
  if (forward.sums) {
    sum_channels<Loop>(sums, origin, g.channels, shared, static_cast<W*>(forward.sums));
  }
  D* y = static_cast<D*>(forward.y);
  for_each_piece<Loop, D>(sums, shared, image, origin,
                          [&](const PiecePlace& at, const auto& piece) {
                            store_global(y + at.offset, narrowed<D>(piece));
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
  FilterRows<Loop> rows(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop> operands(g, pixels, rows);
  const int steps = static_cast<int>(g.sub_kernels.taps() * divide_up(g.channels, Loop::kDepth));
  const auto sums = Loop::run(operands, steps, shared, Loop::zeros());

  const D* y = static_cast<const D*>(gradient.gradient.y);
  const D* x = static_cast<const D*>(gradient.gradient.x);
  const W* gate = static_cast<const W*>(gradient.gradient.gate);
  const W* grad_loss = static_cast<const W*>(gradient.gradient.grad_loss);
  D* grad_x = static_cast<D*>(gradient.grad_x);
  if (!grad_loss) {
    return for_each_piece<Loop, D>(sums, shared, image, origin,
                                   [&](const PiecePlace& at, const auto& piece) {
                                     store_global(grad_x + at.offset, narrowed<D>(piece));
                                   });
  }
  const W factor = *grad_loss * 2 / static_cast<W>(image.numel());
  int known[Loop::kGroups] = {};  // pixels up to here have these:
  Vector<W, Loop::kTogether> gates[Loop::kGroups];
  for_each_piece<Loop, D>(sums, shared, image, origin,
                          [&](const PiecePlace& at, const auto& piece) {
                            constexpr int count = sizeof(piece) / sizeof(W);
                            const auto y_piece = widened(load<count>(y + at.offset));
                            const auto x_piece = widened(load<count>(x + at.offset));
                            auto& of_group = gates[at.group];
                            if (!at.same_sample && at.pixel >= known[at.group]) {
                              const int64_t sample = origin.sample_of(at.pixel);
                              const W* of_sample = gate + sample * image.channels + at.channel;
                              if (image.channels_last) {
                                known[at.group] = origin.end_of(sample);
                                of_group = load_wide<Loop::kTogether>(of_sample);
                              } else {
                                of_group = repeated<Loop::kTogether>(*of_sample);
                              }
                              for (int i = 0; i < Loop::kTogether; ++i) of_group[i] *= -factor;
                            }
                            Vector<W, count> sum;
                            for (int i = 0; i < count; ++i) {
                              const W direct = fma(x_piece[i], factor, piece[i]);
                              sum[i] = fma(y_piece[i], of_group[i % Loop::kTogether], direct);
                            }
                            store_global(grad_x + at.offset, narrowed<D>(sum));
                          });
#endif
}

// What the blocks share: the steps of each split, of which the first `left` have one more; and the
// corners that are needed.
struct WeightShares {
  int64_t of_each, left;
  int corners, corner[4];
};

// (backward 5) A block owns kM output × kN input channels of one tap, and one split of the pixels;
// it sums over them and leaves the tile for parameter_gradients to add up.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    weight_gradient_kernel(Geometry g, WeightGradient gradient,
                           const __grid_constant__ WeightShares shares) {
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
  const int split = rest / shares.corners;
  const int corner = shares.corner[rest - split * shares.corners];
  const Tap tap{corner, of_corner / k, of_corner % k};

  const int64_t begin = split * shares.of_each + min(static_cast<int64_t>(split), shares.left);
  const int64_t end = begin + shares.of_each + (split < shares.left);
  PixelsOfTap<Loop> operands(g, static_cast<const D*>(gradient.grad_a),
                             static_cast<const D*>(gradient.x), begin * Loop::kDepth,
                             end * Loop::kDepth, first_m, first_n, tap, shared);
  const auto sums = Loop::run(operands, static_cast<int>(end - begin), shared, Loop::zeros());

  W* to = static_cast<W*>(gradient.sums) +
          ((static_cast<int64_t>(split) * 4 + corner) * per_corner + of_corner) * g.channels *
              g.channels;
  const Image matrix{1, g.channels, g.channels, 1, true};
  for_each_piece<Loop, W>(
      sums, shared, matrix, TileOrigin(g.channels, first_m, first_n, Loop::kM),
      [&](const PiecePlace& at, const auto& piece) { store(to + at.offset, piece); });
#endif
}

}  // namespace sspcab::cuda
