// The gradients of the masked convolution with whatever follows it: grad_a and the bias gradient,
// grad_x, and the four weight gradients. Shared by the whole block and by masked_conv2d alone.
#pragma once

#include "cuda/host/masked_convolution.h"

namespace sspcab::cuda {

// Which gradients of the convolution are needed, and where they go.
struct ConvolutionGradients {
  bool x, corners[4], bias;
  Tensor grad_x;

  // needs[0]: x, needs[1..4]: the weights, needs[5]: bias. Appends their gradients.
  ConvolutionGradients(const Tensor& image, const std::vector<Tensor>& weights,
                       const std::vector<bool>& needs, std::vector<Tensor>& gradients,
                       ParameterGradients& parameters)
      : x(needs[0]),
        corners{needs[1], needs[2], needs[3], needs[4]},
        bias(needs[5]),
        grad_x(x ? empty_image(image) : empty(image, {0}, image.scalar_type())) {
    const int64_t c = image.size(1);
    gradients.push_back(grad_x);
    for (int i = 0; i < 4; ++i) {
      gradients.push_back(empty_gradient(weights[i], shape_of(weights[i]), corners[i]));
      parameters.grad_weights[i] = if_needed(gradients.back(), corners[i]);
    }
    gradients.push_back(empty_gradient(weights[0], {c}, bias));
    parameters.grad_bias = if_needed(gradients.back(), bias);
    parameters.dtype = dtype_of(image);
    parameters.parameter_dtype = dtype_of(weights[0]);
    parameters.channels = c;
    parameters.taps_per_corner = weights[0].size(2) * weights[0].size(3);
  }

  bool any() const { return x || bias || corners[0] || corners[1] || corners[2] || corners[3]; }
};

class ConvolutionBackward {
 public:
  ConvolutionBackward(const Problem& problem, const Groups& groups,
                      const std::vector<Tensor>& weights, const ConvolutionGradients& needed,
                      Workspace& workspace)
      : needed_(needed),
        plan_(problem, groups, needed.x, needed.corners),
        convolution_(problem, weights, plan_.packed, /*transposed=*/true, workspace) {
    if (!needed.any()) return;
    grad_a_ = workspace.add(plan_.grad_a_bytes());
    bias_sums_ = workspace.add(plan_.bias_sum_bytes());
    weight_sums_ = workspace.add(plan_.weight_sum_bytes());
  }

  Operands operands(const Group& group, const OutputGradient& gradient,
                    const Scratch& scratch) const {
    return needed_.any() ? convolution_.operands(group, gradient.x, scratch) : Operands{};
  }

  // `gradient`, `grad_mean`: of the group. Leaves sums for parameter_gradients.
  void run(const Group& group, const Operands& operands, const OutputGradient& gradient,
           const void* grad_mean, bool relu, const Scratch& scratch, ParameterGradients& parameters,
           cudaStream_t stream) const {
    if (!needed_.any()) return;
    void* grad_a = scratch[grad_a_];
    parameters.bias_sums = scratch[bias_sums_];
    activation_gradient(gradient, grad_mean, relu, plan_.problem.is_tf32(), grad_a,
                        static_cast<char*>(scratch[bias_sums_]) +
                            parameters.bias_parts * group.image.channels * wide_bytes(group.dtype),
                        stream);
    parameters.bias_parts += bias_parts(group.image);
    const InputGradient input{grad_a, gradient,
                              needed_.x ? group.part(mutable_data(needed_.grad_x)) : nullptr};
    WeightGradient weights{grad_a, nullptr, {}, scratch[weight_sums_], parameters.splits};
    std::copy(needed_.corners, needed_.corners + 4, weights.needs);
    if (plan_.needs_weights()) {
      parameters.weight_sums = scratch[weight_sums_];
      parameters.splits = std::max(parameters.splits, plan_.launches[group.image].splits);
    }
    cuda::run(plan_, convolution_, operands, input, weights, stream);
  }

 private:
  const ConvolutionGradients& needed_;
  BackwardPlan plan_;
  MaskedConvolution convolution_;
  size_t grad_a_ = 0, bias_sums_ = 0, weight_sums_ = 0;  // pieces of the workspace
};

}  // namespace sspcab::cuda
