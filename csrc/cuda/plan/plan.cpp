#include "cuda/plan/plan.h"

#include <algorithm>

namespace sspcab::cuda {
namespace {

PackedBytes packed_bytes(const Problem& p, const Groups& groups, bool x, bool weights) {
  if (!p.is_tiled()) return {};
  const int64_t bytes = element_bytes(p.dtype), c = p.image.channels;
  return {x && packs_x(p.image) ? groups.larger().numel() * bytes : 0,
          weights ? p.sub_kernels.taps() * c * c * bytes : 0};
}

GradientLaunches gradient_launches(const Problem& p, const Image& image, bool x, int corners) {
  GradientLaunches launches{};
  launches.splits = 1;
  if (!p.is_tiled()) return launches;
  const Convolution convolution = p.convolution(image);
  if (x) launches.x = plan_input_gradient(convolution, p.device);
  if (corners > 0) {
    launches.weights = plan_weight_gradient(convolution, p.device, corners);
    launches.splits = launches.weights.splits;
    launches.shared = x && share_a_launch(launches.x, launches.weights);
  }
  return launches;
}

}  // namespace

ForwardPlan::ForwardPlan(const Problem& p, const Groups& g)
    : problem(p),
      groups(g),
      is_tiled(p.is_tiled()),
      packed(packed_bytes(p, g, true, packs_weights(p.sub_kernels, p.dtype, p.parameter_dtype))),
      launches(g, [&](const Image& image) {
        return p.is_tiled() ? plan_forward(p.convolution(image), p.device) : LaunchPlan{};
      }) {}

SumSlots ForwardPlan::sum_slots(const Image& image) const {
  if (!is_tiled) return channel_sum_slots(image);
  return {launches[image].sum_pixels(), image.pixels()};
}

int64_t ForwardPlan::sum_bytes() const {
  return groups.most([&](const Image& image) {
    return sum_slots(image).count(image.samples) * image.channels * wide_bytes(problem.dtype);
  });
}

std::vector<std::string> ForwardPlan::launch_names() const {
  std::vector<std::string> names;
  for (int64_t i = 0; i < groups.count; ++i) {
    if (packed.x > 0 || (packed.weights > 0 && i == 0)) names.push_back("pack");
    names.push_back("convolution");
    if (!is_tiled) names.push_back("channel_sums");
    names.insert(names.end(), {"gate", "scale"});
  }
  return names;
}

BackwardPlan::BackwardPlan(const Problem& p, const Groups& g, bool x, const bool (&needs)[4])
    : problem(p),
      groups(g),
      is_tiled(p.is_tiled()),
      needs_x(x),
      corners(static_cast<int>(std::count(needs, needs + 4, true))),
      packed(packed_bytes(p, g, corners > 0, x)),
      launches(g, [&](const Image& image) { return gradient_launches(p, image, x, corners); }) {}

int64_t BackwardPlan::grad_a_bytes() const {
  return groups.larger().numel() * element_bytes(problem.dtype);
}

int64_t BackwardPlan::bias_sum_bytes() const {
  return groups.count * groups.most(bias_parts) * problem.image.channels *
         wide_bytes(problem.dtype);
}

int64_t BackwardPlan::weight_sum_bytes() const {
  if (!needs_weights()) return 0;
  const int64_t c = problem.image.channels;
  const int64_t splits = groups.most([&](const Image& image) { return launches[image].splits; });
  return splits * problem.sub_kernels.taps() * c * c * wide_bytes(problem.dtype);
}

std::vector<std::string> BackwardPlan::launch_names() const {
  std::vector<std::string> names;
  for (int64_t i = 0; i < groups.count; ++i) {
    // Weights alone are packed beside the gate's gradient.
    if (packed.x > 0) names.push_back("pack");
    names.insert(names.end(), {"gate_gradient", "excitation_gradient", "activation_gradient"});
    if (launches[groups[i].image].shared) {
      names.push_back("gradients");
    } else {
      names.insert(names.end(), {"input_gradient", "weight_gradient"});
    }
  }
  names.push_back("parameter_gradients");
  return names;
}

}  // namespace sspcab::cuda
