// Squeeze and excitation alone on CUDA, forward and backward.
#include "cuda/host/excitation_backward.h"
#include "cuda/host/operators.h"

namespace sspcab::cuda {

void Cuda::squeeze_excite(const SqueezeExcite& a, const Tensor& out, const Excited& excited) {
  const Tensor& x = a.x;
  const int64_t n = x.size(0), c = x.size(1), hidden_size = a.fc1_weight.size(0);
  const Dtype dtype = dtype_of(x);
  const Image image = image_of(x);
  const Tensor input = dense(x, image.channels_last);
  const Tensor weight1 = dense(a.fc1_weight), bias1 = dense(a.fc1_bias),
               weight2 = dense(a.fc2_weight), bias2 = dense(a.fc2_bias);
  const SumSlots slots = channel_sum_slots(image);
  Workspace workspace;
  const size_t sums_piece = workspace.add(slots.count(n) * c * wide_bytes(dtype));
  const size_t counter = workspace.add(sizeof(unsigned));
  const Scratch scratch = workspace.allocate(x);
  const ChannelSums sums{scratch[sums_piece], slots};

  const cudaStream_t stream = current_stream(x);
  channel_sums(dtype, image, data(input), sums, stream);
  gate({dtype, dtype_of(weight1), image, hidden_size, data(weight1), data(bias1), data(weight2),
        data(bias2)},
       sums, mutable_data(excited.mean), mutable_data(excited.hidden), mutable_data(excited.gate),
       static_cast<unsigned*>(scratch[counter]), stream);
  scale(dtype, image, data(input), data(excited.gate), /*x=*/nullptr, mutable_data(out),
        /*mean=*/{}, stream);
}

std::vector<Tensor> Cuda::squeeze_excite_backward(const SqueezeExciteBackward& a) {
  const Tensor& x = a.x;
  const std::vector<bool>& needs = a.needs;
  ExcitationBackward excitation(x, a.excited, a.fc1_weight, a.fc2_weight);
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
  const Tensor grad_dense = dense(a.grad_out, image.channels_last),
               x_dense = dense(x, image.channels_last);
  const Groups groups = Groups::one(dtype_of(x), image);
  const Group all = groups[0];
  Workspace workspace;
  excitation.need(groups, workspace);
  const Scratch scratch = workspace.allocate(x);
  const OutputGradient gradient{dtype_of(x),           image,
                                data(grad_dense),
                                /*y=*/data(x_dense),
                                /*x=*/nullptr,         excitation.gate(),
                                /*grad_loss=*/nullptr,
                                /*loss_numel=*/0};
  excitation.run(all, gradient, /*packing=*/{}, scratch, parameters, stream);
  if (needs[0]) {
    scale_gradient(gradient, excitation.grad_mean(all, scratch), mutable_data(grad_x), stream);
  }
  parameter_gradients(parameters, stream);
  return gradients;
}

}  // namespace sspcab::cuda
