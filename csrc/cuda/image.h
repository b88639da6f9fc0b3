// Where the elements of an image lie, and which partial sums belong to a sample. Plain data for
// host and device; no torch. Offsets are 64-bit: an image may have more than 2³¹ elements.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SSPCAB_HOST_DEVICE __host__ __device__
#else
#define SSPCAB_HOST_DEVICE
#endif

namespace sspcab::cuda {

SSPCAB_HOST_DEVICE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// (N, C, H, W), dense, in one of two layouts.
struct Image {
  int64_t samples, channels, height, width;
  bool channels_last;

  SSPCAB_HOST_DEVICE constexpr int64_t pixels() const { return height * width; }  // of a sample
  SSPCAB_HOST_DEVICE constexpr int64_t sample_numel() const { return pixels() * channels; }
  SSPCAB_HOST_DEVICE constexpr int64_t numel() const { return samples * sample_numel(); }

  // `pixel` counts through all samples: (n · H + h) · W + w.
  SSPCAB_HOST_DEVICE constexpr int64_t offset(int64_t pixel, int64_t channel) const {
    if (channels_last) return pixel * channels + channel;
    const int64_t n = pixel / pixels();
    return (n * channels + channel) * pixels() + (pixel - n * pixels());
  }
};

// Sums over pixels are taken tile by tile. A tile of `tile` neighbouring pixels may begin in one
// sample and end in another, and has a slot for each sample in it: tile t and sample n meet in slot
// t + n, which no other pair has, because from one pair to the next t, n, or both go up.
struct SumSlots {
  int64_t tile, pixels;  // pixels of a tile, of a sample

  SSPCAB_HOST_DEVICE constexpr int64_t slot(int64_t pixel) const {
    return pixel / tile + pixel / pixels;
  }
  SSPCAB_HOST_DEVICE constexpr int64_t first(int64_t n) const { return slot(n * pixels); }
  SSPCAB_HOST_DEVICE constexpr int64_t last(int64_t n) const { return slot((n + 1) * pixels - 1); }
  SSPCAB_HOST_DEVICE constexpr int64_t count(int64_t samples) const {
    return last(samples - 1) + 1;
  }
};

}  // namespace sspcab::cuda
