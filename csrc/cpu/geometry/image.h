// Images as the kernels see them: samples, rows of them, and where their channels lie.
//
// A blocked image is one of our own: [block of 16 channels][row][column][16 channels], zero beyond
// the last channel, of the type of the arithmetic.
#pragma once

#include <cstdint>

namespace sspcab::cpu {

constexpr int64_t kBlock = 16;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One sample: a dense (C, H, W) or (H, W, C) array.
struct Sample {
  int64_t channels, height, width;
  bool channels_last;

  int64_t pixels() const { return height * width; }
  int64_t numel() const { return channels * pixels(); }
  int64_t blocks() const { return divide_up(channels, kBlock); }
};

// Rows [first, last) of a sample.
struct Rows {
  int64_t first, last;

  int64_t count() const { return last - first; }
  // With `reach` more rows on both sides, as far as the image goes.
  Rows widened(int64_t height, int64_t reach) const {
    return {first > reach ? first - reach : 0, last + reach < height ? last + reach : height};
  }
};

// Rows of a blocked image.
template <class T>
struct Blocked {
  T* data;
  Rows rows;
  int64_t columns;

  int64_t row_stride() const { return columns * kBlock; }
  int64_t block_stride() const { return rows.count() * row_stride(); }
  T* at(int64_t row, int64_t column) const {  // of block 0
    return data + (row - rows.first) * row_stride() + column * kBlock;
  }
};

// An image whose blocks of 16 channels are contiguous: a blocked one, or channels_last memory.
template <class T>
struct View {
  const T* origin;  // of pixel (0, 0), which need not be in memory
  int64_t pixel_stride, row_stride, block_stride;

  const T* at(int64_t row, int64_t column) const {
    return origin + row * row_stride + column * pixel_stride;
  }
  static View of(const Blocked<T>& b) {
    return {b.at(0, 0), kBlock, b.row_stride(), b.block_stride()};
  }
  static View of(const T* channels_last, const Sample& s) {
    return {channels_last, s.channels, s.width * s.channels, kBlock};
  }
};

}  // namespace sspcab::cpu
