// The three convolutions around the main loop: how results are divided among blocks, and what
// becomes of the sums.
#pragma once

#include "cuda/convolution.h"
#include "cuda/operands.cuh"

namespace sspcab::cuda {

// A tile of results, as T, in shared memory, between the registers of the tensor cores and whole
// sectors of global memory: rows of channels for channels_last, rows of pixels for NCHW. The
// padding keeps both the scattered writes and the reads of 16 bytes free of bank conflicts.
template <class Loop, class T>
class ResultTile {
 public:
  using W = Wide<T>;
  static constexpr int kByPixel = padded_channels(Loop::kTile);
  static constexpr int kByChannel = padded_pixels(Loop::kTile, sizeof(T));
  static constexpr int kPiece = kVector<T>;

  __device__ ResultTile(void* shared, bool channels_last)
      : data_(static_cast<T*>(shared)), channels_last_(channels_last) {}

  // Of registers that hold T.
  template <class Results>
  __device__ void fill(const Results& results) const {
    const auto memory = cute::make_smem_ptr(data_);
    using Shape_ = Shape<Int<Loop::kM>, Int<Loop::kN>>;
    if (channels_last_) {
      cute::copy(results, Loop::part_of(cute::make_tensor(
                              memory, Layout<Shape_, Stride<Int<kByPixel>, _1>>{})));
    } else {
      cute::copy(results, Loop::part_of(cute::make_tensor(
                              memory, Layout<Shape_, Stride<_1, Int<kByChannel>>>{})));
    }
    __syncthreads();
  }

  __device__ const T* at(int pixel, int channel) const {
    return data_ + (channels_last_ ? pixel * kByPixel + channel : channel * kByChannel + pixel);
  }

  // Σ over the pixels [first, last) of a channel, in four chains.
  __device__ W sum(int first, int last, int channel) const {
    W chains[4] = {};
    if (channels_last_) {
      const T* from = at(first, channel);
      int left = last - first;
      for (; left >= 4; left -= 4, from += 4 * kByPixel) {
        for (int i = 0; i < 4; ++i) chains[i] += widen(from[i * kByPixel]);
      }
      for (; left > 0; --left, from += kByPixel) chains[0] += widen(*from);
    } else {
      for (int pixel = first - first % kPiece; pixel < last; pixel += kPiece) {
        const auto piece = load<kPiece>(at(pixel, channel));
        for (int i = 0; i < kPiece; ++i) {
          if (pixel + i >= first && pixel + i < last) chains[i % 4] += widen(piece[i]);
        }
      }
    }
    return (chains[0] + chains[1]) + (chains[2] + chains[3]);
  }

 private:
  T* data_;
  bool channels_last_;
};

// The same registers, rounded.
template <class D, class Results>
__device__ auto rounded(const Results& results, bool with_relu = false) {
  auto narrowed = cute::make_fragment_like<D>(results);
  CUTE_UNROLL
  for (int i = 0; i < cute::size(results); i += 2) {
    narrow_pair(results(i), results(i + 1), with_relu, &narrowed(i));
  }
  return narrowed;
}

// Where a tile lies: its first pixel and channel, and the sample of each of its pixels.
struct TileOrigin {
  int64_t pixel, sample = 0;
  int channel;
  unsigned within_sample = 0, pixels_of_sample = 1;

