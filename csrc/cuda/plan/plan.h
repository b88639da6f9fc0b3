// What a call of the masked convolution, or of its gradients, will do: decided once, before
// anything is allocated or launched; host code carries it out and asks nothing again. Pure
// functions of the problem and of the device; no torch.
#pragma once

#include <string>
#include <vector>

#include "cuda/plan/groups.h"

namespace sspcab::cuda {

// The values of `config` beside those of tiles.
constexpr int kAutomatic = -1, kPlain = kConfigs;

struct Problem {
  Dtype dtype, parameter_dtype;
  Image image;
  SubKernels sub_kernels;
  bool allow_tf32;
  int config;
  Device device;

  // Of a group's image; its filters are not known yet.
  Convolution convolution(const Image& image) const {
    return {arithmetic_of(dtype, allow_tf32), image, sub_kernels, config, {}, 0};
  }
  bool can_be_tiled() const { return cuda::is_tiled(convolution(image), device); }
  // On the pipeline, not by plain kernels.
  bool is_tiled() const { return config != kPlain && can_be_tiled(); }
  bool is_tf32() const { return is_tiled() && convolution(image).arithmetic == Arithmetic::Tf32; }
  // `images`: see Groups.
  Groups groups(int images) const { return Groups::of(dtype, image, images, device); }
  Groups one_group() const { return Groups::one(dtype, image); }
};

// One for each of the two sizes that groups have.
template <class T>
class BySize {
 public:
  template <class Make>
  BySize(const Groups& groups, const Make& make)
      : samples_(groups.smaller().samples),
        smaller_(make(groups.smaller())),
        larger_(groups.larger().samples == samples_ ? smaller_ : make(groups.larger())) {}

  const T& operator[](const Image& image) const {
    return image.samples == samples_ ? smaller_ : larger_;
  }

 private:
  int64_t samples_;
  T smaller_, larger_;
};

// Of images and sub-kernels that the pipeline can't read where they lie.
struct PackedBytes {
  int64_t x, weights;  // 0: nothing is packed
};

struct ForwardPlan {
  ForwardPlan(const Problem&, const Groups&);

  SumSlots sum_slots(const Image&) const;  // of a group's image, as in all that follows
  int64_t sum_bytes() const;
  // The block's, in order.
  std::vector<std::string> launch_names() const;

  const Problem problem;
  const Groups groups;
  const bool is_tiled;
  const PackedBytes packed;
  const BySize<LaunchPlan> launches;
};

struct GradientLaunches {
  LaunchPlan x, weights;
  bool shared;     // one launch
  int64_t splits;  // of the sums of the sub-kernels' gradients
};

struct BackwardPlan {
  // Which gradients are needed: of x, and of the four sub-kernels.
  BackwardPlan(const Problem&, const Groups&, bool x, const bool (&corners)[4]);

  bool needs_weights() const { return corners > 0; }
  int64_t grad_a_bytes() const;
  int64_t bias_sum_bytes() const;    // of all groups: they are few
  int64_t weight_sum_bytes() const;  // of one group, to which the next ones add
  // The block's, all gradients needed.
  std::vector<std::string> launch_names() const;

  const Problem problem;
  const Groups groups;
  const bool is_tiled;
  const bool needs_x;
  const int corners;  // how many of them are needed
  const PackedBytes packed;
  const BySize<GradientLaunches> launches;
};

}  // namespace sspcab::cuda
