// The masked convolution alone on CUDA, forward and backward.
#include "cuda/host/convolution_gradient.h"
#include "cuda/host/operators.h"

namespace sspcab::cuda {

void Cuda::masked_conv2d(const MaskedConv2d& a, const Tensor& y) {
  const Problem problem = problem_of(a.x, a.weights, a.sub_kernels(), a.allow_tf32, a.config);
  const Tensor x = dense(a.x, is_channels_last(y));
  std::vector<Tensor> biases;
  Forward forward{};
  for (int i = 0; i < 4; ++i) {
    biases.push_back(dense(a.biases[i]));
    forward.bias[i] = data(biases[i]);
  }
  forward.relu = a.relu;
  forward.y = mutable_data(y);
  const ForwardPlan plan(problem, problem.one_group());  // no stage comes after it
  Workspace workspace;
  const MaskedConvolution convolution(problem, a.weights, plan.packed, /*transposed=*/false,
                                      workspace);
  const Scratch scratch = workspace.allocate(x);
  const cudaStream_t stream = current_stream(x);
  const Operands operands = convolution.operands(plan.groups[0], data(x), scratch);
  pack(operands.packing, stream);
  run(plan, convolution, operands, forward, /*sums=*/{}, stream);
}

std::vector<Tensor> Cuda::masked_conv2d_backward(const MaskedConv2dBackward& a) {
  const Problem problem = problem_of(a.x, a.weights, a.sub_kernels(), a.allow_tf32, a.config);
  std::vector<Tensor> gradients;
  ParameterGradients parameters{};
  const ConvolutionGradients needed(a.x, a.weights, a.needs, gradients, parameters);
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
  const Groups groups = problem.groups(kBackwardImages);
  Workspace workspace;
  const ConvolutionBackward convolution(problem, groups, a.weights, needed, workspace);
  const Scratch scratch = workspace.allocate(x);
  for (int64_t i = 0; i < groups.count; ++i) {
    const Group group = groups[i];
    const OutputGradient of_group = group.part(gradient);
    const Operands operands = convolution.operands(group, of_group, scratch);
    pack(operands.packing, stream);
    convolution.run(group, operands, of_group, /*grad_mean=*/nullptr, a.relu, scratch, parameters,
                    stream);
  }
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace sspcab::cuda