  // In a matrix, whose rows count as pixels of one sample.
  __device__ TileOrigin(int row, int column) : pixel(row), channel(column) {}
  // Blocks that share pixels are neighbours.
  __device__ TileOrigin(const Image& image, int m, int n) {
    const int tiles_n = static_cast<int>(divide_up(image.channels, n));
    const int tile = blockIdx.x / tiles_n;
    pixel = static_cast<int64_t>(tile) * m;
    channel = static_cast<int>(blockIdx.x - tile * tiles_n) * n;
    sample = pixel / image.pixels();
    pixels_of_sample = static_cast<unsigned>(image.pixels());
    within_sample = static_cast<unsigned>(pixel - sample * image.pixels());
  }
  __device__ int64_t sample_of(int pixel_of_tile) const {
    return sample + (within_sample + pixel_of_tile) / pixels_of_sample;
  }
};

// body(offset, pixel of the tile, channel, piece) for every piece of the tile inside the image, in
// the image's layout: 16 bytes where they lie together in memory, otherwise single elements.
template <class Loop, class D, class Body>
__device__ void for_each_piece(const ResultTile<Loop, D>& results, const Image& image,
                               const TileOrigin& origin, const Body& body) {
  constexpr int count = kVector<D>;
  const int64_t left = image.samples * image.pixels() - origin.pixel;
  const int pixels = static_cast<int>(left < Loop::kM ? left : Loop::kM);
  if (image.channels_last) {  // a thread has the same channels of every few pixels
    constexpr int rows = kThreads * count / Loop::kN;
    const int column = threadIdx.x % (Loop::kN / count) * count;
    const int first = threadIdx.x / (Loop::kN / count), channel = origin.channel + column;
    if (channel >= image.channels) return;
    const D* piece = results.at(first, column);
    int64_t offset = (origin.pixel + first) * image.channels + channel;
    CUTE_UNROLL
    for (int i = 0; i < Loop::kM / rows; ++i) {
      if (first + i * rows >= pixels) return;
      body(offset, first + i * rows, channel, load<count>(piece));
      piece += rows * ResultTile<Loop, D>::kByPixel;
      offset += rows * image.channels;
    }
    return;
  }
  const bool together = image.pixels() % count == 0;
  for (int i = threadIdx.x; i < Loop::kM * Loop::kN / count; i += kThreads) {
    const int row = i / (Loop::kM / count), column = i % (Loop::kM / count) * count;
    const int channel = origin.channel + row;
    if (channel >= image.channels) return;
    const auto offset = [&](int pixel) {
      return (origin.sample_of(pixel) * (image.channels - 1) + channel) * image.pixels() +
             origin.pixel + pixel;
    };
    if (together && column < pixels) {
      body(offset(column), column, channel, load<count>(results.at(column, row)));
    } else {
      for (int j = column; j < column + count && j < pixels; ++j) {
        body(offset(j), j, channel, load<1>(results.at(j, row)));
      }
    }
  }
}

// The kernels' bounds name one block for each processor: left to itself, the compiler spills
// registers of small tiles for the sake of more blocks.

// (A) A block owns kM neighbouring pixels, through all samples, and kN output channels. To its sums
// over taps and input channels, bias, ReLU and rounding are applied in registers. The tile goes
// through shared memory, from where it is summed over each sample's pixels by one thread a channel,
// and written in 16-byte pieces.
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
  for (int i = threadIdx.x; i < Loop::kN; i += kThreads) {
    const int c = origin.channel + i;
    W sum = 0;
    for (int corner = 0; corner < 4 && c < g.channels; ++corner) {
      sum += forward.parameter_dtype == Dtype::Float
                 ? static_cast<const float*>(forward.bias[corner])[c]
                 : widen(static_cast<const D*>(forward.bias[corner])[c]);
    }
    bias[i] = sum;
  }

