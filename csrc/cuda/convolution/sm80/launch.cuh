// From plain data to a launch of the kernel for its tile.
#pragma once

#include <algorithm>
#include <utility>

#include "cuda/convolution/sm80/kernels.cuh"
#include "cuda/convolution/launch.h"
#include "cuda/launch.cuh"

namespace sspcab::cuda {

inline Geometry geometry_of(const Convolution& convolution) {
  const Image& image = convolution.image;
  return {image.samples * image.pixels(), static_cast<int>(image.height),
          static_cast<int>(image.width), static_cast<int>(image.channels), convolution.sub_kernels};
}

template <class D>
Filters filters_of(const Convolution& convolution) {
  Filters filters{{}, convolution.tap_stride * static_cast<int64_t>(sizeof(D))};
  for (int i = 0; i < 4; ++i) filters.corner[i] = static_cast<const char*>(convolution.corner[i]);
  return filters;
}

// body(config) with the plan's config as a constant.
template <class Body>
void with_config(int config, const Body& body) {
  switch (config) {
    case 0: return body(std::integral_constant<int, 0>{});
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
  }
}

template <Arithmetic arithmetic>
void Launcher<arithmetic>::forward(const Convolution& convolution, const Forward& forward,
                                   const LaunchPlan& plan, cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  with_config(plan.config, [&](auto config) {
    launch(forward_kernel<MainLoop<Cores, config, Product::Forward>>, plan.blocks, plan.threads,
           plan.shared_bytes, stream, geometry_of(convolution),
           filters_of<typename Cores::Element>(convolution), convolution.image, forward);
  });
}

template <Arithmetic arithmetic>
void Launcher<arithmetic>::input_gradient(const Convolution& convolution,
                                          const InputGradient& gradient, const LaunchPlan& plan,
                                          cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  with_config(plan.config, [&](auto config) {
    launch(input_gradient_kernel<MainLoop<Cores, config, Product::InputGradient>>, plan.blocks,
           plan.threads, plan.shared_bytes, stream, geometry_of(convolution),
           filters_of<typename Cores::Element>(convolution), convolution.image, gradient);
  });
}

inline WeightShares shares_of(const Convolution& convolution, const WeightGradient& gradient,
                              const LaunchPlan& plan, int depth) {
  const Image& image = convolution.image;
  const int64_t steps = divide_up(image.samples * image.pixels(), depth);
  WeightShares shares{steps / plan.splits, steps % plan.splits, 0, {}};
  for (int i = 0; i < 4; ++i) {
    if (gradient.needs[i]) shares.corner[shares.corners++] = i;
  }
  return shares;
}

template <Arithmetic arithmetic>
void Launcher<arithmetic>::weight_gradient(const Convolution& convolution,
                                           const WeightGradient& gradient, const LaunchPlan& plan,
                                           cudaStream_t stream) {
  using Cores = typename CoresOf<arithmetic>::Type;
  with_config(plan.config, [&](auto config) {
    using Loop = MainLoop<Cores, config, Product::WeightGradient>;
    launch(weight_gradient_kernel<Loop>, plan.blocks, plan.threads, plan.shared_bytes, stream,
           geometry_of(convolution), gradient,
           shares_of(convolution, gradient, plan, Loop::kDepth));
  });
}

template <Arithmetic arithmetic>
void Launcher<arithmetic>::gradients(const Convolution& convolution, const InputGradient& input,
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

}  // namespace sspcab::cuda
