// What a problem would get, for people and tests to see: launches nothing, needs no device.
#pragma once

#include <string>
#include <vector>

#include "cuda/host/groups.h"

namespace sspcab::cuda {

struct Problem {
  Dtype dtype, parameter_dtype;
  Image image;
  SubKernels sub_kernels;
  bool allow_tf32;
  int config;
  Device device;

  Convolution convolution() const {
    return {arithmetic_of(dtype, allow_tf32), image, sub_kernels, config, {}, 0};
  }
  Problem part(const Group& group) const {
    Problem part = *this;
    part.image = group.image;
    return part;
  }
  Groups groups(int images) const { return Groups::of(dtype, image, images, device); }
  bool is_tiled() const { return config < kConfigs && cuda::is_tiled(convolution(), device); }
};

// The launches of one call of the block, in order.
inline std::vector<std::string> forward_launches(const Problem& p) {
  std::vector<std::string> launches;
  const Groups groups = p.groups(kForwardImages);
  for (int64_t i = 0; i < groups.count; ++i) {
    const bool weights = i == 0 && packs_weights(p.sub_kernels, p.dtype, p.parameter_dtype);
    if (p.is_tiled() && (packs_x(p.image) || weights)) launches.push_back("pack");
    launches.push_back("convolution");
    if (!p.is_tiled()) launches.push_back("channel_sums");
    launches.insert(launches.end(), {"gate", "scale"});
  }
  return launches;
}
// All gradients needed.
inline std::vector<std::string> backward_launches(const Problem& p) {
  std::vector<std::string> launches;
  const Groups groups = p.groups(kBackwardImages);
  for (int64_t i = 0; i < groups.count; ++i) {
    // Weights alone are packed beside the gate's gradient.
    if (p.is_tiled() && packs_x(p.image)) launches.push_back("pack");
    launches.insert(launches.end(),
                    {"gate_gradient", "excitation_gradient", "activation_gradient"});
    const Convolution convolution = p.part(groups[i]).convolution();
    if (p.is_tiled() && share_a_launch(plan_input_gradient(convolution, p.device),
                                       plan_weight_gradient(convolution, p.device, 4))) {
      launches.push_back("gradients");
    } else {
      launches.insert(launches.end(), {"input_gradient", "weight_gradient"});
    }
  }
  launches.push_back("parameter_gradients");
  return launches;
}

}  // namespace sspcab::cuda