  MovedPixels<Loop> pixels(g, static_cast<const D*>(forward.x), origin.pixel, 1,
                           Loop::shared_a(shared));
  FilterRows<Loop> rows(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop, FilterRows<Loop>> operands(g, pixels, rows);
  const int steps = static_cast<int>(g.sub_kernels.taps() * divide_up(g.channels, Loop::kDepth));
  auto sums = Loop::run(operands, steps, shared);

  const auto biases = Loop::part_of(
      cute::make_tensor(cute::make_smem_ptr(bias),
                        Layout<Shape<Int<Loop::kM>, Int<Loop::kN>>, Stride<cute::_0, _1>>{}));
  CUTE_UNROLL
  for (int i = 0; i < cute::size(sums); ++i) {
    sums(i) += biases(i);
  }
  const ResultTile<Loop, D> results(shared, image.channels_last);
  results.fill(rounded<D>(sums, forward.relu));

  if (forward.sums) {
    const int64_t left = image.samples * image.pixels() - origin.pixel;
    const int end = static_cast<int>(left < Loop::kM ? left : Loop::kM);
    const SumSlots slots{Loop::kM, image.pixels()};
    for (int i = threadIdx.x; i < Loop::kN && origin.channel + i < g.channels; i += kThreads) {
      for (int first = 0; first < end;) {
        const int64_t next = (origin.sample_of(first) + 1) * image.pixels() - origin.pixel;
        const int last = static_cast<int>(next < end ? next : end);
        static_cast<W*>(
            forward.sums)[slots.slot(origin.pixel + first) * g.channels + origin.channel + i] =
            results.sum(first, last, i);
        first = last;
      }
    }
  }
  D* y = static_cast<D*>(forward.y);
  for_each_piece(results, image, origin, [&](int64_t offset, int, int, const auto& piece) {
    store_global(y + offset, piece);
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
  MovedPixels<Loop> pixels(g, static_cast<const D*>(gradient.grad_a), origin.pixel, -1,
                           Loop::shared_a(shared));
  FilterColumns<Loop> columns(g, filters, origin.channel, Loop::shared_b(shared));
  TapsAndChannels<Loop, FilterColumns<Loop>> operands(g, pixels, columns);
  const int steps = static_cast<int>(g.sub_kernels.taps() * divide_up(g.channels, Loop::kDepth));
  const auto sums = Loop::run(operands, steps, shared);
  const ResultTile<Loop, D> results(shared, image.channels_last);
  results.fill(rounded<D>(sums));

  const D* y = static_cast<const D*>(gradient.gradient.y);
  const D* x = static_cast<const D*>(gradient.gradient.x);
  const W* gate = static_cast<const W*>(gradient.gradient.gate);
  const W* grad_loss = static_cast<const W*>(gradient.gradient.grad_loss);
  const W factor = grad_loss ? *grad_loss * 2 / static_cast<W>(image.numel()) : 0;
  D* grad_x = static_cast<D*>(gradient.grad_x);
  for_each_piece(results, image, origin,
                 [&](int64_t offset, int pixel, int channel, const auto& piece) {
                   constexpr int count = sizeof(piece) / sizeof(D);
                   if (!grad_loss) return store_global(grad_x + offset, piece);
                   const auto y_piece = load<count>(y + offset), x_piece = load<count>(x + offset);
                   const W* gates = gate + origin.sample_of(pixel) * image.channels + channel;
                   const Vector<W, count> gate_piece =
                       image.channels_last ? load_wide<count>(gates) : repeated<count>(*gates);
                   Vector<D, count> sum;
                   for (int i = 0; i < count; ++i) {
                     const W error = widen(y_piece[i]) * gate_piece[i] - widen(x_piece[i]);
                     sum[i] = narrow<D>(widen(piece[i]) - factor * error);
                   }
                   store_global(grad_x + offset, sum);
                 });
#endif
}

// (backward 5) A block owns kM output × kN input channels of one tap, and one split of the pixels;
// it sums over them and leaves the tile for parameter_gradients to add up.
template <class Loop>
__global__ void __launch_bounds__(kThreads, 1)
    weight_gradient_kernel(Geometry g, WeightGradient gradient, int64_t splits) {
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
  int corners = 0;
  for (int corner = 0; corner < 4; ++corner) corners += gradient.needs[corner];
  int wanted = rest / per_corner % corners, corner = 0;
  while (!gradient.needs[corner] || wanted-- > 0) ++corner;
  const int tap = corner * per_corner + rest % per_corner;
  const int64_t split = rest / per_corner / corners;

  const int64_t all_steps = divide_up(g.pixels, Loop::kDepth);
  const int64_t begin = all_steps * split / splits, end = all_steps * (split + 1) / splits;
  PixelsOfTap<Loop> operands(g, static_cast<const D*>(gradient.grad_a),
                             static_cast<const D*>(gradient.x), begin * Loop::kDepth, first_m,
                             first_n, offset_of(g.sub_kernels, tap), shared);
  const auto sums = Loop::run(operands, static_cast<int>(end - begin), shared);
  const ResultTile<Loop, W> results(shared, true);
  results.fill(sums);

  W* to = static_cast<W*>(gradient.sums) +
          (split * g.sub_kernels.taps() + tap) * g.channels * static_cast<int64_t>(g.channels);
  const Image matrix{1, g.channels, g.channels, 1, true};
  for_each_piece(
      results, matrix, TileOrigin{first_m, first_n},
      [&](int64_t offset, int, int, const auto& piece) { store_global(to + offset, piece); });
#endif
}

}  // namespace sspcab::cuda
