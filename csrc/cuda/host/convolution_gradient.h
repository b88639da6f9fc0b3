// The gradients of the masked convolution with whatever follows it: grad_a and the bias gradient,
// grad_x, and the four weight gradients. Shared by the whole block and by masked_conv2d alone.
#pragma once

#include "cuda/host/masked_convolution.h"

namespace sspcab::cuda {

class ConvolutionGradient {
 public:
  // needs[0]: x, needs[1..4]: the weights, needs[5]: bias
  ConvolutionGradient(const Tensor& x, const std::vector<Tensor>& weights, int64_t dilation,
                      const std::vector<bool>& needs, bool allow_tf32, int64_t config)
      : convolution_(x, weights, dilation, allow_tf32, config),
        x_(x),
        weights_(weights),
        needs_x_(needs[0]),
        needs_bias_(needs[5]) {
    for (int i = 0; i < 4; ++i) {
      needs_[i] = needs[1 + i];
      needs_weights_ |= needs_[i];
    }
  }

  // Allocates the gradients of x, the four weights and the bias.
  std::vector<Tensor> allocate(ParameterGradients& parameters) {
    const Image& image = convolution_.image();
    std::vector<Tensor> gradients;
    grad_x_ = needs_x_ ? empty_image(x_) : empty(x_, {0}, x_.scalar_type());
    gradients.push_back(*grad_x_);
    for (int i = 0; i < 4; ++i) {
      gradients.push_back(empty_gradient(weights_[i], shape_of(weights_[i]), needs_[i]));
      parameters.grad_weights[i] = if_needed(gradients.back(), needs_[i]);
    }
    gradients.push_back(empty_gradient(weights_[0], {image.channels}, needs_bias_));
    parameters.grad_bias = if_needed(gradients.back(), needs_bias_);
    parameters.dtype = dtype_of(x_);
    parameters.parameter_dtype = dtype_of(weights_[0]);
    parameters.channels = image.channels;
    parameters.taps_per_corner = convolution_.sub_kernels().taps_per_corner();
    return gradients;
  }

  bool needs_any() const { return needs_x_ || needs_weights_ || needs_bias_; }
  Groups groups() const { return convolution_.groups(kBackwardImages); }

  void need(const Groups& groups, Workspace& workspace) {
    if (!needs_any()) return;
    const Dtype dtype = dtype_of(x_);
    const int64_t c = groups.image.channels;
    convolution_.need_for_gradients(groups, needs_weights_, needs_x_, workspace);
    grad_a_ = workspace.add(
        groups.most([&](const Image& image) { return image.numel() * element_bytes(dtype); }));
    // Few beside what they are sums of: those of every group have a place of their own.
    bias_sums_ = workspace.add(groups.count * groups.most(bias_parts) * c * wide_bytes(dtype));
    if (needs_weights_) {
      const int64_t splits = groups.most(
          [&](const Image& image) { return convolution_.weight_gradient_splits(image, needs_); });
      weight_sums_ =
          workspace.add(splits * convolution_.sub_kernels().taps() * c * c * wide_bytes(dtype));
    }
  }

  Packing packing(const Group& group, const OutputGradient& gradient, const Workspace& workspace) {
    return needs_any() ? convolution_.packing(group, gradient.x, workspace) : Packing{};
  }

  // `gradient`, `grad_mean`: of the group. Leaves sums for parameter_gradients.
  void run(const Group& group, const OutputGradient& gradient, const void* grad_mean, bool relu,
           const Workspace& workspace, ParameterGradients& parameters, cudaStream_t stream) const {
    if (!needs_any()) return;
    void* grad_a = workspace[grad_a_];
    parameters.bias_sums = workspace[bias_sums_];
    activation_gradient(gradient, grad_mean, relu, convolution_.is_tf32(), grad_a,
                        static_cast<char*>(workspace[bias_sums_]) +
                            parameters.bias_parts * group.image.channels * wide_bytes(group.dtype),
                        stream);
    parameters.bias_parts += bias_parts(group.image);
    const InputGradient input{grad_a, gradient,
                              needs_x_ ? group.part(mutable_data(*grad_x_)) : nullptr};
    if (!needs_weights_) {
      if (needs_x_) convolution_.input_gradient(input, stream);
      return;
    }
    WeightGradient weights{grad_a, nullptr, {}, workspace[weight_sums_], parameters.splits};
    std::copy(needs_, needs_ + 4, weights.needs);
    parameters.weight_sums = workspace[weight_sums_];
    parameters.splits =
        std::max(parameters.splits, convolution_.weight_gradient_splits(group.image, needs_));
    if (needs_x_) {
      convolution_.gradients(input, weights, stream);
    } else {
      convolution_.weight_gradient(group.image, weights, stream);
    }
  }

 private:
  MaskedConvolution convolution_;
  Tensor x_;
  std::vector<Tensor> weights_;
  bool needs_x_, needs_weights_ = false, needs_bias_;
  bool needs_[4];
  std::optional<Tensor> grad_x_;
  size_t grad_a_ = 0, bias_sums_ = 0, weight_sums_ = 0;  // pieces of the workspace
};

}  // namespace sspcab::cuda
