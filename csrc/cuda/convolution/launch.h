// The launchers of one arithmetic by the instructions of one architecture; they are compiled in a
// file of their own, <architecture>/<arithmetic>.cu.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/convolution/convolution.h"

namespace sspcab::cuda {

struct Launchers {
  void (*forward)(const Convolution&, const Forward&, const LaunchPlan&, cudaStream_t);
  void (*input_gradient)(const Convolution&, const InputGradient&, const LaunchPlan&, cudaStream_t);
  void (*weight_gradient)(const Convolution&, const WeightGradient&, const LaunchPlan&,
                          cudaStream_t);
  // Of plans that share a launch.
  void (*gradients)(const Convolution&, const InputGradient&, const LaunchPlan&,
                    const WeightGradient&, const LaunchPlan&, cudaStream_t);
};
template <Arithmetic arithmetic>
Launchers sm80_launchers();
// What the code is compiled for that the current device has loaded of these kernels: 80 for 8.0.
template <Arithmetic arithmetic>
int sm80_loaded_capability();
template <Arithmetic arithmetic>
Launchers sm90_launchers();
// Whether the current device has loaded code of these kernels that has Hopper's instructions.
template <Arithmetic arithmetic>
bool sm90_is_loaded();

// body(config) with the plan's config as a constant.
template <class Body>
void with_config(int config, const Body& body) {
  switch (config) {
    case 0: return body(std::integral_constant<int, 0>{});
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
  }
  throw std::invalid_argument("sspcab: tiles have the numbers 0 to 2; got " +
                              std::to_string(config));
}

}  // namespace sspcab::cuda
