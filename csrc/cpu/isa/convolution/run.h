// The inner loop of the masked convolution: the sums of up to kMaxRun pixels in registers.
//
// Every step broadcasts one input channel of each pixel and multiplies it with a row of the panel,
// two vectors of output channels (or one). The pixels lie at one distance from each other and have
// the same taps inside the image.
#pragma once

// What a run reads: its pixels, the taps they all have, and a part of a panel.
template <class T>
struct RunInput {
  const T* pixel;
  int64_t pixel_stride, block_stride;
  const Tap* taps;
  int64_t tap_count;
  const T* panel;  // at a block of filter 0
  int64_t filter_stride, panel_taps;
  int64_t blocks, channels_of_last;
  int64_t sum_stride;  // from a pixel's sums to the next one's
  bool starts;         // replaces the sums rather than adds to them
  int64_t ahead = 0;   // from a pixel to one that will soon be read for the first time, or 0
};

template <class T, int Run, int Vectors>
void accumulate_run(const RunInput<T>& in, T* __restrict sums) {
  constexpr int64_t lanes = kLanes<T>;
  constexpr int shared = 3;  // pixels that share a pointer: x86 scales the stride by 1 and 2
  Vector<T> sum[Run][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Run; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      sum[r][v] = Vector<T>{};
    }
  }
  const T* block = in.pixel;
  const T* panel = in.panel;
  for (int64_t b = 0; b < in.blocks; ++b, block += in.block_stride) {
    const int64_t channels = b + 1 < in.blocks ? kBlock : in.channels_of_last;
    if (in.ahead) {
      for (int r = 0; r < Run; ++r) __builtin_prefetch(block + in.ahead + r * in.pixel_stride);
    }
    for (int64_t t = 0; t < in.tap_count; ++t) {
      const T* source[(Run + shared - 1) / shared];
      for (int i = 0; i * shared < Run; ++i) {
        source[i] = block + in.taps[t].offset + i * shared * in.pixel_stride;
      }
      const T* row = panel + in.taps[t].filter * in.filter_stride +
                     in.taps[t].index * channels * Vectors * lanes;
      const auto step = [&](int64_t c) __attribute__((always_inline)) {
        Vector<T> weight[Vectors];
        for (int v = 0; v < Vectors; ++v) weight[v] = load(row + v * lanes);
        row += Vectors * lanes;
#pragma GCC unroll 16
        for (int r = 0; r < Run; ++r) {
          const T x = source[r / shared][r % shared * in.pixel_stride + c];
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) sum[r][v] += x * weight[v];
        }
      };
      if (channels == kBlock) {
#pragma GCC unroll 4
        for (int64_t c = 0; c < kBlock; ++c) step(c);
      } else {
        for (int64_t c = 0; c < channels; ++c) step(c);
      }
    }
    panel += in.panel_taps * channels * Vectors * lanes;
  }
  if (!in.starts) {
#pragma GCC unroll 16
    for (int r = 0; r < Run; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] += load(sums + r * in.sum_stride + v * lanes);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Run; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) store(sums + r * in.sum_stride + v * lanes, sum[r][v]);
  }
}

template <class T>
using AccumulateRun = void (*)(const RunInput<T>&, T*);

template <class T, int Vectors, int... Index>
AccumulateRun<T> accumulate_run_of(int64_t run, std::integer_sequence<int, Index...>) {
  static constexpr AccumulateRun<T> table[] = {accumulate_run<T, Index + 1, Vectors>...};
  return table[run - 1];
}
