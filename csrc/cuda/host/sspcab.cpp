// The whole block on CUDA, forward: (A) masked convolution, bias, ReLU and channel sums, (B) gate,
// (C) scaling and reconstruction error.
#include "cuda/host/masked_convolution.h"
#include "cuda/host/operators.h"

namespace sspcab::cuda {

void Cuda::sspcab(const Sspcab& block, const SspcabResults& r) {
  const MaskedConv2d& a = block.convolution;
  const Tensor& x = a.x;
  const int64_t n = x.size(0), c = x.size(1), hidden_size = block.fc1_weight.size(0);
  const Tensor y = r.keeps() ? r.y : r.out;
  const Excited excited = r.keeps() ? r.excited : empty_excited(x, block.fc1_weight);
  MaskedConvolution convolution(x, a.weights, a.dilation, a.allow_tf32, a.config);
  const Image image = image_of(x);
  const Dtype dtype = dtype_of(x);
  const Tensor input = dense(x, image.channels_last);
  const Tensor fc1_weight = dense(block.fc1_weight), fc1_bias = dense(block.fc1_bias),
               fc2_weight = dense(block.fc2_weight), fc2_bias = dense(block.fc2_bias);
  std::vector<Tensor> biases;
  Forward forward{};
  for (int i = 0; i < 4; ++i) {
    biases.push_back(dense(a.biases[i]));
    forward.bias[i] = data(biases[i]);
  }
  forward.relu = a.relu;
  forward.y = mutable_data(y);

  Workspace workspace;
  convolution.need(workspace);
  const SumSlots slots = convolution.sum_slots();
  const size_t sums_piece = workspace.add(slots.count(n) * c * wide_bytes(dtype));
  const size_t errors = workspace.add(error_parts(image) * sizeof(double));
  const size_t counter = workspace.add(sizeof(unsigned));
  workspace.allocate(x);
  const ChannelSums sums{workspace[sums_piece], slots};

  const cudaStream_t stream = current_stream(x);
  pack(convolution.packing(data(input), workspace), stream);
  convolution.forward(forward, sums, stream);
  gate({dtype, dtype_of(fc1_weight), image, hidden_size, data(fc1_weight), data(fc1_bias),
        data(fc2_weight), data(fc2_bias)},
       sums, mutable_data(excited.mean), mutable_data(excited.hidden), mutable_data(excited.gate),
       static_cast<unsigned*>(workspace[counter]), stream);
  scale(dtype, image, data(y), data(excited.gate), block.with_loss ? data(input) : nullptr,
        mutable_data(r.out), mutable_data(r.loss), static_cast<double*>(workspace[errors]),
        static_cast<unsigned*>(workspace[counter]), stream);
}

}  // namespace sspcab::cuda
