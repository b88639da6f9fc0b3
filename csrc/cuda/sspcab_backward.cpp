// The whole block on CUDA, backward: (1) gradient of the gate, (2) excitation, (3) gradient of the
// pre-activation and the bias, (4) grad_x, (5) the four weight gradients, (6) what is left of the
// parameters' gradients.
#include "cuda/convolution_gradient.h"

namespace sspcab::cuda {
namespace {

std::vector<Tensor> sspcab_backward(std::optional<Tensor> grad_out, std::optional<Tensor> grad_loss,
                                    Tensor x, Tensor y, Tensor mean, Tensor hidden, Tensor gate,
                                    std::vector<Tensor> weights, Tensor fc1_weight,
                                    Tensor fc2_weight, int64_t dilation, std::vector<bool> needs,
                                    bool allow_tf32, int64_t config) {
  check_image("x", x);
  check_sub_kernels(x, weights, dilation);
  check_excitation(x, fc1_weight, fc2_weight, weights[0]);
  check_same_image("y", y, x);
  if (grad_out) check_same_image("grad_out", *grad_out, x);
  const int64_t n = x.size(0), c = x.size(1), hidden_size = fc1_weight.size(0);
  check_shape("mean", mean, {n, c}, x);
  check_shape("hidden", hidden, {n, hidden_size}, x);
  check_shape("gate", gate, {n, c}, x);
  check(needs.size() == 10, "needs must have 10 entries; got ", needs.size());
  const DeviceGuard guard(x.get_device_index());

  ConvolutionGradient convolution(x, weights, dilation, needs, allow_tf32, config);
  ParameterGradients parameters{};
  std::vector<Tensor> gradients = convolution.allocate(parameters);
  parameters.hidden = hidden_size;
  const auto excitation_gradient_of = [&](const std::vector<int64_t>& shape, bool needed) {
    gradients.push_back(empty_gradient(fc1_weight, shape, needed));
    return if_needed(gradients.back(), needed);
  };
  parameters.grad_fc1_weight = excitation_gradient_of({hidden_size, c}, needs[6]);
  parameters.grad_fc1_bias = excitation_gradient_of({hidden_size}, needs[7]);
  parameters.grad_fc2_weight = excitation_gradient_of({c, hidden_size}, needs[8]);
  parameters.grad_fc2_bias = excitation_gradient_of({c}, needs[9]);
  const cudaStream_t stream = current_stream(x);
  if (x.numel() == 0) {
    parameter_gradients(parameters, stream);
    return gradients;
  }

  const Dtype dtype = dtype_of(x);
  const Image image = image_of(x);
  const Tensor x_dense = dense(x, image.channels_last), y_dense = dense(y, image.channels_last);
  const Tensor mean_dense = dense(mean), hidden_dense = dense(hidden), gate_dense = dense(gate);
  const Tensor fc1_dense = dense(fc1_weight), fc2_dense = dense(fc2_weight);
  std::optional<Tensor> grad_out_dense, grad_loss_dense;
  if (grad_out) grad_out_dense = dense(*grad_out, image.channels_last);
  if (grad_loss) grad_loss_dense = dense(*grad_loss);
  const OutputGradient gradient{dtype,
                                image,
                                grad_out ? data(*grad_out_dense) : nullptr,
                                data(y_dense),
                                data(x_dense),
                                data(gate_dense),
                                grad_loss ? data(*grad_loss_dense) : nullptr};
  const int64_t wide = wide_bytes(dtype);
  const SumSlots slots = channel_sum_slots(image);
  Workspace workspace;
  convolution.need(workspace);
  const size_t grad_gate_piece = workspace.add(slots.count(n) * c * wide);
  const size_t grad_gate_input = workspace.add(n * c * wide);
  const size_t grad_hidden_input = workspace.add(n * hidden_size * wide);
  const size_t grad_mean = workspace.add(n * c * wide);
  workspace.allocate(x);
  const ChannelSums grad_gate{workspace[grad_gate_piece], slots};

  convolution.pack(gradient, workspace, stream);
  gate_gradient(gradient, grad_gate, stream);
  excitation_gradient({dtype, dtype_of(fc1_dense), image, hidden_size, data(fc1_dense), nullptr,
                       data(fc2_dense), nullptr},
                      grad_gate, data(hidden_dense), data(gate_dense), workspace[grad_gate_input],
                      workspace[grad_hidden_input], workspace[grad_mean], stream);
  convolution.run(gradient, workspace[grad_mean], /*relu=*/true, workspace, parameters, stream);
  parameters.samples = n;
  parameters.mean = data(mean_dense);
  parameters.hidden_units = data(hidden_dense);
  parameters.grad_gate_input = workspace[grad_gate_input];
  parameters.grad_hidden_input = workspace[grad_hidden_input];
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  m.impl("sspcab_backward", TORCH_BOX(&sspcab_backward));
}

}  // namespace sspcab::cuda
