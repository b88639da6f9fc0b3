// What the loading thread brings for a tile: boxes of pixels and of filters.
#pragma once

#include "cuda/convolution/results.cuh"
#include "cuda/convolution/shares.cuh"
#include "cuda/convolution/sm90/main_loop.cuh"

namespace sspcab::cuda {

constexpr auto kCacheHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);

// Coordinates of pixels as boxes have them, which may run on through all samples.
struct BoxPlace {
  int column, row, sample;

  __device__ BoxPlace(const Geometry& g, int64_t pixel) {
    sample = static_cast<int>(pixel / g.sample_pixels());
    const int of_sample =
        static_cast<int>(pixel - static_cast<int64_t>(sample) * g.sample_pixels());
    row = of_sample / g.width;
    column = of_sample - row * g.width;
  }
};

// A box of pixels moved by a tap (times `sign`).
struct MovedBox {
  int reach;
  uint16_t columns, rows;

  __device__ MovedBox(const Geometry& g, const Tap& tap, int sign)
      : reach(static_cast<int>(g.sub_kernels.reach())),
        columns(static_cast<uint16_t>(
            reach + sign * static_cast<int>(g.sub_kernels.column(tap.corner, tap.j)))),
        rows(static_cast<uint16_t>(
            reach + sign * static_cast<int>(g.sub_kernels.row(tap.corner, tap.i)))) {}
  __device__ void load(const CUtensorMap& map, uint64_t* barrier, void* to, int channel,
                       const BoxPlace& at) const {
    cute::SM90_TMA_LOAD_IM2COL_4D::copy(&map, barrier, to, channel, at.column - reach,
                                        at.row - reach, at.sample, columns, rows);
  }
};

// Maps of what the convolution of an image with filters reads.
struct PixelsAndFilters {
  CUtensorMap pixels, corner[4];
};

// The steps of a block's part of a tile: all channels of one tap after the other, of its corners.
template <class Loop, class Unit, class Place>
__device__ void load_taps(const Geometry& g, const PixelsAndFilters& maps, const Unit& unit,
                          int sign, typename Loop::Shared& shared, Place& place) {
  const BoxPlace at(g, unit.tile.pixel);
  const int kernel_dim = static_cast<int>(g.sub_kernels.kernel_dim);
  const int corners = 4 / unit.splits, first = unit.split * corners;
  for (Tap tap{first}; tap.corner < first + corners; tap.move_on(g.sub_kernels)) {
    const MovedBox box(g, tap, sign);
    for (int channel = 0; channel < g.channels; channel += Loop::kDepth) {
      Loop::fill(shared, place, [&](void* a, void* b, uint64_t* full) {
        box.load(maps.pixels, full, a, channel, at);
        cute::SM90_TMA_LOAD_3D::copy(&maps.corner[tap.corner], full, kCacheHint, b, channel,
                                     unit.tile.channel, tap.i * kernel_dim + tap.j);
      });
    }
  }
}

// Maps of what a gradient of filters reads.
struct PixelsOfBoth {
  CUtensorMap grad_a, x;
};

// The steps of one share: kDepth pixels of grad_a and, moved, of x.
template <class Loop, class Place>
__device__ void load_share(const Geometry& g, const PixelsOfBoth& maps, const WeightShare& share,
                           typename Loop::Shared& shared, Place& place) {
  constexpr int box_bytes = kPixelBox * kHopperDepthBytes;
  constexpr int channels = kHopperDepthBytes / sizeof(typename Loop::Element);
  const MovedBox box(g, share.tap, 1);
  for (int64_t step = share.begin; step < share.end; ++step) {
    const int64_t pixel = step * Loop::kDepth;
    const BoxPlace at(g, pixel);
    Loop::fill(shared, place, [&](unsigned char* a, unsigned char* b, uint64_t* full) {
      for (int i = 0; i < Loop::kM / channels; ++i) {
        cute::SM90_TMA_LOAD_2D::copy(&maps.grad_a, full, kCacheHint, a + i * box_bytes,
                                     share.first_output + i * channels, static_cast<int>(pixel));
      }
      for (int i = 0; i < Loop::kN / channels; ++i) {
        box.load(maps.x, full, b + i * box_bytes, share.first_input + i * channels, at);
      }
    });
  }
}

}  // namespace sspcab::cuda
