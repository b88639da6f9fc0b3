// The whole block on CUDA, forward: (A) masked convolution, bias, ReLU and channel sums, (B) gate,
// (C) scaling and reconstruction error.
#include "cuda/host/masked_convolution.h"

namespace sspcab::cuda {
namespace {

struct Block {
  Tensor x;
  std::vector<Tensor> weights, biases;
  Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;
  int64_t dilation;
  bool relu, with_loss, allow_tf32;
  int64_t config;

  void check() const {
    check_image("x", x);
    check_sub_kernels(x, weights, dilation);
    check_biases(x, biases, weights[0]);
    check_excitation(x, fc1_weight, fc2_weight, weights[0]);
    check_excitation_biases(x, fc1_weight, fc1_bias, fc2_bias);
  }
};

struct Result {
  Tensor out, loss, y, mean, hidden, gate;
};

// What backward needs is kept where it `keeps`; otherwise y lies in the memory of out.
Result run(const Block& block, bool keeps) {
  block.check();
  const Tensor& x = block.x;
  const DeviceGuard guard(x.get_device_index());
  const ScalarType wide = wide_type(x);
  const int64_t n = x.size(0), c = x.size(1), hidden_size = block.fc1_weight.size(0);
  Result r;
  r.out = empty_image(x);
  r.loss = empty(x, {}, wide);
  r.y = keeps ? empty_image(x) : r.out;
  r.mean = empty(x, {n, c}, wide);
  r.hidden = empty(x, {n, hidden_size}, wide);
  r.gate = empty(x, {n, c}, wide);
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  if (x.numel() == 0) {  // the mean over nothing is NaN
    for (Tensor t : {r.loss, r.mean, r.hidden, r.gate}) torch::stable::fill_(t, nan);
    return r;
  }

  MaskedConvolution convolution(x, block.weights, block.dilation, block.allow_tf32, block.config);
  const Image image = image_of(x);
  const Dtype dtype = dtype_of(x);
  const Tensor input = dense(x, image.channels_last);
  const Tensor fc1_weight = dense(block.fc1_weight), fc1_bias = dense(block.fc1_bias),
               fc2_weight = dense(block.fc2_weight), fc2_bias = dense(block.fc2_bias);
  std::vector<Tensor> biases;
  Forward forward{};
  for (int i = 0; i < 4; ++i) {
    biases.push_back(dense(block.biases[i]));
    forward.bias[i] = data(biases[i]);
  }
  forward.relu = block.relu;
  forward.y = mutable_data(r.y);

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
       sums, mutable_data(r.mean), mutable_data(r.hidden), mutable_data(r.gate),
       static_cast<unsigned*>(workspace[counter]), stream);
  scale(dtype, image, data(r.y), data(r.gate), block.with_loss ? data(input) : nullptr,
        mutable_data(r.out), mutable_data(r.loss), static_cast<double*>(workspace[errors]),
        static_cast<unsigned*>(workspace[counter]), stream);
  return r;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sspcab(
    Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4, Tensor bias1,
    Tensor bias2, Tensor bias3, Tensor bias4, Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight,
    Tensor fc2_bias, int64_t dilation, bool relu, bool with_loss, bool allow_tf32, int64_t config) {
  const Result r = run({x,
                        {weight1, weight2, weight3, weight4},
                        {bias1, bias2, bias3, bias4},
                        fc1_weight,
                        fc1_bias,
                        fc2_weight,
                        fc2_bias,
                        dilation,
                        relu,
                        with_loss,
                        allow_tf32,
                        config},
                       /*keeps=*/true);
  return {r.out, r.loss, r.y, r.mean, r.hidden, r.gate};
}

std::tuple<Tensor, Tensor> sspcab_inference(Tensor x, Tensor weight1, Tensor weight2,
                                            Tensor weight3, Tensor weight4, Tensor bias1,
                                            Tensor bias2, Tensor bias3, Tensor bias4,
                                            Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight,
                                            Tensor fc2_bias, int64_t dilation, bool relu,
                                            bool with_loss, bool allow_tf32, int64_t config) {
  const Result r = run({x,
                        {weight1, weight2, weight3, weight4},
                        {bias1, bias2, bias3, bias4},
                        fc1_weight,
                        fc1_bias,
                        fc2_weight,
                        fc2_bias,
                        dilation,
                        relu,
                        with_loss,
                        allow_tf32,
                        config},
                       /*keeps=*/false);
  return {r.out, r.loss};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  m.impl("sspcab", TORCH_BOX(&sspcab));
  m.impl("sspcab_inference", TORCH_BOX(&sspcab_inference));
}

}  // namespace sspcab::cuda
