// Groups of samples. A group goes through all stages before the next one begins, so that what a
// stage leaves is still in the device's cache when the next stage reads it, and scratch memory is
// that of one group. Plain functions of sizes; no torch.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/convolution/convolution.h"

namespace sspcab::cuda {

// Images that one stage reads and another one has read or written before.
constexpr int kForwardImages = 2;   // x, y
constexpr int kBackwardImages = 4;  // grad_out, y, x, grad_a

struct Group {
  Dtype dtype;
  Image image;    // of its samples alone
  int64_t first;  // sample

  // Its part of D (N, C, H, W), and of W (N, length); null stays null.
  template <class T>
  T* part(T* images) const {
    return part(images, image.sample_numel() * element_bytes(dtype));
  }
  template <class T>
  T* part_of_vectors(T* vectors, int64_t length) const {
    return part(vectors, length * wide_bytes(dtype));
  }
  OutputGradient part(OutputGradient gradient) const {
    gradient.image = image;
    gradient.grad_out = part(gradient.grad_out);
    gradient.y = part(gradient.y);
    gradient.x = part(gradient.x);
    gradient.gate = part_of_vectors(gradient.gate, image.channels);
    return gradient;
  }

 private:
  template <class T>
  T* part(T* data, int64_t sample_bytes) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return data ? static_cast<Byte*>(data) + first * sample_bytes : nullptr;
  }
};

// The samples of an image in groups whose sizes differ by one at most.
struct Groups {
  Dtype dtype;
  Image image;
  int64_t count;

  // One group if `images` of its images fit into the cache; otherwise as few groups as leave them
  // in half of the cache, whose other half is for what streams by, but none that leaves processors
  // without a tile of 128 × 64 results.
  static Groups of(Dtype dtype, const Image& image, int images, const Device& device) {
    constexpr int64_t tile = 128 * 64;
    const int64_t sample = image.sample_numel();
    const int64_t reused = images * sample * element_bytes(dtype);
    if (image.samples * reused <= device.cache_bytes) return one(dtype, image);
    const int64_t fit = device.cache_bytes / 2 / reused;
    const int64_t busy = divide_up(device.processors * tile, sample);
    const int64_t wanted = divide_up(image.samples, std::max<int64_t>(1, fit));
    return {dtype, image, std::min(wanted, std::max<int64_t>(1, image.samples / busy))};
  }
  static Groups one(Dtype dtype, const Image& image) { return {dtype, image, 1}; }

  Group operator[](int64_t i) const {
    const int64_t first = i * image.samples / count;
    return {dtype, with_samples((i + 1) * image.samples / count - first), first};
  }
  // The images of the two sizes that groups have, which may be the same.
  Image smaller() const { return with_samples(image.samples / count); }
  Image larger() const { return with_samples(divide_up(image.samples, count)); }
  // The most of size(image) that a group has: more samples may take other tiles, and so less.
  template <class Size>
  int64_t most(const Size& size) const {
    return std::max<int64_t>(size(smaller()), size(larger()));
  }

 private:
  Image with_samples(int64_t samples) const {
    Image part = image;
    part.samples = samples;
    return part;
  }
};

}  // namespace sspcab::cuda
