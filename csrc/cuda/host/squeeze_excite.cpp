// Squeeze and excitation alone on CUDA, forward and backward.
#include "cuda/host/excitation_backward.h"

namespace sspcab::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> squeeze_excite(Tensor x, Tensor fc1_weight,
                                                          Tensor fc1_bias, Tensor fc2_weight,
                                                          Tensor fc2_bias) {
  check_image("x", x);
  check_excitation(x, fc1_weight, fc2_weight, fc1_weight);
  check_excitation_biases(x, fc1_weight, fc1_bias, fc2_bias);
  const DeviceGuard guard(x.get_device_index());
  const int64_t n = x.size(0), c = x.size(1), hidden_size = fc1_weight.size(0);
  const ScalarType wide = wide_type(x);
  const Tensor out = empty_image(x), mean = empty(x, {n, c}, wide),
               hidden = empty(x, {n, hidden_size}, wide), gates = empty(x, {n, c}, wide);
  if (x.numel() == 0) {
    for (Tensor t : {mean, hidden, gates}) {
      torch::stable::fill_(t, std::numeric_limits<double>::quiet_NaN());
    }
    return {out, mean, hidden, gates};
  }

  const Dtype dtype = dtype_of(x);
  const Image image = image_of(x);
  const Tensor input = dense(x, image.channels_last);
  const Tensor weight1 = dense(fc1_weight), bias1 = dense(fc1_bias), weight2 = dense(fc2_weight),
               bias2 = dense(fc2_bias);
  const SumSlots slots = channel_sum_slots(image);
  Workspace workspace;
  const size_t sums_piece = workspace.add(slots.count(n) * c * wide_bytes(dtype));
  const size_t counter = workspace.add(sizeof(unsigned));
  workspace.allocate(x);
  const ChannelSums sums{workspace[sums_piece], slots};

  const cudaStream_t stream = current_stream(x);
  channel_sums(dtype, image, data(input), sums, stream);
  gate({dtype, dtype_of(weight1), image, hidden_size, data(weight1), data(bias1), data(weight2),
        data(bias2)},
       sums, mutable_data(mean), mutable_data(hidden), mutable_data(gates),
       static_cast<unsigned*>(workspace[counter]), stream);
  scale(dtype, image, data(input), data(gates), /*x=*/nullptr, mutable_data(out), /*loss=*/nullptr,
        /*errors=*/nullptr, /*counter=*/nullptr, stream);
  return {out, mean, hidden, gates};
}

std::vector<Tensor> squeeze_excite_backward(Tensor grad_out, Tensor x, Tensor mean, Tensor hidden,
                                            Tensor gate, Tensor fc1_weight, Tensor fc2_weight,
                                            std::vector<bool> needs) {
  check_image("x", x);
  check_same_image("grad_out", grad_out, x);
  check_excitation(x, fc1_weight, fc2_weight, fc1_weight);
  check(needs.size() == 5, "needs must have 5 entries; got ", needs.size());
  const DeviceGuard guard(x.get_device_index());
  ExcitationBackward excitation(x, mean, hidden, gate, fc1_weight, fc2_weight);
  const Tensor grad_x = needs[0] ? empty_image(x) : empty(x, {0}, x.scalar_type());
  std::vector<Tensor> gradients{grad_x};
  ParameterGradients parameters{};
  excitation.allocate(needs, 1, gradients, parameters);
  const cudaStream_t stream = current_stream(x);
  if (x.numel() == 0) {
    parameter_gradients(parameters, stream);
    return gradients;
  }

  const Image image = image_of(x);
  const Tensor grad_dense = dense(grad_out, image.channels_last),
               x_dense = dense(x, image.channels_last);
  Workspace workspace;
  excitation.need(workspace);
  workspace.allocate(x);
  const OutputGradient gradient{dtype_of(x),          image,
                                data(grad_dense),
                                /*y=*/data(x_dense),
                                /*x=*/nullptr,        excitation.gate(),
                                /*grad_loss=*/nullptr};
  excitation.run(gradient, /*packing=*/{}, workspace, parameters, stream);
  if (needs[0]) {
    scale_gradient(gradient, excitation.grad_mean(workspace), mutable_data(grad_x), stream);
  }
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  m.impl("squeeze_excite", TORCH_BOX(&squeeze_excite));
  m.impl("squeeze_excite_backward", TORCH_BOX(&squeeze_excite_backward));
}

}  // namespace sspcab::cuda
