// The whole block on the CPU, forward: (A) masked convolution, bias, ReLU and channel sums, (B)
// gate, (C) scaling and reconstruction error, group of samples by group of samples.
#include "checks.h"
#include "cpu/excitation.h"
#include "cpu/masked_convolution.h"
#include "cpu/tensors.h"

namespace sspcab::cpu {
namespace {

struct Block {
  Tensor x;
  std::vector<Tensor> weights, biases;
  Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;
  int64_t dilation, config;
  bool relu, with_loss;

  void check() const {
    check_image("x", x);
    check_config(config);
    check_sub_kernels(x, weights, dilation);
    check_biases(x, biases, weights[0]);
    check_excitation(x, fc1_weight, fc2_weight, weights[0]);
    check_excitation_biases(x, fc1_weight, fc1_bias, fc2_bias);
  }
  SubKernels sub_kernels() const { return {weights[0].size(3), dilation}; }
};

struct Result {
  Tensor out, loss, y, mean, hidden, gate;
};

// What backward needs is kept where result has y; otherwise y is computed in the memory of out.
template <class D>
void forward(const Block& block, const Tensor& x, const Result& result) {
  using T = Compute<D>;
  const Kernels<D>& k = kernels<D>();
  const Sample s = sample_of(result.out);
  const int64_t samples = x.size(0), channels = s.channels, hidden = block.fc1_weight.size(0);
  const MaskedConvolution<D> conv(s, block.sub_kernels(), samples, block.config);
  const SubKernelWeights<T> weights(block.weights);
  const Buffer<T> bias = zeros<T>(channels);
  for (const Tensor& b : block.biases) k.add_scaled(Parameter<T>(b).get(), 1, channels, bias.get());
  const Excitation<D> excitation(block.fc1_weight, block.fc2_weight);
  const Parameter<T> fc1_bias(block.fc1_bias), fc2_bias(block.fc2_bias);

  const D* x_data = data<D>(x);
  D* out = mutable_data<D>(result.out);
  const bool keeps = result.y.defined();
  const Filters<T> filters = conv.prepare(weights.view(), /*mirrored=*/false, /*again=*/!keeps);
  D* y = keeps ? mutable_data<D>(result.y) : out;
  const Buffer<T> excited(keeps ? 0 : samples * (2 * channels + hidden));
  T* mean = keeps ? mutable_data<T>(result.mean) : excited.get();
  T* gate = keeps ? mutable_data<T>(result.gate) : excited.get() + samples * channels;
  T* hidden_data = keeps ? mutable_data<T>(result.hidden) : excited.get() + 2 * samples * channels;
  double error = 0;
  for_each_group<D>(s, samples, [&](int64_t first, int64_t count) {
    const int64_t offset = first * s.numel();
    const Bands bands = conv.bands(count);
    const Buffer<double> sums = zeros<double>(count * bands.per_sample * channels);
    conv.forward(x_data + offset, count, bands, filters, bias.get(), block.relu, y + offset,
                 sums.get());
    Workers(count * excitation.work()).run(count, [&](int64_t i, int64_t) {
      const int64_t n = first + i;
      excitation.forward(sums.get() + i * bands.per_sample * channels, bands.per_sample, s.pixels(),
                         fc1_bias.get(), fc2_bias.get(), mean + n * channels,
                         hidden_data + n * hidden, gate + n * channels);
    });
    const int64_t items = count * bands.per_sample;
    const Buffer<double> errors(items);
    Workers(static_cast<double>(count) * s.numel()).run(items, [&](int64_t item, int64_t) {
      const int64_t n = first + item / bands.per_sample;
      errors[item] = k.scale(y + n * s.numel(), gate + n * channels,
                             block.with_loss ? x_data + n * s.numel() : nullptr, s,
                             bands.rows(item % bands.per_sample), out + n * s.numel());
    });
    for (int64_t item = 0; item < items; ++item) error += errors[item];
  });
  *mutable_data<T>(result.loss) = block.with_loss ? static_cast<T>(error / (samples * s.numel()))
                                                  : std::numeric_limits<T>::quiet_NaN();
}

Result run(const Block& block, bool keeps) {
  block.check();
  const Tensor& x = block.x;
  const ScalarType wide = wide_type(x);
  const int64_t n = x.size(0), c = x.size(1);
  Result result;
  result.out = empty_image(x);
  result.loss = empty(x, {}, wide);
  if (keeps) {
    result.y = empty_image(x);
    result.mean = empty(x, {n, c}, wide);
    result.hidden = empty(x, {n, block.fc1_weight.size(0)}, wide);
    result.gate = empty(x, {n, c}, wide);
  }
  if (x.numel() == 0) {  // the mean over nothing is NaN
    for (Tensor t : {result.loss, result.mean, result.hidden, result.gate}) {
      if (t.defined()) torch::stable::fill_(t, std::numeric_limits<double>::quiet_NaN());
    }
    return result;
  }
  const Tensor input = dense(x, is_channels_last(result.out));
  with_element_type(x, [&](auto element) { forward<decltype(element)>(block, input, result); });
  return result;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sspcab(
    Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4, Tensor bias1,
    Tensor bias2, Tensor bias3, Tensor bias4, Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight,
    Tensor fc2_bias, int64_t dilation, bool relu, bool with_loss, bool /*allow_tf32*/,
    int64_t config) {
  const Result r = run({x,
                        {weight1, weight2, weight3, weight4},
                        {bias1, bias2, bias3, bias4},
                        fc1_weight,
                        fc1_bias,
                        fc2_weight,
                        fc2_bias,
                        dilation,
                        config,
                        relu,
                        with_loss},
                       /*keeps=*/true);
  return {r.out, r.loss, r.y, r.mean, r.hidden, r.gate};
}

std::tuple<Tensor, Tensor> sspcab_inference(Tensor x, Tensor weight1, Tensor weight2,
                                            Tensor weight3, Tensor weight4, Tensor bias1,
                                            Tensor bias2, Tensor bias3, Tensor bias4,
                                            Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight,
                                            Tensor fc2_bias, int64_t dilation, bool relu,
                                            bool with_loss, bool /*allow_tf32*/, int64_t config) {
  const Result r = run({x,
                        {weight1, weight2, weight3, weight4},
                        {bias1, bias2, bias3, bias4},
                        fc1_weight,
                        fc1_bias,
                        fc2_weight,
                        fc2_bias,
                        dilation,
                        config,
                        relu,
                        with_loss},
                       /*keeps=*/false);
  return {r.out, r.loss};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) {
  m.impl("sspcab", TORCH_BOX(&sspcab));
  m.impl("sspcab_inference", TORCH_BOX(&sspcab_inference));
}

}  // namespace sspcab::cpu
