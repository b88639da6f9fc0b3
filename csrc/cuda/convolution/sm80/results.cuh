// A block's tile of results: who has which of them, the way to global memory in either layout, and
// the sums over each channel.
#pragma once

#include "cuda/convolution/results.cuh"
#include "cuda/convolution/sm80/main_loop.cuh"

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

// Neighbours in a row of a thread's results, which has kGroups of them.
template <class Loop, int group>
class Group {
  using Places =
      decltype(Loop::part_of(cute::make_identity_tensor(Shape<Int<Loop::kM>, Int<Loop::kN>>{})));
  static constexpr int kPair = Loop::Cores::kPair, kFirst = group * Loop::kTogether / kPair;

 public:
  // From the thread's first column.
  static constexpr int kColumn =
      decltype(cute::get<1>(decltype(Places{}.layout()){}(_0{}, _0{}, Int<kFirst>{})))::value;

  // From the value-th result of an instruction on.
  template <class Results>
  static __device__ auto of(const Results& results, int value, int m) {
    Vector<typename Results::value_type, Loop::kTogether> piece;
    for (int i = 0; i < Loop::kTogether; ++i) {
      piece[i] = results(value + i % kPair, m, kFirst + i / kPair);
    }
    return piece;
  }
};

// body(Group{}, i) for all of them.
template <class Loop, class Body>
__device__ void for_each_group(const Body& body) {
  cute::for_each(cute::make_int_sequence<Loop::kGroups>{},
                 [&](auto i) { body(Group<Loop, i>{}, i); });
}

// body(place, piece) for the neighbouring channels that the thread has, of an image in
// channels_last. A thread's pixels ascend where operands are deep; each has the same groups of
// channels. `whole`: all of the tile lies inside one sample.
template <class Loop, bool whole, class Results, class Body>
__device__ void for_each_in_registers(const Results& results, int channels,
                                      const TileOrigin& origin, const Body& body) {
  constexpr int pair = Loop::Cores::kPair;
  constexpr int halves = cute::size<0>(Results{}) / pair;
  const auto places =
      Loop::part_of(cute::make_identity_tensor(Shape<Int<Loop::kM>, Int<Loop::kN>>{}));
  const int first_channel = origin.channel + cute::get<1>(places(0));
  int last = 0;
  int64_t offset = origin.pixel * channels + first_channel;
  CUTE_UNROLL
  for (int m = 0; m < cute::size<1>(results) * halves; ++m) {
    const int value = m % halves * pair;
    const int pixel = cute::get<0>(places(value, m / halves, 0));
    offset += static_cast<int64_t>(pixel - last) * channels;
    last = pixel;
    if (!whole && pixel >= origin.pixels) continue;
    for_each_group<Loop>([&](auto group, int i) {
      constexpr int column = decltype(group)::kColumn;
      const int channel = first_channel + column;
      if (!whole && channel >= channels) return;
      body(PiecePlace<column>{offset, pixel, channel, i, whole && m > 0},
           group.of(results, value, m / halves));
    });
  }
}

// body(place, piece) for every piece of the tile inside the image, in the image's layout:
// neighbours in memory where they lie together, otherwise single elements.
template <class Loop, class T, class Results, class Body>
__device__ void for_each_piece(const Results& results, void* shared, const Image& image,
                               const TileOrigin& origin, const Body& body) {
  const int channels = static_cast<int>(image.channels);
  if (image.channels_last) {
    if (origin.is_in_one_sample(Loop::kM) && origin.channel + Loop::kN <= channels) {
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
      return PiecePlace<0>{offset, pixel, channel, 0, false};
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

// That of the lane whose number differs by `other`. Of a float, __shfl_xor_sync makes two moves
// more, which PTX has and the machine code doesn't.
template <int other>
__device__ float from_lane(float value) {
  float result;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;"
               : "=f"(result)
               : "f"(value), "n"(other));
  return result;
}
template <int other>
__device__ double from_lane(double value) {
  return __shfl_xor_sync(0xffffffff, value, other);
}

// Leaves the sums over the pixels of each sample in its slots: a thread adds up its own pixels,
// then one thread for each channel what they have, in order.
template <class Loop, class Results, class W>
__device__ void sum_channels(const Results& results, const TileOrigin& origin, int channels,
                             void* shared, W* sums) {
  using Cores = typename Loop::Cores;
  // Threads that write at the same time, of two or four rows, meet in no bank: the rows lie side by
  // side, or in each other's gaps.
  constexpr int part = Loop::kTogether < kVector<W> ? Loop::kTogether : kVector<W>;
  constexpr int pitch = Loop::kN + (part < Loop::kTogether ? part : 4 * part);
  W* partial = static_cast<W*>(shared);
  const auto places =
      Loop::part_of(cute::make_identity_tensor(Shape<Int<Loop::kM>, Int<Loop::kN>>{}));
  // Of eight rows of threads, which have the same columns, four add those of the others first.
  const int row = Cores::row_of(threadIdx.x);
  W* of_thread = partial + (row / 8 * 4 + row % 4) * pitch + cute::get<1>(places(0));
  // Of the pixels of which has(pixel).
  const auto sum_up = [&](int64_t slot, const auto& has) {
    using ByChannel = Layout<Shape<Int<Loop::kM>, Int<Loop::kN>>, Stride<_0, _1>>;
    auto totals = cute::make_tensor<W>(cute::make_layout_like(
        Loop::part_of(cute::make_tensor(static_cast<W*>(nullptr), ByChannel{})).layout()));
    cute::fill(totals, -W(0));  // to which adding is nothing to do
    CUTE_UNROLL
    for (int i = 0; i < cute::size(results); ++i) {
      if (has(cute::get<0>(places(i)))) totals(i) += results(i);
    }
    CUTE_UNROLL
    for (int i = 0; i < cute::size(cute::filter(totals)); ++i) {
      W& total = cute::filter(totals)(i);
      total += from_lane<4 * Cores::kRowLanes>(total);
    }
    for_each_group<Loop>([&](auto group, int) {
      if (row & 4) return;
      const auto piece = group.of(totals, 0, 0);
      cute::for_each(cute::make_int_sequence<Loop::kTogether / part>{}, [&](auto p) {
        Vector<W, part> stored;
        for (int k = 0; k < part; ++k) stored[k] = piece[p * part + k];
        store_shared<group.kColumn + p * part>(of_thread, stored);
      });
    });
    __syncthreads();
    const int channel = origin.channel + threadIdx.x;
    if (threadIdx.x < Loop::kN && channel < channels) {
      W sum = 0;
      for (int row = 0; row < Cores::kRows / 2; ++row) sum += partial[row * pitch + threadIdx.x];
      sums[slot * channels + channel] = sum;
    }
    __syncthreads();
  };
  int64_t slot = SumSlots{Loop::kM, origin.pixels_of_sample}.slot(origin.pixel);
  if (origin.is_in_one_sample(Loop::kM)) return sum_up(slot, [](int) { return true; });
  for (int first = 0; first < origin.pixels; ++slot) {
    const int last = min(origin.end_of(origin.sample_of(first)), origin.pixels);
    sum_up(slot, [&](int pixel) { return pixel >= first && pixel < last; });
    first = last;
  }
}

}  // namespace sspcab::cuda
