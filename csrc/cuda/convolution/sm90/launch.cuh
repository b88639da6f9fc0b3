// From plain data to a launch of the kernel for its tile.
#pragma once

#include "cuda/convolution/launch.h"
#include "cuda/convolution/sm90/kernels.cuh"
#include "cuda/launch.cuh"

namespace sspcab::cuda {

inline PixelsAndFilters maps_of(const Convolution& convolution, const void* image,
                                const LaunchPlan& plan) {
  PixelsAndFilters maps{moved_pixels_map(convolution, image, plan.tile.m), {}};
  for (int i = 0; i < 4; ++i) maps.corner[i] = filters_map(convolution, i, plan.tile.n);
  return maps;
}
inline PixelsOfBoth maps_of(const Convolution& convolution, const WeightGradient& gradient) {
  return {pixels_map(convolution, gradient.grad_a, kPixelBox),
          moved_pixels_map(convolution, gradient.x, kPixelBox)};
}
inline int units_of(const LaunchPlan& plan) { return static_cast<int>(plan.units); }
inline int splits_of(const LaunchPlan& plan) { return static_cast<int>(plan.splits); }

template <Arithmetic arithmetic>
static void launch_forward(const Convolution& convolution, const Forward& forward,
                           const LaunchPlan& plan, cudaStream_t stream) {
  with_config(plan.config, [&](auto config) {
    launch_clusters(hopper_forward_kernel<HopperLoop<arithmetic, config, Product::Forward>>,
                    plan.blocks, plan.splits, plan.threads, plan.shared_bytes, stream,
                    geometry_of(convolution), maps_of(convolution, forward.x, plan),
                    convolution.image, forward, units_of(plan), splits_of(plan));
  });
}

template <Arithmetic arithmetic>
static void launch_input_gradient(const Convolution& convolution, const InputGradient& gradient,
                                  const LaunchPlan& plan, cudaStream_t stream) {
  with_config(plan.config, [&](auto config) {
    launch_clusters(
        hopper_input_gradient_kernel<HopperLoop<arithmetic, config, Product::InputGradient>>,
        plan.blocks, plan.splits, plan.threads, plan.shared_bytes, stream, geometry_of(convolution),
        maps_of(convolution, gradient.grad_a, plan), convolution.image, gradient, units_of(plan),
        splits_of(plan));
  });
}

template <Arithmetic arithmetic>
static void launch_weight_gradient(const Convolution& convolution, const WeightGradient& gradient,
                                   const LaunchPlan& plan, cudaStream_t stream) {
  with_config(plan.config, [&](auto config) {
    using Loop = HopperLoop<arithmetic, config, Product::WeightGradient>;
    launch_clusters(hopper_weight_gradient_kernel<Loop>, plan.blocks, 1, plan.threads,
                    plan.shared_bytes, stream, geometry_of(convolution),
                    maps_of(convolution, gradient), gradient,
                    shares_of(convolution, gradient, plan, Loop::kDepth), units_of(plan));
  });
}

template <Arithmetic arithmetic>
static void launch_gradients(const Convolution& convolution, const InputGradient& input,
                             const LaunchPlan& input_plan, const WeightGradient& weights,
                             const LaunchPlan& weight_plan, cudaStream_t stream) {
  with_config(input_plan.config, [&](auto config) {
    using OfInput = HopperLoop<arithmetic, config, Product::InputGradient>;
    using OfWeights = HopperLoop<arithmetic, config, Product::WeightGradient>;
    const int64_t splits = input_plan.splits;
    const int64_t units = divide_up(weight_plan.units, splits) * splits + input_plan.units;
    const int64_t blocks = persistent_blocks(units, input_plan.processors, splits);
    launch_clusters(hopper_gradients_kernel<OfInput, OfWeights>, blocks, splits, input_plan.threads,
                    input_plan.shared_bytes, stream, geometry_of(convolution),
                    maps_of(convolution, input.grad_a, input_plan), convolution.image, input,
                    units_of(input_plan), splits_of(input_plan), maps_of(convolution, weights),
                    weights, shares_of(convolution, weights, weight_plan, OfWeights::kDepth),
                    units_of(weight_plan));
  });
}

template <Arithmetic arithmetic>
bool sm90_is_loaded() {
  const auto kernel = hopper_forward_kernel<HopperLoop<arithmetic, 0, Product::Forward>>;
  return loaded_code(reinterpret_cast<const void*>(kernel)).maxThreadsPerBlock >= kHopperThreads;
}

template <Arithmetic arithmetic>
Launchers sm90_launchers() {
  if constexpr (arithmetic == Arithmetic::Tf32) {  // see path_of
    return {launch_forward<arithmetic>, launch_input_gradient<arithmetic>, nullptr, nullptr};
  } else {
    return {launch_forward<arithmetic>, launch_input_gradient<arithmetic>,
            launch_weight_gradient<arithmetic>, launch_gradients<arithmetic>};
  }
}

}  // namespace sspcab::cuda
