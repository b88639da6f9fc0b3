// How the stages that pass over a whole image share it out. Plain data for host and device; no
// torch.
#pragma once

#include <algorithm>

#include "cuda/image.h"

namespace sspcab::cuda {

constexpr int kWalkThreads = 256;  // of a block
constexpr int kWalkLanes = 32;     // most of them side by side

// A block has one part of one sample's pixels and some of its channels. Its threads form rows of
// `lanes`; a thread keeps to its channels and walks over pixels:
//   channels_last  lanes are neighbouring vectors of channels, rows neighbouring pixels
//   NCHW           lanes are neighbouring vectors of pixels, a row has one channel
struct Partition {
  Image image;
  int64_t tile, parts;  // pixels of a part; parts of a sample
  int lanes, rows;
  int64_t channel_blocks;

  // `vector`: elements of one copy.
  static Partition of(const Image& image, int vector) {
    Partition p{image, tile_of(image), 0, 0, 0, 0};
    p.parts = divide_up(image.pixels(), p.tile);
    if (image.channels_last) {
      // As even as possible: 40 vectors of channels are 2 · 20, not 32 and 8.
      const int64_t vectors = divide_up(image.channels, vector);
      p.channel_blocks = divide_up(vectors, kWalkLanes);
      p.lanes = static_cast<int>(divide_up(vectors, p.channel_blocks));
      p.rows = kWalkThreads / p.lanes;
    } else {
      p.lanes = plane_lanes(image);
      p.rows = kWalkThreads / p.lanes;
      p.channel_blocks = divide_up(image.channels, p.rows);
    }
    return p;
  }
  int64_t blocks() const { return image.samples * parts * channel_blocks; }

  // About 8192 elements for a block, and at least 64 pixels (of 256 channels twice as many), so
  // that sums are few beside what was summed. Less, down to about 2048, where there would be too
  // few blocks for the processors. Depends on nothing but the image; a multiple of every vector.
  static int64_t tile_of(const Image& image) {
    constexpr int64_t enough_blocks = 256, quantum = 8;
    const int64_t channels = image.channels_last ? std::min<int64_t>(image.channels, 256)
                                                 : kWalkThreads / plane_lanes(image);
    const int64_t groups = image.samples * divide_up(image.channels, channels);
    int64_t tile = std::max<int64_t>(8192 / channels, 64);
    const int64_t least = std::max<int64_t>(2048 / channels, quantum);
    while (tile > least && groups * divide_up(image.pixels(), tile) < enough_blocks) tile /= 2;
    const int64_t parts = divide_up(image.pixels(), tile);
    return divide_up(divide_up(image.pixels(), parts), quantum) * quantum;
  }

 private:
  // A power of two, for sums by shuffles.
  static int plane_lanes(const Image& image) {
    int lanes = 1;
    while (lanes < kWalkLanes && 8 * lanes < image.pixels()) lanes *= 2;
    return lanes;
  }
};

}  // namespace sspcab::cuda
