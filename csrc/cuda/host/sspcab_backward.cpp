// The whole block on CUDA, backward: (1) gradient of the gate, (2) excitation, (3) gradient of the
// pre-activation and the bias, (4) grad_x, (5) the four weight gradients, (6) what is left of the
// parameters' gradients. All but (6) group of samples by group of samples.
#include "cuda/host/convolution_gradient.h"
#include "cuda/host/excitation_backward.h"
#include "cuda/host/operators.h"

namespace sspcab::cuda {

std::vector<Tensor> Cuda::sspcab_backward(const SspcabBackward& a) {
  const Tensor& x = a.x;
  const Problem problem = problem_of(x, a.weights, a.sub_kernels(), a.allow_tf32, a.config);
  ExcitationBackward excitation(x, a.excited, a.fc1_weight, a.fc2_weight);
  std::vector<Tensor> gradients;
  ParameterGradients parameters{};
  const ConvolutionGradients needed(x, a.weights, a.needs, gradients, parameters);
  excitation.allocate(a.needs, 6, gradients, parameters);
  const cudaStream_t stream = current_stream(x);
  if (x.numel() == 0) {
    parameter_gradients(parameters, stream);
    return gradients;
  }

  const Image image = image_of(x);
  const Tensor x_dense = dense(x, image.channels_last), y_dense = dense(a.y, image.channels_last);
  std::optional<Tensor> grad_out, grad_loss;
  if (a.grad_out) grad_out = dense(*a.grad_out, image.channels_last);
  if (a.grad_loss) grad_loss = dense(*a.grad_loss);
  const Groups groups = problem.groups(kBackwardImages);
  Workspace workspace;
  const ConvolutionBackward convolution(problem, groups, a.weights, needed, workspace);
  excitation.need(groups, workspace);
  const Scratch scratch = workspace.allocate(x);
  const OutputGradient gradient{dtype_of(x),
                                image,
                                grad_out ? data(*grad_out) : nullptr,
                                data(y_dense),
                                data(x_dense),
                                excitation.gate(),
                                grad_loss ? data(*grad_loss) : nullptr,
                                image.numel()};

  for (int64_t i = 0; i < groups.count; ++i) {
    const Group group = groups[i];
    const OutputGradient of_group = group.part(gradient);
    const Operands operands = convolution.operands(group, of_group, scratch);
    Packing packing = operands.packing;
    if (packing.x) {
      pack(packing, stream);
      packing = {};
    }
    excitation.run(group, of_group, packing, scratch, parameters, stream);
    convolution.run(group, operands, of_group, excitation.grad_mean(group, scratch), a.relu,
                    scratch, parameters, stream);
  }
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace sspcab::cuda
