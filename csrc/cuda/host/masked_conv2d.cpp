// The masked convolution alone on CUDA, forward and backward.
#include "cuda/host/convolution_gradient.h"

namespace sspcab::cuda {
namespace {

Tensor masked_conv2d(Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4,
                     Tensor bias1, Tensor bias2, Tensor bias3, Tensor bias4, int64_t dilation,
                     bool relu, bool allow_tf32, int64_t config) {
  const std::vector<Tensor> weights{weight1, weight2, weight3, weight4};
  const std::vector<Tensor> biases{bias1, bias2, bias3, bias4};
  check_image("x", x);
  check_sub_kernels(x, weights, dilation);
  check_biases(x, biases, weights[0]);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = empty_image(x);
  if (x.numel() == 0) return y;

  MaskedConvolution convolution(x, weights, dilation, allow_tf32, config);
  const Tensor input = dense(x, is_channels_last(y));
  std::vector<Tensor> dense_biases;
  Forward forward{};
  for (int i = 0; i < 4; ++i) {
    dense_biases.push_back(dense(biases[i]));
    forward.bias[i] = data(dense_biases[i]);
  }
  forward.relu = relu;
  forward.y = mutable_data(y);
  Workspace workspace;
  convolution.need(workspace);
  workspace.allocate(x);
  const cudaStream_t stream = current_stream(x);
  pack(convolution.packing(data(input), workspace), stream);
  convolution.forward(forward, /*sums=*/{}, stream);
  return y;
}

std::vector<Tensor> masked_conv2d_backward(Tensor grad_y, Tensor x, Tensor y,
                                           std::vector<Tensor> weights, int64_t dilation, bool relu,
                                           std::vector<bool> needs, bool allow_tf32,
                                           int64_t config) {
  check_image("x", x);
  check_sub_kernels(x, weights, dilation);
  check_same_image("y", y, x);
  check_same_image("grad_y", grad_y, x);
  check(needs.size() == 6, "needs must have 6 entries; got ", needs.size());
  const DeviceGuard guard(x.get_device_index());
  ConvolutionGradient convolution(x, weights, dilation, needs, allow_tf32, config);
  ParameterGradients parameters{};
  std::vector<Tensor> gradients = convolution.allocate(parameters);
  const cudaStream_t stream = current_stream(x);
  if (x.numel() == 0) {
    parameter_gradients(parameters, stream);
    return gradients;
  }
  const bool channels_last = is_channels_last(x);
  const Tensor g = dense(grad_y, channels_last), y_dense = dense(y, channels_last),
               x_dense = dense(x, channels_last);
  const OutputGradient gradient{dtype_of(x),   image_of(x), data(g), data(y_dense),
                                data(x_dense), nullptr,     nullptr};
  Workspace workspace;
  convolution.need(workspace);
  workspace.allocate(x);
  pack(convolution.packing(gradient, workspace), stream);
  convolution.run(gradient, /*grad_mean=*/nullptr, relu, workspace, parameters, stream);
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  m.impl("masked_conv2d", TORCH_BOX(&masked_conv2d));
  m.impl("masked_conv2d_backward", TORCH_BOX(&masked_conv2d_backward));
}

}  // namespace sspcab::cuda
