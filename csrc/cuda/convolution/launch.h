// The launchers of one arithmetic; each is compiled in a file of its own,
// sm80/<arithmetic>.cu.
#pragma once

#include "cuda/convolution/convolution.h"

namespace sspcab::cuda {

template <Arithmetic arithmetic>
struct Launcher {
  static void forward(const Convolution&, const Forward&, const LaunchPlan&, cudaStream_t);
  static void input_gradient(const Convolution&, const InputGradient&, const LaunchPlan&,
                             cudaStream_t);
  static void weight_gradient(const Convolution&, const WeightGradient&, const LaunchPlan&,
                              cudaStream_t);
  // Of plans that share a launch.
  static void gradients(const Convolution&, const InputGradient&, const LaunchPlan&,
                        const WeightGradient&, const LaunchPlan&, cudaStream_t);
};

}  // namespace sspcab::cuda
