// The masked convolution alone on CUDA, forward and backward.
#include "cuda/host/convolution_gradient.h"
#include "cuda/host/operators.h"

namespace sspcab::cuda {

void Cuda::masked_conv2d(const MaskedConv2d& a, const Tensor& y) {
  MaskedConvolution convolution(a.x, a.weights, a.dilation, a.allow_tf32, a.config);
  const Tensor x = dense(a.x, is_channels_last(y));
  std::vector<Tensor> biases;
  Forward forward{};
  for (int i = 0; i < 4; ++i) {
    biases.push_back(dense(a.biases[i]));
    forward.bias[i] = data(biases[i]);
  }
  forward.relu = a.relu;
  forward.y = mutable_data(y);
  const Groups all = Groups::one(dtype_of(x), convolution.image());  // no stage after it
  Workspace workspace;
  convolution.need(all, workspace);
  workspace.allocate(x);
  const cudaStream_t stream = current_stream(x);
  pack(convolution.packing(all[0], data(x), workspace), stream);
  convolution.forward(convolution.image(), forward, /*sums=*/{}, stream);
}

std::vector<Tensor> Cuda::masked_conv2d_backward(const MaskedConv2dBackward& a) {
  ConvolutionGradient convolution(a.x, a.weights, a.dilation, a.needs, a.allow_tf32, a.config);
  ParameterGradients parameters{};
  std::vector<Tensor> gradients = convolution.allocate(parameters);
  const cudaStream_t stream = current_stream(a.x);
  if (a.x.numel() == 0) {
    parameter_gradients(parameters, stream);
    return gradients;
  }
  const bool channels_last = is_channels_last(a.x);
  const Tensor g = dense(a.grad_y, channels_last), y = dense(a.y, channels_last),
               x = dense(a.x, channels_last);
  const OutputGradient gradient{dtype_of(x), image_of(a.x), data(g), data(y),
                                data(x),     nullptr,       nullptr, 0};
  const Groups groups = convolution.groups();
  Workspace workspace;
  convolution.need(groups, workspace);
  workspace.allocate(x);
  for (int64_t i = 0; i < groups.count; ++i) {
    const Group group = groups[i];
    const OutputGradient of_group = group.part(gradient);
    pack(convolution.packing(group, of_group, workspace), stream);
    convolution.run(group, of_group, /*grad_mean=*/nullptr, a.relu, workspace, parameters, stream);
  }
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace sspcab::cuda
