// The whole block on CUDA, backward: (1) gradient of the gate, (2) excitation, (3) gradient of the
// pre-activation and the bias, (4) grad_x, (5) the four weight gradients, (6) what is left of the
// parameters' gradients.
#include "cuda/host/convolution_gradient.h"
#include "cuda/host/excitation_backward.h"

namespace sspcab::cuda {
namespace {

std::vector<Tensor> sspcab_backward(std::optional<Tensor> grad_out, std::optional<Tensor> grad_loss,
                                    Tensor x, Tensor y, Tensor mean, Tensor hidden, Tensor gate,
                                    std::vector<Tensor> weights, Tensor fc1_weight,
                                    Tensor fc2_weight, int64_t dilation, bool relu,
                                    std::vector<bool> needs, bool allow_tf32, int64_t config) {
  check_image("x", x);
  check_sub_kernels(x, weights, dilation);
  check_excitation(x, fc1_weight, fc2_weight, weights[0]);
  check_same_image("y", y, x);
  if (grad_out) check_same_image("grad_out", *grad_out, x);
  check(needs.size() == 10, "needs must have 10 entries; got ", needs.size());
  const DeviceGuard guard(x.get_device_index());

  ExcitationBackward excitation(x, mean, hidden, gate, fc1_weight, fc2_weight);
  ConvolutionGradient convolution(x, weights, dilation, needs, allow_tf32, config);
  ParameterGradients parameters{};
  std::vector<Tensor> gradients = convolution.allocate(parameters);
  excitation.allocate(needs, 6, gradients, parameters);
  const cudaStream_t stream = current_stream(x);
  if (x.numel() == 0) {
    parameter_gradients(parameters, stream);
    return gradients;
  }

  const Image image = image_of(x);
  const Tensor x_dense = dense(x, image.channels_last), y_dense = dense(y, image.channels_last);
  std::optional<Tensor> grad_out_dense, grad_loss_dense;
  if (grad_out) grad_out_dense = dense(*grad_out, image.channels_last);
  if (grad_loss) grad_loss_dense = dense(*grad_loss);
  Workspace workspace;
  convolution.need(workspace);
  excitation.need(workspace);
  workspace.allocate(x);
  const OutputGradient gradient{dtype_of(x),
                                image,
                                grad_out ? data(*grad_out_dense) : nullptr,
                                data(y_dense),
                                data(x_dense),
                                excitation.gate(),
                                grad_loss ? data(*grad_loss_dense) : nullptr};

  Packing packing = convolution.packing(gradient, workspace);
  if (packing.x) {
    pack(packing, stream);
    packing = {};
  }
  excitation.run(gradient, packing, workspace, parameters, stream);
  convolution.run(gradient, excitation.grad_mean(workspace), relu, workspace, parameters, stream);
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  m.impl("sspcab_backward", TORCH_BOX(&sspcab_backward));
}

}  // namespace sspcab::cuda
