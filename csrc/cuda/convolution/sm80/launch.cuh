// From plain data to a launch of the kernel for its tile.
#pragma once

#include <algorithm>

#include "cuda/convolution/launch.h"
#include "cuda/convolution/sm80/kernels.cuh"
#include "cuda/launch.cuh"

namespace sspcab::cuda {

template <class D>
Filters filters_of(const Convolution& convolution) {
  Filters filters{{}, convolution.tap_stride * static_cast<int64_t>(sizeof(D))};
  for (int i = 0; i < 4; ++i) filters.corner[i] = static_cast<const char*>(convolution.corner[i]);
  return filters;
}

template <Arithmetic arithmetic>
static void launch_forward(const Convolution& convolution, const Forward& forward,
                           const LaunchPlan& plan, cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  with_config(plan.config, [&](auto config) {
    launch(forward_kernel<MainLoop<Cores, config, Product::Forward>>, plan.blocks, plan.threads,
           plan.shared_bytes, stream, geometry_of(convolution),
           filters_of<typename Cores::Element>(convolution), convolution.image, forward);
  });
}

template <Arithmetic arithmetic>
static void launch_input_gradient(const Convolution& convolution, const InputGradient& gradient,
                                  const LaunchPlan& plan, cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  with_config(plan.config, [&](auto config) {
    launch(input_gradient_kernel<MainLoop<Cores, config, Product::InputGradient>>, plan.blocks,
           plan.threads, plan.shared_bytes, stream, geometry_of(convolution),
           filters_of<typename Cores::Element>(convolution), convolution.image, gradient);
  });
}

template <Arithmetic arithmetic>
static void launch_weight_gradient(const Convolution& convolution, const WeightGradient& gradient,
                                   const LaunchPlan& plan, cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  with_config(plan.config, [&](auto config) {
    using Loop = MainLoop<Cores, config, Product::WeightGradient>;
    launch(weight_gradient_kernel<Loop>, plan.blocks, plan.threads, plan.shared_bytes, stream,
           geometry_of(convolution), gradient,
           shares_of(convolution, gradient, plan, Loop::kDepth));
  });
}

template <Arithmetic arithmetic>
static void launch_gradients(const Convolution& convolution, const InputGradient& input,
                             const LaunchPlan& input_plan, const WeightGradient& weights,
                             const LaunchPlan& weight_plan, cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  const auto run = [&](auto input_config, auto weight_config) {
    using OfInput = MainLoop<Cores, input_config, Product::InputGradient>;
    using OfWeights = MainLoop<Cores, weight_config, Product::WeightGradient>;
    const WeightShares shares = shares_of(convolution, weights, weight_plan, OfWeights::kDepth);
    const Geometry geometry = geometry_of(convolution);
    const bool weights_first = shares.of_each >= geometry.steps(OfInput::kDepth);
    launch(gradients_kernel<OfInput, OfWeights>, input_plan.blocks + weight_plan.blocks,
           input_plan.threads, std::max(input_plan.shared_bytes, weight_plan.shared_bytes), stream,
           geometry, filters_of<typename Cores::Element>(convolution), convolution.image, input,
           weights, shares, static_cast<unsigned>(weight_plan.blocks), weights_first);
  };
  if (input_plan.config == weight_plan.config) {
    with_config(input_plan.config, [&](auto config) { run(config, config); });
  } else {
    run(std::integral_constant<int, 1>{}, std::integral_constant<int, 2>{});
  }
}

template <Arithmetic arithmetic>
int sm80_loaded_capability() {
  using Loop = MainLoop<typename CoresOf<arithmetic>::Type, 0, Product::Forward>;
  return loaded_code(reinterpret_cast<const void*>(forward_kernel<Loop>)).ptxVersion;
}

template <Arithmetic arithmetic>
Launchers sm80_launchers() {
  return {launch_forward<arithmetic>, launch_input_gradient<arithmetic>,
          launch_weight_gradient<arithmetic>, launch_gradients<arithmetic>};
}

}  // namespace sspcab::cuda
