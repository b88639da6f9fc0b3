// From NCHW to channels_last through shared memory.
#pragma once

#include "cuda/element.cuh"

namespace sspcab::cuda {

constexpr int kTransposeThreads = 256;

// A tile has 128 bytes of pixels and one vector of them for each thread (and channel that it stores
// together with another). It lies in shared memory pixel by pixel in groups of 16 bytes, whose
// order changes from pixel to pixel: both the threads that store pixels of one channel and those
// that load channels of one pixel meet all banks.
template <class D>
struct TransposedTile {
  static constexpr int kPixels = 128 / sizeof(D);
  // Channels that one thread stores together, to fill the four bytes of a bank.
  static constexpr int kTogether = sizeof(D) == 2 ? 2 : 1;
  static constexpr int kChannels = kTransposeThreads * kTogether * kVector<D> / kPixels;

  __device__ D* at(int pixel, int channel) {
    constexpr int V = kVector<D>;
    const int group = channel / V ^ (pixel ^ pixel / V) % 8;
    return data + pixel * kChannels + group * V + channel % V;
  }

  alignas(128) D data[kPixels * kChannels];
};

// The part of an image that a block transposes: up to kChannels channels, pixels [first, last) of
// one sample.
struct TransposedPart {
  int64_t n, channel, channels;  // the first channel; all there are
  int64_t first, last, pixels;   // the last is the number of pixels of the sample
};

// sink(pixel, channel, Vector<D, VC>) for all pixels and channels of the part, from
// source(pixel, channel) -> Vector<D, VP>: copies of VP pixels and VC channels. A thread of sink
// keeps to its channels. The tiles take turns, so one barrier each is enough.
//
// source: neighbouring threads have neighbouring copies of pixels. A place outside the part is
// moved to its border and what is read there goes unused, so that no branch comes between the
// loads.
template <int VP, int VC, class D, class Source, class Sink>
__device__ void transpose(TransposedTile<D> (&tiles)[2], const TransposedPart& part,
                          Source&& source, Sink&& sink) {
  using Tile = TransposedTile<D>;
  constexpr int together = Tile::kTogether;
  constexpr int source_lanes = Tile::kPixels / VP, source_rows = kTransposeThreads / source_lanes;
  constexpr int sink_lanes = Tile::kChannels / VC, sink_rows = kTransposeThreads / sink_lanes;
  const int thread = threadIdx.x;
  int turn = 0;
  for (int64_t first = part.first; first < part.last; first += Tile::kPixels, turn ^= 1) {
    Tile& tile = tiles[turn];
    const int pixel = thread % source_lanes * VP;
    const int64_t last_copy = part.last - VP;
    const int64_t from = first + pixel < last_copy ? first + pixel : last_copy;
#pragma unroll(4 / together)
    for (int row = 0; row < Tile::kChannels / together; row += source_rows) {
      const int channel = (row + thread / source_lanes) * together;
      Vector<D, VP> of_channel[together];
#pragma unroll
      for (int i = 0; i < together; ++i) {
        const int64_t c = part.channel + channel + i;
        of_channel[i] = source(from, c < part.channels ? c : part.channels - 1);
      }
#pragma unroll
      for (int j = 0; j < VP; ++j) {
        Vector<D, together> stored;
        for (int i = 0; i < together; ++i) stored[i] = of_channel[i][j];
        store(tile.at(pixel + j, channel), stored);
      }
    }
    __syncthreads();
    const int channel = thread % sink_lanes * VC;
    if (part.channel + channel < part.channels) {
#pragma unroll 4
      for (int row = 0; row < Tile::kPixels; row += sink_rows) {
        const int pixel = row + thread / sink_lanes;
        if (first + pixel < part.last) {
          sink(first + pixel, part.channel + channel, load<VC>(tile.at(pixel, channel)));
        }
      }
    }
  }
}

// How blocks share a transposition: each has kChannels channels and `tile` pixels of a sample.
struct Transposition {
  Image image;
  int64_t tile, parts;  // pixels of a part; parts of a sample
  int64_t channel_blocks;

  // Long parts, for few sums over pixels; shorter where there would be too few blocks for the
  // processors. Depends on nothing but the image; a multiple of every tile's pixels.
  static int64_t tile_of(const Image& image) {
    constexpr int64_t longest = 512, shortest = 64, enough_blocks = 512;
    const int64_t groups = image.samples * divide_up(image.channels, 64);
    int64_t tile = longest;
    while (tile > shortest && groups * divide_up(image.pixels(), tile) < enough_blocks) tile /= 2;
    return tile;
  }
  template <class D>
  static Transposition of(const Image& image) {
    const int64_t tile = tile_of(image);
    return {image, tile, divide_up(image.pixels(), tile),
            divide_up(image.channels, TransposedTile<D>::kChannels)};
  }
  int64_t blocks() const { return image.samples * parts * channel_blocks; }

  template <class D>
  __device__ TransposedPart part(int64_t block) const {
    const int64_t sample_part = block / channel_blocks, n = sample_part / parts;
    const int64_t first = (sample_part - n * parts) * tile, pixels = image.pixels();
    return {n,
            (block - sample_part * channel_blocks) * TransposedTile<D>::kChannels,
            image.channels,
            first,
            first + tile < pixels ? first + tile : pixels,
            pixels};
  }
};

// body(VP, VC) as std::integral_constant: the widest copies along pixels and along channels.
template <class D, class Body>
void with_copies(const Image& image, Body&& body) {
  constexpr std::integral_constant<int, kVector<D>> wide;
  constexpr std::integral_constant<int, 1> single;
  const bool wide_channels = image.channels % wide == 0;
  if (image.pixels() % wide == 0) {
    wide_channels ? body(wide, wide) : body(wide, single);
  } else {
    wide_channels ? body(single, wide) : body(single, single);
  }
}

}  // namespace sspcab::cuda
